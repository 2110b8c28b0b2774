"""What an engine's two processes say to each other: MessagePack messages, each behind its length in four bytes.

The parent numbers its requests. The worker answers generation with one ``Report`` a step, for all requests together,
and everything else with one message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Literal

from treadle.core.errors import MissingExtra, TreadleError

try:
    import msgspec
except ModuleNotFoundError:
    raise MissingExtra("msgspec", extra="serve") from None

_LENGTH = struct.Struct(">I")
_MAX_FRAME = 256 << 20  # bytes; a million scored tokens take nine
Finish = Literal["stop", "length", "cancelled", "error"]


class LoadAdapter(msgspec.Struct, tag="load_adapter"):
    """Load the adapter in a folder beside the base, for requests that name it by ``adapter``, from 1.

    ``digest``, ``base`` and ``rank`` as ``adapter.Adapter`` has them. Answered by ``Values`` without rows.
    """

    number: int
    adapter: int
    folder: str
    digest: str
    base: str
    rank: int


class DropAdapter(msgspec.Struct, tag="drop_adapter"):
    """Nobody asks for it any more. Not answered."""

    adapter: int


class Open(msgspec.Struct, tag="open"):
    """The first message: which backend (``module:Class``) is to open which folder, with which adapters beside it."""

    backend: str
    folder: str
    threads: int | None
    settings: dict[str, Any]
    adapters: list[LoadAdapter] = []


class Generate(msgspec.Struct, tag="generate"):
    """A checked request. ``seed`` is always given: drawn by the parent where the caller gave none.

    ``stop_ids`` end the answer and are part of it; empty: only ``max_tokens`` ends it. ``adapter``: one that was
    loaded; 0 is the model as it is.
    """

    number: int
    prompt_ids: list[int]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    logprobs: bool
    stop_ids: list[int]
    schema: str | None = None
    alternatives: int = 0
    adapter: int = 0


class Cancel(msgspec.Struct, tag="cancel"):
    """Answered by a last ``Tokens`` unless the request has ended by itself."""

    number: int


class Score(msgspec.Struct, tag="score"):
    """Pairs of prompt and continuation."""

    number: int
    pairs: list[tuple[list[int], list[int]]]
    adapter: int = 0


class Embed(msgspec.Struct, tag="embed"):
    """Texts to turn into vectors."""

    number: int
    texts: list[str]


class Classify(msgspec.Struct, tag="classify"):
    """Texts to label."""

    number: int
    texts: list[str]


class Tag(msgspec.Struct, tag="tag"):
    """Texts to find spans in."""

    number: int
    texts: list[str]


class Extract(msgspec.Struct, tag="extract"):
    """Pairs of a question and a text that may hold its answer."""

    number: int
    pairs: list[tuple[str, str]]


class Close(msgspec.Struct, tag="close"):
    """End, now."""


class Ready(msgspec.Struct, tag="ready"):
    """The model is loaded and warm. ``context_length`` in tokens, as far as memory allows."""

    context_length: int


class Tokens(msgspec.Struct, array_like=True):
    """New tokens of one request. ``logprobs`` is empty unless asked for, and so are ``alternatives``: for each, id and
    log-probability of the most probable ones at its place.
    """

    number: int
    ids: list[int]
    logprobs: list[float] = []
    finish: Finish | None = None
    alternatives: list[list[tuple[int, float]]] = []


class Report(msgspec.Struct, tag="report"):
    """After every step. ``running`` and ``queued`` count the requests left."""

    tokens: list[Tokens]
    running: int
    queued: int


class Values(msgspec.Struct, tag="values"):
    """The answer to ``Score``, ``Embed``, ``Classify``, ``Tag`` and ``Extract``: one row an item. ``labels`` name the
    columns of a row of ``Classify``; a row of ``Tag`` is four numbers a span: start, end, place in ``labels``,
    probability; a row of ``Extract`` is start, end, probability.
    """

    number: int
    rows: list[list[float]]
    labels: list[str] = []


class Failed(msgspec.Struct, tag="failed"):
    """A request that cannot be done, or the opening (``number`` 0). ``user``: theirs to mend."""

    number: int
    message: str
    user: bool


Request = Open | LoadAdapter | DropAdapter | Generate | Cancel | Score | Embed | Classify | Tag | Extract | Close
Reply = Ready | Report | Values | Failed

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode(message: Request | Reply) -> bytes:
    """One frame."""
    body = _encoder.encode(message)
    if len(body) > _MAX_FRAME:
        raise TreadleError(
            f"a message to or from the engine takes {len(body)} bytes; at most {_MAX_FRAME} are possible"
        )
    return _LENGTH.pack(len(body)) + body


def decode_request(body: bytes) -> Request:
    """What the parent said."""
    return _requests.decode(body)


def decode_reply(body: bytes) -> Reply:
    """What the worker said."""
    return _replies.decode(body)


class FrameBuffer:
    """Puts the pieces that arrive together again."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The frames that are whole now; ``TreadleError`` when the other side does not speak this protocol."""
        self._data += data
        start = 0
        while len(self._data) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._data, start)
            if length > _MAX_FRAME:
                raise TreadleError(f"a message of {length} bytes from the engine; at most {_MAX_FRAME} are possible")
            end = start + _LENGTH.size + length
            if len(self._data) < end:
                break
            yield bytes(self._data[start + _LENGTH.size : end])
            start = end
        if start:
            del self._data[:start]
