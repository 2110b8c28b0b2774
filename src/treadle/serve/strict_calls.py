"""Functions with ``strict: true`` where the model decides whether to call one: it writes freely until it calls, and
that call is then written anew, held to the schemas of all functions.

That it calls shows by the tags that open a call, at which what it writes is given up, or, of a call without tags, at
the end of the answer. There is one call in an answer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from treadle.lm.engine import Chunk, GenerateRequest
from treadle.lm.tool_prompt import CLOSES, OPENS, with_functions, with_written_calls
from treadle.serve.tools import CallsInStream

if TYPE_CHECKING:
    from treadle.serve.exchange import Source


def strict_calls(generate: Source, tools: Sequence[Mapping[str, Any]], schema: str) -> Source:
    """A source of answers from what ``generate`` says. ``schema``: as `call_schema` makes it of the ``tools``."""

    async def answer(request: GenerateRequest) -> AsyncGenerator[Chunk]:
        watch, written = CallsInStream(), 0
        async with aclosing(cast("Any", generate(request))) as chunks:
            async for chunk in chunks:
                if chunk.restarted:
                    watch, written = CallsInStream(), 0
                written += chunk.tokens
                text, rest, calls = watch.feed(chunk.text), "", watch.opened
                if chunk.finish_reason is not None and not calls:
                    rest, found = watch.end()
                    calls = bool(found)
                yield replace(chunk, text=text + rest, finish_reason=None if calls else chunk.finish_reason)
                if calls:
                    break
            else:
                return
        left = request.max_tokens - written
        if left < 1:
            yield Chunk("", 0, "length")
            return
        yield await _call(generate, _held(request, tools, schema, left))

    return answer


def _held(request: GenerateRequest, tools: Sequence[Mapping[str, Any]], schema: str, left: int) -> GenerateRequest:
    """The same prompt, for the call alone. To a server with a template of its own that is text, as with an answer that
    is held to a call from its beginning."""
    said = request.said
    if said is not None and not isinstance(said, str):
        said = tuple(with_functions(with_written_calls(said), tools))
    return replace(request, id=f"{request.id}-call", max_tokens=left, schema=schema, said=said, tools=(), whole=True)


async def _call(generate: Source, request: GenerateRequest) -> Chunk:
    """The call, whole and in its tags."""
    chunks: list[Chunk] = []
    async with aclosing(cast("Any", generate(request))) as stream:
        async for chunk in stream:
            if chunk.restarted:
                chunks.clear()
            chunks.append(chunk)
            if chunk.finish_reason is not None:
                break
    last = chunks[-1] if chunks else Chunk("")
    return replace(
        last,
        text=f"{OPENS}\n{''.join(chunk.text for chunk in chunks)}\n{CLOSES}",
        tokens=sum(chunk.tokens for chunk in chunks),
        logprobs=tuple(value for chunk in chunks for value in chunk.logprobs),
        alternatives=tuple(each for chunk in chunks for each in chunk.alternatives),
        restarted=False,
    )
