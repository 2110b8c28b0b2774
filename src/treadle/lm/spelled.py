"""Control tokens that somebody spelled in a message: marked, so that they are encoded as the plain text they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Message = Mapping[str, Any]

_PLAIN = {"role", "content"}
_PRIVATE_USE = range(0xF0000, 0xFFFFE)  # Unicode's supplementary private use area A


class Marked(NamedTuple):
    """A conversation and its tools; ``marks`` stand around each spelled token (None when there is none)."""

    messages: list[Message]
    tools: list[Mapping[str, Any]] | None
    marks: tuple[str, str] | None

    def free(self) -> tuple[str, str]:
        """Two characters that occur in none of its strings."""
        return _unused([*_strings(self.messages), *_strings(self.tools)])


def mark(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, spelled: re.Pattern[str]) -> Marked:
    """Every match of ``spelled`` in messages and tools between two characters that occur nowhere else."""
    found, described = list(messages), list(tools) if tools else None
    strings = [*_said(found), *_strings(described)]
    if not any(map(spelled.search, strings)):
        return Marked(found, described, None)
    before, after = marks = _unused(strings)
    found, described = _map_strings([found, described], lambda text: spelled.sub(rf"{before}\g<0>{after}", text))
    return Marked(found, described, marks)


def _unused(strings: Sequence[str]) -> tuple[str, str]:
    taken = set("".join(strings))
    unused = (chr(code) for code in _PRIVATE_USE if chr(code) not in taken)
    return next(unused), next(unused)


def _said(messages: Sequence[Message]) -> Iterator[str]:
    """The strings of messages that may spell anything: of most, which have a role and a text, the text alone."""
    for message in messages:
        if message.keys() == _PLAIN:
            yield message["content"]
        else:
            yield from _strings(message)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | Mapping):  # the former is quickly told
        for key, item in value.items():
            yield str(key)
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_map_strings(key, change): _map_strings(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map_strings(item, change) for item in value]
    return value
