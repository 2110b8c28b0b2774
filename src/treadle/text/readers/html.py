"""HTML: the main text as a person would read it, by resiliparse; title, language and date where the page says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from treadle.core.errors import MissingExtra
from treadle.text.readers.decoding import decode
from treadle.text.readers.piece import Documents, Text, UnreadableError

# Where pages say when they were published, the best first.
_DATES = (
    "article:published_time", "datepublished", "date", "dc.date", "dcterms.created", "dcterms.date", "pubdate",
    "publish-date", "og:published_time", "article:modified_time", "last-modified",
)  # fmt: skip
_DAY = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*\Z")
_DEEPEST = 4000  # open elements; more is an attack on whoever walks the tree
_TAG = re.compile(rb"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
_VOID = frozenset(b"area base br col embed hr img input link meta param source track wbr p li td tr th dt dd".split())
# An empty element of XHTML that HTML would take for the start of one: <title/>.
_CLOSED = re.compile(r"<(title|script|style|textarea|iframe|noscript|template|a|p|div|span)\b([^<>]*)/>", re.I)


def read(data: bytes, options: Documents) -> Iterator[Text]:
    """The page's text. Without ``boilerplate`` the main part of it, or all of it where no main part is found."""
    yield page(data, options)


def page(data: bytes, options: Documents, declared: str | None = None, *, whole: bool = False) -> Text:
    """As ``read``; ``declared`` is the encoding that came with it, ``whole`` keeps everything. ``UnreadableError`` for
    a page without text.
    """
    try:
        from resiliparse.extract.html2text import extract_plain_text
        from resiliparse.parse.html import HTMLTree
    except ImportError:
        raise MissingExtra("resiliparse", extra="documents") from None
    if _too_deep(data):
        raise UnreadableError(f"elements nested deeper than {_DEEPEST}")
    markup, encoding = decode(data, declared)
    tree = HTMLTree.parse(_CLOSED.sub(r"<\1\2></\1>", markup) if "/>" in markup else markup)
    text = ""
    if not (options.boilerplate or whole):
        text = extract_plain_text(tree, main_content=True, alt_texts=False, preserve_formatting=True)
    if not text.strip():
        text = extract_plain_text(tree, main_content=False, alt_texts=False, preserve_formatting=True)
    if not text.strip():
        raise UnreadableError("a page without text")
    fields: dict[str, Any] = {} if encoding == "utf-8" else {"encoding": encoding}
    language = _language(tree)
    if language:
        fields["language"] = language
    return Text(text.strip(), title=_title(tree), time=_date(tree), fields=fields)


def _too_deep(data: bytes) -> bool:
    """Whether more elements stand open at once than any page needs; a rough count that reads tags only."""
    if data.count(b"<") < _DEEPEST:
        return False
    depth = 0
    for match in _TAG.finditer(data):
        if match[2].lower() in _VOID:
            continue
        depth = max(0, depth - 1) if match[1] else depth + 1
        if depth > _DEEPEST:
            return True
    return False


def _title(tree: Any) -> str | None:
    title = " ".join((tree.title or "").split())
    return title[:500] or None


def _language(tree: Any) -> str | None:
    root = tree.document.query_selector("html")
    value = (root.getattr("lang") or root.getattr("xml:lang") or "").strip() if root is not None else ""
    return value if _LANGUAGE.match(value) else None


def _date(tree: Any) -> str | None:
    head = tree.head
    found: dict[str, str] = {}
    for meta in head.query_selector_all("meta") if head is not None else ():
        name = (meta.getattr("property") or meta.getattr("name") or meta.getattr("itemprop") or "").lower()
        day = _DAY.match((meta.getattr("content") or "").strip())
        if name in _DATES and day:
            found.setdefault(name, day[0])
    return next((found[name] for name in _DATES if name in found), None)
