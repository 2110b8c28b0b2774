"""Which addresses belong to a crawl, and how far it goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from treadle.text.crawl.address import host_of, path_of, trap, variant_of

Within = Literal["host", "prefix", "allow"]


@dataclass(frozen=True, slots=True)
class Scope:
    """``within``: the hosts that ``start`` names, or what lies under its folders, or what ``allow`` matches. Where
    ``allow`` is given, an address must match one of its globs, and none of ``deny``. In a glob with ``://`` host and
    path are matched each by itself.
    """

    start: tuple[str, ...]
    within: Within
    allow: tuple[str, ...]
    deny: tuple[str, ...]

    def refuses(self, url: str) -> str | None:
        """Why an address is none of this crawl."""
        if self.within == "host" and host_of(url) not in {host_of(start) for start in self.start}:
            return "on another host"
        if self.within == "prefix" and not any(_under(url, start) for start in self.start):
            return "outside the folders of start"
        if self.allow and url not in self.start and not any(_matches(url, rule) for rule in self.allow):
            return "matches nothing in allow"
        return "matches deny" if any(_matches(url, rule) for rule in self.deny) else None


@dataclass(slots=True)
class Reach:
    """How far a crawl goes. It counts, so ask it once for each address, in an order that is the same each time."""

    pages: int
    depth: int
    variants: int
    year: int
    _asked: int = 0
    _variants: Counter[str] = field(default_factory=Counter)

    def refuses(self, url: str, depth: int) -> tuple[str, str] | None:
        """The rule and the reason why an address is not asked for."""
        if depth > self.depth:
            return "website.max_depth", f"more than {self.depth} links from start; max_depth"
        why = trap(url, self.year)
        variant = variant_of(url)
        if why is None and variant is not None:
            self._variants[variant] += 1
            if self._variants[variant] > self.variants:
                why = f"one of more than {self.variants} that differ in their query only; max_variants"
        if why is not None:
            return "website.trap", why
        self._asked += 1
        return ("website.max_pages", f"more than {self.pages} pages; max_pages") if self._asked > self.pages else None


def hosts(urls: Sequence[str]) -> frozenset[str]:
    """Hosts of addresses."""
    return frozenset(host_of(url) for url in urls)


def _matches(url: str, rule: str) -> bool:
    """Host by host and path by path: a ``*`` for the one never reaches into the other."""
    if "://" not in rule:
        return fnmatchcase(url, rule)
    (site, _, path), (sites, slash, paths) = (_parted(url), _parted(rule))
    return fnmatchcase(site, sites) and (not slash or fnmatchcase(path, paths))


def _parted(url: str) -> tuple[str, str, str]:
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}", slash, path


def _under(url: str, start: str) -> bool:
    folder = path_of(start).partition("?")[0].rpartition("/")[0] + "/"
    return host_of(url) == host_of(start) and path_of(url).startswith(folder)
