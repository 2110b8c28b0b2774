"""A model from nothing: an architecture, a size, and random weights drawn from a seed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from treadle.core.errors import MissingExtra, UserError
from treadle.lm import torch_runtime
from treadle.lm.own_model import create

Architecture = Literal["llama", "gpt2", "bert", "t5"]
SENTINELS = 100  # ids that stand for a span that was taken out, above the tokenizer's own: T5's number of them

_HEAD = 64  # numbers a head of attention works on, as in all four families
_RATIO = 64  # width over layers; between 32 and 128 little changes (J. Kaplan et al., arXiv:2001.08361, fig. 5)
_RATIOS = (16, 160)
_MULTIPLES = {"": 1, "K": 1_000, "M": 1_000_000, "B": 1_000_000_000}


@dataclass(frozen=True, slots=True)
class Shape:
    """``width``: of the hidden states. ``layers``: of T5, in the encoder, and as many in the decoder."""

    width: int
    layers: int


_LARGEST = Shape(16_384, 128)


def parameters_of(size: str) -> int:
    """How many parameters ``10M`` is; ``UserError`` for what is no size."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMB]?)", size.strip().upper())
    if match is None or not float(match[1]):
        raise UserError(f"{size!r} is no size of a model; expected a number of parameters such as 10M or 1.5B")
    return round(float(match[1]) * _MULTIPLES[match[2]])


def model_class(architecture: str) -> Any:
    """The class of transformers with the head that pretraining needs."""
    import transformers

    return {
        "bert": transformers.AutoModelForMaskedLM,
        "t5": transformers.AutoModelForSeq2SeqLM,
    }.get(architecture, transformers.AutoModelForCausalLM)


def shape_for(architecture: Architecture, parameters: int, vocabulary: int, context: int) -> Shape:
    """The width and depth that come nearest to a number of parameters at a usual proportion of the two: small models
    have few widths, so what comes out may be some tenths off.

    ``UserError`` where the embeddings alone are too much for it, or it is more than the largest shape has.
    """
    best: tuple[float, Shape] | None = None
    smallest = _roughly(architecture, Shape(_HEAD, 2), vocabulary, context)
    for shape in _shapes(parameters):
        off = abs(_roughly(architecture, shape, vocabulary, context) / parameters - 1)
        proportion = shape.width / shape.layers
        if _RATIOS[0] <= proportion <= _RATIOS[1] and (off <= 0.3 or smallest <= parameters):
            cost = max(0.0, off - 0.05) + 0.02 * abs(proportion / _RATIO - 1)
            if best is None or cost < best[0]:
                best = (cost, shape)
    if best is not None and parameters > 1.3 * _roughly(architecture, _LARGEST, vocabulary, context):
        best = None
    if best is None and parameters > _roughly(architecture, _LARGEST, vocabulary, context):
        raise UserError(f"{parameters:,} parameters are more than a {architecture} has here; take a smaller size")
    if best is None:
        raise UserError(
            f"{parameters:,} parameters with a vocabulary of {vocabulary:,} leave no room for "
            "layers; take a larger size, or a tokenizer with a smaller vocabulary"
        )
    return best[1]


def _shapes(parameters: int) -> Iterator[Shape]:
    for width in range(_HEAD, _LARGEST.width + 1, _HEAD):
        if width * width > 4 * parameters:
            return
        yield from (Shape(width, layers) for layers in range(2, _LARGEST.layers + 1))


def _roughly(architecture: Architecture, shape: Shape, vocabulary: int, context: int) -> int:
    """Parameters but for norms and biases. Embeddings are tied."""
    square = shape.width * shape.width
    if architecture == "t5":
        return shape.width * (vocabulary + SENTINELS) + shape.layers * (12 + 16) * square
    positions = 0 if architecture == "llama" else context
    return shape.width * (vocabulary + positions) + shape.layers * 12 * square


def config_for(architecture: Architecture, shape: Shape, vocabulary: int, context: int, ids: dict[str, int]) -> Any:
    """A transformers configuration. ``ids``: of ``eos`` and ``pad``. Nothing is dropped out in pretraining."""
    import transformers

    heads = max(1, shape.width // _HEAD)
    common = {"eos_token_id": ids["eos"], "pad_token_id": ids["pad"], "bos_token_id": ids["eos"]}
    if architecture == "llama":
        return transformers.LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=shape.width,
            intermediate_size=_rounded(shape.width * 8 / 3),
            num_hidden_layers=shape.layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=context,
            tie_word_embeddings=True,
            rms_norm_eps=1e-5,
            **common,
        )
    if architecture == "gpt2":
        return transformers.GPT2Config(
            vocab_size=vocabulary,
            n_embd=shape.width,
            n_layer=shape.layers,
            n_head=heads,
            n_positions=context,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **common,
        )
    if architecture == "bert":
        return transformers.BertConfig(
            vocab_size=vocabulary,
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=heads,
            intermediate_size=4 * shape.width,
            max_position_embeddings=context,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=ids["pad"],
        )
    return transformers.T5Config(
        vocab_size=vocabulary + SENTINELS,
        d_model=shape.width,
        d_kv=_HEAD,
        d_ff=4 * shape.width,
        num_layers=shape.layers,
        num_heads=heads,
        dropout_rate=0.0,
        eos_token_id=ids["eos"],
        pad_token_id=ids["pad"],
        decoder_start_token_id=ids["pad"],
        n_positions=context,  # it counts distances, so nothing else says so
    )


def _rounded(size: float) -> int:
    return max(_HEAD, round(size / _HEAD) * _HEAD)


def create_model(
    out: Path,
    tokenizer: Path,
    *,
    architecture: Architecture,
    size: str,
    context: int,
    seed: int,
    own: str | None = None,
    project: Path | None = None,
) -> dict[str, int]:
    """Write a model folder with random weights and the tokenizer of the folder ``tokenizer``; returns its figures.

    ``own`` names a class of the ``project``, in place of the architecture's. The same arguments give the same bytes.
    ``UserError`` for a size that cannot be had.
    """
    try:
        torch_runtime.patient_threads()
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), extra="train") from None
    vocabulary, ids = vocabulary_of(tokenizer)
    parameters = parameters_of(size)
    with torch_runtime.session(None, seed):
        if own is not None:
            common = {"eos_token_id": ids["eos"], "pad_token_id": ids["pad"], "max_position_embeddings": context}
            model = create(own, project, parameters, vocab_size=vocabulary, **common)
        else:
            shape = shape_for(architecture, parameters, vocabulary, context)
            model = model_class(architecture).from_config(config_for(architecture, shape, vocabulary, context, ids))
        torch_runtime.save(model.to(torch.float32), tokenizer, out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (out / name).is_file() and (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, out / name)
    width = int(model.config.hidden_size)
    layers = getattr(model.config, "num_hidden_layers", None)
    return {"parameters": model.num_parameters(), "width": width} | ({"layers": int(layers)} if layers else {})


def vocabulary_of(folder: Path) -> tuple[int, dict[str, int]]:
    """How many ids a tokenizer has, and which end and fill a text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    ids = {}
    for kind in ("eos", "pad"):
        name = settings.get(f"{kind}_token") or settings.get("eos_token")
        found = tokenizer.token_to_id(name["content"] if isinstance(name, dict) else str(name))
        if found is None:
            raise UserError("the tokenizer has no token that ends a text; name one in prepare.tokenizer.special")
        ids[kind] = found
    return tokenizer.get_vocab_size(), ids


def vocabulary_size(folder: Path) -> int:
    """How many ids a tokenizer has."""
    from tokenizers import Tokenizer

    return int(Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size())
