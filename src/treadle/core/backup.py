"""A backup: one file with everything of a project that is not an object in the store.

A ZIP file, written while others go on working, and complete or not there at all:

    ledger.jsonl            a row a line: seq, kind, version, time, body, mac
    state.jsonl             rows of the tables that are no projections: people's keys, cursors, API keys' hashes ...
    journal/STREAM/ID.jsonl  segments that were not sealed, as far as their rows were written
    objects/<64 digits>     the suppression list in force, and every other object where they are asked for
    keys/                   the project's keys, unless they are left out
    treadle.yaml            the settings
    backup.json             format, time, head; size and digest of each of the above; signed. It comes last

Rows are checked while they are written, so what cannot be restored is no backup. Query tables are drawn again from the
rows, which also lets a backup travel from one kind of database to the other.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from blake3 import blake3

from treadle.core.database import Database, Reader
from treadle.core.digest import PREFIX, canonical_json, is_digest
from treadle.core.errors import Corrupt, UserError
from treadle.core.fact import canonical_row, now
from treadle.core.head import Head
from treadle.core.intake import sync_path
from treadle.core.keys import Keys, verify_signature
from treadle.core.merkle import leaf_hash
from treadle.core.nodes import WIDTH, Tree
from treadle.core.segment import files_of, read_file
from treadle.core.store import Store

FORMAT = 1
STATE = ("people", "cursors", "head_deliveries", "api_keys", "api_key_use")  # tables that no rows of the ledger give
KEYS = ("project.key", "ledger.key")
SETTINGS = "treadle.yaml"

_BATCH = 32 * WIDTH
_ROWS = "SELECT seq, kind, version, time, body, mac FROM ledger WHERE seq <= {} ORDER BY seq"
_BUFFER = 1 << 20
_INDEX_LIMIT = 64 << 20  # bytes of backup.json
_LINE_LIMIT = 64 << 20  # and of a line
_NAME = re.compile(
    r"(ledger\.jsonl|state\.jsonl|treadle\.yaml|keys/(project|ledger)\.key|objects/[0-9a-f]{64}"
    r"|journal/[a-z][a-z0-9_.-]{0,39}/seg-[0-9A-HJKMNP-TV-Z]{26}\.jsonl)\Z"
)


@dataclass(frozen=True)
class Contents:
    """What ``backup.json`` says: whose, when, up to which head, and which files with their sizes and digests."""

    made: str
    head: Head
    public_key: str
    store_format: int
    members: dict[str, tuple[int, str]] = field(default_factory=dict)

    def encode(self, keys: Keys) -> bytes:
        """Signed, as it is written."""
        head = {"size": self.head.size, "root": self.head.root, "signature": self.head.signature}
        members = {name: list(found) for name, found in self.members.items()}
        said = {
            "format": FORMAT,
            "made": self.made,
            "head": head,
            "public_key": self.public_key,
            "store_format": self.store_format,
            "members": members,
        }
        return canonical_json({**said, "signature": keys.sign(b"treadle backup 1\n" + canonical_json(said))})

    @classmethod
    def decode(cls, data: bytes) -> Contents:
        """The reverse; ``ValueError`` for what was not written so, or not signed by the key that it names."""
        said = json.loads(data)
        if said["format"] != FORMAT:
            raise UserError(
                f"the backup has format {said['format']!r}, this Treadle reads format {FORMAT}; use a newer"
            )
        signature = said.pop("signature")
        if not verify_signature(said["public_key"], b"treadle backup 1\n" + canonical_json(said), signature):
            raise ValueError("its list of contents was changed")
        head = Head(**said["head"])
        members = {name: (size, digest) for name, (size, digest) in said["members"].items()}
        for name, (size, digest) in members.items():
            if not _NAME.match(name):
                raise ValueError(f"it holds {name[:80]!r}, which no backup has")
            if type(size) is not int or size < 0 or not is_digest(digest):
                raise ValueError(f"it does not say what {name} holds")
        if not {"ledger.jsonl", "state.jsonl"} <= members.keys() or not head.valid_for(said["public_key"]):
            raise ValueError("it has no ledger with a signed head")
        return cls(said["made"], head, said["public_key"], said["store_format"], members)


# -- writing


class Source:
    """What a backup is made of: the parts of a workspace, or of one that is about to be changed."""

    def __init__(
        self,
        root: Path,
        database: Database,
        keys: Keys,
        store: Store,
        store_format: int,
        settings: Path | None = None,
    ) -> None:
        self.root, self.database, self.keys, self.store = root, database, keys, store
        self.store_format, self.settings = store_format, settings


def write(source: Source, path: Path, *, keys: bool = True, objects: Callable[[], list[str]] | None = None) -> Contents:
    """Write a backup to a new file that only its owner can read. ``objects`` gives the digests of those that go into
    it, beside the suppression list.

    ``Corrupt`` when the ledger or an object is not what was recorded, ``UserError`` when the file cannot be written;
    there is no file then.
    """
    if path.exists():
        raise UserError(f"{path} is there already; name a new file or a folder")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with suppress(FileExistsError):  # a file in the place of the folder is told below
            path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w+b") as file:
            contents = _fill(source, file, keys, objects)
            file.flush()
            os.fsync(file.fileno())
        _name(temporary, path)
        sync_path(path.parent)
    except FileExistsError:
        raise UserError(f"{path} is there already; name a new file or a folder") from None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; name a place with room") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
    return contents


def _name(temporary: Path, path: Path) -> None:
    """Give a file its name; ``FileExistsError`` where another process was first."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a disk that knows no hard links
        if path.exists():
            raise FileExistsError(path) from None
        temporary.rename(path)


