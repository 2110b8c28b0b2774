"""One generation on its way through the engine: its chunks, its counts, and its one row in the record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import msgspec

from treadle.core.errors import TreadleError, UserError
from treadle.lm.engine import Chunk, GenerateRequest, Reported
from treadle.lm.upstream_address import TooLongError, UpstreamError
from treadle.record.interaction import Status, Tokens
from treadle.serve.entry import Entry, Outcome, logger, record
from treadle.serve.errors import (
    FAILED_OVER,
    SERVER,
    ApiError,
    engine_unavailable,
    from_user_error,
    internal_error,
    invalid,
    upstream_failed,
)
from treadle.serve.gateway import Gateway
from treadle.serve.guardrail import Screen, Stopped, screened
from treadle.serve.release import Serving


@dataclass(frozen=True, slots=True)
class Generation:
    """What the engine is asked for: ``n`` continuations of one prompt. ``tools``: those that it shows; ``said``: what
    it was made of, as in `GenerateRequest`."""

    prompt_ids: tuple[int, ...]
    max_tokens: int
    temperature: float
    top_p: float
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    logprobs: bool = False
    tools: tuple[Mapping[str, Any], ...] = ()
    schema: str | None = None
    alternatives: int = 0
    said: str | tuple[Mapping[str, Any], ...] | None = None

    @property
    def most(self) -> Tokens:
        """What it can use."""
        return Tokens(prompt=len(self.prompt_ids), completion=self.max_tokens * self.n)

    def most_read(self) -> int:
        """Tokens that the prompt can have come to at a server with another tokenizer and template: one for each byte of
        what was said, as JSON, and what a template adds of its own."""
        try:
            size = len(msgspec.json.encode((self.said, self.tools, self.schema)))
        except (UnicodeError, ValueError, RecursionError):  # such a request is sent as token ids, if at all
            size = 0
        return max(size, len(self.prompt_ids)) + _TEMPLATE


Source = Callable[[GenerateRequest], AsyncIterator[Chunk]]
_OF_SCHEMA = "response_format: "  # how engines begin when they cannot hold an answer to one
_TEMPLATE = 1024  # tokens; a system prompt by default and instructions for tools come to some hundreds


class Exchange:
    """Iterate `chunks` to the end, then call `finish`; on any other way out `fail` or `cancel`. The first counts."""

    def __init__(
        self,
        gateway: Gateway,
        serving: Serving,
        entry: Entry,
        generation: Generation,
        source: Source | None = None,
        *,
        passed_on: Callable[[ApiError], Serving | None],
    ) -> None:
        """``source`` gives the answer to a request; by default the engine generates it. ``passed_on``: the release, if
        any, that is asked after an error, so that what came of this one was for nothing."""
        self.gateway = gateway
        self._passed_on = passed_on
        self.serving = serving
        self.entry = entry
        self.generation = generation
        self._source: Source = source or serving.engine.generate
        self.texts: list[list[str]] = [[] for _ in range(generation.n)]
        self.reasons: list[str | None] = [None] * generation.n
        self._written = [0] * generation.n
        self._reported: list[Reported] = []
        outward = serving.guardrails.outward
        self._screens = [Screen(outward) for _ in range(generation.n)] if outward else []
        self._recorded = False
        self._void = False
        entry.stop = generation.stop
        entry.parameters = {
            "max_tokens": generation.max_tokens,
            "temperature": generation.temperature,
            "top_p": generation.top_p,
            "n": generation.n,
            "seed": generation.seed,
        }
        if generation.tools:
            entry.parameters["tools"] = [tool["function"]["name"] for tool in generation.tools]
        if generation.schema is not None:
            entry.parameters["schema"] = entry.model.recorder.keyed_text(generation.schema)

    @property
    def tokens(self) -> Tokens:
        """What was read and written so far, nothing where that came to nothing; by the count of the server that
        answered, where one did and says."""
        if self._void:
            return Tokens()
        reported, g = self._reported, self.generation
        written = sum(min(each, g.max_tokens) for each in self._written)
        if not reported:
            return Tokens(len(g.prompt_ids), written)
        prompt = max((each.prompt for each in reported if each.prompt is not None), default=len(g.prompt_ids))
        caches = [min(each.cached, prompt) for each in reported if each.cached is not None]
        return Tokens(prompt=prompt, completion=written, cached=max(caches, default=None))

    def used(self) -> Tokens | None:
        """The same once the engine was asked; None where it failed before it wrote anything."""
        return None if self.entry.handed_over is None or self._void else self.tokens

    async def chunks(self) -> AsyncGenerator[tuple[int, Chunk]]:
        """(index of the choice, chunk) as they come. Raises ``ApiError``; closing it cancels the engine's work."""
        entry = self.entry
        entry.handed_over = time.perf_counter()
        try:
            streams = [self._source(self._request(i)) for i in range(self.generation.n)]
            merged = _numbered(streams[0]) if len(streams) == 1 else _merged(streams, self.reasons)
            async with aclosing(merged):
                async for index, came in merged:
                    if self.reasons[index] is not None:  # a choice that was stopped, while others go on
                        self._written[index] += came.tokens
                        continue
                    if came.restarted:
                        self._forget(index)
                    chunk = self._checked(index, came) if self._screens else came
                    self._note(index, chunk)
                    yield index, chunk
                    if self._screens and None not in self.reasons:
                        break
        except Exception as error:
            told = translated(error, entry.id)
            if self.generation.tools and told.message.startswith(_OF_SCHEMA):  # which was made of the tools
                told.message = "tools: " + told.message.removeprefix(_OF_SCHEMA)
            self._void = self._came_to_nothing(told)
            raise told from error
        if None in self.reasons:
            told = ApiError(500, "The engine ended before the answer did", type=SERVER, code="engine_failed")
            self._void = self._came_to_nothing(told)
            raise told

    def _came_to_nothing(self, error: ApiError) -> bool:
        """Whether nobody pays for it: nothing was written before this error, or another release answers now."""
        free = error.code in FAILED_OVER or error.status == 400
        return free and (not any(self._written) or self._passed_on(error) is not None)

    def finish(self) -> None:
        """The answer is whole. Raises 503 when it cannot be recorded."""
        self._record("ok", None)

    def fail(self, error: ApiError) -> None:
        """The answer is not coming."""
        with suppress(ApiError):  # a record that cannot be written is logged; the client hears of the first error
            self._record("failed", error.code)

    def cancel(self, why: str, *, void: bool = False) -> None:
        """Nobody waits any more: ``client_left`` or ``shutting_down``; ``void``: and nobody pays."""
        self._void = self._void or void
        with suppress(ApiError):
            self._record("cancelled", why)

    def answers(self) -> list[str]:
        """The text of each choice so far."""
        return ["".join(pieces) for pieces in self.texts]

    def _checked(self, index: int, chunk: Chunk) -> Chunk:
        """The chunk with the text that may go out."""
        screen = self._screens[index]
        text = screen.feed(chunk.text)
        if chunk.finish_reason in ("stop", "length") and not screen.stopped:
            text += screen.end()
        return replace(chunk, text=text, finish_reason="content_filter" if screen.stopped else chunk.finish_reason)

    def checked_calls(self, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Calls of tools as they may go out, none where a guardrail refuses one: what stands in them was written as
        JSON, in which a text can hide from who looks at the answer as it came."""
        outward = self.serving.guardrails.outward
        if not outward:
            return calls
        try:
            shown, done = screened(outward, calls, "out")
        except Stopped as stopped:
            self.entry.guardrails.append(stopped.done)
            return []
        self.entry.guardrails += done
        return shown

    def _request(self, index: int) -> GenerateRequest:
        g = self.generation
        return GenerateRequest(
            id=self.entry.id if g.n == 1 else f"{self.entry.id}-{index}",
            prompt_ids=g.prompt_ids,
            max_tokens=g.max_tokens,
            temperature=g.temperature,
            top_p=g.top_p,
            stop=g.stop,
            seed=None if g.seed is None else g.seed + index,  # one seed for all would give n times the same
            logprobs=g.logprobs,
            schema=g.schema,
            alternatives=g.alternatives,
            said=g.said,
            tools=g.tools if g.schema is None else (),  # with one, they stand in what is said
            whole=not self.entry.stream,
        )

    def _note(self, index: int, chunk: Chunk) -> None:
        if self.entry.first is None and (chunk.tokens or chunk.text):
            self.entry.first = time.perf_counter()
        self._written[index] += chunk.tokens
        if chunk.reported is not None:
            self._note_reported(index, chunk.reported)
        if chunk.text:
            self.texts[index].append(chunk.text)
        if chunk.finish_reason in ("error", "cancelled"):
            raise engine_unavailable()
        if chunk.finish_reason is not None:
            self.reasons[index] = chunk.finish_reason

    def _forget(self, index: int) -> None:
        """What came of a choice was void."""
        self.texts[index].clear()
        self._written[index] = 0
        if self._screens:
            self._screens[index] = Screen(self.serving.guardrails.outward)

    def _note_reported(self, index: int, reported: Reported) -> None:
        """What a server counted goes before what came, as far as the request can have come to that: a key pays it."""
        g, prompt, completion = self.generation, reported.prompt, reported.completion
        overstated: dict[str, int] = {}
        if prompt is not None and prompt > len(g.prompt_ids) and prompt > (most := g.most_read()):
            overstated["prompt"], prompt = prompt, most
        if completion is not None and completion <= g.max_tokens:
            self._written[index] = completion
        elif (claimed := completion or self._written[index]) > g.max_tokens:
            overstated["completion"] = claimed
        self._reported.append(replace(reported, prompt=prompt))
        if self.entry.upstream is None:  # the first choice's, as with the answer
            told = {"place": reported.place, "model": reported.model, "fingerprint": reported.fingerprint}
            self.entry.upstream = {**told, "attempts": reported.attempts}
        if overstated:
            logger.warning("%s: %s claims more tokens than there can be: %s", self.entry.id, reported.place, overstated)
            self.entry.upstream["overstated"] = overstated

    def _record(self, status: Status, error: str | None) -> None:
        if self._recorded or self.entry.handed_over is None:  # what never reached the engine is no interaction
            return
        self._recorded = True
        self.entry.guardrails += [done for screen in self._screens for done in screen.done]
        reasons = [reason for reason in self.reasons if reason is not None]
        reason = "cancelled" if status == "cancelled" else "error" if status == "failed" else reasons[0]
        outcome = Outcome(status, self.answers(), finish_reason=reason, error=error, tokens=self.tokens)
        record(self.gateway, self.serving, self.entry, outcome)


def translated(error: Exception, request: str) -> ApiError:
    """What a client is told of a failure in the engine; what nobody foresaw is logged by its place."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, TooLongError):
        return invalid("messages", str(error), code="context_length_exceeded")
    if isinstance(error, UserError):
        return from_user_error(error)
    if isinstance(error, UpstreamError):
        return upstream_failed(error.code, error.retry_after)
    if isinstance(error, TreadleError | ConnectionError | EOFError):
        return engine_unavailable()
    log_place(request, error)
    return internal_error()


def log_place(request: str, error: BaseException) -> None:
    """Log where something failed, without the exception's text, which may hold a user's."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        places.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    logger.error("%s failed: %s at %s", request, type(error).__name__, " < ".join(reversed(places[-6:])))


async def _numbered(stream: AsyncIterator[Chunk]) -> AsyncGenerator[tuple[int, Chunk]]:
    async with aclosing(cast("Any", stream)):
        async for chunk in stream:
            yield 0, chunk
            if chunk.finish_reason is not None:
                return


async def _merged(streams: list[AsyncIterator[Chunk]], reasons: list[str | None]) -> AsyncGenerator[tuple[int, Chunk]]:
    """Chunks of several streams in the order they come; the first to fail ends all. One that has a reason to end is
    given up at its next chunk: the engine need not write what nobody gets."""
    queue: asyncio.Queue[tuple[int, Chunk] | BaseException | None] = asyncio.Queue()

    async def pump(index: int, stream: AsyncIterator[Chunk]) -> None:
        try:
            async with aclosing(_numbered(stream)) as numbered:
                async for _, chunk in numbered:
                    queue.put_nowait((index, chunk))
                    if reasons[index] is not None:
                        break
        except Exception as error:
            queue.put_nowait(error)
        else:
            queue.put_nowait(None)

    tasks = [asyncio.create_task(pump(i, stream)) for i, stream in enumerate(streams)]
    left = len(tasks)
    try:
        while left:
            item = await queue.get()
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
