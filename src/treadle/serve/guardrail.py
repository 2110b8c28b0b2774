"""Guardrails: what is looked for in what a client sends and in what a model answers, and what is done about it.

A guardrail is a class of the group ``treadle.guardrails`` (or ``module:Class`` of the project); its settings are its
parameters. It only finds; refusing, redacting and streaming are done here, the same way for all.

A streamed answer is held back as far as a finding could still reach into it, so nothing goes out that was half checked:
the last ``reach`` characters that can be seen, an unbroken word of any length, and a finding that may still grow.

What is JSON inside a text (the arguments of a call, a result of a tool, an answer that was asked for as JSON) is looked
at as what it stands for too: in its own form a number after the end of a line is ``\\n49 ...``, one word.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal, Protocol

from treadle.text.escapes import merged, readings
from treadle.text.lookalikes import seen

Action = Literal["refuse", "redact"]
_UNBROKEN = "".join(map(chr, range(ord("!"), ord("~") + 1)))  # what addresses and keys are written with
_BEHIND = 512  # characters of what went out that are looked at again, for what decides about what follows
_OWN = {  # words of the protocol's own in messages and in descriptions of tools
    "role": ("system", "user", "assistant", "tool"),
    "type": ("function", "object", "array", "string", "number", "integer", "boolean", "null"),
}
_KEYS = frozenset(  # and keys of theirs
    ("role", "content", "tool_calls", "tool_call_id", "id", "type", "function", "name", "arguments", "description",
     "parameters", "strict", "properties", "required", "items", "enum")
)  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """Characters ``start`` to ``end`` (half open) of a text; ``label`` says what they are, never the text."""

    start: int
    end: int
    label: str


class Guardrail(Protocol):
    """``reach``: no finding that is not yet one has more characters than this, what decides about it included; None
    where that cannot be said, which holds a streamed answer back to its end."""

    action: Action
    reach: int | None

    def find(self, text: str, before: int = 0) -> Iterable[Found]:
        """What is in a text of which so many characters went ahead. Quick for whatever text, or it holds all up."""
        ...


@dataclass(frozen=True, slots=True)
class Named:
    """A guardrail under the name the file has for it."""

    name: str
    guard: Guardrail


@dataclass(frozen=True, slots=True)
class Guardrails:
    """Of a release: for what comes in, and for what goes out."""

    inward: tuple[Named, ...] = ()
    outward: tuple[Named, ...] = ()


NO_GUARDRAILS = Guardrails()


class Stopped(Exception):
    """A guardrail refuses it; ``done`` is what is recorded. ``place``: of the text where that begins, among all."""

    def __init__(self, done: dict[str, Any], place: int = 0) -> None:
        super().__init__(f"refused by the guardrail {done['guardrail']}")
        self.done = done
        self.place = place


# -- what comes in


def screened(
    guards: Sequence[Named], values: Sequence[Any], side: Literal["in", "out"] = "in"
) -> tuple[list[Any], list[dict[str, Any]]]:
    """JSON-like values with every text in them looked at, and what was done. Raises ``Stopped``.

    One that refuses sees all texts as one, so that what is spread over messages is not missed for that.
    """
    done: list[dict[str, Any]] = []
    shown = list(values)
    for each in guards:
        if each.guard.action == "refuse":
            texts = list(_texts(shown))
            if found := _found(each.guard, "\n".join(texts)):
                place = bisect_right([*accumulate(len(text) + 1 for text in texts)], found[0].start)
                raise Stopped(_said(each, side, Counter(one.label for one in found)), place)
            continue
        counts: Counter[str] = Counter()
        rewrite = _rewriter(each.guard, counts)
        shown = [mapped(value, rewrite) for value in shown]
        if counts:
            done.append(_said(each, side, counts))
    return shown, done


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON-like value with its texts changed, keys of the client's own included; the protocol's words stay."""
    if isinstance(value, str):
        return change(value)
    if _is_number(value):  # a template writes it as a text
        changed = change(written := str(value))
        return value if changed == written else changed
    if isinstance(value, list | tuple):
        return [mapped(each, change) for each in value]
    if isinstance(value, dict):
        return {
            key if key in _KEYS else change(key): each if _own(key, each) else mapped(each, change)
            for key, each in value.items()
        }
    return value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif _is_number(value):
        yield str(value)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key not in _KEYS:
                yield key
            if not _own(key, each):
                yield from _texts(each)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _own(key: str, value: Any) -> bool:
    return isinstance(value, str) and value in _OWN.get(key, ())


def _rewriter(guard: Guardrail, counts: Counter[str]) -> Callable[[str], str]:
    def rewrite(text: str) -> str:
        pieces, position = [], 0
        for found in _found(guard, text):
            if found.start < position:
                continue
            pieces += [text[position : found.start], f"[{found.label.upper()}]"]
            position = found.end
            counts[found.label] += 1
        return "".join([*pieces, text[position:]])

    return rewrite


