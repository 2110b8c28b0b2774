"""Transformers as an engine: whatever Hugging Face folder with safetensors there is, on a CPU or a GPU, in a worker.

Slower than the engines made for serving, and always there. Causal models generate and score, sequence classifiers
classify, and every model embeds.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from treadle.core.errors import MissingExtra, UserError
from treadle.lm import torch_runtime
from treadle.lm.engine_settings import WorkerSettings, convert_settings
from treadle.lm.engine_wire import Generate, Tokens
from treadle.lm.model_folder import read_config
from treadle.lm.safetensors_folder import check_folder
from treadle.lm.worker_engine import WorkerEngine

_UNSET_LENGTH = 1 << 30  # transformers writes 1e30 for "no limit"
_WARM_UP_IDS = 8


class TransformersSettings(WorkerSettings, frozen=True, kw_only=True):
    """``precision`` auto: bfloat16 for causal models where the machine multiplies it in hardware; bf16 asks for it.

    ``max_sequences`` answers are generated together. Texts to label or embed are cut at ``max_length`` tokens; the
    model's own limit by default.
    """

    precision: Literal["f32", "bf16", "auto"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_sequences: int = 16
    max_length: int | None = None


_WORTH_SHARING = 16  # tokens at the start of all prompts
_PLAIN_CACHE = ("llama", "gpt2", "qwen2", "qwen3", "mistral", "smollm3")


class TransformersEngine(WorkerEngine):
    """A Hugging Face folder, served by torch in a worker process."""

    name: ClassVar[str] = "transformers"
    backend: ClassVar[str] = "treadle.lm.transformers_engine:TransformersBackend"
    settings_type: ClassVar[type[WorkerSettings]] = TransformersSettings

    @classmethod
    async def open_here(
        cls, folder: Path, *, threads: int | None = None, settings: dict[str, Any] | None = None
    ) -> TransformersEngine:
        """As ``open``, in a thread of this process: for a step, which nobody waits for, and where torch is loaded."""
        return await cls._open(folder, threads, settings, here=True)

    @classmethod
    def suits(cls, folder: Path) -> bool:
        """As ``WorkerEngine.suits``."""
        found = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
        return found and all(importlib.util.find_spec(name) for name in ("torch", "transformers"))

    @classmethod
    def check(cls, folder: Path) -> None:
        """As ``WorkerEngine.check``; weights that are pickles are refused."""
        for package in ("torch", "transformers"):
            if importlib.util.find_spec(package) is None:
                raise MissingExtra(package, extra="train")
        check_folder(folder)


class TransformersBackend:
    """The worker's side."""

    def __init__(self, folder: Path, threads: int | None, settings: TransformersSettings) -> None:
        import torch
        import transformers

        check_folder(folder)
        if threads is not None:
            torch.set_num_threads(threads)
        self._folder = folder
        self._threads = threads
        self._settings = settings
        self._config = read_config(folder)
        self._task = _task(self._config, folder)
        self._device = _device(settings.device)
        self._batch: Any = None
        self._classifier: Any = None
        self._embedder: Any = None
        self.context_length = _context_length(self._config, folder)
        if self._task == "generate":
            from treadle.lm.torch_generation import GenerationBatch

            model = torch_runtime.load(folder, transformers.AutoModelForCausalLM)
            self._model = model.to(self._device, self._dtype()).eval()
            self._batch = GenerationBatch(self._model, settings.max_sequences)
            warm_up = [0] * min(_WARM_UP_IDS, self.context_length or _WARM_UP_IDS)
            self._batch.add(Generate(0, warm_up, 2, 0.0, 1.0, 0, False, []))
            while self._batch.pending() != (0, 0):
                self._batch.step()
        elif self._task == "classify":
            from treadle.lm.classification import Classifier

            self._classifier = Classifier(
                folder, max_length=self._max_length(), threads=threads, half=settings.precision == "bf16"
            )
            self._classifier.predict(["warm up"])
        else:
            self.embed(["warm up"])

    @classmethod
    def open(cls, folder: Path, threads: int | None, settings: dict[str, Any]) -> TransformersBackend:
        """As ``Backend.open``."""
        try:
            return cls(folder, threads, convert_settings("transformers", TransformersSettings, settings))
        except ModuleNotFoundError as error:
            raise MissingExtra(str(error.name), extra="train") from None

    def add(self, request: Generate) -> None:
        """As ``Backend.add``."""
        if self._batch is None:
            raise UserError(self._cannot("generate"))
        self._batch.add(request)

    def cancel(self, number: int) -> None:
        """As ``Backend.cancel``."""
        if self._batch is not None:
            self._batch.cancel(number)

    def pending(self) -> tuple[int, int]:
        """As ``Backend.pending``."""
        return self._batch.pending() if self._batch is not None else (0, 0)

    def step(self) -> list[Tokens]:
        """As ``Backend.step``."""
        found: list[Tokens] = self._batch.step()
        return found

    def score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
        """As ``Backend.score``; one pair at a time, so that the logits of long ones fit.

        What all prompts begin with (a system prompt, worked examples) is computed once.
        """
        import torch

        if self._task != "generate":
            raise UserError(self._cannot("score"))
        shared = _shared_start([prompt for prompt, _ in pairs]) if self._can_crop() else 0
        rows = []
        with torch.inference_mode():
            past: Any = None
            if shared:
                ids = torch.tensor([pairs[0][0][:shared]], device=self._device)
                past = self._model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
            for prompt, continuation in pairs:
                ids = torch.tensor([prompt[shared:] + continuation], device=self._device)
                keep = {"past_key_values": past, "use_cache": True} if shared else {"use_cache": False}
                output = self._model(input_ids=ids[:, :-1], logits_to_keep=len(continuation), **keep)
                logprobs = output.logits[0].float().log_softmax(-1)
                rows.append(logprobs.gather(1, ids[0, len(prompt) - shared :, None])[:, 0].tolist())
                if shared:
                    past.crop(1 - ids.shape[1])  # the tokens just added go again
        return rows

    def _can_crop(self) -> bool:
        """Whether the model keeps plain keys and values, so that a continuation can be taken off them again."""
        return not self._config.get("sliding_window") and self._config.get("model_type") in _PLAIN_CACHE

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """As ``Backend.embed``."""
        if self._embedder is None:
            from treadle.lm.torch_embedding import Embedder

            self._embedder = Embedder(self._folder, self._device, self._max_length())
        rows: list[list[float]] = self._embedder(texts)
        return rows

    def classify(self, texts: Sequence[str]) -> tuple[list[str], list[list[float]]]:
        """As ``Backend.classify``."""
        if self._classifier is None:
            raise UserError(self._cannot("classify"))
        return list(self._classifier.labels), self._classifier.predict(texts)

    def _dtype(self) -> Any:
        import torch

        if self._settings.precision == "f32":
            return torch.float32
        if self._settings.precision == "bf16":
            return torch.bfloat16
        return torch.bfloat16 if self._device == "cuda" else getattr(torch, torch_runtime.precision("auto"))

    def _max_length(self) -> int:
        own = self.context_length or 512
        return min(self._settings.max_length or own, own)

    def _cannot(self, what: str) -> str:
        kinds = ", ".join(self._config.get("architectures") or ["no architecture"])
        return f"{self._folder}: cannot {what} with {kinds}; choose a model made for that"


