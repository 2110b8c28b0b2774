"""Mirrors: every sink that is switched on follows the ledger from its own cursor.

The cursor lies in the state, under the sink's name and the place it leads to. Before rows go out, the state says which;
once the sink has them all, the cursor moves. So whatever is killed in between, those rows are given again, with the
word that they may be there already. One process delivers to a place at a time. A place that fails is left alone for a
while by everybody who was not asked to deliver by hand.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from treadle.core import plugins
from treadle.core.digest import blake3_bytes
from treadle.core.errors import TreadleError, UserError, nearest
from treadle.core.fact import Row, now
from treadle.core.run import METRICS
from treadle.core.secrets import conceal
from treadle.core.sink import GROUP, Ref, Sink
from treadle.core.state import State
from treadle.record.outgoing import Outgoing
from treadle.record.record import Record

BATCH_ROWS = 500  # of the ledger, or as many as hold
BATCH_POINTS = 20_000  # rows about metrics
_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 600.0  # seconds that a place which failed is left alone; doubles each time
_PATIENCE = 60.0  # seconds that whoever asks by hand waits for a process that delivers already
_LONGEST_LINE = 300
_LINES = 20  # of what was refused that are kept
_STATE = "mirror:"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a mirror is, as the state keeps it. ``sending`` is the last row of a batch that is under way or broke
    off; ``failed`` counts attempts since one went well, and ``after`` is when the next may be made (seconds since
    1970). ``told`` is what the other side refused for good or could not take back. Erasures up to row ``retracted`` are
    done with: what goes out since holds nothing of them."""

    place: str
    at: int = 0
    sending: int | None = None
    retracted: int = 0
    failed: int = 0
    after: float = 0.0
    error: str | None = None
    delivered: str | None = None
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mirror:
    """A sink that is switched on, as people see it: how far it is, what waits, and why.

    ``at`` and ``waiting`` count rows of the ledger that concern it; ``error`` is None where nothing stands in the way.
    """

    name: str
    place: str
    at: int = 0
    waiting: int = 0
    error: str | None = None
    delivered: str | None = None
    sent: int = 0
    told: tuple[str, ...] = field(default=())

    def public(self) -> dict[str, Any]:
        """The shape that ``treadle mirror --json`` promises."""
        return {**asdict(self), "told": list(self.told)}


@functools.cache
def _known() -> dict[str, type[Sink]]:
    """The sinks that are installed; one that cannot be loaded is warned of."""
    found = {}
    for name in plugins.names(GROUP):
        try:
            found[name] = plugins.load(GROUP, name).value
        except UserError as error:
            _log.warning("mirror %s: %s", name, error)
    return found


def switches() -> dict[str, str]:
    """Every sink that is installed, with the variables that switch it on."""
    return {name: kind.variables for name, kind in _known().items()}


