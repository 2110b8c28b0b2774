"""OpenVINO GenAI's continuous batching as an engine: GGUF files and OpenVINO IR, on a CPU.

The pipeline reads and writes token ids here; text is the business of the engine's other side. It would build a
tokenizer from the GGUF all the same, which takes half of its start, so it is given a token one, which knows what each
id stands for: that is all that holding an answer to a grammar needs.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from treadle.core.errors import MissingExtra, UserError
from treadle.integrations.openvino_classifier import OpenVinoClassifierBackend, is_classifier
from treadle.lm.engine_settings import WorkerSettings, convert_settings
from treadle.lm.engine_wire import Finish, Generate, Tokens
from treadle.lm.engine_worker import first_line
from treadle.lm.gguf_file import GgufFile
from treadle.lm.model_folder import read_config, read_object
from treadle.lm.schema_grammar import grammar_of
from treadle.lm.worker_engine import WorkerEngine

_GGUF, _IR = "model.gguf", "openvino_model.xml"
_BLOCK_TOKENS = 32  # of a key-value block on a CPU
_U8_OVERHEAD = 12  # bytes a head's vector, for scale and zero point; measured with 2026.4
_KV_CACHE_MB = 512
_WARM_UP_IDS, _WARM_UP_TOKENS = 40, 4
_MOST_TOKENIZER = 256 << 20  # bytes of tokenizer.json
_CANNOT = "the openvino engine only generates and scores; choose engine: transformers, on the Hugging Face folder"


class OpenVinoSettings(WorkerSettings, frozen=True, kw_only=True):
    """``precision`` f32: no rounding beyond the file's own, for comparing and scoring; auto is quicker by a fifth.

    ``kv_cache_mb``: the most that keys and values take, shared by all requests and the prefix cache.
    ``batch_tokens``: prompt tokens a step, so how long a new prompt holds the others up. ``max_sequences``: answers
    under way at once; further requests queue.
    """

    precision: Literal["f32", "auto"] = "auto"
    prefix_caching: bool = True
    kv_cache_mb: int | None = None
    batch_tokens: int = 256
    max_sequences: int = 64


class OpenVinoEngine(WorkerEngine):
    """A release's GGUF or IR, served by OpenVINO in a worker process."""

    name: ClassVar[str] = "openvino"
    backend: ClassVar[str] = "treadle.integrations.openvino:OpenVinoBackend"
    settings_type: ClassVar[type[WorkerSettings]] = OpenVinoSettings
    preference: ClassVar[int] = 10
    reads_gguf: ClassVar[bool] = importlib.util.find_spec("openvino_genai") is not None
    holds_schema: ClassVar[bool] = reads_gguf

    @classmethod
    def suits(cls, folder: Path) -> bool:
        """As ``WorkerEngine.suits``."""
        found = (folder / _GGUF).is_file() or (folder / _IR).is_file()
        return found and importlib.util.find_spec("openvino_genai") is not None

    @classmethod
    def check(cls, folder: Path) -> None:
        """As ``WorkerEngine.check``. OpenVINO 2026.4 crashes on a cut GGUF, or loads it without a word."""
        if importlib.util.find_spec("openvino_genai") is None:
            raise MissingExtra("openvino-genai", extra="openvino")
        if (folder / _GGUF).is_file():
            with GgufFile(folder / _GGUF):
                return
        if not (folder / _IR).is_file():
            raise UserError(f"{folder}: no {_GGUF} and no {_IR}; the openvino engine opens one of these")
        if not (folder / _IR).with_suffix(".bin").is_file():
            raise UserError(f"{folder}: {_IR} without its .bin; copy both again from their source")


