"""Plain text in whatever encoding."""

from __future__ import annotations

from collections.abc import Iterator

from treadle.text.readers.decoding import decode
from treadle.text.readers.piece import Documents, Text


def read(data: bytes, options: Documents) -> Iterator[Text]:
    """The whole text; ``fields.encoding`` names what is not UTF-8."""
    text, encoding = decode(data)
    yield Text(text, fields={} if encoding == "utf-8" else {"encoding": encoding})
