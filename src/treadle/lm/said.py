"""Which characters of a rendered conversation the assistant says, whatever the template does around them.

Three ways, the first that applies:

1. The template says it itself, with ``{% generation %}``.
2. The conversation grows turn by turn: an answer is what its turn adds behind the prompt that asks for it.
3. It does not, because later turns change earlier ones (thoughts are taken out, the last turn ends otherwise, the
   prompt opens a thought that history does not hold). Then the conversation is rendered again with one message
   exchanged for a character that occurs nowhere, and an answer is where the two texts differ, from the end of the
   assistant's header to the end of its turn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from treadle.core.errors import UserError
from treadle.lm.chat_template import ChatTemplate

Message = Mapping[str, Any]
Spans = list[tuple[int, int]]


class Said:
    """One conversation as one template renders it. ``free`` are two characters that occur in none of its strings;
    ``control`` the texts of the tokens that only a template may write.
    """

    def __init__(
        self,
        template: ChatTemplate,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None,
        free: tuple[str, str],
        control: frozenset[str],
    ) -> None:
        self._template, self._messages, self._tools = template, list(messages), tools
        self._free, self._control = free, control
        self.whole = self._render(self._messages, False)

    def spans(self) -> Spans:
        """``(start, end)`` in ``whole`` of each of the assistant's turns, in order, an end token included.

        Raises ``UserError`` where a template gives no way to tell.
        """
        if self._template.marks_generation:
            return self._by_marks()
        spans = self._by_turns()
        return self._by_probes() if spans is None else spans

    def _render(self, messages: Sequence[Message], prompt: bool) -> str:
        return self._template.render(messages, prompt, self._tools)

    def _try(self, messages: Sequence[Message], prompt: bool) -> str | None:
        try:
            return self._render(messages, prompt)
        except UserError:
            return None

    def _speakers(self) -> list[int]:
        return [place for place, message in enumerate(self._messages) if message["role"] == "assistant"]

    def _by_marks(self) -> Spans:
        opens, closes = self._free
        text = self._template.render(self._messages, False, self._tools, marks=self._free)
        spans: Spans = []
        at = start = 0
        for piece in re.split(f"([{opens}{closes}])", text):
            if piece == opens:
                start = at
            elif piece == closes:
                spans.append((start, at))
            else:
                at += len(piece)
        return _joined(spans)

    def _by_turns(self) -> Spans | None:
        spans: Spans = []
        for place in self._speakers():
            start, end = self._try(self._messages[:place], True), self._try(self._messages[: place + 1], False)
            if place == 0 or start is None or end is None:
                return None
            if not (end.startswith(start) and self.whole.startswith(end)):
                return None
            spans.append((len(start), len(end)))
        return spans

    def _by_probes(self) -> Spans:
        spans: Spans = []
        after = 0
        for place, message in enumerate(self._messages):
            first, last = self._differs(self._messages, place, self.whole)
            if first >= len(self.whole):  # the template leaves this turn out
                continue
            if first < after or first > last:
                raise self._unclear(f"message {place} changes what stands before it")
            if message["role"] == "assistant":
                # A function's name can stand in the header of its reply, where the tool speaks: its arguments cannot.
                start = min(first, self._differs(self._messages, place, self.whole, names=True)[0])
                spans.append((self._start(place, after, start), self._end(place, last)))
                last = spans[-1][1]
            after = last
        return [span for span in spans if span[0] < span[1]]

    def _differs(
        self, messages: Sequence[Message], place: int, text: str, *, names: bool = False, prompt: bool = False
    ) -> tuple[int, int]:
        """Where ``text`` differs from the same conversation with message ``place`` exchanged: from, to."""
        exchanged = _exchanged(messages[place], self._free[0], names=names)
        probe = self._try([*messages[:place], exchanged, *messages[place + 1 :]], prompt)
        if probe is None:
            raise self._unclear(f"it refuses any other text for message {place}")
        first = _shared(text, probe)
        same = _shared(text[first:][::-1], probe[first:][::-1])
        return first, len(text) - same

    def _start(self, place: int, after: int, first: int) -> int:
        """Behind what asks the assistant to speak; where the conversation has no such thing, at its first word."""
        before = self._messages[:place]
        bare, asked = self._try(before, False), self._try(before, True)
        if bare is None or asked is None:
            return first
        if place and before[-1]["role"] != "assistant":
            tail = asked[self._differs(before, place - 1, asked, prompt=True)[1] :]
            if tail and self.whole.startswith(tail, after):
                return after + len(tail)
        header = asked.removeprefix(bare)
        at = self.whole.rfind(header, after, first + len(header)) if header not in ("", asked) else -1
        return first if at < 0 else at + len(header)  # found, it begins before the first word

    def _end(self, place: int, last: int) -> int:
        """Behind what ends the turn when nothing follows; else behind the control token that follows its words."""
        rest = self.whole[last:]
        alone = self._messages[: place + 1]
        ended = self._try(alone, False)
        if ended is not None:
            tail = ended[self._differs(alone, place, ended)[1] :]
            if rest.startswith(tail):
                return last + len(tail)
        return last + max((len(token) for token in self._control if rest.startswith(token)), default=0)

    def _unclear(self, why: str) -> UserError:
        return UserError(
            f"{self._template.where}: cannot tell what the assistant says by this chat template: {why};"
            " mark it there with {% generation %} and {% endgeneration %}"
        )


def _exchanged(message: Message, strange: str, *, names: bool) -> dict[str, Any]:
    """A message that says other things in the same form: as many calls, with other arguments."""
    calls = []
    for call in message.get("tool_calls") or ():
        written = isinstance(call["function"]["arguments"], str)
        function = {**call["function"], "arguments": strange if written else {strange: strange}}
        calls.append({**call, "function": {**function, "name": strange} if names else function})
    return {**message, "content": strange, **({"tool_calls": calls} if calls else {})}


def _joined(spans: Spans) -> Spans:
    """Spans that touch as one, and none that is empty."""
    joined: Spans = []
    for start, end in spans:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        elif start < end:
            joined.append((start, end))
    return joined


def _shared(one: str, two: str) -> int:
    """Characters that both begin with."""
    low, high = 0, min(len(one), len(two))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == two[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
