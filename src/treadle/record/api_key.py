"""An API key: who may ask what, until when and how much.

The key itself is shown once, when it is made; what is kept is its SHA-256, which is enough for 256 random bits. Keys
are state: they change and are no evidence. That one was made or revoked, by whom and with which rules, is a row of the
ledger. Rows of keys are never deleted: a project that once had one does not become open when it is revoked.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from treadle.core.database import Database
from treadle.core.errors import Corrupt, UserError, nearest
from treadle.core.identifiers import new_id
from treadle.core.ledger import Fact, Ledger

PREFIX = "tk-"
ENDPOINTS = ("chat", "completions", "classify", "tag", "embeddings", "score", "feedback", "models", "metrics")
ASIDE = frozenset({"metrics"})  # only for a key whose scope names it: they tell of everybody
EVERY = "*"  # as the scope of the one key that has all
NANO = 1_000_000_000  # money is counted in so many parts of the currency's unit
_MOST = 10**15  # of a limit: far beyond use, and sums stay below 64 bits

What = Literal["requests", "tokens", "money"]
Per = Literal["total", "day", "month", "minute"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
_LIMIT = re.compile(r"(\d{1,16}(?:\.\d{1,9})?)(?:/(day|month))?\Z")
_COLUMNS = "id, name, digest, created, expires, revoked, rules"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many requests, tokens or billionths of money (``NANO``), in all or in each day, month or minute."""

    what: What
    most: int
    per: Per = "total"

    @classmethod
    def parse(cls, what: What, text: str) -> Limit:
        """``1000``, ``1000/day`` or ``5.50/month``; ``UserError`` for anything else."""
        found = _LIMIT.match(text)
        scale = NANO if what == "money" else 1
        if found is None or (what != "money" and "." in found[1]):
            raise UserError(f"{what} {text!r}: expected a number, such as 50000, 50000/day or 50000/month")
        whole, _, part = found[1].partition(".")
        most = int(whole) * scale + int(part.ljust(9, "0") if part else 0)
        if not 0 < most <= _MOST * scale:
            raise UserError(f"{what} {text!r}: expected more than nothing and at most {_MOST:,}")
        return cls(what, min(most, 2**62), cast("Per", found[2] or "total"))

    def __str__(self) -> str:
        most = f"{self.most / NANO:g}" if self.what == "money" else str(self.most)
        return f"{most} {self.what}" + ("" if self.per == "total" else f"/{self.per}")


@dataclass(frozen=True, slots=True)
class Rules:
    """What a key may do. Empty ``scope``: every endpoint but the metrics; empty ``models``: every model."""

    scope: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "scope": list(self.scope),
            "models": list(self.models),
            "limits": [asdict(limit) for limit in self.limits],
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Rules:
        """The reverse."""
        limits = tuple(Limit(**each) for each in value["limits"])
        return cls(tuple(value["scope"]), tuple(value["models"]), limits)

    def check(self) -> Rules:
        """Itself; ``UserError`` for an endpoint there is not, or the same limit twice."""
        for name in self.scope:
            if name not in ENDPOINTS:
                raise UserError(f"scope {name!r}: there is no such endpoint;{nearest(name, ENDPOINTS)}")
        kinds = [(limit.what, limit.per) for limit in self.limits]
        if len(set(kinds)) != len(kinds):
            raise UserError("the same limit is given twice; keep one")
        return self

    def permits(self, endpoint: str) -> bool:
        """Whether it may be asked; what nobody knows may not where a scope says what may."""
        if not self.scope:
            return endpoint not in ASIDE
        return endpoint in self.scope or EVERY in self.scope


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. Times in seconds since 1970, by the database's clock."""

    id: str
    name: str
    digest: str
    created: float
    expires: float | None = None
    revoked: float | None = None
    rules: Rules = Rules()

    def ended(self, now: float) -> str | None:
        """Why it is good no more: ``revoked`` or ``expired``; None while it is good."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and now >= self.expires else None


def digest_of(secret: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(b"treadle api key " + secret.encode("utf-8", "surrogateescape")).hexdigest()


class KnownKeys:
    """The keys that there are, to be read: for that their table is enough."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> Sequence[ApiKey]:
        """Every key there ever was, in the order they were made."""
        return [_key(row) for row in self._database.query(f"SELECT {_COLUMNS} FROM api_keys ORDER BY id")]

    def stamp(self) -> tuple[int, int]:
        """Another one after each change; costs one small query."""
        rows = self._database.query("SELECT count(*), count(revoked) FROM api_keys")
        return int(rows[0][0]), int(rows[0][1])


class ApiKeys(KnownKeys):
    """Makes, lists and revokes keys."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        super().__init__(database)
        self._ledger = ledger

    def create(self, name: str, rules: Rules, *, seconds: float | None, actor: str) -> tuple[ApiKey, str]:
        """A new key, and its secret, which nobody can learn again. ``seconds``: how long it is good.

        ``UserError`` for a name that is not one, or that another good key has.
        """
        if not _NAME.match(name):
            raise UserError(f"name {name[:80]!r}: expected letters, digits and ._@-, at most 64, such as billing-app")
        if seconds is not None and not 0 < seconds < 1e10:
            raise UserError("expires: expected a time from now, such as 30d")
        secret = PREFIX + secrets.token_urlsafe(32)
        now = self._database.clock()
        expires = None if seconds is None else now + seconds
        key = ApiKey(new_id("key"), name, digest_of(secret), now, expires, None, rules.check())
        with self._database.transaction(sync=True) as cursor:
            rows = cursor.execute(f"SELECT {_COLUMNS} FROM api_keys WHERE name = ?", (name,)).fetchall()
            for other in map(_key, rows):
                if other.ended(now) is None:
                    raise UserError(
                        f"there is a key called {name!r}, {other.id}; revoke it first, or take another name"
                    )
            values = (key.id, name, key.digest, now, expires, None, json.dumps(rules.to_dict()))
            cursor.execute("INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        # Killed before this row, nobody has seen the key.
        body = {"key": key.id, "rules": rules.to_dict(), "expires": expires, "actor": actor}
        self._ledger.append(Fact("key.created", body), sync=True)
        return key, secret

    def revoke(self, named: str, *, actor: str) -> ApiKey:
        """End a key, by its id or name, at once; doing it again changes nothing. ``UserError`` where there is none."""
        found = [key for key in self.all() if named in (key.id, key.name)]
        good = [key for key in found if key.revoked is None]
        if not found:
            raise UserError(f"there is no key {named[:80]!r}; treadle keys list has them")
        key = good[-1] if good else found[-1]
        if good:
            now = self._database.clock()
            with self._database.transaction(sync=True) as cursor:
                cursor.execute("UPDATE api_keys SET revoked = ? WHERE id = ? AND revoked IS NULL", (now, key.id))
        if not any(row.body["key"] == key.id for row in self._ledger.rows("key.revoked")):  # or killed before that
            self._ledger.append(Fact("key.revoked", {"key": key.id, "actor": actor}), sync=True)
        return next(each for each in self.all() if each.id == key.id)


def _key(row: tuple[Any, ...]) -> ApiKey:
    try:
        identifier, name, digest, created, expires, revoked, rules = row
        return ApiKey(identifier, name, digest, created, expires, revoked, Rules.from_dict(json.loads(rules)))
    except (TypeError, KeyError, ValueError) as error:
        raise Corrupt(f"not an API key's row: {error}; restore a backup") from None
