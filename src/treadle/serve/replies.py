"""The bytes of OpenAI-style answers: whole ones, and the events of a stream."""

from __future__ import annotations

from typing import Any

import msgspec

from treadle.lm.engine import Chunk, TokenLogprob
from treadle.record.interaction import Tokens
from treadle.serve.errors import ApiError

DONE = b"data: [DONE]\n\n"
INTERACTION, RELEASE = "treadle-interaction", "treadle-release"  # headers: for clients that see little of the body
_encode = msgspec.json.encode


def traced(interaction: str, release: str) -> dict[str, str]:
    """The headers that say what answered; both lead into the record."""
    return {INTERACTION: interaction, RELEASE: release}


def usage(tokens: Tokens) -> dict[str, Any]:
    """Counts; ``cached_tokens`` only where the engine says."""
    counts: dict[str, Any] = {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
    }
    if tokens.cached is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": tokens.cached}
    return counts


def chat_logprobs(chunks: list[Chunk]) -> dict[str, Any]:
    """One entry a token. Where several tokens came as one piece of text, it stands with the first of them, unless the
    engine tells of each, as it does beside alternatives."""
    entries = []
    for chunk in chunks:
        for itself, *others in chunk.alternatives:
            entries.append(_entry(itself) | {"top_logprobs": [_entry(each) for each in others]})
        for position, value in enumerate(chunk.logprobs if not chunk.alternatives else ()):
            text = chunk.text if position == 0 else ""
            entries.append({"token": text, "logprob": value, "bytes": list(text.encode()), "top_logprobs": []})
    return {"content": entries, "refusal": None}


def completion_logprobs(chunks: list[Chunk], offset: int = 0) -> dict[str, Any]:
    """The older shape of the same; ``offset`` is where the first chunk's text begins in the answer. Of alternatives
    that are written alike (parts of characters), the most probable one counts."""
    tokens: list[str] = []
    values: list[float] = []
    offsets: list[int] = []
    tops: list[dict[str, float]] = []
    for chunk in chunks:
        begun = 0
        for position, value in enumerate(chunk.logprobs):
            if chunk.alternatives:
                itself = chunk.alternatives[position][0]
                told = sorted(chunk.alternatives[position], key=lambda each: each.logprob)
                tops.append({_written(each): each.logprob for each in told})
                tokens.append(_written(itself))
                offsets.append(offset + min(begun, len(chunk.text)))
                begun += len(tokens[-1])
            else:
                tokens.append(chunk.text if position == 0 else "")
                offsets.append(offset if position == 0 else offset + len(chunk.text))
            values.append(value)
        offset += len(chunk.text)
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops or None, "text_offset": offsets}


def _entry(told: TokenLogprob) -> dict[str, Any]:
    return {"token": _written(told), "logprob": told.logprob, "bytes": list(told.token)}


def _written(told: TokenLogprob) -> str:
    return told.token.decode("utf-8", "replace")


class ChatShape:
    """``chat.completion`` and ``chat.completion.chunk``."""

    whole = "chat.completion"
    piece = "chat.completion.chunk"

    def choice(self, index: int, text: str, reason: str, chunks: list[Chunk] | None) -> dict[str, Any]:
        """A choice of a whole answer; ``chunks`` where log-probabilities were asked for."""
        return {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None if chunks is None else chat_logprobs(chunks),
            "finish_reason": reason,
        }

    def opening(self, index: int) -> dict[str, Any] | None:
        """The choice of the first event."""
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def delta(self, index: int, text: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        """The choice of an event with text."""
        return {"index": index, "delta": {"content": text}, "logprobs": logprobs, "finish_reason": None}

    def closing(self, index: int, reason: str) -> dict[str, Any]:
        """The choice of the event that ends it."""
        return {"index": index, "delta": {}, "logprobs": None, "finish_reason": reason}

    def logprobs(self, chunk: Chunk, _offset: int) -> dict[str, Any]:
        """Of one event."""
        return chat_logprobs([chunk])


class CompletionShape:
    """``text_completion``, whole and in pieces."""

    whole = "text_completion"
    piece = "text_completion"

    def choice(self, index: int, text: str, reason: str, chunks: list[Chunk] | None) -> dict[str, Any]:
        """A choice of a whole answer; ``chunks`` where log-probabilities were asked for."""
        logprobs = None if chunks is None else completion_logprobs(chunks)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def opening(self, _index: int) -> dict[str, Any] | None:
        """None: a text completion opens with its text."""
        return None

    def delta(self, index: int, text: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        """The choice of an event with text."""
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": None}

    def closing(self, index: int, reason: str) -> dict[str, Any]:
        """The choice of the event that ends it."""
        return {"index": index, "text": "", "logprobs": None, "finish_reason": reason}

    def logprobs(self, chunk: Chunk, offset: int) -> dict[str, Any]:
        """Of one event."""
        return completion_logprobs([chunk], offset)


Shape = ChatShape | CompletionShape


class Events:
    """Server-sent events of one stream. What all have in common is encoded once, because a token costs one event."""

    def __init__(
        self,
        shape: Shape,
        *,
        interaction: str,
        created: int,
        model: str,
        fingerprint: str,
        n: int,
        counted: bool,
    ) -> None:
        """``counted``: the client asked for usage, so every event has the field."""
        head = {
            "id": interaction,
            "object": shape.piece,
            "created": created,
            "model": model,
            "system_fingerprint": fingerprint,
        }
        self.shape = shape
        self._head = b"data: " + _encode(head)[:-1] + b',"choices":'
        self._tail = b',"usage":null}\n\n' if counted else b"}\n\n"
        # Encoded with a mark where the text goes, then cut in two there.
        cut = [(self._head + _encode([shape.delta(i, "\0", None)]) + self._tail).split(b'"\\u0000"') for i in range(n)]
        self._around = [(before, after) for before, after in cut]

    def opening(self, index: int) -> bytes:
        """The first event of a choice, empty where the shape has none."""
        choice = self.shape.opening(index)
        return b"" if choice is None else self._event(choice)

    def text(self, index: int, chunk: Chunk, *, logprobs: bool, offset: int) -> bytes:
        """A piece of text, empty for a chunk that has none."""
        if logprobs and chunk.logprobs:
            return self._event(self.shape.delta(index, chunk.text, self.shape.logprobs(chunk, offset)))
        if not chunk.text:
            return b""
        before, after = self._around[index]
        return before + _encode(chunk.text) + after

    def calls(self, index: int, calls: list[dict[str, Any]]) -> bytes:
        """The event with calls of tools, whole."""
        return self._event({"index": index, "delta": {"tool_calls": calls}, "logprobs": None, "finish_reason": None})

    def closing(self, index: int, reason: str) -> bytes:
        """The event with the reason why it ended."""
        return self._event(self.shape.closing(index, reason))

    def usage(self, tokens: Tokens) -> bytes:
        """The event with the counts."""
        return self._head + b'[],"usage":' + _encode(usage(tokens)) + b"}\n\n"

    def error(self, error: ApiError) -> bytes:
        """An error in the middle; the stream then ends without ``[DONE]``."""
        return b"data: " + _encode(error.body()) + b"\n\n"

    def _event(self, choice: dict[str, Any]) -> bytes:
        return self._head + _encode([choice]) + self._tail