class OpenVinoBackend:
    """The worker's side. Everything runs in one thread, because ``step`` holds Python's lock."""

    def __init__(self, folder: Path, threads: int | None, settings: OpenVinoSettings) -> None:
        config = read_config(folder)
        per_block = _BLOCK_TOKENS * _kv_bytes(config, settings.precision)
        budget = _kv_budget(settings.kv_cache_mb)
        self._blocks = max(2, budget // per_block)
        trained = int(config.get("max_position_embeddings") or config.get("n_positions") or 0)
        room = (self._blocks - 1) * _BLOCK_TOKENS
        self.context_length = min(trained or room, room)
        self._source = folder / _GGUF if (folder / _GGUF).is_file() else folder
        self._threads = threads
        self._settings = settings
        self._vocabulary = int(config.get("vocab_size") or 1)
        self._spelled, self._end = spelled(folder), _end_id(config)
        self._pipeline: Any = self._open_pipeline(prefix_caching=settings.prefix_caching)
        self._scoring: Any = None if settings.prefix_caching else self._pipeline
        self._queue: deque[Generate] = deque()
        self._grammars: dict[int, str] = {}
        self._requests: dict[int, _Request] = {}
        self._cancelled: set[int] = set()
        self._own_numbers = 1 << 62  # for scoring, apart from the parent's

    @classmethod
    def open(
        cls, folder: Path, threads: int | None, settings: dict[str, Any]
    ) -> OpenVinoBackend | OpenVinoClassifierBackend:
        """As ``Backend.open``."""
        given = convert_settings("openvino", OpenVinoSettings, settings)
        if is_classifier(folder):
            return OpenVinoClassifierBackend(folder, threads, given.precision)
        return cls(folder, threads, given)

    def add(self, request: Generate) -> None:
        """As ``Backend.add``. A grammar is made here: what is wrong with one shows in ``step`` only, and spoils all."""
        if request.schema is not None:
            if not self._spelled or not request.stop_ids:
                raise UserError("response_format: this model's tokenizer does not say what its tokens stand for")
            self._grammars[request.number] = grammar_of(request.schema)
        self._queue.append(request)

    def _submit(self, request: Generate) -> None:
        config = _genai().GenerationConfig()
        config.max_new_tokens = request.max_tokens
        if request.temperature > 0:
            config.do_sample = True
            config.temperature = request.temperature
            config.top_p = request.top_p
            config.rng_seed = request.seed
        config.logprobs = int(request.logprobs)
        if (grammar := self._grammars.pop(request.number, None)) is not None:
            config.structured_output_config = _genai().StructuredOutputConfig(grammar=grammar)
        _end_at(config, request.stop_ids)
        handle = self._pipeline.add_request(request.number, _tensor(request.prompt_ids), config)
        self._requests[request.number] = _Request(handle, request.logprobs)

    def cancel(self, number: int) -> None:
        """As ``Backend.cancel``; the pipeline lets go of the request in its next step."""
        self._cancelled.add(number)
        if number in self._requests:
            self._requests[number].handle.cancel()

    def pending(self) -> tuple[int, int]:
        """As ``Backend.pending``."""
        return len(self._requests), len(self._queue)

    def step(self) -> list[Tokens]:
        """As ``Backend.step``."""
        found = [Tokens(r.number, [], [], "cancelled") for r in self._queue if r.number in self._cancelled]
        self._queue = deque(request for request in self._queue if request.number not in self._cancelled)
        for number in self._cancelled:
            self._grammars.pop(number, None)
        while self._queue and len(self._requests) < self._settings.max_sequences:
            self._submit(self._queue.popleft())
        if self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        for number, request in list(self._requests.items()):
            cancelled = number in self._cancelled
            tokens = Tokens(number, [], [], "cancelled") if cancelled else _read(number, request)
            if tokens is not None:
                found.append(tokens)
                if tokens.finish is not None:
                    del self._requests[number]
        self._cancelled.clear()
        return found

    def score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
        """As ``Backend.score``.

        A prompt that echoes gives log-probabilities only for what it computes, so nothing may come from the prefix
        cache. The first score therefore opens a pipeline without one: in place of the other when that is idle, since
        each holds the weights, and beside it when answers are under way.
        """
        if self._scoring is None and not self._requests and not self._queue:
            self._pipeline = None
            self._pipeline = self._scoring = self._open_pipeline(prefix_caching=False)
        elif self._scoring is None:
            self._scoring = self._open_pipeline(prefix_caching=False)
        config = _genai().GenerationConfig()
        config.max_new_tokens, config.echo, config.logprobs = 1, True, 1
        _end_at(config, [])
        handles = []
        for prompt, continuation in pairs:
            self._own_numbers += 1
            handles.append(self._scoring.add_request(self._own_numbers, _tensor(prompt + continuation), config))
        while self._scoring.has_non_finished_requests():
            self._scoring.step()
        rows = []
        for (prompt, continuation), handle in zip(pairs, handles, strict=True):
            # One value a token of the prompt, the first a placeholder, and one for the token generated.
            values = [value for output in handle.read_all() for value in output.generated_log_probs]
            if len(values) != len(prompt) + len(continuation) + 1:
                raise RuntimeError(f"{len(values)} log-probabilities for {len(prompt) + len(continuation)} tokens")
            rows.append(values[len(prompt) : -1])
        return rows

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Refused."""
        raise UserError(_CANNOT)

    def classify(self, texts: Sequence[str]) -> tuple[list[str], list[list[float]]]:
        """Refused."""
        raise UserError(_CANNOT)

    def _open_pipeline(self, *, prefix_caching: bool) -> Any:
        genai = _genai()
        schedule = genai.SchedulerConfig()
        schedule.enable_prefix_caching = prefix_caching
        schedule.num_kv_blocks = self._blocks
        schedule.max_num_batched_tokens = self._settings.batch_tokens
        properties: dict[str, Any] = {"ENABLE_CPU_PINNING": False}  # two engines would be pinned to the same core
        if self._threads is not None:
            properties["INFERENCE_NUM_THREADS"] = self._threads
        if self._settings.precision == "f32":
            # The hint alone still rounds activations to 8 bits group by group, and keys and values to 8 bits.
            properties |= {
                "INFERENCE_PRECISION_HINT": "f32",
                "KV_CACHE_PRECISION": "f32",
                "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
            }
        try:
            with _writable(self._source) as source:
                pipeline = genai.ContinuousBatchingPipeline(
                    str(source), token_tokenizer(self._spelled, self._end), schedule, "CPU", **properties
                )
        except RuntimeError as error:
            raise UserError(f"{self._source}: OpenVINO cannot open it ({first_line(error)})") from None
        warm_up = genai.GenerationConfig()
        warm_up.max_new_tokens = _WARM_UP_TOKENS
        _end_at(warm_up, [])
        handle = pipeline.add_request(0, _tensor([i % self._vocabulary for i in range(_WARM_UP_IDS)]), warm_up)
        while pipeline.has_non_finished_requests():
            pipeline.step()
        handle.read_all()
        return pipeline


@dataclass(frozen=True, slots=True)
class _Request:
    handle: Any
    logprobs: bool


def _read(number: int, request: _Request) -> Tokens | None:
    """What a request has for us after a step, if anything."""
    genai, handle = _genai(), request.handle
    ids: list[int] = []
    logprobs: list[float] = []
    finish: Finish | None = None
    while handle.can_read():
        for output in handle.read().values():
            ids += output.generated_ids
            logprobs += output.generated_log_probs
            if output.finish_reason == genai.GenerationFinishReason.STOP:
                finish = "stop"
            elif output.finish_reason == genai.GenerationFinishReason.LENGTH:
                finish = "length"
    if finish is None and handle.get_status() == genai.GenerationStatus.IGNORED:  # no room in the cache
        finish = "error"
    if not ids and finish is None:
        return None
    return Tokens(number, ids, logprobs if request.logprobs else [], finish)  # unasked, they are zeros


def _end_at(config: Any, stop_ids: Sequence[int]) -> None:
    if stop_ids:
        config.eos_token_id = stop_ids[0]
        config.stop_token_ids = set(stop_ids)
    else:
        config.ignore_eos = True


def _tensor(ids: Sequence[int]) -> Any:
    import numpy as np
    import openvino

    return openvino.Tensor(np.array([ids], dtype=np.int64))


def _kv_bytes(config: dict[str, Any], precision: str) -> int:
    """Of one token's keys and values."""
    try:
        heads = int(config["num_attention_heads"])
        size = int(config.get("head_dim") or config["hidden_size"] // heads)
        vectors = 2 * int(config["num_hidden_layers"]) * int(config.get("num_key_value_heads") or heads)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"config.json: does not say how large keys and values are ({error!r})") from None
    return vectors * (4 * size if precision == "f32" else size + _U8_OVERHEAD)


def _kv_budget(megabytes: int | None) -> int:
    """In bytes; by default at most an eighth of this machine."""
    if megabytes is not None:
        if megabytes < 1:
            raise UserError(f"engine openvino: kv_cache_mb is {megabytes}; expected at least 1")
        return megabytes << 20
    return min(_KV_CACHE_MB << 20, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8)


@cache
def _genai() -> Any:
    try:
        import openvino_genai
    except ModuleNotFoundError:
        raise MissingExtra("openvino-genai", extra="openvino") from None
    return openvino_genai


def spelled(folder: Path) -> list[bytes]:
    """What each id stands for, none where the tokenizer does not say."""
    from tokenizers import Tokenizer

    from treadle.lm.token_spelling import spelled_tokens

    path = folder / "tokenizer.json"
    if not path.is_file():
        return []
    decoder = read_object(path, _MOST_TOKENIZER).get("decoder")
    return spelled_tokens(Tokenizer.from_file(str(path)), decoder) or []


def _end_id(config: dict[str, Any]) -> int:
    """The first of the ids that end an answer; each request names its own."""
    ends = config.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    return next((end for end in ends if isinstance(end, int)), 0)


def token_tokenizer(spelled: Sequence[bytes], end: int) -> Any:
    """The smallest pair of models that the pipeline takes for a tokenizer; it is never asked to work.

    The pipeline reads what tokens stand for off a node that is called VocabDecoder: where each begins and ends in the
    bytes of all.
    """
    import numpy as np
    import openvino
    from openvino import opset15 as ops

    text = ops.parameter([-1], dtype=openvino.Type.string)
    begins = ops.convert(ops.string_tensor_unpack(text).output(0), "i64")
    ids = ops.unsqueeze(begins, ops.constant(np.array([1], dtype=np.int64)))
    ids.output(0).get_tensor().set_names({"input_ids"})
    mask = ops.convert(ops.greater_equal(ids, ops.constant(np.array(0, dtype=np.int64))), "i64")
    mask.output(0).get_tensor().set_names({"attention_mask"})
    encoder = openvino.Model([ids, mask], [text], "encoder")
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        encoder.set_rt_info(end, name)  # every request says for itself where it ends
    given = ops.parameter([-1, -1], dtype=openvino.Type.i64)
    flat = ops.convert(ops.reshape(given, ops.constant(np.array([-1], dtype=np.int64)), False), "i32")
    sizes = np.array([len(token) for token in spelled or [b""]], dtype=np.int32)
    ends = np.cumsum(sizes, dtype=np.int32)
    letters = np.frombuffer(b"".join(spelled) or b"\0", dtype=np.uint8).astype(np.int32)
    vocabulary = ops.concat([flat, *(ops.constant(each) for each in (ends - sizes, ends, letters))], 0)
    vocabulary.set_friendly_name("VocabDecoder")
    characters = ops.convert(vocabulary, "u8")
    zero = ops.constant(np.zeros(1, dtype=np.int32))
    string = ops.string_tensor_pack(zero, zero, characters)
    string.output(0).get_tensor().set_names({"string_output"})
    parts: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        for model in (encoder, openvino.Model([string], [given], "decoder")):
            graph, weights = Path(folder, "model.xml"), Path(folder, "model.bin")
            openvino.serialize(model, graph, weights)
            data = np.frombuffer(weights.read_bytes() or b"\0", dtype=np.uint8)
            parts += [graph.read_text(encoding="utf-8"), openvino.Tensor(data.copy())]
    return _genai().Tokenizer(*parts)


@contextmanager
def _writable(source: Path) -> Iterator[Path]:
    """The GGUF, or a copy while it is opened: OpenVINO opens it for writing, and fails where that is not allowed."""
    if source.is_dir() or os.access(source, os.W_OK):
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copyfile(source, Path(folder, source.name)))
