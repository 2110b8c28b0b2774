"""Bytes to text: by a byte order mark, as UTF-8, by what it or its sender says, else by what it looks like."""

from __future__ import annotations

import codecs
import re

from treadle.core.errors import MissingExtra
from treadle.text.readers.letters import latin_encoding
from treadle.text.readers.piece import UnreadableError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_XML = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._:-]{2,40})["']""")
_META = re.compile(rb"""<meta[^>]{0,300}?charset\s*=\s*["']?\s*([A-Za-z0-9._:-]{2,40})""", re.IGNORECASE)
# What browsers read under these names, as WHATWG's encoding standard has it.
_AS_BROWSERS = {"iso-8859-1": "cp1252", "latin-1": "cp1252", "latin1": "cp1252", "ascii": "cp1252",
                "us-ascii": "cp1252", "iso8859-1": "cp1252", "iso-8859-9": "cp1254", "gb2312": "gb18030",
                "gbk": "gb18030", "shift_jis": "cp932", "shift-jis": "cp932", "euc-kr": "cp949", "tis-620": "cp874",
                "ks_c_5601-1987": "cp949", "iso-8859-11": "cp874", "x-sjis": "cp932", "macintosh": "mac-roman",
                "x-mac-cyrillic": "mac-cyrillic", "maccyrillic": "mac-cyrillic", "windows-874": "cp874",
                "unicode": "utf-16", "visual": "iso-8859-8", "x-user-defined": "cp1252"}  # fmt: skip
_HALF = re.compile("[\ud800-\udfff]")
_LOOKED_AT = 4096  # bytes
# EBCDIC, and pages of few machines, in which a few bytes are taken for letters of any.
_RARE = ("cp037", "cp1026", "cp1140", "cp273", "cp424", "cp500", "cp875", "cp1006", "hp_roman8", "kz1048", "ptcp154")
_SHORT = 256  # bytes
_GUESSED_FROM = 1 << 20  # bytes; a guess over more costs much and tells no more


def decode(data: bytes, declared: str | None = None) -> tuple[str, str]:
    """The text and the name of its encoding; ``UnreadableError`` when no encoding can be told.

    ``declared`` is what came with it, such as a mail's charset; it is believed when the bytes agree.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            text = _strictly(data, encoding)
            if text is not None:
                return text, encoding.removesuffix("-sig")
    if data.count(b"\0", 0, _LOOKED_AT) * 10 > min(len(data), _LOOKED_AT):
        return _wide(data)
    text = _strictly(data, "utf-8")
    if text is not None and not _escaped(data):
        return text, "utf-8"
    for name in filter(None, (declared, declared_in(data))):
        found = decode_as(data, name)
        if found is not None:
            return found
    return _guessed(data)


def decode_as(data: bytes, declared: str) -> tuple[str, str] | None:
    """As ``decode`` in the encoding that is named, nothing guessed; None where the bytes do not agree."""
    encoding = _AS_BROWSERS.get(declared.lower(), declared)
    text = _strictly(data, encoding)
    return None if text is None else (text, encoding.lower())


def declared_in(data: bytes) -> str | None:
    """The encoding that XML or HTML names for itself."""
    head = data[:4096]
    found = _XML.search(head) or _META.search(head)
    return found[1].decode("ascii") if found else None


def _wide(data: bytes) -> tuple[str, str]:
    """UTF-32 or UTF-16 without a mark: that in which no NUL is left, and spaces and letters are."""
    for encoding in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"):
        text = _strictly(data, encoding)
        if (
            text is not None
            and "\x00" not in text
            and sum(map(str.isprintable, text[:1000])) * 10 > 9 * len(text[:1000])
        ):
            return text, encoding
    raise UnreadableError("full of NUL bytes: no text")


def _escaped(data: bytes) -> bool:
    """ISO-2022 is seven bits wide, and valid UTF-8 that nobody can read."""
    return b"\x1b$" in data or b"\x1b(" in data


def _strictly(data: bytes, encoding: str) -> str | None:
    try:
        text = data.decode(encoding)
    except (UnicodeError, LookupError, ValueError, AssertionError):
        return None
    return None if _HALF.search(text) else text


def _guessed(data: bytes) -> tuple[str, str]:
    latin = latin_encoding(data)
    if latin is not None and (found := decode_as(data, latin)) is not None:
        return found
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        raise MissingExtra("charset-normalizer", extra="data") from None
    rare = list(_RARE) if len(data) < _SHORT else None
    best = from_bytes(data[:_GUESSED_FROM], cp_exclusion=rare).best()
    if best is None:
        raise UnreadableError("in no encoding that can be told")
    text = _strictly(data, best.encoding)
    if text is None or "\x00" in text:
        raise UnreadableError("in no encoding that can be told")
    return text, best.encoding
