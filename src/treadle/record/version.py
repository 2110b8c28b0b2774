"""Versions of models and datasets, and the aliases that point at them, each with its history."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from treadle.core.database import Cursor
from treadle.core.errors import UserError, nearest
from treadle.core.ledger import Fact, Ledger, Projection, Row
from treadle.core.store import Store

ALIASES = ("champion", "challenger", "previous")
NOT_RECORDED = "not recorded"  # what is not known of a thing that came from outside
FROM_NOTHING = "from nothing"  # in place of the base's name where a model began with random weights
NO_BASE_LICENSE = "no base model"  # in place of the base's license where nothing in a model came from outside
_AT_ONCE = 500  # artifacts that are looked up together
IMPORTED = "imported"  # the reason of an alias that another tool's model brought along

_REF = re.compile(
    r"(?:(?P<kind>model|dataset|corpus)(?:/|(?=@)))?(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)?@(?P<tag>[a-z0-9_-]+)\Z"
)


@dataclass(frozen=True, slots=True)
class Version:
    """``model/docs-assistant@v7``: the n-th model registered under a name."""

    kind: str
    name: str
    number: int
    digest: str
    run: str | None
    time: str

    @property
    def ref(self) -> str:
        """The full name."""
        return f"{self.kind}/{self.name}@v{self.number}"

    @property
    def short(self) -> str:
        """Without the name, for a reader who has one project before them."""
        return f"{self.kind}@v{self.number}"


def _project_version(cursor: Cursor, row: Row) -> None:
    body = row.body
    cursor.execute(
        "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?)",
        (body["of"], body["name"], body["number"], body["digest"], body["run"], row.time, row.seq),
    )


def _project_alias(cursor: Cursor, row: Row) -> None:
    body = row.body
    cursor.execute(
        "INSERT INTO aliases VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (kind, name, alias) DO UPDATE SET "
        "number = excluded.number, time = excluded.time, seq = excluded.seq",
        (body["of"], body["name"], body["alias"], body["number"], row.time, row.seq),
    )


VERSIONS = Projection(
    "versions",
    """
CREATE TABLE IF NOT EXISTS versions (
    kind TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL, digest TEXT NOT NULL, run TEXT,
    time TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (kind, name, number));
CREATE INDEX IF NOT EXISTS versions_digest ON versions (digest);
""",
    frozenset({"version"}),
    _project_version,
)
ALIAS_TABLE = Projection(
    "aliases",
    """
CREATE TABLE IF NOT EXISTS aliases (
    kind TEXT NOT NULL, name TEXT NOT NULL, alias TEXT NOT NULL, number INTEGER,
    time TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (kind, name, alias));
