"""Small documents made by hand: what a test says is in them is all that is in them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

_CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)
_WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def zipped(parts: Mapping[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return out.getvalue()


def epub(chapters: Mapping[str, str], more: Mapping[str, str] | None = None, spine: list[str] | None = None) -> bytes:
    """Chapters (name to XHTML body), packed in reverse order; the spine has them in order."""
    items = "".join(f'<item id="{n}" href="{n}.xhtml" media-type="application/xhtml+xml"/>' for n in chapters)
    order = "".join(f'<itemref idref="{name}"/>' for name in spine or chapters)
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
        "<dc:title>The Book</dc:title><dc:language>en-GB</dc:language><dc:date>1901-02-03</dc:date></metadata>"
        f"<manifest>{items}</manifest><spine>{order}</spine></package>"
    )
    head = '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head>'
    pages = {f"OEBPS/{name}.xhtml": f"{head}<body>{body}</body></html>" for name, body in reversed(chapters.items())}
    fixed = {"mimetype": "application/epub+zip", "META-INF/container.xml": _CONTAINER, "OEBPS/book.opf": package}
    return zipped({**fixed, **pages, **(more or {})})


def docx(body: str, parts: Mapping[str, str] | None = None) -> bytes:
    document = f"<w:document {_WORD}><w:body>{body}</w:body></w:document>"
    return zipped({"[Content_Types].xml": "<Types/>", "word/document.xml": document, **(parts or {})})


def paragraph(text: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def pdf(*pages: str, title: str = "Made") -> bytes:
    """A PDF of one line a page; readers build the missing cross-reference table anew."""
    count = len(pages)
    kids = " ".join(f"{10 + 2 * n} 0 R" for n in range(count))
    objects = [
        "1 0 obj <</Type/Catalog/Pages 2 0 R>> endobj",
        f"2 0 obj <</Type/Pages/Kids[{kids}]/Count {count}>> endobj",
        "3 0 obj <</Type/Font/Subtype/Type1/BaseFont/Helvetica>> endobj",
        f"4 0 obj <</Title({title})/CreationDate(D:20200102030405+01'00')>> endobj",
    ]
    for number, text in enumerate(pages):
        place = 10 + 2 * number
        stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET" if text else ""
        objects.append(
            f"{place} 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents {place + 1} 0 R"
            "/Resources<</Font<</F1 3 0 R>>>>>> endobj"
        )
        objects.append(f"{place + 1} 0 obj <</Length {len(stream)}>> stream\n{stream}\nendstream endobj")
    return ("%PDF-1.4\n" + "\n".join(objects) + "\ntrailer <</Root 1 0 R/Info 4 0 R>>\n%%EOF").encode()


def warc_record(kind: str, uri: str, body: bytes, **headers: str) -> bytes:
    named = {"WARC-Type": kind, "WARC-Target-URI": uri, "WARC-Date": "2024-05-01T10:00:00Z", **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
    return f"WARC/1.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body + b"\r\n\r\n"


def response(uri: str, body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A response record with an HTTP message in it."""
    sent = "\r\n".join([f"HTTP/1.1 {status}", *headers]).encode() + b"\r\n\r\n" + body
    return warc_record("response", uri, sent, Content_Type="application/http; msgtype=response")
