"""The engine ``upstream``: servers elsewhere that speak OpenAI's API, in place of an engine here.

They run the release's model; what they say that they run is reported with each answer. A request goes to one of the
addresses and, while nothing of the answer was streamed, to another when that fails.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

import pydantic

from treadle.core.errors import UserError
from treadle.lm.breaker import Breaker
from treadle.lm.engine import (
    Chunk,
    ClassScores,
    EngineStats,
    Extract,
    GenerateRequest,
    Reported,
    ReportedVectors,
    Score,
    TaggedSpan,
)
from treadle.lm.model_folder import model_folder, read_config
from treadle.lm.tokenizer import ChatTokenizer
from treadle.lm.upstream_address import Address, Addresses, Attempt, UpstreamError, UpstreamState
from treadle.lm.upstream_client import JSON, UpstreamClient
from treadle.lm.upstream_reader import Reader, shown
from treadle.lm.upstream_settings import WHERE, UpstreamSettings
from treadle.lm.upstream_wire import (
    LARGEST,
    Events,
    GarbledError,
    embeddings_body,
    path_and_body,
    read_vectors,
)
from treadle.lm.vector_sizes import VectorSizes

logger = logging.getLogger("treadle.upstream")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds before the same address is asked again
_NO_TEXTS = "the server that answers continues no plain texts; send a conversation"
_TEXTS = 128  # whose embeddings are asked for at once
_UNSAID_LENGTH = 4096  # tokens, where neither model nor server says


@dataclass(slots=True)
class _Asked:
    """A request as it is sent; ``tried`` are the addresses that it went to, ``deadline`` is on the loop's clock."""

    id: str
    path: str
    body: bytes
    deadline: float
    tried: list[Address]
    request: GenerateRequest | None = None  # for text