class Mirrors:
    """The sinks that are switched on for one record."""

    def __init__(self, record: Record, folder: Path) -> None:
        self._record = record
        self._state: State = record.workspace.state
        self._view = Outgoing(record, folder)

    def standing(self) -> list[Mirror]:
        """How far each is; nothing is delivered."""
        return [each if isinstance(each, Mirror) else self._shown(*each) for each in self._open()]

    def any_due(self) -> bool:
        """Whether there is something to tell somebody who did not fail lately; nobody is asked."""
        found, moment = False, self._record.workspace.database.clock()
        for each in self._open():
            if not isinstance(each, Mirror):
                with closing(each[1]):
                    progress = self._progress(_key(each[0], each[1].place), each[1].place)
                    found = found or (progress.after <= moment and self._view.last() > progress.at)
        return found

    def deliver(self, name: str | None = None, *, due: bool = False, everything: bool = False) -> list[Mirror]:
        """Bring over what waits, to one sink or to all that are switched on.

        ``due``: leave out those that failed lately. ``everything``: from the first row on, for a place that lost what
        it had; what is there already is found and not doubled. ``UserError`` for a name that is no sink's, or is not
        switched on.
        """
        self._check(name)
        told = []
        for each in self._open(name):
            if isinstance(each, Mirror):
                told.append(each)
                continue
            with closing(each[1]):
                told.append(self._bring(*each, due=due, everything=everything))
        if name is not None and not told:
            raise UserError(f"mirror {name} is not switched on; set {switches()[name]}")
        return told

    def _check(self, name: str | None) -> None:
        if name is not None and name not in _known():
            raise UserError(f"there is no mirror called {name!r};{nearest(name, list(_known()))}")

    def _open(self, name: str | None = None) -> Iterator[tuple[str, Sink] | Mirror]:
        for each, kind in _known().items():
            if name not in (None, each):
                continue
            try:
                sink = kind.open(self._view)
            except UserError as error:
                yield Mirror(each, "nowhere", waiting=self._view.waiting(0), error=str(error))
                continue
            if sink is not None:
                yield each, sink

    # -- one sink

    def _bring(self, name: str, sink: Sink, *, due: bool, everything: bool) -> Mirror:
        key, sent = _key(name, sink.place), 0
        if due and self._progress(key, sink.place).after > self._record.workspace.database.clock():
            return self._shown(name, sink)
        if not self._claim(key, patient=not due):
            return replace(self._shown(name, sink), error="another process is delivering; it goes on by itself")
        try:
            if everything:
                self._begin_again(key, sink)
            with self._state.beating(key):
                self._record.workspace.journal.seal(METRICS)
                for batch in iter(lambda: self._batch(key, sink.place), None):
                    sent += self._send(key, sink, batch)
        except Exception as error:  # whatever another tool's client raises concerns nobody but this mirror
            self._failed(key, sink.place, error)
        finally:
            self._state.drop_lease(key)
        return replace(self._shown(name, sink), sent=sent)

    def _begin_again(self, key: str, sink: Sink) -> None:
        last, refs = self._view.last(), self._view.erased()
        told = sink.retract(refs) if refs else []
        self._keep(key, Progress(sink.place, sending=last, retracted=last, told=_lines(told)))

    def _claim(self, key: str, *, patient: bool) -> bool:
        end = time.monotonic() + (_PATIENCE if patient else 0.0)
        while not self._state.claim_lease(key):
            if time.monotonic() >= end:
                return False
            time.sleep(0.1)
        return True

    def _batch(self, key: str, place: str) -> _Batch | None:
        """The next rows: some to deliver, or some to take back, or only some that concern nobody."""
        progress = self._progress(key, place)
        batch = _Batch(progress.at)
        for row, each in self._view.rows(progress.at):
            done_with = row.kind == "erasure" and row.seq <= progress.retracted
            given = () if done_with else each
            refs = any(isinstance(one, Ref) for one in given)
            if refs and batch.rows:
                break
            batch.add(row, given)
            if refs or batch.full() or row.seq == progress.sending:  # what broke off is given as it was
                break
        return batch if batch.last > progress.at else None

    def _send(self, key: str, sink: Sink, batch: _Batch) -> int:
        before = self._progress(key, sink.place)
        again = before.sending is not None and batch.last <= before.sending
        until = before.sending if again else batch.last
        # Written down as if it had failed already: whoever is killed from here on can say no more.
        self._keep(key, self._after_failure(before, f"broke off between rows {before.at + 1} and {until}", until))
        told: list[str] = []
        if batch.rows:
            told = sink.deliver(batch.rows, again=again)
        kept: tuple[str, ...] = before.told
        if batch.refs:
            told, kept = sink.retract(batch.refs), ()  # what was told before may name what is erased now
        left = before.sending if again and before.sending != batch.last else None
        retracted = max(before.retracted, batch.last if batch.refs else 0)
        done = Progress(sink.place, batch.last, left, retracted, delivered=now(), told=_lines([*kept, *told]))
        self._keep(key, done)
        return batch.count

    def _failed(self, key: str, place: str, error: Exception) -> None:
        progress = self._progress(key, place)
        said = str(error) if isinstance(error, TreadleError) else f"{type(error).__name__}: {error}"
        line = conceal(" ".join(said.split()))[:_LONGEST_LINE]
        if progress.error is None:  # it failed before anything was sent
            progress = self._after_failure(progress, line, progress.sending)
        self._keep(key, replace(progress, error=line))

    def _after_failure(self, progress: Progress, line: str, sending: int | None) -> Progress:
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(progress.failed, 10))
        after = self._record.workspace.database.clock() + pause
        return replace(progress, sending=sending, failed=progress.failed + 1, after=after, error=line)

    # -- how far it is

    def _shown(self, name: str, sink: Sink) -> Mirror:
        progress = self._progress(_key(name, sink.place), sink.place)
        waiting = self._view.waiting(progress.at)
        return Mirror(
            name, sink.place, progress.at, waiting, progress.error, progress.delivered, told=tuple(progress.told)
        )

    def _progress(self, key: str, place: str) -> Progress:
        kept = self._state.get(key)
        return Progress(**kept) if kept else Progress(place)

    def _keep(self, key: str, progress: Progress) -> None:
        self._state.set(key, asdict(progress))


class _Batch:
    """Rows for a sink, up to ``last`` of the ledger."""

    def __init__(self, at: int) -> None:
        self.last = at
        self.count = 0
        self.rows: list[Row] = []
        self.refs: list[Ref] = []
        self._points = 0

    def add(self, row: Row, given: Sequence[Row] | Sequence[Ref]) -> None:
        self.last = row.seq
        self.count += bool(given)
        for each in given:
            if isinstance(each, Ref):
                self.refs.append(each)
            else:
                self.rows.append(each)
                self._points += len(each.body.get("points", ()))

    def full(self) -> bool:
        return len(self.rows) >= BATCH_ROWS or self._points >= BATCH_POINTS


def _lines(told: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(conceal(line)[:_LONGEST_LINE] for line in told))[-_LINES:]


def _key(name: str, place: str) -> str:
    return f"{_STATE}{name}:{blake3_bytes(place.encode())[3:19]}"
