"""The source ``website``: a crawl of a site, kept as WARC files, and the documents that are in it.

A crawl is a snapshot. It lies in a folder of the project; documents are read from there, never from the network, so
that a run with another setting of training reads the same text. ``refresh`` crawls (anew) when that is due.
"""

from __future__ import annotations

import asyncio
import fcntl
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Literal

from treadle.core.digest import PREFIX, blake3_bytes, canonical_json
from treadle.core.duration import parse_seconds
from treadle.core.errors import UserError
from treadle.core.settings import Moment
from treadle.text.accounting import Quarantined
from treadle.text.crawl import snapshot, visits
from treadle.text.crawl.address import host_of, normalize
from treadle.text.crawl.client import Limits
from treadle.text.crawl.crawler import Crawler, Plan
from treadle.text.crawl.judging import Judge, load, unpacked
from treadle.text.crawl.keeping import Keeping
from treadle.text.crawl.scope import Reach, Scope, Within, hosts
from treadle.text.crawl.site import Manners
from treadle.text.crawl.snapshot import Head, Line
from treadle.text.crawl.warc_file import Place
from treadle.text.document import Document
from treadle.text.document import Origin as Made
from treadle.text.outcomes import Origin, Outcome, Outcomes, Pending, in_order
from treadle.text.readers.catalog import versions
from treadle.text.readers.piece import Documents
from treadle.text.readers.warc import Record
from treadle.text.readers.workers import Workers
from treadle.text.source import SourceContext
from treadle.text.units import Known, Unit, nothing_known, without_units

