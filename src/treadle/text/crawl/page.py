"""What a page says besides its text: where it leads, what its right address is, and what may be done with it.

Own scanner rather than a parser: it reads tags only, in one pass, and runs outside the workers that may be killed.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from treadle.text.crawl.address import normalize

MOST_LINKS = 20_000  # of one page, or one sitemap (its own limit is 50,000)
MOST_PLACES = 50_000
_LONGEST_TAG = 20_000
# A comment, or an element whose content is no markup, to its end or that of the page; else a tag that is looked at.
_TAG = re.compile(
    r"<!--(?:(?>.*?-->)|.*)"
    r"|<(?P<raw>script|style|textarea|title|xmp)\b(?>[^>]*+)>?(?:(?>.*?</(?P=raw)\b)|.*)"
    r"|<(?P<name>a|area|base|frame|iframe|link|meta)(?=[\s/])(?P<rest>(?:[^<>\"']|\"[^\"]*+\"|'[^']*+')*+)",
    re.IGNORECASE | re.DOTALL,
)
_ATTRIBUTE = re.compile(r"([a-zA-Z][a-zA-Z:-]{0,40}+)(?:\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'>]++)))?+")
_REFRESH = re.compile(r"(?i)\s*+\d*+(?:\.\d*+)?+\s*+[;,]\s*+(?:url\s*+=\s*+)?+[\"']?+([^\"']++)")
_PLACE = re.compile(r"<(?:\w{1,20}:)?loc\s*+>\s*+(?:<!\[CDATA\[\s*+)?+([^<\]\s]{1,4000})", re.IGNORECASE)
_SITEMAP = re.compile(rb"<(?:\w{1,20}:)?(?:urlset|sitemapindex)\b")
_AGENT = re.compile(r"[a-z][a-z0-9_-]*\Z")


@dataclass(slots=True)
class Page:
    """``links`` are followed, ``nofollow`` are not; ``robots`` are the words of ``<meta name=robots>``, in lower case.

    ``reserved`` is what ``<meta name=tdm-reservation>`` says, None when there is none.
    """

    links: dict[str, None] = field(default_factory=dict)
    nofollow: dict[str, None] = field(default_factory=dict)
    canonical: str | None = None
    robots: set[str] = field(default_factory=set)
    reserved: bool | None = None


def read_page(markup: str, url: str, product: str) -> Page:
    """What the tags of a page say to a crawler of that name."""
    found = Page()
    base = url
    for name, attributes in _tags(markup):
        address = attributes.get("href" if name in ("a", "area", "link", "base") else "src", "")
        relations = set(attributes.get("rel", "").lower().split())
        if name == "base":
            base = normalize(address, url) or base
        elif name == "meta":
            _meta(found, attributes, base, product)
        elif name == "link":
            if "canonical" in relations and found.canonical is None:
                found.canonical = normalize(address, base)
            elif relations & {"next", "prev"}:
                _link(found.links, address, base)
        elif address and relations & {"nofollow", "ugc", "sponsored"}:
            _link(found.nofollow, address, base)
        elif address:
            _link(found.links, address, base)
    return found


def is_sitemap(data: bytes) -> bool:
    """Whether XML is a sitemap, or an index of sitemaps (sitemaps.org)."""
    return _SITEMAP.search(data[:4096]) is not None


def read_sitemap(data: bytes, url: str) -> dict[str, None]:
    """The addresses it names, in order."""
    found: dict[str, None] = {}
    for place in _PLACE.finditer(data.decode("utf-8", "replace")):
        address = normalize(html.unescape(place[1]), url)
        if address:
            found[address] = None
        if len(found) >= MOST_PLACES:
            break
    return found


def words_of(values: list[str], product: str) -> set[str]:
    """Directives of ``X-Robots-Tag`` or ``<meta name=robots>`` that hold for a crawler: those for all, and those
    after its own name and a colon.
    """
    found: set[str] = set()
    for value in values:
        holds = True
        for piece in value.lower().split(","):
            name, colon, rest = (part.strip() for part in piece.partition(":"))
            if colon and name not in ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"):
                if _AGENT.match(name):
                    holds = name in (product.lower(), "*")
                name = rest
            if holds and name:
                found.add(name)
    return found


def _meta(found: Page, attributes: Mapping[str, str], base: str, product: str) -> None:
    name, content = attributes.get("name", "").lower(), attributes.get("content", "")
    if name in ("robots", product.lower()):
        found.robots |= {word.strip().lower() for word in content.split(",")}
    elif name == "tdm-reservation":
        found.reserved = content.strip() == "1"
    elif attributes.get("http-equiv", "").lower() == "refresh":
        refresh = _REFRESH.match(content)
        if refresh:
            _link(found.links, refresh[1], base)


def _link(links: dict[str, None], address: str, base: str) -> None:
    url = normalize(address, base)
    if url and len(links) < MOST_LINKS:
        links[url] = None


def _tags(markup: str) -> Iterator[tuple[str, dict[str, str]]]:
    for tag in _TAG.finditer(markup):
        name = tag["name"]
        if name is None or len(tag["rest"]) > _LONGEST_TAG:
            continue
        attributes: dict[str, str] = {}
        for key, *values in _ATTRIBUTE.findall(tag["rest"]):
            attributes.setdefault(key.lower(), html.unescape("".join(values)))
        yield name.lower(), attributes
