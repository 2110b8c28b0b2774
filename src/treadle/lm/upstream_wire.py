"""What is sent to a server that speaks OpenAI's API, and what comes back: bodies, events of a stream, calls of tools.

Nothing here trusts the server: events have a size, types and values are checked, and what is none of this raises
``GarbledError``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from treadle.core.errors import MissingExtra, UserError
from treadle.lm.engine import FinishReason, GenerateRequest
from treadle.lm.upstream_settings import UpstreamSettings

try:
    import msgspec
except ModuleNotFoundError:
    raise MissingExtra("msgspec", extra="serve") from None

LARGEST = 32 << 20  # bytes of one answer
_LARGEST_EVENT = 4 << 20  # bytes
_MOST_TOKENS = 100_000_000  # that a server may claim
_MOST_CALLS = 128
_ENDINGS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_calls": "stop",  # they stand in the text, where whoever reads it finds them
    "function_call": "stop",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}


class GarbledError(Exception):
    """What came is not what was agreed on. The words say what was wrong and quote nothing."""


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int = 0
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _TokenLogprob(msgspec.Struct):
    logprob: float


class _Logprobs(msgspec.Struct):
    content: list[_TokenLogprob] | None = None  # of a chat
    token_logprobs: list[float | None] | None = None  # of a completion


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """Counts of tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class Event(msgspec.Struct):
    """One event of a stream."""

    choices: list[_Choice] = []
    usage: Usage | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    error: Any = None

    @property
    def choice(self) -> _Choice | None:
        """The one there is; ``GarbledError`` where there are others."""
        if not self.choices:
            return None
        if len(self.choices) > 1 or self.choices[0].index != 0:
            raise GarbledError("more answers than one")
        return self.choices[0]


_decoder = msgspec.json.Decoder(Event)