def _fill(source: Source, file: IO[bytes], keys: bool, objects: Callable[[], list[str]] | None) -> Contents:
    archive = _Archive(file)
    loose = _loose(source.root / "journal")  # before the rows: what is sealed meanwhile is in one of the two
    with archive.closing(), source.database.snapshot() as reader:
        head, sealed, suppression = _write_ledger(source, reader, archive)
        with archive.member("state.jsonl") as write:
            for line in _state(reader):
                write(line)
        for name, data in loose.items():
            if Path(name).stem not in sealed:
                archive.add(name, data)
        if keys:
            for name in KEYS:
                archive.add(f"keys/{name}", (source.root / "keys" / name).read_bytes())
        if source.settings is not None and source.settings.is_file():
            archive.add(SETTINGS, source.settings.read_bytes())
        wanted = [] if suppression is None else [suppression, *_files(source.store, suppression)]
        for digest in dict.fromkeys([*wanted, *(objects() if objects else [])]):
            _write_object(source.store, digest, archive)
        contents = Contents(now(), head, source.keys.public, source.store_format, archive.members)
        archive.add("backup.json", contents.encode(source.keys))
    return contents


def _loose(folder: Path) -> dict[str, bytes]:
    found = {}
    for stream in sorted(folder.iterdir()) if folder.is_dir() else ():
        for path in files_of(stream):
            data = read_file(path)
            found[f"journal/{stream.name}/{path.name}"] = data[: data.rfind(b"\n") + 1]
    return found


def _write_ledger(source: Source, reader: Reader, archive: _Archive) -> tuple[Head, set[str], str | None]:
    """The rows, each checked; the head over them, the files that were sealed, and the suppression list in force."""
    heads = list(reader.execute("SELECT size, root, signature FROM ledger_head WHERE id = 1"))
    head = Head(*heads[0]) if heads else None
    if head is None or not head.valid(source.keys):
        raise Corrupt("the ledger has no valid signed head, so a backup of it would be none; run treadle verify")
    tree, sealed, suppression = Tree(), set[str](), None
    with archive.member("ledger.jsonl") as write:
        for rows in source.database.batches(reader, _ROWS.format(head.size), _BATCH):
            tree.extend(checked(rows, tree.size, source.keys))
            write(b"".join(_line(row) for row in rows))
            for row in rows:
                if row[1] == "seal":
                    sealed.add(str(json.loads(row[4])["file"]))
                elif row[1] == "erasure":
                    suppression = str(json.loads(row[4])["suppression"])
    if tree.size != head.size or tree.frontier.root().hex() != head.root:
        raise Corrupt("the ledger is not what its head says, so a backup of it would be none; run treadle verify")
    return head, sealed, suppression


def checked(rows: list[Any], before: int, keys: Keys) -> list[bytes]:
    """Hashes of the leaves that rows after the first ``before`` are; ``Corrupt`` unless they are what was written."""
    try:
        data = [canonical_row(seq, kind, version, time, body) for seq, kind, version, time, body, _ in rows]
    except (TypeError, AttributeError):
        data = []
    in_order = [row[0] for row in rows] == list(range(before + 1, before + 1 + len(rows)))
    if not in_order or len(data) != len(rows) or keys.macs(data) != [row[5] for row in rows]:
        raise Corrupt(f"rows after {before} of the ledger are not what was written; run treadle verify")
    return [leaf_hash(each) for each in data]


def _state(reader: Reader) -> Iterator[bytes]:
    for table in STATE:
        for row in reader.execute(f"SELECT * FROM {table}"):
            yield _line((table, *({"hex": bytes(each).hex()} if isinstance(each, bytes) else each for each in row)))


