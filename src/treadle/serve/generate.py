"""``/v1/chat/completions`` and ``/v1/completions``: from a body to a generation and its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from treadle.core.errors import UserError
from treadle.lm.engine import Chunk
from treadle.lm.tool_prompt import with_functions, with_written_calls
from treadle.serve.aside import aside
from treadle.serve.client import ClientLeft
from treadle.serve.context import with_context
from treadle.serve.entry import ContextPiece, Entry, clean_long_texts
from treadle.serve.errors import (
    ApiError,
    context_length_exceeded,
    from_decoding,
    from_user_error,
    invalid,
    unsupported,
)
from treadle.serve.exchange import Exchange, Generation, Source
from treadle.serve.fallback import answered, became
from treadle.serve.formats import held_schema
from treadle.serve.incoming import Incoming
from treadle.serve.reading import Reading
from treadle.serve.release import Serving
from treadle.serve.replies import DONE, ChatShape, CompletionShape, Events, Shape, traced, usage
from treadle.serve.requests import ChatMessage, ChatRequest, CompletionRequest, Sampling, asked_in_vain
from treadle.serve.screening import screen
from treadle.serve.strict_calls import strict_calls
from treadle.serve.table import Chosen
from treadle.serve.tool_choice import call_schema, demanded_calls, is_strict
from treadle.serve.tools import CallsInStream, as_said, asked_tools, check_answers, with_calls

_chat_decoder = msgspec.json.Decoder(ChatRequest)
_completion_decoder = msgspec.json.Decoder(CompletionRequest)
_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would gather events otherwise
]
ENDED_BY_US = ("shutting_down", "invalid_api_key")  # while they were under way, which says nothing of the release
_NOT_GENERATIVE = {
    "classify": "/v1/classify",
    "tag": "/v1/tag",
    "embed": "/v1/embeddings",
    "extract": "/v1/chat/completions",
}


async def chat(incoming: Incoming) -> None:
    """Answer ``POST /v1/chat/completions``."""
    body: ChatRequest = decode(_chat_decoder, await incoming.body())
    await answered(incoming, body.model, body.user or body.safety_identifier, partial(_chat, body))


async def _chat(body: ChatRequest, incoming: Incoming, chosen: Chosen) -> None:
    user = body.user or body.safety_identifier
    serving = chosen.serving
    messages, tools = _messages(body.messages), asked_tools(body)
    demanded, strict = demanded_calls(body, serving), is_strict(body, serving)
    entry = _entry(incoming, body, "chat", ())
    entry.share, entry.user = chosen.share, user
    given = [[each.text, each.title, each.id] for each in body.context or ()]
    entry.messages, entry.context = with_written_calls(messages), _pieces(given)
    schema = held_schema(body, serving)
    held = None if schema is None else msgspec.json.decode(schema)
    messages, tools, given, shown = await screen(incoming, serving, entry, (messages, tools, given, held), "messages")
    if shown != held:  # what an answer is held to is said to the model, too
        schema = msgspec.json.encode(shown).decode()
    if demanded:
        schema = call_schema(tools, demanded)
    context = _pieces(given)
    entry.messages, entry.context = with_written_calls(messages), context
    try:
        prompt = with_context(messages, context)
    except ValueError:
        raise invalid("context", "context: goes with the last user message, and there is none") from None
    system = serving.release.system_prompt
    if system and not any(m["role"] == "system" for m in prompt):
        prompt.insert(0, {"role": "system", "content": system})
    asked = _most_tokens(body)

    alternatives = _alternatives(serving, "top_logprobs", body.top_logprobs)
    if alternatives and not body.logprobs:
        raise invalid("top_logprobs", "top_logprobs: only goes with logprobs: true")

    def prepare() -> Awaitable[Generation]:
        return _generation(
            serving, body, prompt, asked,
            logprobs=bool(body.logprobs), tools=tools, schema=schema, alternatives=alternatives,
        )  # fmt: skip

    if serving.release.asking == "extract":
        reading = Reading.of(serving, body, messages, context)
        await _answer(incoming, serving, entry, body, reading.prepare, ChatShape(), reading.answer)
        return
    source: Source | None = None
    if strict:
        source = strict_calls(serving.engine.generate, tools, call_schema(tools, range(len(tools))))
    await _answer(incoming, serving, entry, body, prepare, ChatShape(), source)


async def completions(incoming: Incoming) -> None:
    """Answer ``POST /v1/completions``."""
    body: CompletionRequest = decode(_completion_decoder, await incoming.body())
    await answered(incoming, body.model, body.user, partial(_complete, body))


async def _complete(body: CompletionRequest, incoming: Incoming, chosen: Chosen) -> None:
    serving = chosen.serving
    prompt = body.prompt if isinstance(body.prompt, str) else body.prompt[0]
    if not prompt:
        raise invalid("prompt", "prompt: expected a text that is not empty")
    entry = _entry(incoming, body, "completions", [{"role": "user", "content": prompt}])
    entry.share = chosen.share
    (text,) = await screen(incoming, serving, entry, (prompt,), "prompt")
    entry.messages = [{"role": "user", "content": text}]

    alternatives = _alternatives(serving, "logprobs", body.logprobs)

    def prepare() -> Awaitable[Generation]:
        logprobs = body.logprobs is not None
        return _generation(serving, body, text, body.max_tokens, logprobs=logprobs, alternatives=alternatives)

    await _answer(incoming, serving, entry, body, prepare, CompletionShape())


def _pieces(given: Sequence[Sequence[Any]]) -> list[ContextPiece]:
    return [ContextPiece(text=text, title=title, document=document) for text, title, document in given]


def decode(decoder: msgspec.json.Decoder[Any], data: bytes) -> Any:
    """Read a body and refuse what this server cannot honor. Raises 400."""
    try:
        body = decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise from_decoding(error) from None
    return body


def refuse_in_vain(body: msgspec.Struct, where: str = "") -> None:
    """Raises 400 for a field that is set to something this server cannot do."""
    if (name := asked_in_vain(body)) is not None:
        raise unsupported(where + name, "what it asks for")


def _messages(given: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Roles and texts as the chat template knows them: developer is system, parts are joined."""
    messages = []
    for i, message in enumerate(given):
        where = f"messages[{i}]"
        if message.role == "function":
            raise unsupported(f"{where}.role", f"the role {message.role!r}")
        refuse_in_vain(message, f"{where}.")
        content = message.content
        if isinstance(content, list):
            for j, part in enumerate(content):
                if part.type != "text":
                    raise unsupported(f"{where}.content[{j}].type", "anything but text")
                refuse_in_vain(part, f"{where}.content[{j}].")
                if part.text is None:
                    raise invalid(f"{where}.content[{j}].text", f"{where}.content[{j}].text: expected a text")
            content = "\n".join(part.text or "" for part in content)
        if content is None and message.tool_calls:
            content = ""
        if content is None:
            raise invalid(f"{where}.content", f"{where}.content: expected a text, got null")
        messages.append(as_said(message, content, i))
    check_answers(messages)
    return messages


