r"""JSON inside a text, read as what it stands for: ``\n`` is the end of a line there, and ``\u00fc`` a letter."""

from __future__ import annotations

import html
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_DEEPEST = 2  # JSON in a text of JSON, as the arguments of a call with JSON among them
_SIMPLE = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HIGH, _LOW, _REST = r"u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}", r"(?:u[0-9a-fA-F]{0,3})?"
_ESCAPE = re.compile(  # the backslash stands ahead of all, which is searched for many times as fast
    r"\\(?:"
    rf"(?P<begun>(?:{_HIGH}(?:\\{_REST})?|{_REST})\Z)"
    rf"|(?P<pair>{_HIGH}{_LOW})"
    r"|u(?P<code>[0-9a-fA-F]{4})"
    r'|(?P<simple>["\\/bfnrt]))'
)

_UNSEEN = "\u00ad\u200b\u200c\u200d\u2060"  # let a line end within a word, or join two
# RFC 3986, 2.1; HTML's character references, by number and those that addresses are hidden behind.
_OF_URLS = r"%[2-7][0-9A-Fa-f]"
_OF_HTML = r"&(?:#[xX]?[0-9A-Fa-f]{1,7}|commat|period|plus|lpar|rpar|hyphen|dash|nbsp|amp);"
_WRAPPED = re.compile(f"{_OF_URLS}|{_OF_HTML}|[{_UNSEEN}]")
_HINTS = (re.compile(_OF_URLS), re.compile(_OF_HTML))  # each alone is searched for many times as fast


class Places(Protocol):
    """Where in a text the characters begin that it is read as, with one place more: where they end."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> int: ...


if TYPE_CHECKING:

    class _Span(DataclassInstance, Protocol):
        """Characters ``start`` to ``end`` (half open) of a text."""

        @property
        def start(self) -> int: ...

        @property
        def end(self) -> int: ...

        def __lt__(self, other: Any, /) -> bool: ...


AnySpan = TypeVar("AnySpan", bound="_Span")


def readings(text: str, *, quoted: bool = False) -> Iterator[tuple[str, Places]]:
    """The text read as JSON's, and that again, as often as it makes a difference; nothing of a text without escapes.

    JSON has escapes in quotation marks alone, so what is before the first of those stays as it is: a formula, say.
    ``quoted``: there was one before the text.

    Beside each, where in ``text`` its characters begin. An escape that is begun at the very end is left away.
    """
    places: Places | None = None
    for _ in range(_DEEPEST):
        found = _read(text, _ESCAPE, _character, 0 if quoted else text.find('"')) if "\\" in text else None
        if found is None:
            return
        text, now = found
        places = now if places is None else _Nested(places, now)
        yield text, places


def unwrapped(text: str) -> Iterator[tuple[str, Places]]:
    """As `readings`: without what URLs, HTML and characters that nobody sees have put in; once, or not at all."""
    if any(hint.search(text) for hint in _HINTS) or (not text.isascii() and any(sign in text for sign in _UNSEEN)):
        found = _read(text, _WRAPPED, _unwrapped, 0)
        assert found is not None
        yield found


def merged(found: Iterable[AnySpan], read: Iterable[AnySpan], places: Places) -> list[AnySpan]:
    """What was found in the text as it stands, and in what it is read as (by its places in the text), in order; as one
    where they overlap. The former takes no half of an escape along: that would leave JSON that nobody can read."""
    joined: list[AnySpan] = []
    for each in sorted([*(_whole(one, places) for one in found), *read]):
        if joined and each.start < joined[-1].end:
            joined[-1] = replace(joined[-1], end=max(each.end, joined[-1].end))
        else:
            joined.append(each)
    return joined


def _whole(found: AnySpan, places: Places) -> AnySpan:
    first, last = bisect_left(places, found.start), bisect_right(places, found.end) - 1
    start = places[first] if first < len(places) else found.start
    end = places[last] if found.end <= places[len(places) - 1] else found.end
    return replace(found, start=start, end=end) if start < end else found


class _Places:
    """Of one reading: a shift behind each escape, since texts are long and their escapes few."""

    def __init__(self, length: int, escapes: list[int], shifts: list[int]) -> None:
        """``escapes``: where what they stand for is in what was read; ``shifts``: by how much the text is behind what
        was read, before the first of them, and after each."""
        self._length, self._escapes, self._shifts = length, escapes, shifts

    def __len__(self) -> int:
        return self._length + 1

    def __getitem__(self, index: int, /) -> int:
        if index > self._length:
            raise IndexError(index)
        return index + self._shifts[bisect_left(self._escapes, index)]


class _Nested:
    def __init__(self, outer: Places, inner: Places) -> None:
        self._outer, self._inner = outer, inner

    def __len__(self) -> int:
        return len(self._inner)

    def __getitem__(self, index: int, /) -> int:
        return self._outer[self._inner[index]]


def _read(
    text: str, escape: re.Pattern[str], character: Callable[[re.Match[str]], str], begin: int
) -> tuple[str, Places] | None:
    if begin < 0:
        return None
    pieces: list[str] = []
    escapes: list[int] = []
    shifts = [0]
    position, last = 0, len(text)
    for match in escape.finditer(text, begin):
        pieces.append(text[position : match.start()])
        if match.lastgroup == "begun":
            position = last = match.start()
            break
        pieces.append(read := character(match))
        position = match.end()
        escapes.append(match.start() - shifts[-1] + len(read) - 1)
        shifts.append(shifts[-1] + position - match.start() - len(read))
    if not pieces:
        return None
    shown = "".join([*pieces, text[position:last]])
    return shown, _Places(len(shown), escapes, shifts)


def _unwrapped(match: re.Match[str]) -> str:
    if match[0][0] == "%":
        return chr(int(match[0][1:], 16))
    return html.unescape(match[0]) if match[0][0] == "&" else ""


def _character(match: re.Match[str]) -> str:
    if match["simple"]:
        return _SIMPLE[match["simple"]]
    if match["pair"]:
        high, low = int(match["pair"][1:5], 16), int(match["pair"][7:], 16)
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
    code = int(match["code"], 16)
    return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)  # half of a pair is no character
