"""Transformers as an engine: whatever Hugging Face folder with safetensors there is, on a CPU or a GPU, in a worker.

Slower than the engines made for serving, and always there. Causal models and encoder-decoders generate and score,
sequence classifiers classify, token classifiers tag, models for question answering extract, and every model but an
encoder-decoder embeds.
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
from treadle.lm.schema_mask import INSTALLED, SchemaMasks
from treadle.lm.source_encoder import UNSAID_LENGTH, writes_targets
from treadle.lm.worker_engine import WorkerEngine

_UNSET_LENGTH = 1 << 30  # transformers writes 1e30 for "no limit"
_WARM_UP_IDS = 8


class TransformersSettings(WorkerSettings, frozen=True, kw_only=True):
    """``precision`` auto: bfloat16 for models that generate where the machine multiplies it in hardware; bf16 asks for
    it.

    ``max_sequences`` answers are generated together. Texts to label or embed are cut at ``max_length`` tokens; the
    model's own limit by default.
    """

    precision: Literal["f32", "bf16", "auto"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_sequences: int = 16
    max_length: int | None = None


_PLAIN_CACHE = ("llama", "gpt2", "qwen2", "qwen3", "mistral", "smollm3")


class TransformersEngine(WorkerEngine):
    """A Hugging Face folder, served by torch in a worker process."""

    name: ClassVar[str] = "transformers"
    backend: ClassVar[str] = "treadle.lm.transformers_engine:TransformersBackend"
    settings_type: ClassVar[type[WorkerSettings]] = TransformersSettings
    holds_schema: ClassVar[bool] = INSTALLED
    tries_schema: ClassVar[bool] = True
    most_alternatives: ClassVar[int] = 20
    loads_adapters: ClassVar[bool] = True  # merged as it is opened

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
        self._from_sources = writes_targets(self._config)
        self._device = _device(settings.device)
        self._batch: Any = None
        self._scorer: Any = None
        self._classifier: Any = None
        self._embedder: Any = None
        self._tagger: Any = None
        self._reader: Any = None
        self.context_length = _context_length(self._config, folder)
        if self._task == "generate":
            from treadle.lm.source_generation import SourceBatch
            from treadle.lm.torch_generation import GenerationBatch

            auto = transformers.AutoModelForSeq2SeqLM if self._from_sources else transformers.AutoModelForCausalLM
            self._model = torch_runtime.load(folder, auto).to(self._device, self._dtype()).eval()
            if self._from_sources:
                self._batch = SourceBatch(self._model, settings.max_sequences)
            else:
                masks = SchemaMasks(folder, getattr(self._model.config, "vocab_size", None))
                self._batch = GenerationBatch(self._model, settings.max_sequences, masks)
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
        elif self._task == "tag":
            from treadle.lm.tagging import Tagger

            self._tagger = Tagger(folder, max_length=self._max_length(), threads=threads, device=self._device)
            self._tagger.find(["warm up"])
        elif self._task == "extract":
            from treadle.lm.reading import Reader

            self._reader = Reader(folder, max_length=self._max_length(), threads=threads, device=self._device)
            self._reader.find(["warm up"], ["warm up"])
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
        if request.schema is not None and self._from_sources:
            raise UserError(self._cannot("hold an answer to a schema"))
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
        """As ``Backend.score``."""
        rows: list[list[float]] = []
        while len(rows) < len(pairs):
            rows += self.score_some(pairs[len(rows) :])
        return rows

    def score_some(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
        """As ``Backend.score``, for the first pairs alone: as many as are computed together, and at least one.

        What prompts begin with (a system prompt, worked examples, the question before its choices) is computed once.
        """
        if self._task != "generate":
            raise UserError(self._cannot("score"))
        if self._from_sources:
            from treadle.lm.source_generation import score_targets

            return score_targets(self._model, pairs)
        if self._scorer is None:
            from treadle.lm.torch_scoring import TreeScorer

            self._scorer = TreeScorer(self._model, self._device, plain=self._is_plain())
        found: list[list[float]] = self._scorer.score_some(pairs)
        return found

    def _is_plain(self) -> bool:
        """Whether keys and values are plain, so that a continuation can be taken off them again."""
        return not self._config.get("sliding_window") and self._config.get("model_type") in _PLAIN_CACHE

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """As ``Backend.embed``."""
        if self._from_sources:
            raise UserError(self._cannot("embed"))
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

    def tag(self, texts: Sequence[str]) -> tuple[list[str], list[list[float]]]:
        """As ``Backend.tag``."""
        if self._tagger is None:
            raise UserError(self._cannot("tag"))
        types = list(self._tagger.types)
        found = self._tagger.find(texts)
        return types, [[v for s, e, kind, score in each for v in (s, e, types.index(kind), score)] for each in found]

    def extract(self, pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        """As ``Backend.extract``."""
        if self._reader is None:
            raise UserError(self._cannot("extract"))
        found = self._reader.find([question for question, _ in pairs], [text for _, text in pairs])
        return [list(map(float, each)) for each in found]

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


def _task(config: dict[str, Any], folder: Path) -> Literal["generate", "classify", "tag", "extract", "embed"]:
    names = config.get("architectures") or []
    if any(name.endswith("ForSequenceClassification") for name in names):
        return "classify"
    if any(name.endswith("ForTokenClassification") for name in names):
        return "tag"
    if any(name.endswith("ForQuestionAnswering") for name in names):
        return "extract"
    if writes_targets(config) or any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
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
    unsaid = UNSAID_LENGTH if writes_targets(config) else 0
    return min((int(size) for size in sizes if size and size < _UNSET_LENGTH), default=unsaid)


def _device(wanted: str) -> str:
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("engine transformers: device is cuda, and torch sees none here; choose cpu or auto")
    return wanted if wanted != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
