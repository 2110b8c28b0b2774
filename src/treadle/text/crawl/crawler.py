"""The crawl: rounds, each of the addresses that the one before led to, in the order of their spelling.

Sites are asked side by side, each at its own pace; what is asked for is settled before a round begins. So the same site
gives the same snapshot, whether or not somebody was killed on the way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from treadle.text.crawl.address import normalize, path_of, site_of
from treadle.text.crawl.client import Client, Limits
from treadle.text.crawl.judging import REDIRECTS, Judge, Verdict, load, unpacked, wanted
from treadle.text.crawl.keeping import Keeping
from treadle.text.crawl.opt_outs import Policy, read_tdmrep
from treadle.text.crawl.robots import parse
from treadle.text.crawl.scope import Reach, Scope
from treadle.text.crawl.site import Manners, Site
from treadle.text.crawl.snapshot import Line
from treadle.text.crawl.visits import Visit
from treadle.text.readers.warc import Record

MOST_REDIRECTS = 10
_MOST_ROBOTS_REDIRECTS = 5
_MOST_LINES = 2_000_000  # addresses that are told one by one; what is beyond is counted
_LONGEST_DELAY = 300.0  # seconds; a site that wants a longer pause between two pages wants no crawler
_SITES_AT_ONCE = 16
_TELL_EVERY = 10.0  # seconds
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to crawl, and how. ``sent`` are the headers of each request; ``product`` is who we are in robots.txt."""

    scope: Scope
    reach: Reach
    limits: Limits
    manners: Manners
    sitemaps: bool
    product: str
    sent: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Found:
    depth: int
    hops: int = 0  # redirects that led here


@dataclass(slots=True)
class _Round:
    """Addresses that are waiting, each with the shortest way to it."""

    waiting: dict[str, _Found] = field(default_factory=dict)

    beyond: int = 0  # addresses that found no more room

    def add(self, urls: Iterable[str], found: _Found) -> None:
        for url in urls:
            known = self.waiting.get(url)
            if known is None and len(self.waiting) >= _MOST_LINES:
                self.beyond += 1
            elif known is None or (found.depth, found.hops) < (known.depth, known.hops):
                self.waiting[url] = found