""",
    frozenset({"alias"}),
    _project_alias,
)


class Versions:
    """Registers versions, moves aliases, resolves references."""

    def __init__(self, ledger: Ledger, store: Store, project: str) -> None:
        self._ledger = ledger
        self.store = store
        self.project = project

    def register(self, kind: str, digest: str, run: str | None, number: int | None = None) -> Version:
        """The version with this digest; a new number when there is none yet.

        ``number`` is the one it had elsewhere; ``UserError`` when another thing has it here.
        """
        known = self.find(kind, digest)
        if known is not None:
            return known
        latest = self.latest(kind)
        taken = self._numbered(kind, self.project, number) if number is not None else None
        if taken is not None:
            raise UserError(f"{taken.ref} is another {kind} already, {taken.digest[:11]}")
        if number is None:
            number = latest.number + 1 if latest else 1
        body = {"of": kind, "name": self.project, "number": number, "digest": digest, "run": run}
        row = self._ledger.append(Fact("version", body))[0]
        return Version(kind, self.project, number, digest, run, row.time)

    def all(self, kind: str, name: str | None = None) -> list[Version]:
        """Versions of a kind, oldest first."""
        sql = "SELECT kind, name, number, digest, run, time FROM versions WHERE kind = ? AND name = ? ORDER BY number"
        return [Version(*row) for row in self._ledger.database.query(sql, (kind, name or self.project))]

    def projects(self, kind: str) -> set[str]:
        """Every name that has versions of a kind, whoever registered them."""
        sql = "SELECT DISTINCT name FROM versions WHERE kind = ?"
        return {str(row[0]) for row in self._ledger.database.query(sql, (kind,))}

    def latest(self, kind: str) -> Version | None:
        """The newest version of a kind."""
        sql = "SELECT kind, name, number, digest, run, time FROM versions WHERE kind = ? AND name = ? "
        rows = self._ledger.database.query(sql + "ORDER BY number DESC LIMIT 1", (kind, self.project))
        return Version(*rows[0]) if rows else None

    def _numbered(self, kind: str, name: str, number: int) -> Version | None:
        sql = "SELECT kind, name, number, digest, run, time FROM versions WHERE kind = ? AND name = ? AND number = ?"
        rows = self._ledger.database.query(sql, (kind, name, number))
        return Version(*rows[0]) if rows else None

    def with_digest(self, digest: str) -> list[Version]:
        """Every version that is this artifact."""
        sql = "SELECT kind, name, number, digest, run, time FROM versions WHERE digest = ? ORDER BY seq"
        return [Version(*row) for row in self._ledger.database.query(sql, (digest,))]

    def names(self, digests: Sequence[str]) -> dict[str, str]:
        """The full name of the first version that each of these artifacts is, where there is one."""
        found: dict[str, str] = {}
        for start in range(0, len(digests), _AT_ONCE):
            some = digests[start : start + _AT_ONCE]
            sql = (
                "SELECT kind, name, number, digest, run, time FROM versions "
                f"WHERE digest IN ({', '.join('?' * len(some))}) ORDER BY seq"
            )
            for version in (Version(*row) for row in self._ledger.database.query(sql, some)):
                found.setdefault(version.digest, version.ref)
        return found

    def point(
        self, alias: str, version: Version | None, *, reason: str, together: Sequence[Fact] = (), **facts: Any
    ) -> None:
        """Move an alias (to nothing when ``version`` is None); survives a loss of power once it returns.

        ``champion`` leaves its former version behind as ``previous``, in the same transaction; so are the rows in
        ``together`` written.
        """
        rows = list(together)
        if alias == "champion":
            former = self.alias("model", "champion")
            if former is not None and former != version:
                rows.append(self._alias_fact("model", "previous", former.number, "was champion"))
            if version is not None and self.alias("model", "challenger") == version:
                rows.append(self._alias_fact("model", "challenger", None, "is champion"))
        kind = version.kind if version else "model"
        rows.append(self._alias_fact(kind, alias, version.number if version else None, reason, **facts))
        self._ledger.append(*rows, sync=True)

    def _alias_fact(self, kind: str, alias: str, number: int | None, reason: str, **facts: Any) -> Fact:
        body = {"of": kind, "name": self.project, "alias": alias, "number": number, "reason": reason}
        return Fact("alias", body | facts)

    def alias(self, kind: str, alias: str, name: str | None = None) -> Version | None:
        """What an alias points at now."""
        sql = (
            "SELECT v.kind, v.name, v.number, v.digest, v.run, v.time FROM aliases a JOIN versions v "
            "ON v.kind = a.kind AND v.name = a.name AND v.number = a.number "
            "WHERE a.kind = ? AND a.name = ? AND a.alias = ?"
        )
        rows = self._ledger.database.query(sql, (kind, name or self.project, alias))
        return Version(*rows[0]) if rows else None

    def served(self) -> str | None:
        """The release with which the champion was promoted; None before the first promotion."""
        return next((row.body.get("release") for row in self._moves_back("champion")), None)

    def served_as(self, version: Version) -> str | None:
        """The release with which a version was champion last; None when it never was."""
        moves = (row.body for row in self._moves_back("champion"))
        return next((body.get("release") for body in moves if body["number"] == version.number), None)

    def taken_back(self, version: Version, *, canaries: bool = True) -> Row | None:
        """The row by which a version was taken back, as champion or as a canary, unless it was promoted since. Without
        ``canaries`` as champion alone: of a champion another release may have been tried in vain."""
        found = None
        for row in self._ledger.rows("alias", *(["canary.decided"] if canaries else [])):
            body = row.body
            if body.get("taken_back") == version.number:
                found = row
            elif row.kind == "alias" and (body["name"], body["alias"]) == (self.project, "champion"):
                found = None if body["number"] == version.number else found
        return found

    def _moves(self, alias: str) -> list[Row]:
        rows = self._ledger.rows("alias")
        return [row for row in rows if row.body["alias"] == alias and row.body["name"] == self.project]

    def _moves_back(self, alias: str) -> Iterator[Row]:
        """The latest first."""
        rows = self._ledger.rows_back("alias")
        return (row for row in rows if row.body["alias"] == alias and row.body["name"] == self.project)

    def find(self, kind: str, digest: str) -> Version | None:
        """The version with this digest, where it is registered."""
        known = self.with_digest(digest)
        return next((each for each in known if each.kind == kind and each.name == self.project), None)

    def history(self, alias: str) -> list[dict[str, Any]]:
        """Every move of an alias, oldest first."""
        return [
            {"time": row.time, "version": row.body["number"], "reason": row.body["reason"], "row": row.seq}
            for row in self._moves(alias)
        ]

    def resolve(self, ref: str) -> Version | None:
        """``model/NAME@v1``, ``model@v1``, ``NAME@v1``, ``@champion``; None when it is no such reference.

        ``UserError`` when it has that form and there is no such version.
        """
        match = _REF.match(ref)
        if match is None:
            return None
        kind, tag = match["kind"] or "model", match["tag"]
        name = match["name"]
        if re.fullmatch(r"v\d{1,9}", tag):
            found = self._numbered(kind, name or self.project, int(tag[1:]))
        elif tag in ALIASES or self.alias(kind, tag, name) is not None:
            found = self.alias(kind, tag, name)
        else:
            raise UserError(f"{ref}: expected @v1, @v2 ... or an alias;{nearest(tag, ALIASES)}")
        if found is None:
            known = ", ".join(f"@v{version.number}" for version in self.all(kind, name))
            raise UserError(f"there is no {ref}; there are: {known or 'none yet; treadle run makes the first'}")
        return found
