"""How files come into the store: found, copied and hashed in one reading, and put on the disk together.

A copy is a clone where the file system can share blocks. What was hashed before is known again by device, inode,
size and times; that is a shortcut for taking the same folder in again, never a proof: `verify` reads every byte.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import os
import secrets
import stat
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from operator import attrgetter, itemgetter
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple, TypeVar, cast

from blake3 import blake3

from treadle.core.cipher import SEGMENT, TAG, Cipher, Stream
from treadle.core.digest import PREFIX, blake3_bytes, blake3_file
from treadle.core.errors import TreadleError

R = TypeVar("R")

_FICLONE = 0x40049409  # ioctl of btrfs, XFS and others: share the blocks of another file
_ONE_BY_ONE = 16  # files that are synced one by one; more of them together
_LARGE = 1 << 20  # bytes; files that are worth a thread
_ALIGNED = 128 << 10  # bytes written at once; of more at a time Linux looks for large pages, which can take long
_ROOMS = 4  # pieces of a file that are held at a time
_BEGIN = 8 << 20  # bytes written, after which the disk is told to begin
_SYNC_WRITE = 2  # of sync_file_range: begin, and do not wait
_THREADS = min(8, os.cpu_count() or 1)
_SETTLED = 1_000_000_000  # ns; a file changed later than this before it was read may change again unseen


class Odd(TreadleError):
    """A folder holds something that is no plain file with a plain name."""


class Found(NamedTuple):
    """A plain file under a folder: where it is, its POSIX path in the folder, and what the system says of it."""

    path: str
    name: str
    status: os.stat_result


def plain_files(folder: Path) -> list[Found]:
    """The files under a folder, sorted by path in it; ``Odd`` for anything but plain files and folders."""
    found: list[Found] = []
    waiting = [(str(folder), "")]
    while waiting:
        place, prefix = waiting.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, name + "/"))
                    continue
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    raise Odd(f"{entry.path} is a link or a device; an artifact holds plain files only")
                if "\\" in name or not (name.isascii() or _is_text(name)):
                    raise Odd(f"{name!r} is not a name for a file of an artifact; rename it")
                found.append(Found(entry.path, name, status))
    return sorted(found, key=itemgetter(1))  # by name


@contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's collector of cycles, which would look at a hundred thousand files' records again and again."""
    wanted = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if wanted:
            gc.enable()


def found_files(path: Path) -> list[Found]:
    """The files under a folder, or the one file. Errors as ``plain_files``."""
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
        with uncollected():
            return plain_files(path)
    if not stat.S_ISREG(status.st_mode) or "\\" in path.name or not _is_text(path.name):
        raise Odd(f"{path} is a link or a device, or has no plain name; an artifact holds plain files only")
    return [Found(str(path), path.name, status)]


def read_file(path: str, size: int) -> bytes:
    """The bytes of a small file that is no link; ``size`` is what it should have."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        data = os.read(descriptor, SEGMENT)
        if len(data) == size < SEGMENT:  # less than was asked for: that was the end
            return data
        while more := os.read(descriptor, SEGMENT):
            data += more
        return data
    finally:
        os.close(descriptor)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def each_file(work: Callable[[Found], R], files: Sequence[Found]) -> list[R]:
    """Results in order. Large files are worked on side by side; with small ones threads would only wait for each
    other."""
    results: dict[int, R] = {}
    large = [number for number, file in enumerate(files) if file.status.st_size >= _LARGE]
    if len(large) > 1:
        with ThreadPoolExecutor(_THREADS) as pool:
            results = dict(zip(large, pool.map(work, [files[number] for number in large]), strict=True))
    return [results[number] if number in results else work(file) for number, file in enumerate(files)]


def hashed(file: Found) -> str:
    """The digest of a file's bytes."""
    return blake3_file(file.path)


def copied(source: str, target: str, cipher: Cipher | None = None) -> tuple[str, int]:
    """Copy a file, read once, encrypted where there is a cipher; returns digest and size of what was read.

    The copy is read-only, and not synced.
    """
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        try:
            if cipher is None and _cloned(reading, writing):
                return blake3_file(Path(target)), os.fstat(writing).st_size
            return _copy(reading, writing, None if cipher is None else cipher.begin())
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _cloned(reading: int, writing: int) -> bool:
    if os.fstat(reading).st_size <= SEGMENT:  # a block or so; asking costs more
        return False
    try:
        fcntl.ioctl(writing, _FICLONE, reading)
    except OSError:
        return False
    return True


