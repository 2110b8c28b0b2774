"""What an earlier collection read and need not be read again: its documents come out of the corpus it made.

By a digest of a unit's name, mark and settings stands which documents of that corpus came out of it, which of its
quarantined pieces, and what was dropped. The corpus is the same as one read from scratch. All this is a cache, never
evidence: without it everything is read. It holds no text and no names, and what was dropped is encrypted where the
store is.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

from blake3 import blake3

from treadle.core.artifacts import DOCUMENT_IDS
from treadle.core.digest import canonical_json
from treadle.core.document_ids import ID_BYTES
from treadle.core.errors import UserError
from treadle.core.store import Store
from treadle.text.accounting import Dropped, Quarantined
from treadle.text.corpus import Corpus
from treadle.text.document import Document
from treadle.text.known_files import KnownFiles, remembering
from treadle.text.positions import DocumentsAt
from treadle.text.unit_notes import FORMAT, Counts, Notes, id_digest
from treadle.text.units import Known, Unit

FILE = "cache/collected.db"
FILES = "files.json"
Piece = Document | Dropped | Quarantined
_FOUND = "SELECT first, documents, ids, broken, quarantined, dropped FROM units WHERE key = ?"


class Named(Protocol):
    """What is asked of an open source."""

    @property
    def name(self) -> str:
        """The type."""
        ...

    @property
    def version(self) -> str:
        """Of its code."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those that decide what comes out of a unit."""
        ...

    def changed(self, known: Known) -> Iterator[Piece | Unit]:
        """Every piece, but of known units."""
        ...


class _DamagedError(Exception):
    """The cache does not say what the corpus holds."""


