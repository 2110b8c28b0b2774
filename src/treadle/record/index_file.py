"""The file of the interaction index: a cache beside the journal. It is never evidence and holds no text.

It is made anew when it is missing, damaged or of another format. Whoever makes or removes it holds a lock of its own
meanwhile, so that several processes agree on one file; who finds another file in its place goes on with that one.
"""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from treadle.core.errors import Corrupt, UserError
from treadle.core.sqlite import SqliteDatabase

FORMAT = 1
BUCKET_SECONDS = 300  # what figures over time are kept by
SPREAD = 1 << 21  # a key is the time in milliseconds, times this, and some bits of a hash of the id

# interactions.key: rows lie in the order of time, and every index on them ends in it.
# facets: each combination of what is filtered by, once. So one index answers every filter, newest first.
# holdings: artifacts, and the file with the ids of their documents; many share one.
# volume, latency: counts by span of time; the triggers keep them, whatever is done to the rows.
_SCHEMA = f"""
CREATE TABLE progress (
    id INTEGER PRIMARY KEY CHECK (id = 1), seen INTEGER NOT NULL, segment TEXT NOT NULL, held INTEGER NOT NULL);
INSERT INTO progress VALUES (1, 0, '', 0);
CREATE TABLE holdings (digest TEXT PRIMARY KEY, kind TEXT NOT NULL, documents TEXT NOT NULL, seq INTEGER NOT NULL);
CREATE TABLE sources (
    id INTEGER PRIMARY KEY, stream TEXT NOT NULL, file TEXT, segment TEXT UNIQUE, done INTEGER NOT NULL DEFAULT 0,
    expected INTEGER NOT NULL DEFAULT 0, read INTEGER NOT NULL DEFAULT 0, start INTEGER NOT NULL DEFAULT 0,
    low INTEGER, high INTEGER);
CREATE INDEX sources_file ON sources (file);
CREATE INDEX sources_pending ON sources (id) WHERE done = 0;
CREATE TABLE people (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE);
CREATE TABLE facets (
    id INTEGER PRIMARY KEY, release TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL, status TEXT NOT NULL,
    stored INTEGER NOT NULL, smoke INTEGER NOT NULL, erased INTEGER NOT NULL, unsure INTEGER NOT NULL,
    thumbs INTEGER NOT NULL, poor INTEGER NOT NULL, corrected INTEGER NOT NULL, commented INTEGER NOT NULL,
    rated INTEGER NOT NULL, reviewed INTEGER NOT NULL, is_case INTEGER NOT NULL, requests INTEGER NOT NULL DEFAULT 0,
    UNIQUE (release, model, endpoint, status, stored, smoke, erased, unsure,
            thumbs, poor, corrected, commented, rated, reviewed, is_case));
CREATE TABLE interactions (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, facet INTEGER NOT NULL, user INTEGER, api_key INTEGER,
    prompt INTEGER, completion INTEGER, seconds REAL, ttft REAL, slot INTEGER, rate REAL, finish TEXT, share REAL,
    confidence REAL, score REAL, opinions INTEGER NOT NULL,
    source INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL);
CREATE INDEX interactions_facet ON interactions (facet);
CREATE INDEX interactions_user ON interactions (user, facet) WHERE user IS NOT NULL;
CREATE TABLE feedback (
    id TEXT PRIMARY KEY, interaction TEXT NOT NULL, time TEXT NOT NULL, kind TEXT NOT NULL, value REAL, user INTEGER,
    said INTEGER NOT NULL, commented INTEGER NOT NULL, console INTEGER NOT NULL, erased INTEGER NOT NULL,
    source INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL);
CREATE INDEX feedback_interaction ON feedback (interaction);
CREATE INDEX feedback_source ON feedback (source);
CREATE TABLE cases (id TEXT PRIMARY KEY, interaction TEXT NOT NULL, source INTEGER NOT NULL);
CREATE INDEX cases_interaction ON cases (interaction);
CREATE TABLE volume (
    bucket INTEGER NOT NULL, facet INTEGER NOT NULL, requests INTEGER NOT NULL, tokens INTEGER NOT NULL,
    PRIMARY KEY (bucket, facet)) WITHOUT ROWID;
CREATE TABLE latency (
    bucket INTEGER NOT NULL, slot INTEGER NOT NULL, requests INTEGER NOT NULL,
    PRIMARY KEY (bucket, slot)) WITHOUT ROWID;
CREATE TRIGGER interaction_in AFTER INSERT ON interactions BEGIN
    UPDATE facets SET requests = requests + 1 WHERE id = new.facet;
    INSERT INTO volume VALUES (new.key / {{bucket}}, new.facet, 1, new.prompt + new.completion)
        ON CONFLICT (bucket, facet) DO UPDATE SET requests = requests + 1, tokens = tokens + excluded.tokens;
END;
CREATE TRIGGER interaction_slow AFTER INSERT ON interactions WHEN new.slot IS NOT NULL BEGIN
    INSERT INTO latency VALUES (new.key / {{bucket}}, new.slot, 1)
        ON CONFLICT (bucket, slot) DO UPDATE SET requests = requests + 1;
END;
CREATE TRIGGER interaction_out AFTER DELETE ON interactions BEGIN
    UPDATE facets SET requests = requests - 1 WHERE id = old.facet;
    UPDATE volume SET requests = requests - 1, tokens = tokens - old.prompt - old.completion
        WHERE bucket = old.key / {{bucket}} AND facet = old.facet;
    UPDATE latency SET requests = requests - 1 WHERE bucket = old.key / {{bucket}} AND slot = old.slot;
END;
CREATE TRIGGER interaction_other AFTER UPDATE OF facet ON interactions WHEN new.facet <> old.facet BEGIN
    UPDATE facets SET requests = requests - 1 WHERE id = old.facet;
    UPDATE facets SET requests = requests + 1 WHERE id = new.facet;
    UPDATE volume SET requests = requests - 1, tokens = tokens - old.prompt - old.completion
        WHERE bucket = old.key / {{bucket}} AND facet = old.facet;
    INSERT INTO volume VALUES (new.key / {{bucket}}, new.facet, 1, new.prompt + new.completion)
        ON CONFLICT (bucket, facet) DO UPDATE SET requests = requests + 1, tokens = tokens + excluded.tokens;
END;
PRAGMA user_version = {FORMAT};
""".replace("{bucket}", str(BUCKET_SECONDS * 1000 * SPREAD))