SOURCE = "website"
FOLDER = "crawls"
_JUDGED = 1  # goes up when the same visits would be judged differently
_CONTACT = re.compile(r"[^\s()<>]+@[^\s()<>]+|https?://[^\s()<>]+")
_PRODUCT = re.compile(r"[A-Za-z_-]{1,64}")
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Crawl:
    """How a site is asked, and how far. ``delay`` is in seconds between two requests to one site, and a longer
    ``Crawl-delay`` of its robots.txt holds; ``seconds`` and ``largest`` (bytes) are for one page, ``attempts`` for one
    that is busy.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (what pydantic looks for)

    delay: float = 1.0
    seconds: float = 60.0
    largest: int = 20_000_000
    attempts: int = 4
    max_pages: int = 10_000
    max_depth: int = 20
    max_variants: int = 100


class Website:
    """Source ``website``: the pages of a site, in the order of their addresses.

    ``start`` names pages or sitemaps; ``scope`` says how far from them links are followed: ``host``, ``prefix`` (their
    folders) or ``allow`` (only what its globs match). ``contact`` is where whoever runs the site can reach you.
    ``every`` is the age (``7d``) at which the next collection crawls anew; without it only ``treadle collect
    --refresh`` does.
    """

    version = 2
    instead: ClassVar[Mapping[str, str]] = {"start": "take it out: pages behind a login are not crawled"}

    def __init__(
        self,
        *,
        start: str | tuple[str, ...],
        contact: str,
        context: SourceContext,
        scope: Within = "host",
        allow: tuple[str, ...] = (),
        deny: tuple[str, ...] = (),
        sitemap: bool = True,
        every: str | None = None,
        folder: str | None = None,
        user_agent: str = "treadle",
        opt_outs: Literal["drop", "record"] = "drop",
        crawl: Crawl | None = None,
        license: str | None = None,  # noqa: A002 (the file's word)
        origin: Made = "human",
        purpose: str | None = None,
        retain_until: Moment | None = None,
        reading: Documents | None = None,
    ) -> None:
        self._start = _addresses((start,) if isinstance(start, str) else start)
        self._crawl = crawl or Crawl()
        self._every = _seconds(every)
        if not _CONTACT.fullmatch(contact):
            raise UserError("website: contact is where the site's people can reach you: an address of mail, or a page")
        if not _PRODUCT.fullmatch(user_agent):
            raise UserError("website: user_agent is the name in robots.txt: letters, '-' and '_'")
        if scope == "allow" and not allow:
            raise UserError("website: scope: allow needs globs in allow, such as https://docs.example.org/*")
        if scope == "allow" and (bare := [rule for rule in allow if "://" not in rule]):
            raise UserError(f"website: allow: {bare[0]} names no host; expected one such as https://docs.example.org/*")
        _check(self._crawl)
        self._contact, self._product, self._sitemap = contact, user_agent, sitemap
        self._scope = Scope(self._start, scope, allow, deny)
        self._record_opt_outs = opt_outs == "record"
        place = folder or f"{FOLDER}/{_name(self._scope)}"
        self._folder = context.project / place
        self._context = context
        self._documents = reading or Documents()
        self._common: dict[str, Any] = {
            "license": license,
            "origin": origin,
            "purpose": purpose,
            "retain_until": retain_until,
        }

    def fingerprint(self) -> str:
        """The digest over the snapshot, from its first line."""
        head = snapshot.read_head(self._folder)
        return "not crawled yet" if head is None else f"{head.pages} pages {head.digest}"

    def due(self) -> str | None:
        """Why the next collection will crawl; None when it will not."""
        head = snapshot.read_head(self._folder)
        if (self._folder / visits.FILE).exists():
            return "a crawl of it did not come to its end"
        if head is None:
            return "it was not crawled yet"
        if head.settings != self._settings():
            return "settings of its crawl changed"
        if not head.pages:
            return "its last crawl brought home no page"
        if self._every is not None and snapshot.age(head) >= self._every:
            return f"the last crawl began {head.began:%Y-%m-%d %H:%M} UTC"
        return None

    def refresh(self, tell: Tell, *, asked: bool = False) -> None:
        """Crawl when that is due, or ``asked``; one that was killed goes on. Only what changed is sent by a server that
        can tell.
        """
        why = self.due() or ("asked for" if asked else None)
        if why is None:
            return
        with self._held():
            tell(f"website {self._start[0]}: crawling, {why}")
            head = self._crawled(tell)
            tell(f"website {self._start[0]}: {head.pages:,} pages, digest {head.digest[:11]}")

    def read(self, cursor: str | None = None) -> Iterator[Outcome]:
        """What became of each address; with ``cursor``, an address, of those after it."""
        return without_units(self._pieces(nothing_known, cursor))

    def read_changed(self, known: Known) -> Iterator[Outcome | Unit]:
        """The same by addresses; one is known by its page's digest and what decides on it."""
        return self._pieces(known, None)

    def _pieces(self, known: Known, cursor: str | None) -> Iterator[Outcome | Unit]:
        head = snapshot.read_head(self._folder)
        if head is None:
            raise UserError(f"website: {self._start[0]} was not crawled yet; run `treadle collect`")
        if head.settings != self._settings():
            raise UserError(
                f"website: {self._folder} holds a crawl with other settings than those of {self._start[0]}; run "
                "`treadle collect`, and where two sources share the folder, name a `folder` for each"
            )
        lines = list(snapshot.read_lines(self._folder))
        snapshot.check_digest(head, lines, self._folder)
        workers = Workers(self._documents)
        made = Outcomes(self._common, self._context.keyed, workers, SOURCE)
        try:
            wanted = (line for line in lines if line.outcome != "rules" and (cursor is None or line.url > cursor))
            yield from in_order(self._all(wanted, known, made))
        finally:
            workers.close()

    def _all(self, lines: Iterable[Line], known: Known, made: Outcomes) -> Iterator[Outcome | Pending | Unit]:
        readers = versions()
        for line in lines:
            mark = blake3_bytes(canonical_json([*line.telling(), readers]))
            unit = Unit(line.url, mark, known(line.url, mark))
            yield unit
            if not unit.known:
                yield self._piece(line, made)

    def _piece(self, line: Line, made: Outcomes) -> Outcome | Pending:
        if line.outcome == "quarantined":
            return Quarantined(f"{SOURCE}:{line.url}", 0, line.reason)
        if line.outcome == "dropped" or line.place is None:
            return made.dropped(line.url, line.rule, line.reason)
        found = unpacked(load(self._folder, line.place, line.digest), self._crawl.largest)
        if not isinstance(found, Record):
            return Quarantined(f"{SOURCE}:{line.url}", 0, "its record holds no page")
        where = Origin(line.url, f"{SOURCE}:{line.url}", modified=_time(line.changed))
        pending = made.pending(found.kind, found.body, where, {"format": found.kind})
        if not line.opt_out:
            return pending
        return replace(pending, outcomes=lambda pieces: _opted_out(pending.outcomes(pieces), line.opt_out))

    # -- crawling

    def _crawled(self, tell: Tell) -> Head:
        lines = snapshot.read_lines(self._folder)
        before = {line.url: line for line in lines if line.place is None or self._is_there(line.place)}
        sent = self._sent()
        information = (
            ("software", "Treadle"),
            ("operator", self._contact),
            ("http-header-user-agent", sent["User-Agent"]),
            ("robots", "obey"),
            ("format", "WARC File Format 1.1"),
        )
        keeping = Keeping(self._folder, before, information, self._settings())
        done = False
        try:
            crawl = self._crawl
            plan = Plan(
                self._scope,
                Reach(crawl.max_pages, crawl.max_depth, crawl.max_variants, keeping.began.year),
                Limits(crawl.seconds, crawl.largest, hosts(self._start)),
                Manners(crawl.delay, crawl.attempts),
                self._sitemap,
                self._product,
                sent,
            )
            judge = Judge(self._folder, self._product, crawl.largest, self._record_opt_outs, before)
            found = asyncio.run(Crawler(self._folder, plan, judge, keeping, tell).run())
            keeping.sync()
            head = snapshot.write_snapshot(self._folder, self._settings(), keeping.began, found)
            done = True
        finally:
            keeping.close(done=done)
        return head

    def _sent(self) -> dict[str, str]:
        from importlib.metadata import version

        agent = f"{self._product}/{version('treadle')} (+{self._contact})"
        found = {"User-Agent": agent, "Accept": "text/html,application/xhtml+xml,*/*;q=0.5", "Accept-Encoding": "gzip"}
        return {**found, "From": self._contact} if "://" not in self._contact else found

    def _is_there(self, place: Place) -> bool:
        path = self._folder / place.file
        return path.exists() and path.stat().st_size >= place.offset + place.length

    def _settings(self) -> str:
        """A digest over what decides which pages a crawl takes."""
        crawl = {name: value for name, value in asdict(self._crawl).items() if name not in ("delay", "attempts")}
        parts = [_JUDGED, asdict(self._scope), crawl, self._sitemap, self._product, self._record_opt_outs]
        return blake3_bytes(canonical_json(parts))

    @contextmanager
    def _held(self) -> Iterator[None]:
        """One crawl of a folder at a time; the kernel lets go when its process ends."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = (self._folder / "lock").open("w")
        except OSError as error:
            raise UserError(f"cannot write {self._folder}: {error.strerror}; name another folder") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{self._folder} is being crawled by another process; wait for it, or end it") from None
            yield


def _opted_out(found: Iterator[Outcome], who: tuple[str, ...]) -> Iterator[Outcome]:
    for piece in found:
        yield replace(piece, opt_out=who) if isinstance(piece, Document) else piece


def _name(scope: Scope) -> str:
    """A folder for each scope: two sources of one host are two crawls."""
    host = re.sub(r"[^a-z0-9.-]", "_", host_of(scope.start[0]))
    return f"{host}-{blake3_bytes(canonical_json(asdict(scope))).removeprefix(PREFIX)[:8]}"


def _addresses(start: tuple[str, ...]) -> tuple[str, ...]:
    found = []
    for address in start:
        url = normalize(address)
        if url is None:
            raise UserError(
                "website: start is an address such as https://docs.example.org/, without a name or password"
            )
        found.append(url)
    if not found:
        raise UserError("website: start names no address; for example https://docs.example.org/")
    return tuple(dict.fromkeys(found))


def _seconds(every: str | None) -> float | None:
    try:
        return None if every is None else parse_seconds(every)
    except ValueError as error:
        raise UserError(f"website: every: {error}") from None


def _check(crawl: Crawl) -> None:
    least_of = {"delay": 0, "seconds": 0.1, "largest": 1000, "attempts": 1, "max_pages": 1, "max_depth": 0}
    for name, least in (least_of | {"max_variants": 1}).items():
        if getattr(crawl, name) < least:
            raise UserError(f"website: crawl.{name} is {getattr(crawl, name)}; expected at least {least}")


def _time(value: str) -> str | None:
    """``Last-Modified`` as ISO 8601."""
    try:
        return parsedate_to_datetime(value).isoformat() if value else None
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