def _copy(reading: int, writing: int, stream: Stream | None) -> tuple[str, int]:
    hasher, size = blake3(), 0
    with _Writer(writing, stream, aside=os.fstat(reading).st_size >= _LARGE) as writer:
        piece = _filled(reading, writer.room())
        while True:
            hasher.update(piece)
            size += len(piece)
            # A full piece is not known to be the last one before more was asked for.
            following = _filled(reading, writer.room()) if len(piece) == SEGMENT else piece[:0]
            writer.write(piece, last=not following)
            if not following:
                return PREFIX + hasher.hexdigest(), size
            piece = following


def _filled(reading: int, room: bytearray) -> memoryview:
    """The next bytes of a file, fewer than there is room for at its end only."""
    view, size = memoryview(room), 0
    while size < SEGMENT and (more := os.readv(reading, [view[size:]])):
        size += more
    return view[:size]


class _Writer:
    """Encrypts and writes the pieces of a file, for a large one in threads of their own. The same few rooms hold the
    pieces again and again, so that they stay in the processor's cache.

    Telling the disk to begin may wait for the disk, so that is one more thread's work.
    """

    def __init__(self, descriptor: int, stream: Stream | None, *, aside: bool) -> None:
        self._descriptor, self._size = descriptor, 0
        self._rooms, self._pieces = (
            _Rooms(_ROOMS if aside else 2, SEGMENT),
            SimpleQueue[tuple[memoryview, bool] | None](),
        )
        self._blocks, self._ends = SimpleQueue[memoryview | None](), SimpleQueue[int | None]()
        self._sealing = None if stream is None else _Sealing(stream, _ROOMS if aside else 2)
        self._error: OSError | None = None
        works = (self._seal, self._work, self._begin) if aside else ()
        self._threads = [Thread(target=work, daemon=True) for work in works]

    def __enter__(self) -> _Writer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._threads:
            self._pieces.put(None)
            for thread in self._threads:
                thread.join()
        if self._error is not None:
            raise self._error

    def room(self) -> bytearray:
        """Where the next piece may be read to."""
        return self._rooms.take()

    def write(self, piece: memoryview, *, last: bool) -> None:
        """Write a piece that lies in such a room; it is free again afterwards."""
        if self._threads:
            self._pieces.put((piece, last))
        else:
            self._put(self._ready(piece, last))

    def _ready(self, piece: memoryview, last: bool) -> memoryview:
        """What is to be written now."""
        if self._sealing is None:
            return piece
        ready = self._sealing.seal(piece, last=last)
        self._rooms.give(piece)
        return ready

    def _seal(self) -> None:
        while (item := self._pieces.get()) is not None:
            self._blocks.put(self._ready(*item))
        self._blocks.put(None)

    def _work(self) -> None:
        while (block := self._blocks.get()) is not None:
            try:
                self._put(block)
            except OSError as error:  # the reader goes on as if nothing were, and hears of it at the end
                self._error = self._error or error
        self._ends.put(None)

    def _put(self, block: memoryview) -> None:
        try:
            rest = block if self._error is None else block[:0]
            while rest:
                rest = rest[os.write(self._descriptor, rest[:_ALIGNED]) :]
        finally:
            (self._rooms if self._sealing is None else self._sealing.rooms).give(block)
        begun, self._size = self._size // _BEGIN, self._size + len(block)
        if self._threads and begun < self._size // _BEGIN:
            self._ends.put(self._size)

    def _begin(self) -> None:
        started = 0
        while (end := self._ends.get()) is not None:
            started = start_writing(self._descriptor, started, end)


class _Rooms:
    """A few buffers that are used in turn."""

    def __init__(self, count: int, size: int) -> None:
        self._free: SimpleQueue[bytearray] = SimpleQueue()
        for _ in range(count):
            self._free.put(bytearray(size))

    def take(self) -> bytearray:
        """One that nobody uses; waits for it."""
        return self._free.get()

    def give(self, used: memoryview) -> None:
        """Back, by what lay in it."""
        self._free.put(cast(bytearray, used.obj))


class _Sealing:
    """The encrypted file as it grows, cut into blocks that are aligned in it: the disk takes others more slowly."""

    def __init__(self, stream: Stream, rooms: int) -> None:
        self.rooms = _Rooms(rooms, len(stream.header) + _ALIGNED + SEGMENT + TAG)
        self._stream, self._number = stream, 0
        self._room, self._held = self.rooms.take(), len(stream.header)
        self._room[: self._held] = stream.header

    def seal(self, piece: memoryview, *, last: bool) -> memoryview:
        """What is ready after this piece, in one of ``rooms``; the rest waits for the next."""
        room, held = self._room, self._held
        held += self._stream.seal_into(self._number, piece, room, held, last=last)
        self._number += 1
        ready = held if last else held - held % _ALIGNED
        if not last:
            self._room, self._held = self.rooms.take(), held - ready
            self._room[: self._held] = room[ready:held]
        return memoryview(room)[:ready]


# -- on the disk


