"""A model folder as ONNX files, checked output by output against the model they came from.

    encoder, classifier     model.onnx      ids, mask -> logits or hidden states
    decoder                 model.onnx      ids, mask, keys and values so far -> logits, keys and values
    encoder-decoder         encoder.onnx    ids, mask -> hidden states
                            decoder.onnx    answer so far, hidden states, mask -> logits

The exporter is torch's older one, which traces: it is what all three kinds come out of whole. Attention is the plain
one, which has no operator of its own.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from treadle.core.errors import MissingExtra, Refused, UserError
from treadle.lm import torch_runtime
from treadle.lm.model_folder import read_config

MODEL, ENCODER, DECODER = "model.onnx", "encoder.onnx", "decoder.onnx"
OPSET = 17
TOLERANCE = 1e-3  # of logits, which are of the order of ten; float32 in another order is some 1e-5 off
CHECKED = 200  # inputs

Shape = Literal["classifier", "encoder", "decoder", "encoder-decoder"]


@dataclass(frozen=True, slots=True)
class Checked:
    """``worst``: the largest difference of any output of any input, absolute."""

    shape: Shape
    inputs: int
    worst: float


def power_above(value: float) -> float:
    """The power of ten that a difference is not above: its digits are a machine's own, and no part of a package."""
    return float(f"1e{math.ceil(math.log10(max(value, 1e-9)))}")


def export(model: Path, out: Path, *, inputs: int = CHECKED, seed: int = 0) -> Checked:
    """Write the ONNX files of ``model`` to ``out`` and run both on ``inputs`` random texts of tokens.

    ``UserError`` for a model that cannot be exported, ``Refused`` when an output differs by more than ``TOLERANCE``.
    """
    torch, _ = _packages()
    shape = shape_of(read_config(model), model)
    given = _Export(shape, model)
    with _calm(), torch.no_grad():
        try:
            for part in given.parts():
                part.write(out)
        except (RuntimeError, TypeError, ValueError) as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise UserError(f"{model}: cannot be exported to ONNX ({said}); serve the folder as it is") from None
        worst = max(_difference(part, out, inputs, seed) for part in given.parts())
    if not worst <= TOLERANCE:
        raise Refused(f"{model}: its ONNX form gives outputs that are {worst:.2g} off, more than {TOLERANCE:g}")
    return Checked(shape, inputs, worst)


def shape_of(config: dict[str, Any], folder: Path) -> Shape:
    """Which of the four kinds a model is."""
    found = config.get("architectures") or []
    if config.get("is_encoder_decoder"):
        return "encoder-decoder"
    if any(name.endswith("ForSequenceClassification") for name in found):
        return "classifier"
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in found):
        return "decoder"
    if any(name.endswith(("ForTokenClassification", "ForQuestionAnswering")) for name in found):
        raise UserError(f"{folder / 'config.json'}: {found[0]} is not exported to ONNX; serve the folder as it is")
    if found:
        return "encoder"
    raise UserError(f"{folder / 'config.json'}: names no architecture; expected a model's config")


def session(path: Path, threads: int | None = None) -> Any:
    """An onnxruntime session on a CPU whose idle threads sleep; ``UserError`` when the file is damaged."""
    _, ort = _packages(torch=False)
    options = ort.SessionOptions()
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own errors have no common base
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{path}: onnxruntime cannot open it ({said}); make it anew from the model") from None


@dataclass(frozen=True)
class _Part:
    """One file: a module, one example of its inputs, and which of their axes vary."""

    file: str
    module: Any
    example: dict[str, Any]
    outputs: tuple[str, ...]
    axes: dict[str, dict[int, str]]
    vocabulary: int

    def write(self, out: Path) -> None:
        import torch

        torch.onnx.export(
            self.module,
            tuple(self.example.values()),
            str(out / self.file),
            input_names=list(self.example),
            output_names=list(self.outputs),
            dynamic_axes=self.axes,
            opset_version=OPSET,
            dynamo=False,
        )


