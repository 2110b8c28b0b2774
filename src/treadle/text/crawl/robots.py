"""robots.txt (RFC 9309): which group holds for us, and the longest rule that matches an address.

Besides, as far as they are in use: ``Crawl-delay``, ``Sitemap``, and what a site says of training models
(``Content-Signal: ai-train=no``, ``Content-Usage: train-ai=n``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from treadle.text.crawl.address import spelled

LARGEST = 500 * 1024  # bytes; RFC 9309 2.5: what comes after may be left out
_LONGEST = 2000  # characters of a rule
_LONGEST_NUMBER = 20  # digits that are read; a longer pause is too long in any case
_TRAINING = re.compile(r"(?i)\b(?:ai-train\s*=\s*no|train-ai\s*=\s*n)\b")


@dataclass(frozen=True, slots=True)
class Robots:
    """What holds for one crawler at one site. ``rules`` are (allowed, pattern), ``training`` the paths kept from
    training.
    """

    rules: tuple[tuple[bool, str], ...] = ()
    delay: float = 0.0
    sitemaps: tuple[str, ...] = ()
    training: tuple[str, ...] = ()

    def rule_for(self, path: str) -> str | None:
        """The rule that forbids a path (with its query), None where it is allowed. The longest rule wins, and of two
        equally long ones the one that allows.
        """
        best: tuple[int, bool, str] = (-1, True, "")
        for allowed, pattern in self.rules:
            if matches(pattern, path):
                best = max(best, (len(pattern), allowed, pattern))
        return None if best[1] or path == "/robots.txt" else best[2]

    def keeps_from_training(self, path: str) -> bool:
        """Whether the site asks that what is there trains no model."""
        return any(matches(pattern, path) for pattern in self.training)


def matches(pattern: str, path: str) -> bool:
    """Whether a path begins as the pattern says: ``*`` is anything, ``$`` at the end is the end."""
    literal, star, _ = pattern.partition("*")
    if not star and not pattern.endswith("$"):
        return path.startswith(pattern)
    return path.startswith(literal.removesuffix("$")) and _compiled(pattern).match(path) is not None


def parse(data: bytes, product: str) -> Robots:
    """The groups that name ``product`` (whatever its case), or else those for ``*``."""
    text = data[:LARGEST].decode("utf-8-sig", "replace")
    groups: list[tuple[set[str], list[tuple[str, str]]]] = []
    sitemaps: list[str] = []
    naming = False
    for line in re.split(r"\r\n|\r|\n", text):
        name, colon, value = line.partition("#")[0].partition(":")
        name, value = name.strip().lower(), value.strip()
        if not colon:
            continue
        if name == "sitemap":
            sitemaps.append(value)
        elif name == "user-agent":
            if not naming:
                groups.append((set(), []))
            groups[-1][0].add(_product(value))
            naming = True
        elif groups:
            naming = False
            groups[-1][1].append((name, value))
    ours = [lines for names, lines in groups if product.lower() in names]
    found = ours or [lines for names, lines in groups if "*" in names]
    return _robots([line for lines in found for line in lines], tuple(sitemaps))


def _product(value: str) -> str:
    return "*" if value.startswith("*") else re.split(r"[^A-Za-z_-]", value, maxsplit=1)[0].lower()


def _robots(lines: list[tuple[str, str]], sitemaps: tuple[str, ...]) -> Robots:
    rules, training, delay = [], [], 0.0
    for name, value in lines:
        if name in ("allow", "disallow") and value.startswith(("/", "*")) and len(value) <= _LONGEST:
            rules.append((name == "allow", spelled(value)))
        elif name == "crawl-delay" and re.fullmatch(r"\d+(\.\d+)?", value):
            delay = max(delay, float(value[:_LONGEST_NUMBER]))
        elif name in ("content-signal", "content-usage") and _TRAINING.search(value):
            where = value.split()[0]
            training.append(spelled(where) if where.startswith("/") else "/")
    return Robots(tuple(rules), delay, sitemaps, tuple(training))


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    ends = pattern.endswith("$")
    first, *others = re.split(r"\*+", pattern[:-1] if ends else pattern)
    # Each part may lie as early as it can, only the last before an end as late: no place is tried twice.
    last = f".*{re.escape(others.pop())}" if ends and others else ""
    between = "".join(f"(?>.*?{re.escape(part)})" for part in others)
    return re.compile(re.escape(first) + between + last + (r"\Z" if ends else ""), re.DOTALL)
