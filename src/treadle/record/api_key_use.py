"""What API keys used, and how several gateways share a limit exactly.

A gateway (a *holder*) takes a part of what is left of a limit and spends it from memory; one transaction hands over
what was spent since, gives back what it does not need, and takes anew. At any moment, what is spent and held of all
holders is at most the limit, plus at most one request: the last one is let in as long as anything is left, and may use
more than that. What a killed gateway held counts as spent, so a limit is never exceeded by a kill.

What was used while the database could not be asked is noted in a folder of this machine, a small file for each holder
and key; the holder hands it over when the database is back, or, where it was killed, the next one that begins here.
Meanwhile a gateway elsewhere may have *folded* the holder: counted as spent what it spent and held, because nobody
heard of it. What it held, and the number of its last report, are remembered for 100 days, so that whatever it still has
to say is taken from that, and counted once.

A *period* is ``""`` for what is counted in all, else a day, a month or a minute of the database's clock, in UTC.
"""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from treadle.core.database import Cursor, Database
from treadle.core.identifiers import new_id, time_of
from treadle.core.state import Leases
from treadle.record.api_key import KnownKeys, Limit, Per

LEASE = "gateway:"  # and the holder: held for as long as it may report
AHEAD = 32  # a holder takes what at least so many requests like the one that waits need,
_PART = 8  # and at most this part of what is left, so that at the end each asks for itself
_PAST = "past:"  # and the holder, once it was folded: what it held is spent there
_REMEMBERED = 100 * 86_400.0  # seconds since the holder began
_UPSERT = (
    "INSERT INTO api_key_use VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (api_key, what, period, holder)"
    " DO UPDATE SET report = excluded.report, spent = excluded.spent, held = excluded.held"
)
_WHERE = " FROM api_key_use WHERE api_key = ? AND what = ? AND period = ?"
Account = tuple[str, str]  # what, period
UNCOUNTED = "uncounted"  # the folder, beside the journal
logger = logging.getLogger("treadle.serve")


