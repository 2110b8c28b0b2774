"""What is kept of each visit: the records, then the line that names them; and what is known from the crawl before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from treadle.text.crawl.address import path_of
from treadle.text.crawl.client import Answer
from treadle.text.crawl.judging import REDIRECTS
from treadle.text.crawl.opt_outs import values
from treadle.text.crawl.snapshot import Line
from treadle.text.crawl.visits import Visit, Visits, body_digest
from treadle.text.crawl.warc_file import (
    Headers,
    Revisit,
    WarcFiles,
    http_head,
    new_id,
    payload_digest,
    read_record,
    record,
    record_facts,
    revisit_fields,
)


class Keeping:
    """The visits of one crawl on disk. ``before`` are the lines of the crawl before, but those whose record is gone;
    ``settings`` is a digest over those of this one."""

    def __init__(self, folder: Path, before: Mapping[str, Line], information: Headers, settings: str) -> None:
        self._folder = folder
        self._before = before
        self._visits = Visits(folder, settings)
        self.began = self._visits.began
        self._files = WarcFiles(folder, self.began, information, self._visits.end)

    def __len__(self) -> int:
        return len(self._visits)

    def visit(self, url: str) -> Visit | None:
        """What this crawl, perhaps before it was killed, has of an address."""
        return self._visits.get(url)

    def conditions(self, url: str) -> dict[str, str]:
        """Headers that ask for a page only if it changed."""
        line = self._before.get(url)
        if line is None:
            return {}
        found = {"If-None-Match": line.etag, "If-Modified-Since": line.modified}
        return {name: value for name, value in found.items() if value}

    def keep(self, url: str, answer: Answer) -> Visit:
        """Write what came of asking for an address."""
        earlier = self._before.get(url)
        if earlier is not None and not earlier.digest:
            earlier = None  # an answer without a body is none to compare with
        if answer.status == 304 and earlier is None and not answer.failure:
            answer = Answer(failure="answered 304 to a request without conditions")
        if answer.failure:
            members = [self._failure(url, answer)]
            visit = Visit(url, self._files.append(members)[-1], failure=answer.failure)
        else:
            visit = self._kept(url, answer, earlier)
        self._visits.add(visit)
        return visit

    def rules_line(self, visit: Visit) -> Line:
        """What the snapshot says of robots.txt and the like: enough to ask next time whether it changed."""
        earlier = self._before.get(visit.url)
        if (visit.failure or visit.status >= 500) and earlier is not None and earlier.place is not None:
            return replace(earlier, outcome="rules", rule="", reason="", opt_out=())
        if visit.payload is None or visit.place is None:
            place = visit.place if visit.status in REDIRECTS else None  # where to go on when it does not answer
            return Line(visit.url, "rules", reason=visit.failure or f"answered with status {visit.status}", place=place)
        headers = read_record(self._folder, visit.place).headers
        etag, modified = (next(iter(values(headers, name)), "") for name in ("etag", "last-modified"))
        return Line(visit.url, "rules", place=visit.payload, digest=visit.digest, etag=etag, modified=modified)

    def close(self, *, done: bool) -> None:
        """``done`` when the snapshot of this crawl is written."""
        self._files.close()
        self._visits.close(done=done)

    def sync(self) -> None:
        """Everything written is on the disk."""
        self._files.close()

    def _kept(self, url: str, answer: Answer, earlier: Line | None) -> Visit:
        digest = body_digest(answer.body)
        same = answer.status == 200 and not answer.truncated and earlier is not None and earlier.digest == digest
        if same and earlier is not None and earlier.media:
            same = earlier.media == next(iter(values(answer.headers, "content-type")), "")[:1000]
        request, response = new_id(), new_id()
        common = [
            ("WARC-Date", _now()),
            ("WARC-Target-URI", url),
            ("WARC-IP-Address", answer.address),
        ]
        asked = http_head(f"GET {path_of(url)} HTTP/1.1", answer.request)
        sent = record("request", [("WARC-Record-ID", request), ("WARC-Concurrent-To", response), *common,
                                  ("Content-Type", "application/http;msgtype=request")], asked)  # fmt: skip
        fields = [("WARC-Record-ID", response), *common, ("Content-Type", "application/http;msgtype=response")]
        head = http_head(f"HTTP/1.1 {answer.status} {answer.reason}".rstrip(), answer.headers)
        if earlier is not None and earlier.place is not None and (same or answer.status == 304):
            facts = record_facts(read_record(self._folder, earlier.place).plain)
            revisit = Revisit(facts["warc-record-id"], facts["warc-date"], answer.status == 304)
            member = record("revisit", [*fields, *revisit_fields(revisit, url)], head)
            place = self._files.append([sent, member])[1]
            return Visit(url, place, answer.status, payload=earlier.place, digest=earlier.digest)
        truncated = "length" if answer.truncated == "length" else "unspecified" if answer.truncated else ""
        body = b"" if answer.truncated else answer.body
        fields += [("WARC-Truncated", truncated), ("WARC-Payload-Digest", payload_digest(body))]
        place = self._files.append([sent, record("response", fields, head + body)])[1]
        if answer.truncated or answer.status != 200:
            return Visit(url, place, answer.status, truncated=answer.truncated)
        return Visit(url, place, answer.status, payload=place, digest=digest)

    def _failure(self, url: str, answer: Answer) -> bytes:
        fields = [("WARC-Record-ID", new_id()), ("WARC-Date", _now()), ("WARC-Target-URI", url)]
        block = f"outcome: {answer.failure}\r\nhost: {urlsplit(url).netloc}\r\n".encode()
        return record("metadata", [*fields, ("Content-Type", "application/warc-fields")], block)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