def _shared_start(prompts: Sequence[list[int]]) -> int:
    """How many tokens all prompts begin with, where that is worth keeping; at least one is left of each prompt."""
    if len(prompts) < 2:
        return 0
    first, last = min(prompts), max(prompts)
    count = 0
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        count += 1
    count = min(count, min(len(prompt) for prompt in prompts) - 1)
    return count if count >= _WORTH_SHARING else 0


def _task(config: dict[str, Any], folder: Path) -> Literal["generate", "classify", "embed"]:
    names = config.get("architectures") or []
    if any(name.endswith("ForSequenceClassification") for name in names):
        return "classify"
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        return "generate"
    if not names and not config.get("model_type"):
        raise UserError(f"{folder / 'config.json'}: names no architecture; expected a model's config")
    return "embed"


def _context_length(config: dict[str, Any], folder: Path) -> int:
    """In tokens. The tokenizer's limit counts for encoders, whose position tables may hold spare rows."""
    tokenizer: dict[str, Any] = {}
    if (path := folder / "tokenizer_config.json").is_file():
        tokenizer = read_config(folder, path.name)
    sizes = [config.get(name) for name in ("max_position_embeddings", "n_positions")]
    sizes.append(tokenizer.get("model_max_length"))
    return min((int(size) for size in sizes if size and size < _UNSET_LENGTH), default=0)


def _device(wanted: str) -> str:
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("engine transformers: device is cuda, and torch sees none here; choose cpu or auto")
    return wanted if wanted != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