def path_and_body(request: GenerateRequest, settings: UpstreamSettings) -> tuple[str, bytes]:
    """Where a request is sent, below the address, and what. ``UserError`` where the servers cannot be asked for it."""
    body: dict[str, Any] = {
        "model": settings.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
    }
    if request.temperature > 0:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop"] = list(request.stop)
    if request.seed is not None:
        body["seed"] = request.seed
    if request.ignore_eos:
        body["ignore_eos"] = True
    if settings.ask == "tokens" or isinstance(request.said, str):
        body["prompt"] = list(request.prompt_ids) if settings.ask == "tokens" else request.said
        if request.logprobs:
            body["logprobs"] = 0
        path = "/completions"
    elif request.said is None:
        raise UserError("engine upstream: these token ids come without their text; set deploy.upstream.ask: tokens")
    else:
        body["messages"] = [_message(each) for each in request.said]
        if request.tools:
            body["tools"] = list(request.tools)
        if request.logprobs:
            body["logprobs"] = True
        path = "/chat/completions"
    if request.schema is not None:
        held = {"name": "answer", "schema": json.loads(request.schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": held}
    try:
        return path, msgspec.json.encode(body)
    except (UnicodeError, ValueError, RecursionError):
        raise UserError("engine upstream: the request cannot be written as JSON") from None


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as OpenAI has it: arguments of calls are text, and answers of tools have no name."""
    made = {key: value for key, value in message.items() if key in ("role", "content", "tool_call_id")}
    if calls := message.get("tool_calls"):
        made["tool_calls"] = [
            {
                "id": call.get("id") or f"call{number:05d}",
                "type": "function",
                "function": {
                    "name": call["function"]["name"],
                    "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
                },
            }
            for number, call in enumerate(calls)
        ]
        made["content"] = made.get("content") or None
    return made


class Events:
    """The events of a body: ``feed`` every piece and, where the body ended, an empty one, until it is ``over``."""

    def __init__(self) -> None:
        self.over = False
        self._left = b""
        self._received = 0

    def feed(self, piece: bytes) -> Iterator[Event]:
        """What a piece completes. Raises ``GarbledError``."""
        self._received += len(piece)
        if self._received > LARGEST:
            raise GarbledError(f"more than {LARGEST:,} bytes")
        *lines, self._left = (self._left + (piece or b"\n")).split(b"\n")
        if len(self._left) > _LARGEST_EVENT:
            raise GarbledError(f"an event of more than {_LARGEST_EVENT:,} bytes")
        for line in lines:
            if not line.startswith(b"data:"):  # comments that keep the line open, names of events, what parts them
                continue
            said = line[5:].strip()
            if said == b"[DONE]":
                self.over = True
                return
            if said or piece:
                yield _event(said)
        self.over = not piece


def _event(said: bytes) -> Event:
    try:
        return _decoder.decode(said)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise GarbledError("an event that is none of a completion's") from None


def ending(reason: str) -> FinishReason:
    """Ours for the server's; ``GarbledError`` for one that nobody knows."""
    try:
        return _ENDINGS[reason]
    except KeyError:
        raise GarbledError("an answer that ended for a reason that is none of OpenAI's") from None


def logprobs_of(choice: _Choice) -> tuple[float, ...]:
    """One a token; none where the server gave none."""
    given = choice.logprobs
    if given is None:
        return ()
    if given.content is not None:
        return tuple(each.logprob for each in given.content)
    return tuple(each for each in given.token_logprobs or () if each is not None)


def counted(value: int | None) -> int | None:
    """Tokens that a server says it counted; None for what cannot be."""
    return value if value is not None and 0 <= value <= _MOST_TOKENS else None


class Calls:
    """Calls of tools, which come in pieces."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._arguments: dict[int, list[str]] = {}

    def feed(self, calls: Sequence[_Call]) -> None:
        """Some more of them. Raises ``GarbledError``."""
        for call in calls:
            if not 0 <= call.index < _MOST_CALLS:
                raise GarbledError(f"more than {_MOST_CALLS} calls of tools")
            if call.function is None:
                continue
            if call.function.name:
                self._names[call.index] = call.function.name
            self._arguments.setdefault(call.index, []).append(call.function.arguments or "")

    def text(self) -> str:
        """All of them as a model writes them, so that they are read, guarded and recorded as any others. Raises
        ``GarbledError`` for arguments that are no JSON object."""
        written = []
        for index, pieces in sorted(self._arguments.items()):
            try:
                arguments = json.loads("".join(pieces) or "{}")
            except (ValueError, RecursionError):
                arguments = None
            if not isinstance(arguments, dict) or index not in self._names:
                raise GarbledError("a call of a tool without a name, or whose arguments are no JSON object")
            call = json.dumps({"name": self._names[index], "arguments": arguments}, ensure_ascii=False)
            written.append(f"\n<tool_call>\n{call}\n</tool_call>")
        return "".join(written)


class _Vector(msgspec.Struct):
    embedding: list[float]
    index: int


class _Vectors(msgspec.Struct):
    data: list[_Vector]
    model: str | None = None


_vectors_decoder = msgspec.json.Decoder(_Vectors)


def embeddings_body(texts: Sequence[str], settings: UpstreamSettings) -> bytes:
    """What is sent for the vectors of some texts; as numbers, which all servers know."""
    try:
        return msgspec.json.encode({"model": settings.model, "input": list(texts), "encoding_format": "float"})
    except UnicodeError:
        raise UserError("engine upstream: the texts cannot be written as JSON") from None


def read_vectors(data: bytes, count: int) -> tuple[list[list[float]], str | None]:
    """The vectors in an answer, in the order of the texts, all of one length; and the server's name for the model.
    Raises ``GarbledError``."""
    try:
        said = _vectors_decoder.decode(data)
    except (msgspec.DecodeError, RecursionError):
        raise GarbledError("no embeddings") from None
    found = sorted(said.data, key=lambda each: each.index)
    vectors = [each.embedding for each in found]
    if [each.index for each in found] != list(range(count)) or len({len(vector) for vector in vectors}) != 1:
        raise GarbledError("embeddings that are not those of the texts")
    if not vectors[0]:
        raise GarbledError("embeddings of no length")
    return vectors, said.model
