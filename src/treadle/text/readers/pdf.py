"""PDF in the order its text is drawn, by pdfium; hyphens at line ends closed, lines joined to paragraphs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from treadle.core.errors import MissingExtra
from treadle.text.readers.piece import Documents, Piece, Text, Unreadable, UnreadableError

_MOST_PAGES = 20_000
_DATE = re.compile(r"D:(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?(?:(Z)|([+-])(\d\d)'?(\d\d)?)?")
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_HYPHEN = re.compile("[\ufffe\x02]\\s*")  # what pdfium gives for a hyphen that only breaks a line


def read(data: bytes, options: Documents) -> Iterator[Piece]:
    """One text of all pages. A page that cannot be read is quarantined by its number; pages without text (pictures of
    pages) are counted in ``fields.pages_without_text``, and a file of nothing else is refused.
    """
    try:
        import pypdfium2 as pdfium
    except ImportError:
        raise MissingExtra("pypdfium2", extra="documents") from None
    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        locked = "password" in str(error).lower()
        raise UnreadableError("encrypted: it needs a password" if locked else "not a PDF that can be opened") from None
    with document:
        count = len(document)
        if count > _MOST_PAGES:
            raise UnreadableError(f"more than {_MOST_PAGES} pages")
        pages: list[str] = []
        empty = 0
        for number in range(count):
            try:
                text = _page(document, number)
            except pdfium.PdfiumError:
                yield Unreadable(f"page {number + 1} of {count} cannot be read")
                continue
            if text:
                pages.append(text)
            else:
                empty += 1
        if not pages:
            raise UnreadableError(f"no text on any of {count} pages; they may be pictures, which nobody reads here")
        fields: dict[str, Any] = {"pages": count}
        if empty:
            fields["pages_without_text"] = empty
        details = _details(document)
        title = " ".join(details.get("Title", "").split())[:500]
        yield Text("\n\n".join(pages), title=title or None, time=_time(details.get("CreationDate", "")), fields=fields)


def _page(document: Any, number: int) -> str:
    page = document[number]
    try:
        text_page = page.get_textpage()
        try:
            return tidied(text_page.get_text_range(errors="ignore"))
        finally:
            text_page.close()
    finally:
        page.close()


def tidied(text: str) -> str:
    """Lines as pdfium gives them, without breaks in words and with nothing that is no character."""
    text = _HYPHEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    lines = (line.rstrip() for line in _NOT_TEXT.sub("", text).split("\n"))
    return "\n".join(lines).strip()


def _details(document: Any) -> dict[str, str]:
    with suppress(Exception):  # what is there about a document is never a reason to lose its text
        return {key: _NOT_TEXT.sub("", value) for key, value in document.get_metadata_dict(skip_empty=True).items()}
    return {}


def _time(value: str) -> str | None:
    found = _DATE.match(value)
    if found is None:
        return None
    year, month, day, hour, minute, second, zulu, sign, hours, minutes = found.groups()
    if hour is None:
        return f"{year}-{month}-{day}"
    zone = f"{sign}{hours}:{minutes or '00'}" if sign else "Z" if zulu else ""
    return f"{year}-{month}-{day}T{hour}:{minute}:{second or '00'}{zone}"