@dataclass(frozen=True, slots=True)
class Report:
    """What a holder says of a key: ``spent`` since its last report, ``held`` now (in use, or kept for later).

    ``number`` counts reports; the same one may be handed in again when nobody knows whether it arrived.
    """

    number: int
    spent: Mapping[Account, int] = field(default_factory=dict)
    held: Mapping[Account, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Share:
    """Of one limit: its period and the seconds until that ends (None: never), what was ``granted`` anew, what is
    ``left`` for everybody beyond what is held, and ``spent`` in the period."""

    limit: Limit
    period: str
    seconds: float | None
    granted: int
    left: int
    spent: int


@dataclass(frozen=True, slots=True)
class Used:
    """By one key, in all. ``money`` in billionths."""

    requests: int = 0
    tokens: int = 0
    money: int = 0


class ApiKeyUse:
    """One holder's side of the table, and what a gateway needs to know of the keys (``serve.keyring.KeyBook``)."""

    def __init__(self, database: Database, leases: Leases, keys: KnownKeys, folder: Path) -> None:
        """``folder`` is where use is noted that cannot be counted yet."""
        self._database = database
        self._folder = folder
        self._leases = leases
        self.stamp = keys.stamp
        self.all = keys.all
        self.holder = new_id("gw")

    def begin(self) -> None:
        """Say that this holder lives; what dead ones left is counted as spent."""
        self._make_up()
        for lease in self._leases.dead_leases(LEASE):
            self._fold(lease.removeprefix(LEASE))
            self._leases.drop_lease(lease)
        self._forget()
        self._leases.take_lease(LEASE + self.holder)

    def beat(self) -> None:
        """Say so again; who was silent for too long has lost the lease."""
        self._leases.take_lease(LEASE + self.holder)

    def end(self) -> None:
        """Nothing more will be reported."""
        self._fold(self.holder, ended=True)
        self._leases.drop_lease(LEASE + self.holder)

    def clock(self) -> float:
        """Seconds since 1970 by the database's clock."""
        return self._database.clock()

    def exchange(
        self, key: str, report: Report, limits: Sequence[Limit], need: Mapping[str, int], ahead: int = AHEAD
    ) -> list[Share]:
        """Hand over a report; with a ``need``, take that of every limit, or of none where one has nothing left, and as
        far as there is enough for others what ``ahead`` such requests need."""
        now = self._database.clock()
        with self._database.transaction() as cursor:
            mine = {account: self._handed_over(cursor, key, account, report) for account in _accounts(report)}
            shares = [self._share(cursor, key, limit, now) for limit in limits]
            if need and all(share.left > 0 for share in shares):
                shares = [_granted(share, need[share.limit.what], ahead) for share in shares]
                for share in shares:
                    account = (share.limit.what, share.period)
                    spent, held = mine.get(account) or self._mine(cursor, key, account)[1:]
                    values = (key, *account, self.holder, report.number, spent, held + share.granted)
                    cursor.execute(_UPSERT, values)
            if report.spent:
                minute = period_of("minute", now)[0]
                sql = "DELETE FROM api_key_use WHERE api_key = ? AND substr(period, 1, 1) = 'i' AND period < ?"
                cursor.execute(sql, (key, minute))
        return shares

    def _handed_over(self, cursor: Cursor, key: str, account: Account, report: Report) -> tuple[int, int]:
        number, spent, _ = self._mine(cursor, key, account)
        if number < report.number:
            spent += report.spent.get(account, 0)
        held = report.held.get(account, 0)
        cursor.execute(_UPSERT, (key, *account, self.holder, report.number, spent, held))
        return spent, held

    def note(self, key: str, reports: Sequence[Report]) -> None:
        """Keep reports that could not be handed over, in place of those noted before; none: forget them. Raises
        ``OSError``."""
        path = self._folder / f"{self.holder}.{key}.json"
        if not reports:
            path.unlink(missing_ok=True)
            return
        said = [[report.number, [[*account, amount] for account, amount in report.spent.items()]] for report in reports]
        self._folder.mkdir(exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"format": 1, "holder": self.holder, "key": key, "reports": said}))
        new.replace(path)

    def _make_up(self) -> None:
        """Hand over what holders noted here that were killed while the database was away."""
        if not self._folder.is_dir():
            return
        with _alone(self._folder):
            living = set(self._leases.live_leases(LEASE))
            for path in sorted(self._folder.glob("*.json")):
                try:
                    holder, key, reports = _noted(path.read_bytes())
                except (ValueError, TypeError, LookupError, AttributeError):
                    logger.warning("%s cannot be read; what it noted is not counted", path)
                    continue
                if LEASE + holder in living:
                    continue
                with self._database.transaction() as cursor:
                    for report in reports:
                        self._count_for(cursor, holder, key, report)
                path.unlink()
                path.with_suffix(".new").unlink(missing_ok=True)
                self._fold(holder)

    def _count_for(self, cursor: Cursor, holder: str, key: str, report: Report) -> None:
        """In another's name, once; it was taken from what that one held."""
        for account, amount in report.spent.items():
            number, spent, held = self._of(cursor, key, account, holder)
            if number < report.number:
                values = (key, *account, holder, report.number, spent + amount, max(0, held - amount))
                cursor.execute(_UPSERT, values)

    def _mine(self, cursor: Cursor, key: str, account: Account) -> tuple[int, int, int]:
        return self._of(cursor, key, account, self.holder)

    def _of(self, cursor: Cursor, key: str, account: Account, holder: str) -> tuple[int, int, int]:
        """The number of its last report, what it spent and holds. One that was folded holds again what it held."""
        sql = f"SELECT report, spent, held{_WHERE} AND holder = ?"
        rows = cursor.execute(sql, (key, *account, holder)).fetchall()
        if not rows and (past := cursor.execute(sql, (key, *account, _PAST + holder)).fetchall()):
            rows = [(past[0][0], 0, past[0][1])]
            cursor.execute(f"DELETE{_WHERE} AND holder = ?", (key, *account, _PAST + holder))
            cursor.execute(_UPSERT, (key, *account, holder, *rows[0]))
        return (int(rows[0][0]), int(rows[0][1]), int(rows[0][2])) if rows else (0, 0, 0)

    def _share(self, cursor: Cursor, key: str, limit: Limit, now: float) -> Share:
        period, seconds = period_of(limit.per, now)
        sql = f"SELECT coalesce(sum(spent), 0), coalesce(sum(held), 0){_WHERE}"
        ((spent, held),) = cursor.execute(sql, (key, limit.what, period)).fetchall()
        return Share(limit, period, seconds, 0, limit.most - int(spent) - int(held), int(spent))

    def _fold(self, holder: str, *, ended: bool = False) -> None:
        """Count what one holder spent and held as spent; by nobody in particular once it has ended, but what one held
        that may come back is told apart."""
        with self._database.transaction() as cursor:
            sql = "SELECT api_key, what, period, report, spent, held FROM api_key_use WHERE holder = ?"
            for key, what, period, report, spent, held in cursor.execute(sql, (holder,)).fetchall():
                account = (key, what, period)
                before = cursor.execute(f"SELECT spent{_WHERE} AND holder = ''", account).fetchall()
                total = int(spent) + (int(before[0][0]) if before else 0) + (int(held) if ended else 0)
                cursor.execute(_UPSERT, (*account, "", 0, total, 0))
                if not ended:
                    cursor.execute(_UPSERT, (*account, _PAST + holder, report, held, 0))
            cursor.execute("DELETE FROM api_key_use WHERE holder = ?", (holder,))

    def _forget(self) -> None:
        """Nothing more is expected of whoever was folded long ago."""
        sql = "SELECT DISTINCT holder FROM api_key_use WHERE substr(holder, 1, ?) = ?"
        past = [str(row[0]) for row in self._database.query(sql, (len(_PAST), _PAST))]
        before = (self._database.clock() - _REMEMBERED) * 1000 if past else 0.0
        for holder in past:
            if (time_of(holder) or 0) < before:
                self._fold(holder, ended=True)


