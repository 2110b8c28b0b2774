"""An engine that lives in a process of its own: what every such engine does alike, on this side of the socket.

Checks requests, turns the ids that come back into text, ends answers at stop strings, and knows the model's folder.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import msgspec

from treadle.core.errors import UserError
from treadle.lm.adapter import adapter_of
from treadle.lm.engine import (
    Chunk,
    ClassScores,
    EngineGone,
    EngineStats,
    Extract,
    GenerateRequest,
    Score,
    TaggedSpan,
    TokenLogprob,
)
from treadle.lm.engine_process import Answers, EngineProcess, Lost
from treadle.lm.engine_settings import WorkerSettings, convert_settings
from treadle.lm.engine_wire import Classify, Embed, Failed, Generate, Request, Tag, Tokens
from treadle.lm.engine_wire import Extract as ExtractMessage
from treadle.lm.engine_wire import Score as ScoreMessage
from treadle.lm.model_folder import model_folder, read_config
from treadle.lm.schema_check import SchemaChecks
from treadle.lm.shared_process import AdapterProcess, join
from treadle.lm.stop_strings import StopStrings
from treadle.lm.tokenizer import ChatTokenizer
from treadle.lm.vector_sizes import VectorSizes

_MAX_STOP = 64  # strings


class WorkerEngine:
    """Base of the engines that run in a worker; a subclass names its backend, its settings and what it can open."""

    name: ClassVar[str]
    backend: ClassVar[str]
    """``module:Class`` of the ``engine_worker.Backend``."""
    settings_type: ClassVar[type[WorkerSettings]] = WorkerSettings
    preference: ClassVar[int] = 0
    """``auto`` takes the engine with the highest among those that suit."""
    reads_gguf: ClassVar[bool] = False
    holds_schema: ClassVar[bool] = False
    tries_schema: ClassVar[bool] = False  # whether taking one apart may never end, so that a process tries it first
    most_alternatives: ClassVar[int] = 0
    loads_adapters: ClassVar[bool] = False  # of releases that keep theirs beside the base
    shares_base: ClassVar[bool] = False  # whether it does so while it runs, one process for all that have one base

    def __init__(
        self, folder: Path, tokenizer: ChatTokenizer, process: EngineProcess | AdapterProcess, context_length: int
    ) -> None:
        self.folder = folder
        self.context_length = context_length
        self._tokenizer = tokenizer
        self._process = process
        self._schemas = SchemaChecks()

    @classmethod
    def suits(cls, folder: Path) -> bool:
        """True when this engine is installed and ``folder`` holds a model in a form that it opens."""
        raise NotImplementedError

    @classmethod
    def check(cls, folder: Path) -> None:
        """``UserError`` when the files are damaged or their package is missing. Runs while the worker loads."""
        raise NotImplementedError

    @classmethod
    def python(cls) -> str:
        """The interpreter that runs the worker; ``UserError`` where there is none."""
        return sys.executable

    @classmethod
    def environment(cls, settings: WorkerSettings) -> dict[str, str]:
        """Variables of the worker's process beside those that all have."""
        return {}

    @classmethod
    async def open(cls, folder: Path, *, threads: int | None = None, settings: dict[str, Any] | None = None) -> Self:
        """As ``Engine.open``; ``folder`` is a model's, or a release's with ``model/`` in it."""
        return await cls._open(folder, threads, settings, here=False)

    @classmethod
    async def _open(cls, folder: Path, threads: int | None, settings: dict[str, Any] | None, *, here: bool) -> Self:
        model = model_folder(folder)
        adapter = adapter_of(model)
        given = cls.read_settings(settings or {})
        if adapter is not None:
            given = cls.with_adapters(given)
        count = _checked_threads(threads)
        environment = {
            "OMP_WAIT_POLICY": given.wait_policy,
            "OMP_NUM_THREADS": str(count),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            **cls.environment(given),
        }
        make = partial(
            EngineProcess,
            cls.backend,
            model,
            threads=count,
            settings=msgspec.to_builtins(given),
            environment=environment,
            hang_seconds=given.hang_seconds,
            here=here,
            python=cls.python(),
        )
        process: EngineProcess | AdapterProcess
        if adapter is not None and cls.shares_base:
            key = (cls.backend, adapter.base, count, msgspec.json.encode(given), cls.python())
            process = join(key, make, adapter, model)
        else:
            process = make()
        # The files are checked while the worker loads them: a damaged one can crash it, and this says why.
        opening = asyncio.create_task(process.start())
        try:
            await asyncio.to_thread(cls.check, model)
            if adapter is not None:
                await asyncio.to_thread(adapter.check, model)
                if not cls.shares_base:  # who shares it checks it once
                    await asyncio.to_thread(adapter.check_base, model)
            tokenizer = await asyncio.to_thread(ChatTokenizer.load, model)
            ready = await opening
        except BaseException:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            await process.close()
            raise
        return cls(model, tokenizer, process, ready.context_length)

    @classmethod
    def read_settings(cls, settings: Mapping[str, Any]) -> WorkerSettings:
        """Settings as the engine's own type; ``UserError`` for an unknown key or a value of the wrong type."""
        return convert_settings(cls.name, cls.settings_type, settings)

    @classmethod
    def with_adapters(cls, settings: WorkerSettings) -> WorkerSettings:
        """Settings for a process that adapters are loaded into."""
        return settings

    @property
    def tokenizer(self) -> ChatTokenizer:
        """The model's; shared, so that nobody need load it again."""
        return self._tokenizer

    @cached_property
    def vector_sizes(self) -> VectorSizes | None:
        """To which its vectors may be cut; None: to none."""
        return VectorSizes.of(read_config(self.folder))

    @property
    def worker_pid(self) -> int | None:
        """The process that computes; ``None`` while there is none."""
        return self._process.pid

    def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """As ``Engine.generate``."""
        room = self._checked_room(request)
        return self._stream(request, min(request.max_tokens, room))

    async def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
        """As ``Engine.score``."""
        for index, (prompt, continuation) in enumerate(pairs):
            self._check_ids((*prompt, *continuation), f"pairs[{index}]")
            if not prompt:
                raise UserError(f"pairs[{index}]: the prompt needs at least one token, for the first one's probability")
            room = self._tokenizer.room(self.context_length, len(prompt))
            if self.context_length and len(continuation) > room:
                raise UserError(
                    f"pairs[{index}]: {len(prompt)} + {len(continuation)} tokens;"
                    f" the context holds {self.context_length}; shorten the text"
                )
        asked = [(list(prompt), list(continuation)) for prompt, continuation in pairs if continuation]
        values = iter((await self._process.call(lambda n: ScoreMessage(n, asked))).rows if asked else [])
        return [Score(tuple(next(values)) if continuation else ()) for _, continuation in pairs]

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """As ``Engine.embed``."""
        return (await self._process.call(lambda n: Embed(n, list(texts)))).rows if texts else []

    async def classify(self, texts: Sequence[str]) -> list[ClassScores]:
        """As ``Engine.classify``."""
        if not texts:
            return []
        values = await self._process.call(lambda n: Classify(n, list(texts)))
        labels = tuple(values.labels)
        return [ClassScores(labels, tuple(row)) for row in values.rows]

    async def tag(self, texts: Sequence[str]) -> list[list[TaggedSpan]]:
        """As ``Engine.tag``."""
        if not texts:
            return []
        values = await self._process.call(lambda n: Tag(n, list(texts)))
        return [
            [
                TaggedSpan(int(start), int(end), values.labels[int(kind)], score)
                for start, end, kind, score in zip(*[iter(row)] * 4, strict=True)
            ]
            for row in values.rows
        ]

    async def extract(self, pairs: Sequence[tuple[str, str]]) -> list[Extract]:
        """As ``Engine.extract``."""
        if not pairs:
            return []
        values = await self._process.call(lambda n: ExtractMessage(n, list(pairs)))
        return [Extract(int(start), int(end), score) for start, end, score in values.rows]

    def stats(self) -> EngineStats:
        """As ``Engine.stats``; ``EngineGone`` while there is no worker."""
        return self._process.stats()

    async def close(self) -> None:
        """As ``Engine.close``."""
        await self._process.close()

    async def _stream(self, request: GenerateRequest, max_tokens: int) -> AsyncIterator[Chunk]:
        if request.schema is not None and self.tries_schema:
            await self._schemas.check(request.schema)
        text = _AnswerText(self._tokenizer, request)
        asked = await self._process.ask(_message(request, max_tokens, sorted(self._tokenizer.eos_ids)))
        try:
            finish = None
            while finish is None:
                chunk = text.take(await _arrived(asked.answers))
                if chunk is not None:
                    finish = chunk.finish_reason
                    yield chunk
        finally:
            self._process.release(asked)

    def _checked_room(self, request: GenerateRequest) -> int:
        """The most tokens that the context leaves for the answer."""
        where = f"request {request.id}"
        if not request.prompt_ids:
            raise UserError(f"{where}: the prompt is empty; expected at least one token")
        self._check_ids(request.prompt_ids, where)
        ranges: tuple[tuple[str, bool, str], ...] = (
            ("max_tokens", request.max_tokens >= 1, "at least 1"),
            ("temperature", 0 <= request.temperature <= 100, "between 0 and 100"),
            ("top_p", 0 < request.top_p <= 1, "above 0 and at most 1"),
            ("seed", request.seed is None or 0 <= request.seed < 1 << 63, "a whole number from 0"),
            ("stop", all(request.stop) and len(request.stop) <= _MAX_STOP, f"at most {_MAX_STOP} strings, none empty"),
        )
        for name, good, expected in ranges:
            if not good:
                raise UserError(f"{where}: {name} is {getattr(request, name)!r}; expected {expected}")
        if not 0 <= request.alternatives <= self.most_alternatives:
            raise UserError(
                f"{where}: alternatives is {request.alternatives}; the {self.name} engine tells of"
                f" {self.most_alternatives} at most"
            )
        if request.schema is not None and not self.holds_schema:
            raise UserError(f"{where}: the {self.name} engine cannot hold an answer to a schema")
        limit = self.context_length
        room = self._tokenizer.room(limit, len(request.prompt_ids)) if limit else request.max_tokens
        if room < 1:
            raise UserError(
                f"{where}: the prompt has {len(request.prompt_ids)} tokens and the context holds"
                f" {self.context_length}, the answer included; shorten the prompt"
            )
        return room

    def _check_ids(self, ids: Sequence[int], where: str) -> None:
        size = self._tokenizer.vocabulary_size
        if ids and (min(ids) < 0 or max(ids) >= size):
            bad = next(i for i in ids if not 0 <= i < size)
            raise UserError(
                f"{where}: token id {bad} is outside the vocabulary of {size}; encode with this model's own"
            )


