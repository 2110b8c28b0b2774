r"""JSON inside a text, read as what it stands for: ``\n`` is the end of a line there, and ``\u00fc`` a letter."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence

_DEEPEST = 2  # JSON in a text of JSON, as the arguments of a call with JSON among them
_SIMPLE = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HIGH, _LOW, _REST = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}", r"\\(?:u[0-9a-fA-F]{0,3})?"
_ESCAPE = re.compile(
    rf"(?P<begun>(?:{_HIGH}(?:{_REST})?|{_REST})\Z)"
    rf"|(?P<pair>{_HIGH}{_LOW})"
    r"|\\u(?P<code>[0-9a-fA-F]{4})"
    r'|\\(?P<simple>["\\/bfnrt])'
)


def readings(text: str, *, quoted: bool = False) -> Iterator[tuple[str, Sequence[int]]]:
    """The text read as JSON's, and that again, as often as it makes a difference; nothing of a text without escapes.

    JSON has escapes in quotation marks alone, so what is before the first of those stays as it is: a formula, say.
    ``quoted``: there was one before the text.

    Beside each, where in ``text`` its characters begin, with one place more: where they end. An escape that is begun
    at the very end is left away.
    """
    places: Sequence[int] | None = None
    for _ in range(_DEEPEST):
        found = _read(text, 0 if quoted else text.find('"')) if "\\" in text else None
        if found is None:
            return
        text, now = found
        places = now if places is None else array("Q", map(places.__getitem__, now))
        yield text, places


def _read(text: str, begin: int) -> tuple[str, Sequence[int]] | None:
    if begin < 0:
        return None
    pieces: list[str] = []
    places = array("Q")
    position = 0
    for match in _ESCAPE.finditer(text, begin):
        pieces.append(text[position : match.start()])
        places.extend(range(position, match.start() + 1))
        if match["begun"]:
            return "".join(pieces), places
        pieces.append(_character(match))
        position = match.end()
    if not pieces:
        return None
    places.extend(range(position, len(text) + 1))
    return "".join([*pieces, text[position:]]), places


def _character(match: re.Match[str]) -> str:
    if match["simple"]:
        return _SIMPLE[match["simple"]]
    if match["pair"]:
        high, low = int(match["pair"][2:6], 16), int(match["pair"][8:], 16)
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
    code = int(match["code"], 16)
    return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)  # half of a pair is no character
