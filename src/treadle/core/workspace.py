"""A project's record on disk: store, keys, ledger, journal and state, opened together and closed together."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from treadle.core import database as databases
from treadle.core import swap
from treadle.core.backup import Source
from treadle.core.bucket_store import BucketStore
from treadle.core.cipher import Cipher
from treadle.core.database import Database
from treadle.core.errors import Corrupt, UserError
from treadle.core.journal import SEAL_SECONDS, Journal
from treadle.core.keys import Keys
from treadle.core.ledger import Fact, Ledger, Projection
from treadle.core.migrations import migrate
from treadle.core.opening import open_database
from treadle.core.runs import ARTIFACTS, RUN_VALUES, RUNS, Runs
from treadle.core.state import State
from treadle.core.store import FORMAT as STORE_FORMAT
from treadle.core.store import Store

FORMAT = 1
TABLES = (RUNS, RUN_VALUES, ARTIFACTS)  # the projections of every record


class Workspace:
    """Everything under the store's folder. Opening it makes what is missing; many processes may have it open.

    ``database`` is a file, or the URL of a server (``ledger_url``); with a ``cipher``, what is put into the store is
    encrypted. ``bucket`` is the URL of where objects lie instead; the folder has copies of them then. Not for use
    across a fork: open it again in the child.
    """

    def __init__(
        self,
        root: Path,
        database: Path | str | None = None,
        projections: Sequence[Projection] = (),
        cipher: Cipher | None = None,
        *,
        bucket: str | None = None,
    ) -> None:
        self.root = root
        self._held = 0
        self.closing = ExitStack()  # what others have opened over it; closed first
        self.released: list[Callable[[], object]] = []  # called when an exclusive block has ended
        with ExitStack() as opened:
            try:
                root.mkdir(parents=True, exist_ok=True)
                place = database or root / "treadle.db"
                opened.callback(os.close, swap.enter(root, place))
                _check_format(root / "format")
                self.keys = Keys(root / "keys", make=not (root / "head.json").exists())
                self.store = self._store(root, cipher, bucket)
                self.store.check_keys()
                if cipher is not None:  # the plain copies that a killed process had
                    self.store.clear_temporary()
                self.database: Database = open_database(place)
                opened.callback(self.database.close)
                self.state = State(self.database)
                if self.database.format < databases.FORMAT:
                    with self._locked(None):
                        migrate(Source(root, self.database, self.keys, self.store, FORMAT))
                self.ledger = Ledger(self.database, self.keys, root / "head.json", (*TABLES, *projections))
            except OSError as error:
                raise UserError(
                    f"cannot write {root}: {error.strerror}; the project's store must be writable"
                ) from None
            self.journal = Journal(root / "journal", self.store, self.ledger)
            self.runs = Runs(self.ledger, self.journal, self.state, self.store, self.keys)
            opened.callback(self.ledger.close)
            self._refuse_other_keys()
            self._introduce()
            self._opened = opened.pop_all()

    def _store(self, root: Path, cipher: Cipher | None, bucket: str | None) -> Store:
        local = Store(root, cipher)
        if bucket is None:
            return local
        return BucketStore(local, bucket, self.keys.public, lambda alone: self.database.guarded(alone=alone))

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
                self._catch_up()
                self.store.clear_temporary()
                self.runs.sweep()
                self.journal.seal(older_than=2 * SEAL_SECONDS)  # a living writer would have sealed it
                yield
            finally:
                self._held -= 1
                self.ledger.publish()
                for call in self.released:
                    call()

    def _catch_up(self) -> None:
        """What was erased on another machine goes here as well."""
        if isinstance(self.store, BucketStore):
            self.store.catch_up({name for row in self.ledger.rows("erasure") for name in row.body["objects"]})

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
            closing.callback(self._opened.close)  # last
            closing.callback(self.database.close)
            closing.callback(self.store.close)
            closing.callback(self.ledger.close)
            closing.callback(self.journal.close)
            closing.callback(self.runs.close)
            closing.callback(self.closing.close)


def _check_format(path: Path) -> None:
    try:
        found = path.read_text(errors="replace").strip()
    except FileNotFoundError:
        temporary = path.with_name(f".format.{secrets.token_hex(8)}")
        temporary.write_text(f"{FORMAT}\n")
        temporary.replace(path)
        return
    if found not in (str(FORMAT), str(STORE_FORMAT)):
        raise UserError(
            f"{path.parent} is a store of format {found[:20]!r}, this Treadle reads up to format {STORE_FORMAT}; "
            "use the Treadle that wrote it, or a newer one"
        )
