"""The answer of a server, event by event, as the chunks that every engine gives."""

from __future__ import annotations

from treadle.core.errors import UserError
from treadle.lm.engine import Chunk, GenerateRequest, Reported
from treadle.lm.upstream_address import UpstreamError
from treadle.lm.upstream_wire import Calls, Event, GarbledError, Usage, counted, ending, logprobs_of

_SHORTEST_KEY = 8  # characters of a key that is looked for in answers; a shorter one may be a word
_LONGEST_NAME = 200


class Reader:
    """One answer: ``feed`` every event, then ``end``. ``number`` counts the attempts, ``key`` is what was sent."""

    def __init__(self, request: GenerateRequest, place: str, number: int, key: str) -> None:
        self._wants_logprobs = request.logprobs
        self._place, self._number = place, number
        self._key = key if len(key) >= _SHORTEST_KEY else ""
        self._calls = Calls()
        self._tail = ""
        self._reason: str | None = None
        self._model: str | None = None
        self._fingerprint: str | None = None
        self._usage: Usage | None = None

    def feed(self, event: Event) -> Chunk | None:
        """The chunk with what it says of the answer; None where that is nothing. Raises ``UpstreamError``,
        ``GarbledError`` and, where log-probabilities are missing, ``UserError``."""
        if event.error is not None:
            raise UpstreamError(f"{self._place} failed in the middle", "upstream_unavailable")
        self._model = event.model or self._model
        self._fingerprint = event.system_fingerprint or self._fingerprint
        self._usage = event.usage or self._usage
        choice = event.choice
        if choice is None:
            return None
        self._reason = choice.finish_reason or self._reason
        delta = choice.delta
        if delta is not None and delta.tool_calls:
            self._calls.feed(delta.tool_calls)
        text = choice.text or (delta.content or delta.refusal if delta is not None else None) or ""
        logprobs = logprobs_of(choice) if self._wants_logprobs else ()
        if text and self._wants_logprobs and not logprobs:
            raise UserError("the server that answers gives no log-probabilities; leave logprobs out")
        if not text and not logprobs:
            return None
        self._watch(text)
        return Chunk(text, len(logprobs) or 1, None, logprobs)

    def end(self) -> Chunk:
        """The last chunk. Raises ``GarbledError`` where the answer has no end."""
        if self._reason is None:
            raise GarbledError("an answer without an end")
        text = self._calls.text()
        self._watch(text)
        return Chunk(text, 0, ending(self._reason), reported=self._reported())

    def _reported(self) -> Reported:
        usage = self._usage or Usage()
        details = usage.prompt_tokens_details
        return Reported(
            self._place,
            self._number,
            shown(self._model, self._key),
            shown(self._fingerprint, self._key),
            counted(usage.prompt_tokens),
            counted(usage.completion_tokens),
            counted(details.cached_tokens) if details is not None else None,
        )

    def _watch(self, text: str) -> None:
        """Raises ``GarbledError`` where the server says our key, which then goes no further."""
        if not self._key:
            return
        self._tail += text
        if self._key in self._tail:
            raise GarbledError("the key that it was sent")
        self._tail = self._tail[-len(self._key) :]


def shown(said: str | None, key: str) -> str | None:
    """What may be recorded of a name that a server was told a ``key`` by."""
    if said is None:
        return None
    said = said.replace(key, "[secret]") if len(key) >= _SHORTEST_KEY else said
    return "".join(c if c.isprintable() else "?" for c in said[:_LONGEST_NAME])
