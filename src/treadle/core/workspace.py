"""A project's record on disk: store, keys, ledger, journal and state, opened together and closed together."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from treadle.core import run_values
from treadle.core.database import Database
from treadle.core.errors import Corrupt, MissingExtra, UserError
from treadle.core.journal import SEAL_SECONDS, Journal
from treadle.core.keys import Keys
from treadle.core.ledger import Fact, Ledger, Projection
from treadle.core.runs import ARTIFACTS, RUN_VALUES, RUNS, Runs
from treadle.core.sqlite import SqliteDatabase
from treadle.core.state import State
from treadle.core.store import Store

FORMAT = 1


class Workspace:
    """Everything under the store's folder. Opening it makes what is missing; many processes may have it open.

    ``database`` is a file, or the URL of a server (``ledger_url``). Not for use across a fork: open it again in the
    child.
    """

    def __init__(self, root: Path, database: Path | str | None = None, projections: Sequence[Projection] = ()) -> None:
        self.root = root
        self._held = 0
        self.closing = ExitStack()  # what others have opened over it; closed first
        self.released: list[Callable[[], object]] = []  # called when an exclusive block has ended
        with ExitStack() as opened:
            try:
                root.mkdir(parents=True, exist_ok=True)
                _check_format(root / "format")
                self.keys = Keys(root / "keys", make=not (root / "head.json").exists())
                self.store = Store(root)
                self.database: Database = _open(database or root / "treadle.db")
                opened.callback(self.database.close)
                self.state = State(self.database)
                own = (RUNS, RUN_VALUES, ARTIFACTS)
                self.ledger = Ledger(self.database, self.keys, root / "head.json", (*own, *projections))
                self._complete_values()
            except OSError as error:
                raise UserError(
                    f"cannot write {root}: {error.strerror}; the project's store must be writable"
                ) from None
            self.journal = Journal(root / "journal", self.store, self.ledger)
            self.runs = Runs(self.ledger, self.journal, self.state, self.store, self.keys)
            opened.callback(self.ledger.close)
            self._refuse_other_keys()
            self._introduce()
            opened.pop_all()

    def _complete_values(self) -> None:
        """Fill the table that runs are searched by, in a database that was written before there was one."""
        if run_values.absent(self.database):
            # What is damaged is for verify to name.
            with suppress(Corrupt, ValueError, TypeError, KeyError), self.database.transaction() as cursor:
                run_values.make_anew(cursor)

    def _refuse_other_keys(self) -> None:
        if self.ledger.owner() is not None:
            raise UserError(
                f"the ledger {self.database.place} was written with other keys than those under {self.root / 'keys'}; "
                "name the store that belongs to it, or another ledger"
            )

    def _introduce(self) -> None:
        """The first row says what this is. Where the ledger is not as it was left, nothing is added: verify tells."""
        try:
            if self.ledger.last("project") is None:
                self.ledger.append(Fact("project", {"format": FORMAT, "public_key": self.keys.public}))
        except Corrupt:
            return

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def exclusive(self, waiting: Callable[[str], object] | None = None) -> Iterator[None]:
        """Hold the project for changing it; waits for whoever has it, after telling ``waiting`` who that is.

        The kernel lets go when the holder dies. What dead commands left is put in order first. Inside another such
        block of the same workspace this does nothing more.
        """
        if self._held:
            yield
            return
        with self._locked(waiting), self.database.held(waiting):
            self._held += 1
            try:
                self.store.clear_temporary()
                self.runs.sweep()
                self.journal.seal(older_than=2 * SEAL_SECONDS)  # a living writer would have sealed it
                yield
            finally:
                self._held -= 1
                self.ledger.publish()
                for call in self.released:
                    call()

    @contextmanager
    def _locked(self, waiting: Callable[[str], object] | None) -> Iterator[None]:
        try:
            lock = (self.root / "lock").open("a+")
        except OSError as error:
            raise UserError(f"cannot write {self.root}: {error.strerror}; the store must be writable") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                if waiting is not None:
                    waiting(lock.read(100).strip() or "another command")
                fcntl.flock(lock, fcntl.LOCK_EX)
            lock.truncate(0)
            lock.write(f"process {os.getpid()}")
            lock.flush()
            yield

    def close(self) -> None:
        """Seal what is open, publish the ledger's head, close the database."""
        with ExitStack() as closing:
            closing.callback(self.database.close)
            closing.callback(self.store.close)
            closing.callback(self.ledger.close)
            closing.callback(self.journal.close)
            closing.callback(self.runs.close)
            closing.callback(self.closing.close)


def _open(place: Path | str) -> Database:
    if isinstance(place, Path):
        return SqliteDatabase(place)
    try:
        from treadle.core.postgresql import PostgresqlDatabase
    except ImportError:
        raise MissingExtra("psycopg", extra="postgres") from None
    return PostgresqlDatabase(place)


def _check_format(path: Path) -> None:
    try:
        found = path.read_text(errors="replace").strip()
    except FileNotFoundError:
        temporary = path.with_name(f".format.{secrets.token_hex(8)}")
        temporary.write_text(f"{FORMAT}\n")
        temporary.replace(path)
        return
    if found != str(FORMAT):
        raise UserError(
            f"{path.parent} is a store of format {found[:20]!r}, this Treadle reads format {FORMAT}; "
            "use the Treadle that wrote it, or a newer one"
        )
