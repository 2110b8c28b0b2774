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
# What says of itself that it is not what the page is about.
_ASIDE = ["nav", "footer", "aside", "[role=navigation]", "[role=banner]", "[role=contentinfo]", "[role=search]",
          ".sidebar", ".navbar", ".breadcrumb", ".breadcrumbs", ".cookie-banner", ".cookie-consent"]  # fmt: skip
_FEW_LINKS = 10
_WORDS_A_LINK = 400  # characters of text for each link; a page with less is full of links
_ENOUGH = 0.4
_HEAD = 2000  # characters in which XHTML says that it is
_DEEPEST = 4000  # open elements; more is an attack on whoever walks the tree
_TAG = re.compile(rb"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
_VOID = frozenset(b"area base br col embed hr img input link meta param source track wbr p li td tr th dt dd".split())
# An empty element of XHTML that HTML would take for the start of one: <title/>.
_CLOSED = re.compile(r"<(title|script|style|textarea|iframe|noscript|template|a|p|div|span)\b([^<>]*)/>", re.IGNORECASE)


def read(data: bytes, options: Documents) -> Iterator[Text]:
    """The page's text. Without ``boilerplate`` the main part of it, or all of it where no main part is found."""
    yield page(data, options)


def page(data: bytes, options: Documents, declared: str | None = None, *, whole: bool = False) -> Text:
    """As ``read``; ``declared`` is the encoding that came with it, ``whole`` keeps everything. ``UnreadableError`` for
    a page without text.
    """
    try:
        from resiliparse.parse.html import HTMLTree
    except ImportError:
        raise MissingExtra("resiliparse", extra="documents") from None
    if _too_deep(data):
        raise UnreadableError(f"elements nested deeper than {_DEEPEST}")
    markup, encoding = decode(data, declared)
    if markup.startswith("<?xml") or "xmlns=" in markup[:_HEAD]:
        markup = _CLOSED.sub(r"<\1\2></\1>", markup)
    if "<figure" in markup:  # resiliparse leaves out figures whole, with their captions
        for name in ("figcaption", "figure"):
            markup = markup.replace(f"<{name}", "<div").replace(f"</{name}", "</div")
    tree = HTMLTree.parse(markup)
    text = _everything(tree) if options.boilerplate or whole else _main(tree, markup)
    if not text.strip():
        raise UnreadableError("a page without text")
    fields: dict[str, Any] = {} if encoding == "utf-8" else {"encoding": encoding}
    language = _language(tree)
    if language:
        fields["language"] = language
    return Text(text.strip(), title=_title(tree), time=_date(tree), fields=fields)


def _everything(tree: Any, skipped: list[str] | None = None) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(tree, alt_texts=False, preserve_formatting=True, skip_elements=skipped))


def _main(tree: Any, markup: str) -> str:
    """The main part. resiliparse's rules for that also leave out lists that are none of navigation, so they are asked
    only where a page is full of links, and believed only where they leave enough.
    """
    from resiliparse.extract.html2text import extract_plain_text

    text = _everything(tree, _ASIDE)
    links = markup.count("<a ") + markup.count("<A ")
    if links > _FEW_LINKS and len(text) < links * _WORDS_A_LINK:
        main = str(extract_plain_text(tree, main_content=True, alt_texts=False, preserve_formatting=True))
        if len(main) > _ENOUGH * len(text):
            return main
    return text if text.strip() else _everything(tree)


def _too_deep(data: bytes) -> bool:
    """Whether more elements stand open at once than any page needs; a rough count that reads tags only."""
    if not _may_be_deep(data):
        return False
    depth = 0
    for match in _TAG.finditer(data):
        if match[2].lower() in _VOID:
            continue
        depth = max(0, depth - 1) if match[1] else depth + 1
        if depth > _DEEPEST:
            return True
    return False


def _may_be_deep(data: bytes) -> bool:
    """A quick bound: elements that are never closed count as open for ever."""
    step = max(4096, len(data) // 64)
    depth = 0
    for start in range(0, len(data), step):
        end = start + step
        tags, closing = data.count(b"<", start, end), data.count(b"</", start, end)
        if depth + tags - closing > _DEEPEST:
            return True
        depth = max(0, depth + tags - 2 * closing)
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
        day = _DAY.match((meta.getattr("content") or "").strip()) if name in _DATES else None
        if day:
            found.setdefault(name, day[0])
    return next((found[name] for name in _DATES if name in found), None)