class _Export:
    """What is to be written of a model."""

    def __init__(self, shape: Shape, folder: Path) -> None:
        import transformers

        kinds = {
            "classifier": transformers.AutoModelForSequenceClassification,
            "encoder": transformers.AutoModel,
            "decoder": transformers.AutoModelForCausalLM,
            "encoder-decoder": transformers.AutoModelForSeq2SeqLM,
        }
        self._shape = shape
        self._model = torch_runtime.load(folder, kinds[shape], attn_implementation="eager").eval()

    def parts(self) -> Iterator[_Part]:
        """Each file."""
        if self._shape == "decoder":
            yield self._decoder()
        elif self._shape == "encoder-decoder":
            yield self._both_encoder()
            yield self._both_decoder()
        else:
            yield self._encoder()

    def _encoder(self) -> _Part:
        model, name = self._model, "logits" if self._shape == "classifier" else "hidden"

        def run(ids: Any, mask: Any) -> Any:
            output = model(input_ids=ids, attention_mask=mask)
            return output.logits if name == "logits" else output.last_hidden_state

        axes = {"input_ids": _TEXTS, "attention_mask": _TEXTS, name: {0: "texts", 1: "tokens"}}
        if name == "logits":
            axes[name] = {0: "texts"}
        return _Part(MODEL, _module(model, run), _tokens(), (name,), axes, self._vocabulary())

    def _both_encoder(self) -> _Part:
        model = self._model.get_encoder()

        def run(ids: Any, mask: Any) -> Any:
            return model(input_ids=ids, attention_mask=mask).last_hidden_state

        axes = {"input_ids": _TEXTS, "attention_mask": _TEXTS, "hidden": _TEXTS}
        return _Part(ENCODER, _module(model, run), _tokens(), ("hidden",), axes, self._vocabulary())

    def _both_decoder(self) -> _Part:
        import torch

        model = self._model

        def run(ids: Any, hidden: Any, mask: Any) -> Any:
            output = model(encoder_outputs=(hidden,), attention_mask=mask, decoder_input_ids=ids, use_cache=False)
            return output.logits

        width = self._model.config.hidden_size
        example = {
            "input_ids": torch.ones(2, 5, dtype=torch.long),
            "hidden": torch.zeros(2, 7, width),
            "attention_mask": torch.ones(2, 7, dtype=torch.long),
        }
        answer = {0: "texts", 1: "answer"}
        axes = {"input_ids": answer, "hidden": _TEXTS, "attention_mask": _TEXTS, "logits": answer}
        return _Part(DECODER, _module(model, run), example, ("logits",), axes, self._vocabulary())

    def _decoder(self) -> _Part:
        import torch
        from transformers import DynamicCache

        model, config = self._model, self._model.config
        layers = int(config.num_hidden_layers)
        heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
        size = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)

        def run(ids: Any, mask: Any, *past: Any) -> Any:
            cache = DynamicCache([(past[2 * place], past[2 * place + 1]) for place in range(layers)])
            places = mask.cumsum(-1)[:, -ids.shape[1] :] - 1
            output = model(
                input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True
            )
            kept = [value for layer in output.past_key_values.layers for value in (layer.keys, layer.values)]
            return (output.logits, *kept)

        example = {
            "input_ids": torch.ones(2, 3, dtype=torch.long),
            "attention_mask": torch.ones(2, 7, dtype=torch.long),
        }
        new = {0: "texts", 1: "new"}
        axes: dict[str, dict[int, str]] = {"input_ids": new, "attention_mask": {0: "texts", 1: "all"}, "logits": new}
        outputs = ["logits"]
        for place in range(layers):
            for what in ("key", "value"):
                example[f"past_{what}_{place}"] = torch.zeros(2, heads, 4, size)
                axes[f"past_{what}_{place}"] = {0: "texts", 2: "past"}
                axes[f"{what}_{place}"] = {0: "texts", 2: "all"}
                outputs.append(f"{what}_{place}")
        return _Part(MODEL, _module(model, run), example, tuple(outputs), axes, self._vocabulary())

    def _vocabulary(self) -> int:
        return int(self._model.config.vocab_size)


_TEXTS = {0: "texts", 1: "tokens"}


def _tokens() -> dict[str, Any]:
    import torch

    return {"input_ids": torch.ones(2, 7, dtype=torch.long), "attention_mask": torch.ones(2, 7, dtype=torch.long)}


def _module(model: Any, run: Any) -> Any:
    import torch

    class Traced(torch.nn.Module):
        """A function that holds the model's weights, as the exporter wants it."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *given: Any) -> Any:
            return run(*given)

    return Traced().eval()


def _difference(part: _Part, out: Path, inputs: int, seed: int) -> float:
    """The largest difference between the file's outputs and the module's, over random inputs of many lengths."""
    import torch

    opened, draw, worst = session(out / part.file), torch.Generator().manual_seed(seed), 0.0
    for number in range(inputs):
        given = _drawn(part, number, draw)
        expected = part.module(*given.values())
        wanted: Sequence[Any] = expected if isinstance(expected, tuple) else (expected,)
        found = opened.run(None, {name: value.numpy() for name, value in given.items()})
        for one, other in zip(wanted, found, strict=True):
            gap = (one - torch.from_numpy(other)).abs()
            worst = max(worst, float(gap.max()) if gap.numel() else 0.0)
    return worst


def _drawn(part: _Part, number: int, draw: Any) -> dict[str, Any]:
    """Random tokens in two texts, the second one padded; past keys and values, where there are any, random too."""
    import torch

    long, past = 1 + number % 24, number % 11
    sizes = {"texts": 2, "tokens": long, "new": long, "past": past, "all": past + long, "answer": 1 + number % 9}
    given = {}
    for name, example in part.example.items():
        axes = part.axes[name]
        shape = [sizes[axes[axis]] if axis in axes else size for axis, size in enumerate(example.shape)]
        if name == "attention_mask":
            value = torch.ones(shape, dtype=torch.long)
            if part.file != MODEL or "past_key_0" not in part.example:
                value[1, max(1, long // 2) :] = 0
            given[name] = value
        elif example.dtype == torch.long:
            given[name] = torch.randint(0, part.vocabulary, shape, generator=draw)
        else:
            given[name] = torch.randn(shape, generator=draw)
    return given


@contextmanager
def _calm() -> Iterator[None]:
    """The exporter warns of what it traces, and that it is the older one."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _packages(*, torch: bool = True) -> tuple[Any, Any]:
    try:
        import onnx  # noqa: F401 - the exporter needs it
        import onnxruntime

        if not torch:
            return None, onnxruntime
        torch_runtime.patient_threads()
        import torch as torch_
        import transformers  # noqa: F401
    except ModuleNotFoundError as error:
        missing = str(error.name)
        raise MissingExtra(missing, extra="onnx" if missing.startswith("onnx") else "train") from None
    return torch_, onnxruntime