class _CacheFile(SqliteDatabase):
    """A database that may be thrown away: ``Corrupt`` when it is of another format."""

    def _check_format(self) -> None:
        found = self.query("PRAGMA user_version")[0][0]
        if found == 0 and not self.query("SELECT 1 FROM sqlite_master LIMIT 1"):
            self.script(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
        elif found != FORMAT:
            raise Corrupt(f"{self.path} has format {found}")


class IndexFile:
    """Two connections, one that reads while the other writes. Opened at the first use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._opened: tuple[_CacheFile, _CacheFile] | None = None
        self._inode = 0
        self._left: list[_CacheFile] = []  # another thread may be reading in them

    @property
    def reading(self) -> SqliteDatabase:
        """For SELECT."""
        return self._connections()[0]

    @property
    def writing(self) -> SqliteDatabase:
        """For transactions."""
        return self._connections()[1]

    @property
    def inode(self) -> int:
        """Another number is another file."""
        self._connections()
        return self._inode

    def _connections(self) -> tuple[_CacheFile, _CacheFile]:
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> tuple[_CacheFile, _CacheFile]:
        with self._held():
            if self._present() is None:
                self._remove()  # a log without its file would be taken for the new one's
            try:
                opened = _CacheFile(self.path), _CacheFile(self.path)
            except Corrupt:
                self._remove()
                opened = _CacheFile(self.path), _CacheFile(self.path)
            self._inode = self._present() or 0
            return opened

    def exists(self) -> bool:
        """Whether anybody has made it."""
        return self._present() is not None

    def refresh(self) -> None:
        """Let go of a file that somebody has replaced or removed."""
        if self._present() != self._inode:
            self._let_go()

    def discard(self) -> None:
        """Throw the file away, unless somebody else has put another in its place by now."""
        self._let_go()
        with self._held():
            if self._present() == self._inode:
                self._remove()

    def close(self) -> None:
        """Close every connection."""
        self._let_go()
        while self._left:
            self._left.pop().close()

    def _let_go(self) -> None:
        with self._lock:
            self._left.extend(self._opened or ())
            self._opened = None

    def _present(self) -> int | None:
        try:
            return self.path.stat().st_ino
        except FileNotFoundError:
            return None

    @contextmanager
    def _held(self) -> Iterator[None]:
        try:
            self.path.parent.mkdir(exist_ok=True)
            lock = self.path.with_suffix(".lock").open("a")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}; the store must be writable") from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _remove(self) -> None:
        for ending in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
