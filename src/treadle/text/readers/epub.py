"""EPUB: a text a chapter, in the order of the book's spine."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from treadle.text.readers import html
from treadle.text.readers.markup import attribute, local, parse_xml
from treadle.text.readers.packed_xml import Parts
from treadle.text.readers.piece import Documents, Piece, Unreadable, UnreadableError

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = ("application/xhtml+xml", "text/html", "text/x-oeb1-document")
_MOST_CHAPTERS = 20_000
_DATE = re.compile(r"\d{4}(?:-\d\d(?:-\d\d(?:T\d\d:\d\d(?::\d\d)?(?:Z|[+-]\d\d:\d\d)?)?)?)?\Z")


def read(data: bytes, options: Documents) -> Iterator[Piece]:
    """Each chapter's text, ``part`` its place in the book. A chapter that cannot be read costs no other; covers and
    other pages without text are no pieces.
    """
    parts = Parts(data, "an EPUB")
    package_path = _package_path(parts)
    package = parse_xml(parts.read(package_path), "its package file")
    book = _book(package)
    given = False
    locked = _locked(parts)
    for number, path in enumerate(_spine(package, package_path), start=1):
        part = f"!/{path}"
        if path in locked:
            yield Unreadable("encrypted: the book is protected against copying", part=part)
            given = True
            continue
        try:
            raw = parts.read(path)
            chapter = html.page(raw, options, whole=True)
        except UnreadableError as error:
            if str(error) != "a page without text":
                yield Unreadable(str(error), part=part)
                given = True
            continue
        given = True
        fields = {**book["fields"], **chapter.fields, "chapter": number}
        if chapter.title and chapter.title != book["title"]:
            fields["chapter_title"] = chapter.title
        yield replace(chapter, part=part, raw=raw, title=book["title"], time=book["time"], fields=fields)
    if not given:
        raise UnreadableError("a book without a chapter that has text")


def _package_path(parts: Parts) -> str:
    if _CONTAINER not in parts.names:
        raise UnreadableError("not an EPUB: META-INF/container.xml is missing")
    container = parse_xml(parts.read(_CONTAINER), "its container file")
    for element in container.iter():
        path = attribute(element, "full-path") if local(element) == "rootfile" else None
        if path:
            return path
    raise UnreadableError("its container names no package file")


def _book(package: Any) -> dict[str, Any]:
    """Title, date and language of the whole book."""
    values: dict[str, str] = {}
    for element in package.iter():
        name = local(element)
        if name in ("title", "date", "language") and (element.text or "").strip():
            values.setdefault(name, element.text.strip()[:500])
    time = values.get("date", "")
    fields = {"language": values["language"]} if "language" in values else {}
    return {"title": values.get("title"), "time": time if _DATE.match(time) else None, "fields": fields}


def _spine(package: Any, package_path: str) -> list[str]:
    folder = posixpath.dirname(package_path)
    items: dict[str, str] = {}
    for element in package.iter():
        if local(element) == "item" and (attribute(element, "media-type") or "").lower() in _PAGES:
            path = posixpath.normpath(posixpath.join(folder, unquote(attribute(element, "href") or "")))
            items[attribute(element, "id") or ""] = path
    order = [
        items[attribute(element, "idref") or ""]
        for element in package.iter()
        if local(element) == "itemref" and attribute(element, "idref") in items
    ]
    if not order:
        raise UnreadableError("its spine names no chapter")
    return list(dict.fromkeys(order))[:_MOST_CHAPTERS]


def _locked(parts: Parts) -> frozenset[str]:
    """Parts that are encrypted; fonts that are only obscured count as well, and are no chapters."""
    if _ENCRYPTION not in parts.names:
        return frozenset()
    root = parse_xml(parts.read(_ENCRYPTION), "its encryption file")
    uris = (attribute(element, "URI") for element in root.iter() if local(element) == "CipherReference")
    return frozenset(unquote(uri) for uri in uris if uri)