def _found(guard: Guardrail, text: str, before: int = 0, *, quoted: bool = False) -> list[Found]:
    """In the text as it stands and as JSON; what both find counts once. ``quoted`` as of `readings`."""
    found = list(guard.find(text, before))
    for shown, places in readings(text, quoted=quoted):
        read = [
            Found(places[each.start], places[min(each.end, len(shown))], each.label)
            for each in guard.find(shown, before)
        ]
        # A size is that of what was sent, and what is refused is not cut.
        found = _joined(found, read, text) if guard.action == "refuse" else merged(found, read, places)
    return sorted(found)


def _joined(first: list[Found], second: list[Found], text: str) -> list[Found]:
    """The second where they do not overlap the first."""
    taken = bytearray(len(text))
    for each in first:
        taken[each.start : each.end] = b"\1" * (each.end - each.start)
    return first + [each for each in second if 1 not in taken[each.start : each.end]]


def _said(each: Named, side: str, found: Mapping[str, int]) -> dict[str, Any]:
    action = "refused" if each.guard.action == "refuse" else "redacted"
    return {"guardrail": each.name, "side": side, "action": action, "found": dict(found)}


# -- what goes out


class Screen:
    """One answer, in pieces as it comes: `feed` them, then `end`; each gives what may go out."""

    def __init__(self, guards: Sequence[Named]) -> None:
        self._stages = [_Stage(each) for each in guards]

    def feed(self, text: str) -> str:
        """What is checked by now."""
        return self._through(text, last=False)

    def end(self) -> str:
        """What was held back."""
        return self._through("", last=True)

    def _through(self, text: str, *, last: bool) -> str:
        """One after the other; what follows one that stops is the end for those after it."""
        for stage in self._stages:
            text = stage.feed(text, last=last)
            last = last or stage.stopped
        return text

    @property
    def stopped(self) -> bool:
        """Whether one of them refuses the rest."""
        return any(stage.stopped for stage in self._stages)

    @property
    def done(self) -> list[dict[str, Any]]:
        """What was done, for the record."""
        return [_said(stage.named, "out", stage.counts) for stage in self._stages if stage.counts]


@dataclass(slots=True)
class _Stage:
    named: Named
    counts: Counter[str] = field(default_factory=Counter)
    stopped: bool = False
    _text: str = ""  # a little of what went out, and all that is held
    _out: int = 0  # where in it what is held begins
    _before: int = 0  # characters that are not kept any more
    _quoted: bool = False  # whether there was a quotation mark among them

    def feed(self, text: str, *, last: bool = False) -> str:
        if self.stopped:
            return ""
        self._text += text
        end = len(self._text) if last else self._safe()
        if end <= self._out and not last:
            return ""
        guard, pieces = self.named.guard, []
        for found in _found(guard, self._text, self._before, quoted=self._quoted):
            if found.end <= self._out:
                continue
            if found.start >= end:
                break
            if guard.action == "refuse":
                self.counts[found.label] += 1
                self.stopped = True
                return self._text[self._out : max(found.start, self._out)]
            if found.end > end:  # it may still grow
                end = max(found.start, self._out)
                break
            pieces += [self._text[self._out : max(found.start, self._out)], f"[{found.label.upper()}]"]
            self.counts[found.label] += 1
            self._out = found.end
        pieces.append(self._text[self._out : end])
        self._out = max(self._out, end)
        if self._out > 2 * _BEHIND:
            cut = self._out - _BEHIND
            self._quoted = self._quoted or '"' in self._text[:cut]
            self._text, self._out, self._before = self._text[cut:], self._out - cut, self._before + cut
        return "".join(pieces)

    def _safe(self) -> int:
        """How far nothing can come any more that makes a finding of it."""
        reach = self.named.guard.reach
        if reach is None:
            return self._out
        end = _decided(self._text, self._out, reach)
        if end <= self._out:  # nothing that JSON is read as lets more out
            return end
        for shown, places in readings(self._text, quoted=self._quoted):
            end = min(end, places[_decided(shown, bisect_left(places, self._out), reach)])
        return end


def _decided(text: str, begin: int, reach: int) -> int:
    """Where in a text, at ``begin`` or behind it, that begins which what follows may still make a finding of."""
    end, spaced = len(text), False
    if not reach:
        return end
    while end > begin and reach:
        end -= 1
        shown = seen(text[end])
        if shown and not (spaced and shown == " "):
            reach -= 1
        spaced = shown == " " if shown else spaced
    return begin + len(text[begin:end].rstrip(_UNBROKEN))