class Takeover:
    """One collection that follows another. ``path`` is the cache's; it may be missing, or of another time."""

    def __init__(self, path: Path, store: Store) -> None:
        self._path, self._store = path, store
        self._database = _opened(path)
        self._corpus: Corpus | None = None
        self._documents: DocumentsAt | None = None
        self._quarantined: list[Quarantined] = []
        self._notes: Notes | None = None
        self.counts: Counts | None = None  # set by `keep`
        self._read = self._unchanged = 0
        for (digest,) in self._all("SELECT digest FROM corpus"):
            if store.has(digest):
                self._corpus = Corpus(digest, store)

    def pieces(self, opened: Named) -> Iterator[Piece]:
        """Every piece of a source in its order, what is known from the earlier corpus. After each, the caller says
        ``kept`` or ``spoil``, or, of a piece that is no document, nothing.
        """
        if self._notes is None:
            self._notes = Notes(self._store)
        base = blake3(canonical_json([FORMAT, opened.name, opened.version, opened.settings]))
        for piece in opened.changed(lambda name, mark: self._knows(_key(base, name, mark))):
            if not isinstance(piece, Unit):
                self._read += 1
                self._notes.piece(piece)
                yield piece
                continue
            key = _key(base, piece.name, piece.mark)
            self._notes.begin(key if piece.mark else None)
            if piece.known:
                for earlier in self._taken_over(key):
                    self._unchanged += 1
                    self._notes.piece(earlier)
                    yield earlier
        self._notes.begin(None)

    def kept(self, document: str) -> None:
        """The piece given last went on; ``document`` is its id."""
        if self._notes is not None:
            self._notes.kept(document)

    def spoil(self) -> None:
        """What the unit gave is not what will lie in the corpus, so that it has to be read again."""
        if self._notes is not None:
            self._notes.spoil()

    def keep(self, corpus: Corpus) -> None:
        """Put what this collection found in the place of what was known."""
        if self._notes is not None:
            gone = _missing(_ids(self._corpus), _ids(corpus)) if self._corpus is not None else 0
            self.counts = Counts(self._read, self._unchanged, gone)
            self._path.parent.mkdir(exist_ok=True)
            self._notes.keep(corpus, self.counts, self._path)

    def close(self) -> None:
        """Let go of everything; what was not kept is gone."""
        if self._notes is not None:
            self._notes.close()
        if self._database is not None:
            self._database.close()

    def _knows(self, key: bytes) -> bool:
        return self._corpus is not None and any(True for _ in self._all("SELECT 1 FROM units WHERE key = ?", key))

    def _taken_over(self, key: bytes) -> Iterator[Piece]:
        assert self._corpus is not None
        for first, documents, ids, broken, quarantined, dropped in self._all(_FOUND, key):
            if quarantined and not self._quarantined:
                self._quarantined = self._corpus.accounting().quarantined
            lost = self._quarantined[broken : broken + quarantined]
            if len(lost) != quarantined:
                raise _DamagedError
            yield from lost
            yield from self._dropped(dropped)
            if documents:
                yield from self._found(first, documents, ids)

    def _found(self, first: int, count: int, ids: bytes) -> Iterator[Document]:
        if self._documents is None:
            assert self._corpus is not None
            self._documents = DocumentsAt(self._corpus.path())
        hasher = blake3()
        try:
            for document in self._documents.some(first, count):
                hasher.update(document.id.encode())
                yield document
        except IndexError:
            raise _DamagedError from None
        if id_digest(hasher) != ids:
            raise _DamagedError

    def _dropped(self, data: bytes | None) -> Iterator[Dropped]:
        if not data:
            return
        plain = data if self._store.cipher is None else self._store.cipher.decrypt(data)
        for identity, source, locator, rule, reason in json.loads(plain):
            yield Dropped(Document(identity, source, locator, ""), rule, reason)

    def _all(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        if self._database is None:
            return []
        try:
            return self._database.execute(sql, values).fetchall()
        except sqlite3.DatabaseError:
            raise _DamagedError from None


_CURRENT: ContextVar[Takeover | None] = ContextVar("takeover", default=None)


def current() -> Takeover | None:
    """The collection that is going on, where one follows another."""
    return _CURRENT.get()


@contextmanager
def taking_over(store: Store, keyed: Callable[[str], str]) -> Iterator[Takeover]:
    """Within the block, sources are asked for what is new, and files are hashed only where they changed.

    ``UserError`` when the cache turns out to be damaged; it is thrown away then.
    """
    path = store.root / FILE
    files = KnownFiles(path.with_name(FILES), keyed)
    try:
        with closing(Takeover(path, store)) as this, remembering(files):
            before = _CURRENT.set(this)
            try:
                yield this
            finally:
                _CURRENT.reset(before)
    except _DamagedError:
        path.unlink(missing_ok=True)
        raise UserError(f"collect: {path} was damaged and is thrown away; run the same command again") from None
    folder = store.new_folder("collected-")
    files.keep(folder)
    folder.rmdir()


def last_counts(store: Store, corpus: str) -> Counts | None:
    """What the collection that gave a corpus read and what not, if it was the last one."""
    with closing(Takeover(store.root / FILE, store)) as this:
        found = this._all("SELECT read, unchanged, gone FROM corpus WHERE digest = ?", corpus)
    return Counts(*found[0]) if found else None


def _opened(path: Path) -> sqlite3.Connection | None:
    """The cache, where it is one; whatever else lies there is not used."""
    if not path.is_file():
        return None
    with suppress(sqlite3.DatabaseError):
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        if database.execute("PRAGMA user_version").fetchone()[0] == FORMAT:
            return database
        database.close()
    return None


def _ids(corpus: Corpus) -> Iterator[bytes]:
    """The ids of its documents, sorted."""
    with corpus.open(DOCUMENT_IDS) as file:
        while block := file.read(ID_BYTES << 10):
            yield from (block[start : start + ID_BYTES] for start in range(0, len(block), ID_BYTES))


def _missing(before: Iterator[bytes], after: Iterator[bytes]) -> int:
    """How many of sorted ids are not among others."""
    missing, found = 0, next(after, None)
    for wanted in before:
        while found is not None and found < wanted:
            found = next(after, None)
        missing += found != wanted
    return missing


def _key(base: Any, name: str, mark: str) -> bytes:
    hasher = base.copy()
    hasher.update(canonical_json([name, mark]))
    return bytes(hasher.digest(16))