def _alternatives(serving: Serving, field: str, asked: int | None) -> int:
    """How many tokens are told of at each place beside the one chosen. Raises 400."""
    most = getattr(serving.engine, "most_alternatives", 0)
    if asked and serving.release.asking not in _NOT_GENERATIVE and asked > most:
        told = f"telling of more than {most}" if most else "telling of any"
        raise unsupported(field, f"{told} alternatives to a token, on the {serving.engine.name} engine,")
    return asked or 0


def _most_tokens(body: ChatRequest) -> int | None:
    old, new = body.max_tokens, body.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise invalid("max_tokens", "max_tokens: contradicts max_completion_tokens; send the latter only")
    return new if new is not None else old


def _entry(incoming: Incoming, body: Sampling, endpoint: str, messages: Sequence[Mapping[str, Any]]) -> Entry:
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options", "stream_options: only goes with stream: true")
    refuse_in_vain(body)
    entry = Entry(
        model=incoming.model,
        request=incoming.request,
        endpoint=endpoint,
        arrived=incoming.arrived,
        messages=[dict(message) for message in messages],
        user=body.user,
        key=incoming.key,
        store=body.store is not False,
        stream=bool(body.stream),
        metadata=body.metadata,
    )
    became(incoming, entry)
    return entry


async def _generation(
    serving: Serving,
    body: Sampling,
    prompt: str | list[dict[str, Any]],
    asked: int | None,
    *,
    logprobs: bool,
    tools: Sequence[dict[str, Any]] = (),
    schema: str | None = None,
    alternatives: int = 0,
) -> Generation:
    """Tokenize and check against the context length. Raises 400."""
    release, tokenizer = serving.release, serving.tokenizer
    if tokenizer is None or release.asking in _NOT_GENERATIVE:
        instead = _NOT_GENERATIVE.get(release.asking, "another endpoint")
        raise invalid("model", f"model: {release.name} does not write text; use {instead}", code="wrong_endpoint")
    if logprobs and serving.guardrails.outward:
        raise unsupported("logprobs", "what tells of tokens beside the text that guardrails let out")
    encoder = tokenizer

    def encode() -> list[int]:
        if isinstance(prompt, str):
            return encoder.encode_prompt(prompt)
        return encoder.encode_chat(prompt, tools=tools or None)

    size = len(prompt) if isinstance(prompt, str) else sum(len(m["content"]) for m in prompt)
    try:
        ids = await aside(size, encode)
    except UserError as error:
        raise from_user_error(error) from None
    limit = serving.engine.context_length
    room, param = encoder.room(limit, len(ids)), "prompt" if isinstance(prompt, str) else "messages"
    if asked is not None and asked > room:
        raise context_length_exceeded(limit, len(ids), asked, param=param)
    if room < 1:
        raise context_length_exceeded(limit, len(ids), None, param=param)
    if not ids:
        raise invalid(param, f"{param}: came to no token at all")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return Generation(
        prompt_ids=tuple(ids),
        max_tokens=asked if asked is not None else min(release.max_tokens, room),
        temperature=release.temperature if body.temperature is None else body.temperature,
        top_p=release.top_p if body.top_p is None else body.top_p,
        stop=stop,
        seed=None if body.seed is None else body.seed % 2**31,  # what every engine can take, with room for n
        n=body.n or 1,
        logprobs=logprobs,
        tools=tuple(tools),
        schema=schema,
        alternatives=alternatives,
        said=_said(prompt, tools if schema is not None else ()),
    )