class _AnswerText:
    """From the tokens of one request to its chunks."""

    def __init__(self, tokenizer: ChatTokenizer, request: GenerateRequest) -> None:
        self._tokenizer = tokenizer
        self._decoder = tokenizer.decoder()
        self._stop = StopStrings(request.stop)
        self._tells_others = request.alternatives > 0
        self._tokens = 0  # taken and not yet told of, because their text is not whole
        self._logprobs: list[float] = []
        self._others: list[tuple[TokenLogprob, ...]] = []

    def take(self, answers: list[Tokens | Lost | Failed]) -> Chunk | None:
        """A chunk of all that arrived together; ``None`` when no text is certain yet."""
        pieces: list[str] = []
        for answer in answers:
            match answer:
                case Failed():
                    raise UserError(answer.message) if answer.user else EngineGone(answer.message)
                case Lost():
                    return self._chunk("".join(pieces), "cancelled" if answer.closed else "error")
                case Tokens():
                    self._tokens += len(answer.ids)
                    self._logprobs += answer.logprobs
                    if self._tells_others:
                        self._others += self._told(answer)
                    pieces.append(self._stop.push(self._decoder.push(answer.ids)))
                    if answer.finish is not None and not self._stop.hit:
                        pieces.append(self._stop.push(self._decoder.finish()))
                    if self._stop.hit:
                        return self._chunk("".join(pieces), "stop")
                    if answer.finish is not None:
                        return self._chunk("".join(pieces) + self._stop.finish(), answer.finish)
        text = "".join(pieces)
        return self._chunk(text, None) if text else None

    def _chunk(self, text: str, finish: Literal["stop", "length", "cancelled", "error"] | None) -> Chunk:
        chunk = Chunk(text, self._tokens, finish, tuple(self._logprobs), tuple(self._others))
        self._tokens, self._logprobs, self._others = 0, [], []
        return chunk

    def _told(self, answer: Tokens) -> Iterator[tuple[TokenLogprob, ...]]:
        spell = self._tokenizer.spell
        for token, logprob, others in zip(answer.ids, answer.logprobs, answer.alternatives, strict=True):
            itself = TokenLogprob(b"" if token in self._tokenizer.eos_ids else spell(token), logprob)
            yield (itself, *(TokenLogprob(spell(other), value) for other, value in others))


async def _arrived(answers: Answers) -> list[Tokens | Lost | Failed]:
    """Everything that has come, at least one thing."""
    found = [await answers.get()]
    while not answers.empty():
        found.append(answers.get_nowait())
    return [answer for answer in found if isinstance(answer, Tokens | Lost | Failed)]


def _message(request: GenerateRequest, max_tokens: int, stop_ids: list[int]) -> Callable[[int], Request]:
    seed = request.seed if request.seed is not None else secrets.randbits(31)
    return lambda number: Generate(
        number,
        list(request.prompt_ids),
        max_tokens,
        request.temperature,
        request.top_p,
        seed,
        request.logprobs or request.alternatives > 0,
        [] if request.ignore_eos else stop_ids,
        request.schema,
        request.alternatives,
    )


def _checked_threads(threads: int | None) -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads is not None and threads < 1:
        raise UserError(f"threads: {threads}; expected at least 1")
    return min(threads or available, available)