def used(database: Database) -> dict[str, Used]:
    """By each key, as far as gateways have reported; they do every second."""
    sql = "SELECT api_key, what, sum(spent) FROM api_key_use WHERE period = '' GROUP BY api_key, what"
    found: dict[str, dict[str, int]] = {}
    for key, what, spent in database.query(sql):
        found.setdefault(str(key), {})[str(what)] = int(spent)
    return {key: Used(**each) for key, each in found.items()}


def period_of(per: Per, now: float) -> tuple[str, float | None]:
    """The name of the period that a moment is in, and the seconds until it ends."""
    if per == "total":
        return "", None
    if per == "minute":
        return f"i{int(now // 60):012d}", 60 - now % 60
    moment = datetime.fromtimestamp(now, UTC)
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "day":
        return f"d{day:%Y-%m-%d}", (day + timedelta(days=1) - moment).total_seconds()
    following = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    return f"m{day:%Y-%m}", (following - moment).total_seconds()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of all processes of this machine that begin here."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _noted(data: bytes) -> tuple[str, str, list[Report]]:
    """What `ApiKeyUse.note` wrote; ``ValueError`` and its kin for anything else."""
    found = json.loads(data)
    reports = [
        Report(int(number), {(str(what), str(period)): int(amount) for what, period, amount in spent})
        for number, spent in found["reports"]
    ]
    return str(found["holder"]), str(found["key"]), reports


def _accounts(report: Report) -> Iterable[Account]:
    return {**report.spent, **report.held}


def _granted(share: Share, need: int, ahead: int) -> Share:
    part = max(need, min(ahead * need, share.left // _PART))
    return Share(share.limit, share.period, share.seconds, part, share.left - part, share.spent)
