"""What a visit means: a page, something that a rule takes out, or something that cannot be had; and where it leads.

Worked out from the WARC record alone, with the rules of its site: a crawl that goes on after a kill comes to the same.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from treadle.core.errors import Corrupt
from treadle.text.crawl.address import normalize, path_of
from treadle.text.crawl.opt_outs import Headers, Policy, values, wishes
from treadle.text.crawl.page import Page, is_sitemap, read_page, read_sitemap
from treadle.text.crawl.snapshot import Line, Outcome
from treadle.text.crawl.visits import Visit, body_digest
from treadle.text.crawl.warc_file import Kept, Place, read_record
from treadle.text.readers.decoding import decode
from treadle.text.readers.piece import UnreadableError
from treadle.text.readers.warc import READ_TYPES, Passed, Record, records
from treadle.text.rows import BadRow

REDIRECTS = (301, 302, 303, 307, 308)
_LARGEST_SITEMAP = 50 << 20  # bytes unpacked, as sitemaps.org has it
_PACKED = ("application/gzip", "application/x-gzip")
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A line of the snapshot, and the addresses it leads to. Those of ``sitemap`` are as good as ones to start from."""

    line: Line
    links: Iterable[str] = ()
    nofollow: Iterable[str] = ()
    sitemap: Iterable[str] = ()
    redirect: str | None = None
    canonical: str | None = None


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges visits of one crawl. ``before`` are the lines of the snapshot before, but those whose record is gone."""

    folder: Path
    product: str
    largest: int
    record_opt_outs: bool
    before: Mapping[str, Line] = field(repr=False)

    def judge(self, visit: Visit, policy: Policy) -> Verdict:
        """What a visit means. An address that failed to answer this time is as it was the last time."""
        url = visit.url
        if visit.failure:
            return self._as_before(visit, policy)
        assert visit.place is not None
        kept = load(self.folder, visit.place, None)
        if visit.status in REDIRECTS:
            return self._redirected(url, visit.place, kept)
        if visit.status not in (200, 304):
            said = f"answered with status {visit.status}"
            return Verdict(Line(url, "dropped", "website.status", said, visit.place))
        if visit.truncated == "type":
            said = f"no reader for {media_of(kept.headers)}"
            return Verdict(Line(url, "dropped", "website.content_type", said, visit.place))
        if visit.truncated:
            said = f"longer than {self.largest} bytes; raise largest"
            return Verdict(Line(url, "quarantined", reason=said, place=visit.place))
        assert visit.payload is not None
        headers = kept.headers
        if visit.payload != visit.place:
            kept = load(self.folder, visit.payload, visit.digest)
            told = {name.lower() for name, _ in headers}
            if visit.status == 304:  # it says what changed; the rest holds
                headers = [*headers, *(pair for pair in kept.headers if pair[0].lower() not in told)]
        line = _with_body(url, visit.payload, kept, None, headers, visit.digest)
        return self._read(url, kept, headers, policy, line)

    def _as_before(self, visit: Visit, policy: Policy) -> Verdict:
        """By the last answer; without one the address is in quarantine, for the reason that was learned last."""
        url, earlier = visit.url, self.before.get(visit.url)
        if earlier is not None and earlier.place is not None:
            kept = load(self.folder, earlier.place, earlier.digest or None)
            if earlier.digest:
                return self._read(url, kept, kept.headers, policy, _with_body(url, earlier.place, kept, earlier))
            return self._redirected(url, earlier.place, kept) if kept.status in REDIRECTS else Verdict(earlier)
        asked = visit.place is not None
        if earlier is not None and earlier.outcome == "quarantined" and not asked:
            return Verdict(earlier)
        return Verdict(Line(url, "quarantined", reason=visit.failure))

    def _redirected(self, url: str, place: Place, kept: Kept) -> Verdict:
        target = normalize(values(kept.headers, "location")[0], url) if values(kept.headers, "location") else None
        if target is None:
            said = f"status {kept.status} without an address to go to"
            return Verdict(Line(url, "quarantined", reason=said, place=place))
        return Verdict(Line(url, "dropped", "website.redirect", "points to another address", place), redirect=target)

    def _read(self, url: str, kept: Kept, headers: Headers, policy: Policy, line: Line) -> Verdict:
        found = unpacked(kept, self.largest)
        if isinstance(found, str):
            return Verdict(_as(line, "quarantined", reason=found))
        if isinstance(found, Passed):
            return Verdict(_as(line, "dropped", "website.empty", "an empty body"))
        if found.kind == "xml" and is_sitemap(found.body):
            return self._sitemap(line, found.body)
        if not found.kind and found.body.startswith(_GZIP):
            data = _unzipped(found.body)
            if is_sitemap(data):
                return self._sitemap(line, data)
        if not found.kind:
            return Verdict(_as(line, "dropped", "website.content_type", f"no reader for {media_of(headers)}"))
        page = read_page(_markup(found.body), url, self.product) if found.kind == "html" else Page()
        wish = wishes(url, headers, page, policy, self.product)
        links = page.links if wish.followed else {}
        nofollow = page.nofollow if wish.followed else {**page.links, **page.nofollow}
        if not wish.listed:
            line = _as(line, "dropped", "website.noindex", "asks not to be listed (noindex)")
        elif wish.training and not self.record_opt_outs:
            line = _as(line, "dropped", "website.opt_out", f"asks to train no model ({', '.join(wish.training)})")
        else:
            line = _as(line, "page", opt_out=wish.training)
        return Verdict(line, links, nofollow, canonical=page.canonical if page.canonical != url else None)

    def _sitemap(self, line: Line, data: bytes) -> Verdict:
        return Verdict(_as(line, "dropped", "website.sitemap", "a list of pages"), sitemap=read_sitemap(data, line.url))


def wanted(url: str, headers: Headers) -> bool:
    """Whether the body of an answer is worth reading: there is a reader for what it says it is."""
    media = media_of(headers)
    return media in READ_TYPES or media == "none" or (media in _PACKED and path_of(url).endswith(".xml.gz"))


def media_of(headers: Headers) -> str:
    """The type that an answer names, ``none`` where it names none."""
    found = values(headers, "content-type")
    return (found[0].partition(";")[0].strip().lower()[:60] if found else "") or "none"


def load(folder: Path, place: Place, digest: str | None) -> Kept:
    """A response as it was kept; ``Corrupt`` when its body is not the one with that digest."""
    kept = read_record(folder, place)
    if digest is not None and body_digest(kept.body) != digest:
        raise Corrupt(
            f"{folder / place.file} at {place.offset} is not what was crawled; restore the file, or remove {folder} "
            "to crawl anew"
        )
    return kept


def unpacked(kept: Kept, largest: int) -> Record | Passed | str:
    """The document in a response, in UTF-8 where its sender named another encoding; or why it cannot be read."""
    for found in records(io.BytesIO(kept.plain), max(largest, len(kept.plain))):
        return found.reason.partition(": ")[2] if isinstance(found, BadRow) else found
    return "no sound record"


def _with_body(
    url: str, place: Place, kept: Kept, earlier: Line | None, headers: Headers = (), digest: str = ""
) -> Line:
    """A line before it is judged. ``earlier``: nothing newer is known of the version."""
    if earlier is not None:
        etag, modified, digest = earlier.etag, earlier.modified, earlier.digest
    else:
        etag, modified = _first(headers, "etag"), _first(headers, "last-modified")
    media, changed = _first(kept.headers, "content-type"), _first(kept.headers, "last-modified")
    return Line(url, "page", place=place, digest=digest, media=media, changed=changed, etag=etag, modified=modified)


def _as(line: Line, outcome: Outcome, rule: str = "", reason: str = "", opt_out: tuple[str, ...] = ()) -> Line:
    return replace(line, outcome=outcome, rule=rule, reason=reason, opt_out=opt_out)


def _first(headers: Headers, name: str) -> str:
    return next(iter(values(headers, name)), "")[:1000]


def _markup(body: bytes) -> str:
    try:
        return decode(body)[0]
    except UnreadableError:
        return body.decode("latin-1")


def _unzipped(data: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as file:
            return file.read(_LARGEST_SITEMAP)
    except (OSError, EOFError, zlib.error):
        return b""