def _line(row: Any) -> bytes:
    return json.dumps(list(row), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"


def value(written: Any) -> Any:
    """A value of a row of the state, as it was in its table."""
    if isinstance(written, dict):
        return bytes.fromhex(written["hex"])
    return written


def stamp() -> str:
    """The present, for names of files that sort by time: ``20260131T120000-123456``."""
    return now().replace("-", "").replace(":", "").replace(".", "-").rstrip("Z")


def _files(store: Store, digest: str) -> list[str]:
    return [entry.digest for entry in store.entries(digest)] if store.has_object(digest) else []


def _write_object(store: Store, digest: str, archive: _Archive) -> None:
    if not store.has_object(digest):
        return  # erased or collected meanwhile
    name = "objects/" + digest.removeprefix(PREFIX)
    with store.open_unverified(digest) as file, archive.member(name, pack=False) as write:
        while data := file.read(_BUFFER):
            write(data)
    if archive.members[name][1] != digest:
        raise Corrupt(f"object {digest} is not what was stored; treadle pull mends it where a remote has it")


class _Archive:
    """A ZIP file that is written from front to back."""

    def __init__(self, file: IO[bytes]) -> None:
        self.members: dict[str, tuple[int, str]] = {}
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1)

    @contextmanager
    def closing(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._zip.close()

    @contextmanager
    def member(self, name: str, *, pack: bool = True) -> Iterator[Callable[[bytes], None]]:
        """One file in it, written piece by piece."""
        information = zipfile.ZipInfo(name)
        information.compress_type = zipfile.ZIP_DEFLATED if pack else zipfile.ZIP_STORED
        information.external_attr = 0o600 << 16
        hasher, size = blake3(), 0
        with self._zip.open(information, "w", force_zip64=True) as target:

            def write(data: bytes) -> None:
                nonlocal size
                hasher.update(data)
                size += len(data)
                target.write(data)

            yield write
        self.members[name] = (size, PREFIX + hasher.hexdigest())

    def add(self, name: str, data: bytes) -> None:
        """One small file."""
        with self.member(name) as write:
            write(data)


# -- reading


class Archive:
    """A backup to be read. Names and sizes are those that ``backup.json`` lists, never what the ZIP file claims."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}; name a file of treadle backup") from None
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            raise UserError(f"{path} is no backup, or not all of it; name a file of treadle backup") from None
        try:
            with self._zip.open("backup.json") as file:
                data = file.read(_INDEX_LIMIT + 1)
            if len(data) > _INDEX_LIMIT:
                raise ValueError("its list of contents is too long")
            self.contents = Contents.decode(data)
        except UserError:
            self._zip.close()
            raise
        except (*_DAMAGE, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            self._zip.close()
            raise self._damaged(str(error)) from None

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def _damaged(self, what: str) -> Corrupt:
        return Corrupt(f"{self.path} is not as it was written: {' '.join(what.split())[:200]}; use another backup")

    def names(self, prefix: str) -> list[str]:
        """Names that begin so."""
        return sorted(name for name in self.contents.members if name.startswith(prefix))

    def pieces(self, name: str) -> Iterator[bytes]:
        """A member's bytes; ``Corrupt`` at the end unless they are those that were written."""
        size, digest = self.contents.members[name]
        hasher, left = blake3(), size
        try:
            with self._zip.open(name) as file:
                while data := file.read(min(_BUFFER, left + 1)):
                    left -= len(data)
                    if left < 0:
                        break
                    hasher.update(data)
                    yield data
        except (*_DAMAGE, KeyError) as error:
            raise self._damaged(f"{name}: {error}") from None
        if left or PREFIX + hasher.hexdigest() != digest:
            raise self._damaged(f"{name} was changed")

    def read(self, name: str) -> bytes:
        """The bytes of a small member."""
        return b"".join(self.pieces(name))

    def lines(self, name: str, many: int = _BATCH) -> Iterator[list[Any]]:
        """The rows of a member as they were given to ``_line``, many at a time."""
        rows: list[Any] = []
        rest = b""
        for data in self.pieces(name):
            *whole, rest = (rest + data).split(b"\n")
            if len(rest) > _LINE_LIMIT:
                raise self._damaged(f"{name} has a line that is too long")
            try:
                rows.extend(map(json.loads, whole))
            except (ValueError, RecursionError) as error:
                raise self._damaged(f"{name}: {error}") from None
            while len(rows) >= many:
                yield rows[:many]
                rows = rows[many:]
        if rest:
            raise self._damaged(f"{name} ends in the middle of a line")
        if rows:
            yield rows


_DAMAGE = (OSError, zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError)
