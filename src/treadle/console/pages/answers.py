"""``/interactions``: every request with its answer, filtered and by page; ``?format=json`` gives an `AnswersPage`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice
from typing import cast

from treadle.console.visit import Page, Query, Visit
from treadle.record.interaction_filter import Origin, Rating
from treadle.record.interaction_index import InteractionFilter, InteractionIndex, InteractionRow
from treadle.record.record import Record

PER_PAGE = 50
RELEASES = 100  # offered to filter by
_PREVIEW_SECONDS = 0.03  # texts are looked up for so long; rows beyond that show none
_PREVIEW = 140  # characters
RATINGS = ("", "up", "down", "corrected", "rated", "unrated")
STATUSES = ("", "ok", "failed", "cancelled")
ORIGINS = ("traffic", "smoke", "shadow", "all")


@dataclass(frozen=True, slots=True)
class AnswersFilter:
    """What was asked for; times as the index takes them."""

    text: str = ""
    status: str = ""
    rating: str = ""
    release: str = ""
    user: str = ""
    since: str = ""
    until: str = ""
    origin: str = "traffic"

    def query(self) -> dict[str, str]:
        """For a link to another page of the same list."""
        named = {name: str(getattr(self, name)) for name in ("text", "status", "rating", "release", "user")}
        return {**named, "since": self.since, "until": self.until, "origin": self.origin}


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One line: the row of the index, the version that answered, and the beginning of the question where it was at
    hand."""

    row: InteractionRow
    version: str
    question: str | None


@dataclass(frozen=True, slots=True)
class ReleaseChoice:
    """A release to filter by."""

    digest: str
    label: str


@dataclass(frozen=True, slots=True)
class AnswersPage:
    """``total`` counts what matches without the text; ``next`` continues the list; ``searched`` says how many texts
    were looked at; ``unread`` how many interactions the index has not read yet."""

    filter: AnswersFilter
    rows: tuple[AnswerRow, ...]
    total: int
    next: str | None
    searched: int | None
    unread: int
    releases: tuple[ReleaseChoice, ...]


def answers(visit: Visit) -> Page:
    """The list."""
    index = visit.house.interactions()
    wanted = _filter(visit.query)
    where = _where(wanted)
    before = visit.query.text("before", most=100) or None
    page = index.page(where, before=before, limit=PER_PAGE)
    releases = _releases(visit.record)
    names = {each.digest: each.label for each in releases}
    questions = _questions(index, page.rows)
    rows = tuple(AnswerRow(row, names.get(row.release, row.model), questions.get(row.id)) for row in page.rows)
    view = AnswersPage(wanted, rows, index.count(where), page.next, page.searched, index.waiting(), releases)
    return Page("answers.html", "Answers", "answers", view)


def _filter(query: Query) -> AnswersFilter:
    return AnswersFilter(
        query.text("text", most=300),
        query.choice("status", STATUSES, ""),
        query.choice("rating", RATINGS, ""),
        query.text("release", most=100),
        query.text("user", most=100),
        query.text("since", most=40),
        query.text("until", most=40),
        query.choice("origin", ORIGINS, "traffic"),
    )


def _where(wanted: AnswersFilter) -> InteractionFilter:
    return InteractionFilter(
        release=wanted.release or None,
        status=wanted.status or None,
        rating=cast("Rating | None", wanted.rating or None),
        user=wanted.user or None,
        since=wanted.since or None,
        until=wanted.until or None,
        text=wanted.text or None,
        origin=None if wanted.origin == "all" else cast("Origin", wanted.origin),
    )


def _releases(record: Record) -> tuple[ReleaseChoice, ...]:
    """The latest releases that were judged or deployed, latest first, called by their versions."""
    versions = {version.digest: version.short for version in record.versions.all("model")}
    found: dict[str, str] = {}
    for row in islice(record.ledger.rows_back("gate", "deployment"), 2 * RELEASES):
        body = row.body
        name = versions.get(body["model"], body["release"][:11]) if row.kind == "gate" else body["model"]
        if row.kind == "gate" or body["release"] not in found:
            found[body["release"]] = name
    latest = list(found.items())[:RELEASES]
    return tuple(ReleaseChoice(digest, f"{label} ({digest[3:9]})") for digest, label in latest)


def _questions(index: InteractionIndex, rows: tuple[InteractionRow, ...]) -> dict[str, str]:
    deadline = time.monotonic() + _PREVIEW_SECONDS
    found = {}
    for row in rows:
        if time.monotonic() > deadline:
            break
        whole = index.get(row.id) if row.stored else None
        asked = [message["content"] for message in (whole.messages or () if whole else ()) if message["role"] == "user"]
        if asked:
            text = " ".join(asked[-1].split())
            found[row.id] = text[:_PREVIEW] + ("\u2026" if len(text) > _PREVIEW else "")
    return found
