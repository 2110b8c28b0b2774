"""What a site asks that is done with its pages: not to be listed, not to be followed, not to train a model.

Read are ``X-Robots-Tag`` and ``<meta name=robots>`` (noindex, nofollow, none, noai), TDM reservation (W3C community
group: the page's own word before its header, that before ``/.well-known/tdmrep.json``), and signals in robots.txt.
``noimageai`` concerns images, which nobody takes here. ``ai.txt`` has no agreed form and is not read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from treadle.text.crawl.address import path_of, spelled
from treadle.text.crawl.page import Page, words_of
from treadle.text.crawl.robots import Robots, matches

Headers = Sequence[tuple[str, str]]
_MOST_RULES = 1000


@dataclass(frozen=True, slots=True)
class Policy:
    """What a site says of all its pages; ``reservations`` are (pattern, reserved) of ``tdmrep.json``."""

    robots: Robots = field(default_factory=Robots)
    reservations: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What holds for one page. ``training`` names who asks that it trains no model."""

    listed: bool
    followed: bool
    training: tuple[str, ...]


def wishes(url: str, headers: Headers, page: Page, policy: Policy, product: str) -> Wishes:
    """What a page, its headers and its site ask for."""
    words = page.robots | words_of(values(headers, "x-robots-tag"), product)
    path = path_of(url)
    training = ["noai"] if "noai" in words else []
    if _reserved(path, headers, page, policy):
        training.append("tdm-reservation")
    if policy.robots.keeps_from_training(path):
        training.append("robots.txt")
    return Wishes(not words & {"noindex", "none"}, not words & {"nofollow", "none"}, tuple(training))


def read_tdmrep(data: bytes) -> tuple[tuple[str, bool], ...]:
    """Patterns and whether what they match is reserved; nothing where it is not the list it should be."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(found, list):
        return ()
    rules = []
    for rule in found[:_MOST_RULES]:
        place = rule.get("location") if isinstance(rule, dict) else None
        if isinstance(place, str):
            rules.append((spelled(place), str(rule.get("tdm-reservation")) == "1"))
    return tuple(rules)


def values(headers: Headers, name: str) -> list[str]:
    """All values of a header."""
    return [value for key, value in headers if key.lower() == name]


def _reserved(path: str, headers: Headers, page: Page, policy: Policy) -> bool:
    if page.reserved is not None:
        return page.reserved
    header = values(headers, "tdm-reservation")
    if header:
        return header[0].strip() == "1"
    return next((reserved for pattern, reserved in policy.reservations if matches(pattern, path)), False)