class Crawler:
    """One crawl, from its first address to its last."""

    def __init__(self, folder: Path, plan: Plan, judge: Judge, keeping: Keeping, tell: Tell) -> None:
        self._folder = folder
        self._plan = plan
        self._judge = judge
        self._keeping = keeping
        self._tell = tell
        self._sites: dict[str, Site] = {}
        self._lines: dict[str, Line] = {}
        self._rules: dict[str, Line] = {}
        self._redirects: dict[str, str] = {}
        self._canonicals: dict[str, str] = {}
        self._nofollow: dict[str, None] = {}
        self._next = _Round()
        self._told = time.monotonic()
        self._beyond = 0
        self._silent = 0  # addresses that did not answer, but did before

    async def run(self) -> list[Line]:
        """A line for each address that was found, sorted, and one for each file of rules."""
        try:
            self._next.add(self._plan.scope.start, _Found(0))
            while self._next.waiting:
                this, self._beyond, self._next = self._next.waiting, self._beyond + self._next.beyond, _Round()
                await self._round(this)
        finally:
            for site in self._sites.values():
                await site.close()
        if self._silent:
            self._tell(f"{self._silent:,} addresses did not answer; what was known of them stays as it was")
        return self._settled()

    async def _round(self, found: Mapping[str, _Found]) -> None:
        candidates = [url for url in sorted(found) if url not in self._lines and self._in_scope(url)]
        await self._gathered(self._meet(name) for name in sorted({site_of(url) for url in candidates}))
        groups: dict[str, list[str]] = {}
        for url in candidates:
            if self._admitted(url, found[url]):
                groups.setdefault(site_of(url), []).append(url)
        total = sum(map(len, groups.values()))
        self._tell(f"{len(self._lines):,} addresses settled, {total:,} to ask for in this round")
        gate = asyncio.Semaphore(_SITES_AT_ONCE)
        verdicts: dict[str, Verdict] = {}
        await self._gathered(self._ask(name, urls, verdicts, gate, total) for name, urls in groups.items())
        for url in sorted(verdicts):
            self._take(verdicts[url], found[url])

    async def _gathered(self, tasks: Iterable[Coroutine[Any, Any, None]]) -> None:
        # No task group: the first error is to be told as it is, and the end of the loop cancels the others.
        await asyncio.gather(*tasks)

    def _in_scope(self, url: str) -> bool:
        why = self._plan.scope.refuses(url)
        if why is not None:
            self._refuse(url, "website.out_of_scope", why)
        return why is None

    def _refuse(self, url: str, rule: str, reason: str) -> None:
        if len(self._lines) < _MOST_LINES:
            self._lines[url] = Line(url, "dropped", rule, reason)
        else:
            self._beyond += 1

    def _admitted(self, url: str, found: _Found) -> bool:
        site = self._sites[site_of(url)]
        rule = site.policy.robots.rule_for(path_of(url))
        if rule is not None:
            self._refuse(url, "website.robots", f"robots.txt forbids it: {rule[:100]}")
            return False
        refused = self._plan.reach.refuses(url, found.depth)
        if refused is not None:
            self._refuse(url, *refused)
        return refused is None

    async def _ask(
        self, name: str, urls: list[str], verdicts: dict[str, Verdict], gate: asyncio.Semaphore, total: int
    ) -> None:
        async with gate:
            site = self._sites[name]
            for url in urls:
                visit = Visit(url, None, failure=site.unreachable) if site.unreachable else await self._visit(site, url)
                verdicts[url] = self._judge.judge(visit, site.policy)
                self._silent += bool(visit.failure) and verdicts[url].line.reason != visit.failure
                if time.monotonic() - self._told >= _TELL_EVERY:
                    self._told = time.monotonic()
                    self._tell(f"{len(verdicts):,} of {total:,} in this round")

    async def _visit(self, site: Site, url: str, rules: bool = False) -> Visit:
        """What is known of an address, or what asking for it gives now. Files of rules may be of any type."""
        known = self._keeping.visit(url)
        if known is not None:
            return known
        answer = await site.get(
            url,
            self._keeping.conditions(url),
            lambda status, headers: rules or status != 200 or wanted(url, headers),
        )
        return self._keeping.keep(url, answer)

    def _take(self, verdict: Verdict, found: _Found) -> None:
        line = verdict.line
        self._lines[line.url] = line
        self._next.add(verdict.links, _Found(found.depth + 1))
        self._next.add(verdict.sitemap, _Found(0))
        self._nofollow.update(dict.fromkeys(verdict.nofollow))
        if verdict.redirect is not None:
            self._redirects[line.url] = verdict.redirect
            if found.hops < MOST_REDIRECTS:
                self._next.add([verdict.redirect], _Found(found.depth, found.hops + 1))
            else:
                reason = f"redirected more than {MOST_REDIRECTS} times"
                self._lines[line.url] = replace(line, outcome="quarantined", rule="", reason=reason)
        if verdict.canonical is not None and self._plan.scope.refuses(verdict.canonical) is None:
            self._canonicals[line.url] = verdict.canonical
            self._next.add([verdict.canonical], _Found(found.depth))

    # -- the rules of a site

    async def _meet(self, name: str) -> None:
        """Ask a site for its rules, once. Where they cannot be had, those of the crawl before say what they can."""
        site = self._site(name)
        if site.asked:
            return
        site.asked = True
        visit = await self._followed(f"{name}/robots.txt")
        body = self._body(visit)
        site.unreachable = _unreachable(visit)
        if not site.unreachable and isinstance(body, str):
            site.unreachable = _not_to_be_had(body)
        robots = parse(b"" if isinstance(body, str) else body, self._plan.product)
        if robots.delay > _LONGEST_DELAY:
            site.unreachable = _not_to_be_had(f"Crawl-delay {robots.delay:.0f}, more than {_LONGEST_DELAY:.0f} seconds")
        site.policy = Policy(robots)
        place = f"{name}/.well-known/tdmrep.json"
        told = (
            Visit(place, None, failure=site.unreachable) if site.unreachable else await self._visit(site, place, True)
        )
        self._rules[place] = self._keeping.rules_line(told)
        if site.unreachable:
            self._tell(f"{name}: {site.unreachable}")
        reserved = self._body(told)
        site.policy = Policy(robots, read_tdmrep(b"" if isinstance(reserved, str) else reserved))
        if self._plan.sitemaps:
            found = (normalize(each, name + "/") for each in robots.sitemaps)
            self._next.add((url for url in found if url), _Found(0))

    async def _followed(self, url: str) -> Visit:
        """RFC 9309 2.3.1.2: at least five redirects of robots.txt are followed, to other hosts too. One that does not
        answer leads to where it did before, and is a failure of them all."""
        visit = await self._rules_of(url)
        failure = visit.failure
        for _ in range(_MOST_ROBOTS_REDIRECTS):
            if not visit.failure and visit.status not in REDIRECTS:
                break
            target = self._judge.judge(visit, Policy()).redirect
            if target is None:
                break
            visit = await self._rules_of(target)
            failure = failure or visit.failure
        return replace(visit, failure=failure)

    async def _rules_of(self, url: str) -> Visit:
        visit = await self._visit(self._site(site_of(url)), url, True)
        self._rules[url] = self._keeping.rules_line(visit)
        return visit

    def _body(self, visit: Visit) -> bytes | str:
        """What a file of rules says, or why that cannot be read; where it did not come, what it said at the crawl
        before."""
        place, digest = visit.payload, visit.digest
        earlier = self._judge.before.get(visit.url)
        if _unreachable(visit) and earlier is not None and earlier.digest:
            place, digest = earlier.place, earlier.digest
        if place is None:
            return b""
        found = unpacked(load(self._folder, place, digest), self._plan.limits.largest)
        return found if isinstance(found, str) else found.body if isinstance(found, Record) else b""

    def _site(self, name: str) -> Site:
        if name not in self._sites:
            self._sites[name] = Site(Client(self._plan.sent, self._plan.limits), self._plan.manners)
        return self._sites[name]

    # -- the end

    def _settled(self) -> list[Line]:
        lines = self._lines
        for url in self._nofollow:
            if url not in lines:
                lines[url] = Line(
                    url, "dropped", "website.nofollow", "only links that are not to be followed lead there"
                )
        for url in self._redirects:
            if lines[url].rule == "website.redirect" and self._circles(url):
                lines[url] = replace(lines[url], outcome="quarantined", rule="", reason="redirects in a circle")
        for url, canonical in sorted(self._canonicals.items()):
            other = lines.get(canonical)
            if lines[url].outcome == "page" and other is not None and other.outcome == "page":
                lines[url] = replace(
                    lines[url],
                    outcome="dropped",
                    rule="website.canonical",
                    reason="names another page as the right one",
                )
        seen: set[str] = set()
        for url in sorted(lines):
            line = lines[url]
            if line.outcome == "page" and line.digest in seen:
                lines[url] = replace(
                    line,
                    outcome="dropped",
                    rule="website.same_content",
                    reason="byte for byte another page",
                    opt_out=(),
                )
            elif line.outcome == "page":
                seen.add(line.digest)
        if self._beyond:
            url = f"{self._plan.scope.start[0]}#beyond"
            reason = f"{self._beyond:,} more addresses than the {_MOST_LINES:,} that are told one by one"
            lines[url] = Line(url, "dropped", "website.beyond", reason)
        rules = (line for url, line in self._rules.items() if url not in lines)
        return [*(lines[url] for url in sorted(lines)), *sorted(rules, key=lambda line: line.url)]

    def _circles(self, url: str) -> bool:
        seen: set[str] = set()
        while url in self._redirects and url not in seen:
            seen.add(url)
            url = self._redirects[url]
        return url in seen


def _unreachable(visit: Visit) -> str:
    """Why a file of rules could not be had; empty where it could, or there is none (RFC 9309 2.3.1)."""
    if visit.failure:
        why = visit.failure
    elif visit.truncated == "length":
        why = "it is larger than crawl.largest"
    elif visit.truncated or visit.status in (429, *REDIRECTS) or visit.status >= 500:
        why = f"answered with status {visit.status}"
    else:
        return ""
    return _not_to_be_had(why)


def _not_to_be_had(why: str) -> str:
    return f"robots.txt of this site cannot be had ({why}), so nothing is asked for"
