"""A project's record on disk: store, keys, ledger, journal and state, opened together and closed together."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from treadle.core.database import Database
from treadle.core.errors import UserError
from treadle.core.journal import Journal
from treadle.core.keys import Keys
from treadle.core.ledger import Fact, Ledger, Projection
from treadle.core.runs import ARTIFACTS, RUNS, Runs
from treadle.core.state import State
from treadle.core.store import Store

FORMAT = 1


class Workspace:
    """Everything under the store's folder. Opening it makes what is missing; many processes may have it open."""

    def __init__(self, root: Path, database: Path | None = None, projections: Sequence[Projection] = ()) -> None:
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
            _check_format(root / "format")
            self.keys = Keys(root / "keys")
        except OSError as error:
            raise UserError(f"cannot write {root}: {error.strerror}; the project's store must be writable") from None
        self.store = Store(root)
        self.database = Database(database or root / "treadle.db")
        self.state = State(self.database)
        self.ledger = Ledger(self.database, self.keys, root / "head.json", (RUNS, ARTIFACTS, *projections))
        self.journal = Journal(root / "journal", self.store, self.ledger)
        self.runs = Runs(self.ledger, self.journal, self.state, self.store, self.keys)
        if self.ledger.last("project") is None:
            self.ledger.append(Fact("project", {"format": FORMAT, "public_key": self.keys.public}))

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def exclusive(self, waiting: object = None) -> Iterator[None]:
        """Hold the project for changing it; waits for whoever has it. The kernel lets go when the holder dies."""
        with (self.root / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                if callable(waiting):
                    waiting(lock.read().strip() or "another command")
                fcntl.flock(lock, fcntl.LOCK_EX)
            lock.truncate(0)
            lock.write(f"process {os.getpid()}")
            lock.flush()
            self.store.clear_temporary()
            self.runs.sweep()
            yield

    def close(self) -> None:
        """Seal what is open and close the database."""
        self.runs.close()
        self.journal.close()
        self.database.close()


def _check_format(path: Path) -> None:
    try:
        found = path.read_text().strip()
    except FileNotFoundError:
        temporary = path.with_name(f".format.{os.getpid()}")
        temporary.write_text(f"{FORMAT}\n")
        temporary.replace(path)
        return
    if found != str(FORMAT):
        raise UserError(
            f"{path.parent} is a store of format {found[:20]!r}, this Treadle reads format {FORMAT}; "
            "use the Treadle that wrote it, or a newer one"
        )