def _said(prompt: str | list[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> str | tuple[Mapping[str, Any], ...]:
    """The prompt for a server with a template of its own. An answer that is held to a call is text to it: it is told of
    these ``tools`` in words, or it would call them its own way."""
    if isinstance(prompt, str):
        return prompt
    return tuple(with_functions(with_written_calls(prompt), tools) if tools else prompt)


async def _answer(
    incoming: Incoming,
    serving: Serving,
    entry: Entry,
    body: Sampling,
    prepare: Callable[[], Awaitable[Generation]],
    shape: Shape,
    source: Source | None = None,
) -> None:
    """Run it and send what comes; once the engine was asked, it leaves its row, however it ends."""
    counted = body.stream_options is not None and bool(body.stream_options.include_usage)
    exchange: Exchange | None = None
    try:
        async with incoming.working(serving, entry.endpoint):
            generation = await prepare()
            exchange = Exchange(incoming.gateway, serving, entry, generation, source, passed_on=incoming.other)
            await clean_long_texts(incoming.gateway, entry)
            async with incoming.metered(serving, exchange.generation.most, exchange.used):
                if body.stream and incoming.copy_of is None:  # nobody reads a copy's answer piece by piece
                    await _stream(incoming, exchange, shape, counted=counted)
                else:
                    await _whole(incoming, exchange, shape)
    except ClientLeft:
        if exchange is not None:
            exchange.cancel("client_left")
        raise
    except ApiError as error:
        if exchange is not None and error.code in ENDED_BY_US:
            exchange.cancel(error.code)
        elif exchange is not None:
            exchange.fail(error)
        if exchange is None or not incoming.status:
            raise
        incoming.failed = error.code
        with suppress(TimeoutError):  # a client that does not read is not waited for
            async with asyncio.timeout(5):
                await incoming.write(_events(exchange, shape, counted=counted).error(error), more=False)
    except asyncio.CancelledError:
        if exchange is not None:
            exchange.cancel("cancelled", void=incoming.in_vain)
        raise


async def _whole(incoming: Incoming, exchange: Exchange, shape: Shape) -> None:
    g, entry, release = exchange.generation, exchange.entry, exchange.serving.release
    chunks: list[list[Chunk]] = [[] for _ in range(g.n)]
    async with aclosing(exchange.chunks()) as stream:
        async for index, chunk in stream:
            if chunk.restarted:
                chunks[index].clear()
            if g.logprobs:
                chunks[index].append(chunk)
    answers = exchange.answers()
    choices = [
        shape.choice(i, text, exchange.reasons[i] or "stop", chunks[i] if g.logprobs else None)
        for i, text in enumerate(answers)
    ]
    if g.tools:
        pairs = zip(choices, answers, strict=True)
        choices = [with_calls(choice, text, exchange.checked_calls) for choice, text in pairs]
    exchange.finish()
    await incoming.reply(
        {
            "id": entry.id,
            "object": shape.whole,
            "created": int(entry.time.timestamp()),
            "model": release.name,
            "system_fingerprint": release.digest,
            "choices": choices,
            "usage": usage(exchange.tokens),
        },
        headers=traced(entry.id, release.digest),
    )


async def _stream(incoming: Incoming, exchange: Exchange, shape: Shape, *, counted: bool) -> None:
    """Headers go out with the first chunk, so that an engine that cannot start is still a proper error."""
    g = exchange.generation
    events = _events(exchange, shape, counted=counted)
    opened = [False] * g.n
    offsets = [0] * g.n
    left = g.n
    held = [CallsInStream(exchange.checked_calls) for _ in range(g.n if g.tools else 0)]
    async with aclosing(exchange.chunks()) as stream:
        async for index, came in stream:
            data = b""
            if not opened[index]:
                opened[index] = True
                data = events.opening(index)
            reason = came.finish_reason
            chunk, calls = _held(held[index], came) if held else (came, [])
            data += events.text(index, chunk, logprobs=g.logprobs, offset=offsets[index])
            offsets[index] += len(chunk.text)
            if reason is not None:
                left -= 1
                data += events.calls(index, calls) if calls else b""
                stopped = bool(held) and held[index].stopped
                data += events.closing(index, "tool_calls" if calls else "content_filter" if stopped else reason)
                if not left:
                    exchange.finish()  # the row is written before the client learns that it was the last
                    data += (events.usage(exchange.tokens) if counted else b"") + DONE
            if not incoming.status:
                said = traced(exchange.entry.id, exchange.serving.release.digest)
                await incoming.start(200, _STREAM_HEADERS + [(k.encode(), v.encode()) for k, v in said.items()])
            if data:
                await incoming.write(data, more=left > 0)
                if not left:
                    return


def _held(held: CallsInStream, chunk: Chunk) -> tuple[Chunk, list[dict[str, Any]]]:
    """The chunk with the text that may go out, and the calls where it is the last."""
    text = held.feed(chunk.text)
    calls: list[dict[str, Any]] = []
    if chunk.finish_reason is not None:
        rest, calls = held.end()
        text += rest
    return replace(chunk, text=text), calls


def _events(exchange: Exchange, shape: Shape, *, counted: bool) -> Events:
    release, entry = exchange.serving.release, exchange.entry
    return Events(
        shape,
        interaction=entry.id,
        created=int(entry.time.timestamp()),
        model=release.name,
        fingerprint=release.digest,
        n=exchange.generation.n,
        counted=counted,
    )
