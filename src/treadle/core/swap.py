"""The last step of a restore, and who may not be there meanwhile.

A restore is prepared beside the store's contents. Naming its folder ``restore`` decides: before that the old record is
in force, after it the new one. Whoever opens the store next finishes what was interrupted, so each step here may be
done twice. Everybody who has a store open holds a shared lock on ``use.lock``; a restore holds it alone.

    restore/plan.json      where the database that is replaced goes
    restore/treadle.db     the new one, also where the ledger is on a server
    restore/keys/, head.json, journal/, objects...    as in the store
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path

from treadle.core.database import Database
from treadle.core.errors import UserError
from treadle.core.intake import sync_path
from treadle.core.opening import open_database

FOLDER = "restore"
_LOCK = "use.lock"
_PARTS = ("", "-wal", "-shm", "-journal")  # the files of an SQLite database
_BATCH = 2_000


def enter(root: Path, place: Path | str) -> int:
    """A descriptor that says that this process has the store open, until it is closed; finishes a restore first.

    ``UserError`` while somebody restores.
    """
    while True:
        descriptor = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(f"{root} is being restored by another command; wait until it is done") from None
        if not (root / FOLDER).exists():
            return descriptor
        os.close(descriptor)
        with alone(root):
            finish(root, place)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Nobody else has the store open; ``UserError`` where somebody has."""
    descriptor = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{root} is open in another process; end the servers, runs and commands that use it and try again"
            ) from None
        yield
    finally:
        os.close(descriptor)


def decide(root: Path, prepared: Path) -> None:
    """From here on the prepared record is the one in force."""
    for folder, _, files in os.walk(prepared):
        for name in files:
            sync_path(Path(folder, name))
        sync_path(folder)
    prepared.rename(root / FOLDER)
    sync_path(root)


def finish(root: Path, place: Path | str, server: Database | None = None) -> None:
    """Put everything in its place. The caller holds the store alone, and the ``server`` that it gives."""
    folder = root / FOLDER
    if not folder.exists():
        return
    plan = json.loads((folder / "plan.json").read_bytes())
    put_keys(folder, root)
    _swap_database(folder / "treadle.db", place, root / plan["replaced"] if plan["replaced"] else None, server)
    put_segments(folder, root)
    _move(folder / "head.json", root / "head.json")
    for path in (root / "cache").glob("*.db*"):  # made anew
        path.unlink(missing_ok=True)
    sync_path(root)
    gone = root / "tmp" / f"restored-{secrets.token_hex(4)}"
    gone.parent.mkdir(exist_ok=True)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def put_keys(prepared: Path, root: Path) -> None:
    """Keys that were prepared because they are gone."""
    for name in ("keys/project.key", "keys/ledger.key"):
        _move(prepared / name, root / name)


def put_segments(prepared: Path, root: Path) -> None:
    """Segments of the journal that are not there; one that is has grown since."""
    for path in sorted((prepared / "journal").rglob("seg-*.jsonl")):
        stream = root / "journal" / path.parent.name
        if not (stream / path.name).exists() and not (stream / "sealing" / path.name).exists():
            _move(path, stream / path.name)


def _swap_database(prepared: Path, place: Path | str, replaced: Path | None, server: Database | None) -> None:
    if not prepared.exists():
        return
    if isinstance(place, str):
        with nullcontext(server) if server else server_alone(place) as database:
            load(prepared, database)
        prepared.unlink()
        return
    for part in _PARTS:  # while the new one is still in its folder, what lies here is the old one
        old = place.with_name(place.name + part)
        if not old.exists():
            continue
        if replaced is not None:
            _move(old, replaced.with_name(replaced.name + part))
        else:
            old.unlink()
    _move(prepared, place)


@contextmanager
def server_alone(url: str) -> Iterator[Database]:
    """The database of a server, that nobody else has open; ``UserError`` where somebody has."""
    with closing(open_database(url)) as database, database.alone():
        yield database


def load(prepared: Path, database: Database) -> None:
    """Everything that the file of a database holds in the place of what another database holds, in one transaction."""
    with closing(sqlite3.connect(f"file:{prepared}?mode=ro", uri=True)) as source:
        tables = source.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type DESC"
        ).fetchall()
        database.script(
            "".join(
                sql.replace("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS ").replace(
                    "CREATE INDEX ", "CREATE INDEX IF NOT EXISTS "
                )
                + ";"
                for _, sql in tables
            )
        )
        names = [name for name, sql in tables if sql.startswith("CREATE TABLE ")]
        with database.transaction(sync=True) as cursor:
            for name in (*names, "leases"):
                cursor.execute(f"DELETE FROM {name}")
            for name in names:
                found = source.execute(f"SELECT * FROM {name}")
                marks = ", ".join("?" * len(found.description))
                while rows := found.fetchmany(_BATCH):
                    cursor.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)


def _move(source: Path, target: Path) -> None:
    """Move a file, if it is there, over what lies in its place."""
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if target.parent.name == "keys" else 0o777)
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            shutil.copy2(source, copy)
            sync_path(copy)
            copy.replace(target)
        finally:
            with suppress(OSError):
                copy.unlink()
        source.unlink()
    sync_path(target.parent)