def sync_files(paths: Sequence[str], folder: Path) -> None:
    """Put the contents of files under ``folder`` on the disk: one by one, or the whole file system when many."""
    if len(paths) > _ONE_BY_ONE and _sync_file_system(folder):
        return
    for path in paths:
        sync_path(path)


def start_writing(descriptor: int, start: int, end: int) -> int:
    """Let the disk begin with what was written to a file since ``start``, when it is much: the sync at the end then
    finds little left. Returns from where on nothing was begun yet."""
    if end - start < _BEGIN:
        return start
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:
        call(descriptor, ctypes.c_int64(start), ctypes.c_int64(end - start), _SYNC_WRITE)
    return end


def sync_path(path: str | Path) -> None:
    """Put a file's contents, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folders(folders: Iterable[str], root: Path) -> None:
    """Put the names in folders on the disk."""
    wanted = sorted(set(folders))
    if len(wanted) > _ONE_BY_ONE and _sync_file_system(root):
        return
    for folder in wanted:
        sync_path(folder)


def _sync_file_system(folder: Path) -> bool:
    """Everything written to the file system of ``folder``; False where the system has no such call."""
    try:
        call = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if call(descriptor) == 0:
            return True
        number = ctypes.get_errno()
        if number == errno.ENOSYS:
            return False
        raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


# -- known again


class KnownFiles:
    """Digests of the files of one folder, and of the whole, as they were when it was taken in last; no names, no
    evidence.

    The file: the magic, what all files looked like and the digest of the tree they made, one record a file, and the
    BLAKE3 of all that. Any damage only makes it useless.
    """

    _MAGIC = b"treadle known files 2\n\n\n"
    _HEAD = struct.Struct("<24s32s32s")
    _KEY = struct.Struct("<QQQqq")  # device, inode, size, time of change of bytes and of inode in ns
    _RECORD = _KEY.size + 32  # and the digest

    def __init__(self, cache: Path, folder: Path) -> None:
        self._path = cache / blake3_bytes(os.fsencode(os.path.realpath(folder))).removeprefix(PREFIX)[:32]
        self._looks, self._tree = b"", b""
        self._known = self._read()
        self._seen: dict[bytes, bytes] = {}
        self._look_now = b""
        self._began = time.time_ns()

    def _read(self) -> dict[bytes, bytes]:
        try:
            data = self._path.read_bytes()
        except OSError:
            return {}
        body, check = data[:-32], data[-32:]
        size, start = self._RECORD, self._HEAD.size
        if not body.startswith(self._MAGIC) or (len(body) - start) % size or blake3(body).digest() != check:
            return {}
        _, self._looks, self._tree = self._HEAD.unpack_from(body)
        return {body[at : at + size - 32]: body[at + size - 32 : at + size] for at in range(start, len(body), size)}

    def tree(self, files: Sequence[Found]) -> tuple[str, set[bytes]] | None:
        """The digest of the tree and of its files where nothing changed in any of them."""
        keys = [_key(status) for _, _, status in files]
        self._look_now = _look(files, keys)
        if self._looks != self._look_now or not all(map(self._known.__contains__, keys)):
            return None
        return PREFIX + self._tree.hex(), {self._known[key] for key in keys}

    def digest(self, status: os.stat_result) -> str | None:
        """The digest of a file that has not changed since, or None."""
        if not self._known:
            return None
        key = _key(status)
        digest = self._known.get(key)
        if digest is None:
            return None
        self._seen[key] = digest
        return PREFIX + digest.hex()

    def learn(self, status: os.stat_result, raw: bytes) -> None:
        """Keep what was read; not of a file that changed so lately that its times may not tell of another change."""
        settled = self._began - _SETTLED
        if status.st_mtime_ns < settled and status.st_ctime_ns < settled:
            self._seen[_key(status)] = raw

    def save(self, tree: str) -> None:
        """Write down what is known now of the files that were asked for, in place of what was."""
        if self._seen == self._known and self._look_now == self._looks:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        body = self._HEAD.pack(self._MAGIC, self._look_now, bytes.fromhex(tree.removeprefix(PREFIX)))
        body += b"".join(key + digest for key, digest in self._seen.items())
        temporary = self._path.with_name(f".{secrets.token_hex(8)}")
        temporary.write_bytes(body + blake3(body).digest())
        temporary.replace(self._path)


_IDENTITY = attrgetter("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")


def _key(status: os.stat_result, pack: Callable[..., bytes] = KnownFiles._KEY.pack) -> bytes:
    return pack(*_IDENTITY(status))


def _look(files: Sequence[Found], keys: Sequence[bytes]) -> bytes:
    """What the files look like from outside, with their names."""
    names = "\0".join([file.name for file in files]).encode()
    return blake3(b"".join([names, *keys])).digest()