class UpstreamEngine:
    """One for each release; made in the event loop that uses it."""

    name = "upstream"
    reads_gguf = False

    def __init__(
        self, settings: UpstreamSettings, tokenizer: ChatTokenizer, vector_sizes: VectorSizes | None = None
    ) -> None:
        """``open`` does more: it looks whether the servers are there. ``vector_sizes``: to which the model's vectors
        may be cut."""
        self.settings = settings
        self.tokenizer = tokenizer
        self.vector_sizes = vector_sizes
        self.context_length = tokenizer.context_length or _UNSAID_LENGTH
        self.holds_schema = settings.structured and settings.ask == "chat"
        rules = settings.breaker
        self._addresses = Addresses(
            [Address(url, Breaker(rules.failures, rules.window, rules.pause)) for url in settings.addresses()],
            round_robin=settings.spread == "round_robin",
        )
        self._path = "/chat/completions" if settings.ask == "chat" else "/completions"
        self._closed = False
        self._client = UpstreamClient(settings)  # last: it has to be closed

    @classmethod
    async def open(cls, folder: Path, *, threads: int | None = None, settings: dict[str, Any] | None = None) -> Self:
        """As ``Engine.open``. ``UserError`` when none of the servers is there, or none takes the key."""
        given = read_settings(settings or {})
        model = model_folder(folder)
        tokenizer = await asyncio.to_thread(ChatTokenizer.load, model)
        engine = cls(given, tokenizer, VectorSizes.of(read_config(model)))
        try:
            await engine._look()
        except BaseException:
            await engine.close()
            raise
        return engine

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """As ``Engine.generate``. Raises ``UpstreamError``, or ``UserError`` for what the server refuses."""
        loop = asyncio.get_running_loop()
        path, body = path_and_body(request, self.settings)
        asked = _Asked(request.id, path, body, loop.time() + self.settings.timeout, [], request)
        begun = False
        while True:
            address = await self._next(asked)
            try:
                with address.asked() as attempt:
                    async with aclosing(self._answer(address, asked, attempt)) as chunks:
                        async for chunk in chunks:
                            begun = True
                            yield chunk
            except UpstreamError as error:
                if self._closed:
                    yield Chunk("", 0, "cancelled")
                    return
                if self._is_last(asked, error) or (begun and not request.whole):
                    raise
                if begun:
                    begun = False
                    yield Chunk("", restarted=True)
            else:
                return

    def _is_last(self, asked: _Asked, error: UpstreamError) -> bool:
        """Whether no further attempt is made after this one."""
        level = logging.WARNING if error.code == "upstream_misconfigured" else logging.INFO
        logger.log(level, "attempt %d of %s: %s", len(asked.tried), asked.id, error)
        return len(asked.tried) > self.settings.retries or asyncio.get_running_loop().time() >= asked.deadline

    async def _next(self, asked: _Asked) -> Address:
        """Where the next attempt goes; after a pause where that is where the last one went, not all at once."""
        address = self._addresses.take(asked.tried)
        if address in asked.tried:
            left = max(0.0, asked.deadline - asyncio.get_running_loop().time())
            seconds = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (len(asked.tried) - 1))
            await asyncio.sleep(min(left, seconds * random.uniform(0.5, 1.0)))  # noqa: S311
        asked.tried.append(address)
        return address

    async def _answer(self, address: Address, asked: _Asked, attempt: Attempt) -> AsyncGenerator[Chunk]:
        """One attempt: nothing is given before the server said something of the answer."""
        assert asked.request is not None
        reader = Reader(asked.request, address.place, len(asked.tried), self._client.key)
        lacks = "" if asked.path == self._path else _NO_TEXTS
        try:
            answer = await self._client.answer(address, asked.path, asked.body, asked.deadline, lacks=lacks)
            try:
                events = Events()
                while not events.over:
                    for event in events.feed(await answer.read()):
                        if (chunk := reader.feed(event)) is not None:
                            yield chunk
                last = reader.end()
                await answer.finish()
            finally:
                answer.close()
        except GarbledError as error:
            raise UpstreamError(f"{address.place} answered with {error}", "upstream_garbled") from None
        except UserError:
            attempt.outcome = "refused"
            raise
        attempt.outcome = "ok"
        yield last

    async def _look(self) -> None:
        """Whether somebody is there and takes our key, and how long a context they have."""
        found = await asyncio.gather(
            *(self._client.context_length(each) for each in self._addresses.all), return_exceptions=True
        )
        failures = [each for each in found if isinstance(each, BaseException)]
        for error in failures:
            if not isinstance(error, UpstreamError):
                raise error
        if len(failures) == len(found):
            raise UserError(f"{WHERE}: {failures[0]}; start the server, or correct urls, model and api_key")
        for error in failures:
            logger.warning("%s", error)
        lengths = [each for each in found if isinstance(each, int) and each]
        self.context_length = min([self.context_length, *lengths])

    def upstreams(self) -> list[UpstreamState]:
        """How each address stands, for metrics."""
        return [each.state() for each in self._addresses.all]

    def stats(self) -> EngineStats:
        """As ``Engine.stats``: what waits there is not known here."""
        return EngineStats(running=sum(each.running for each in self._addresses.all))

    async def close(self) -> None:
        """As ``Engine.close``."""
        self._closed = True
        await self._client.close()

    async def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
        """Refused: the API has no way to ask for it."""
        _refuse("score")

    async def embed(self, texts: Sequence[str]) -> ReportedVectors:
        """As ``Engine.embed``. Raises as `generate`."""
        deadline = asyncio.get_running_loop().time() + self.settings.timeout
        found = ReportedVectors([], [])
        for start in range(0, len(texts), _TEXTS):
            some = texts[start : start + _TEXTS]
            asked = _Asked("embeddings", "/embeddings", embeddings_body(some, self.settings), deadline, [])
            vectors, model = await self._embedded(asked, len(some))
            found += vectors
            name = shown(model, self._client.key)
            found.reported += (Reported(asked.tried[-1].place, len(asked.tried), name),)
        return found

    async def _embedded(self, asked: _Asked, count: int) -> tuple[list[list[float]], str | None]:
        while True:
            address = await self._next(asked)
            try:
                with address.asked() as attempt:
                    return await self._vectors(address, asked, attempt, count)
            except UpstreamError as error:
                if self._closed or self._is_last(asked, error):
                    raise

    async def _vectors(
        self, address: Address, asked: _Asked, attempt: Attempt, count: int
    ) -> tuple[list[list[float]], str | None]:
        """One attempt."""
        data = bytearray()
        try:
            answer = await self._client.answer(address, asked.path, asked.body, asked.deadline, kind=JSON)
            try:
                while piece := await answer.read():
                    data += piece
                    if len(data) > LARGEST:
                        raise GarbledError("more than an answer can be")
            finally:
                answer.close()
            found = read_vectors(bytes(data), count)
        except GarbledError as error:
            raise UpstreamError(f"{address.place} answered with {error}", "upstream_garbled") from None
        except UserError:
            attempt.outcome = "refused"
            raise
        attempt.outcome = "ok"
        return found

    async def classify(self, texts: Sequence[str]) -> list[ClassScores]:
        """Refused, as `score`."""
        _refuse("classify")

    async def tag(self, texts: Sequence[str]) -> list[list[TaggedSpan]]:
        """Refused, as `score`."""
        _refuse("tag")

    async def extract(self, pairs: Sequence[tuple[str, str]]) -> list[Extract]:
        """Refused, as `score`."""
        _refuse("extract")


def read_settings(settings: dict[str, Any]) -> UpstreamSettings:
    """Settings of a release; ``UserError`` names what is wrong."""
    if not settings:
        raise UserError(f"{WHERE} is missing: give urls, such as [http://127.0.0.1:8001/v1], and model")
    try:
        return UpstreamSettings.model_validate(settings)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join([WHERE, *map(str, first["loc"])])
        raise UserError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def _refuse(what: str) -> NoReturn:
    raise UserError(f"engine upstream cannot {what}: it asks for text and embeddings only; choose another engine")
