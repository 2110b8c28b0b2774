"""How files come into the store: found, copied and hashed in one reading, and put on the disk together.

A copy is a clone where the file system can share blocks. What was hashed before is known again by device, inode,
size and times; that is a shortcut for taking the same folder in again, never a proof: `verify` reads every byte.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import stat
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from blake3 import blake3

from treadle.core.cipher import SEGMENT, Cipher, Stream
from treadle.core.digest import PREFIX, blake3_bytes, blake3_file
from treadle.core.errors import TreadleError

R = TypeVar("R")

_FICLONE = 0x40049409  # ioctl of btrfs, XFS and others: share the blocks of another file
_ONE_BY_ONE = 16  # files that are synced one by one; more of them together
_LARGE = 1 << 20  # bytes; files that are worth a thread
_AHEAD = 16  # pieces of a file that are read and not written yet
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
                status = entry.stat(follow_symlinks=False)
                name = prefix + entry.name
                if stat.S_ISDIR(status.st_mode):
                    waiting.append((entry.path, name + "/"))
                elif not stat.S_ISREG(status.st_mode):
                    raise Odd(f"{entry.path} is a link or a device; an artifact holds plain files only")
                elif "\\" in name or not (name.isascii() or _is_text(name)):
                    raise Odd(f"{name!r} is not a name for a file of an artifact; rename it")
                else:
                    found.append(Found(entry.path, name, status))
    return sorted(found, key=lambda each: each.name)


def found_files(path: Path) -> list[Found]:
    """The files under a folder, or the one file. Errors as ``plain_files``."""
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
        return plain_files(path)
    if not stat.S_ISREG(status.st_mode) or "\\" in path.name or not _is_text(path.name):
        raise Odd(f"{path} is a link or a device, or has no plain name; an artifact holds plain files only")
    return [Found(str(path), path.name, status)]


def read_file(path: str) -> bytes:
    """The bytes of a small file that is no link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        data = os.read(descriptor, SEGMENT)
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
        data = os.read(reading, SEGMENT)
        while data:
            while len(data) < SEGMENT and (more := os.read(reading, SEGMENT - len(data))):
                data += more
            hasher.update(data)
            size += len(data)
            following = os.read(reading, SEGMENT) if len(data) == SEGMENT else b""
            writer.write(data, last=not following)
            data = following
        if not size:
            writer.write(b"", last=True)
    return PREFIX + hasher.hexdigest(), size


class _Writer:
    """Encrypts and writes the pieces of a file, the next ones being read meanwhile when it is a large one."""

    def __init__(self, descriptor: int, stream: Stream | None, *, aside: bool) -> None:
        self._descriptor, self._stream = descriptor, stream
        self._thread = ThreadPoolExecutor(1) if aside else None
        self._waiting: deque[Future[None]] = deque()
        self._number, self._size, self._started = 0, 0, 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            while self._waiting:
                self._waiting.popleft().result()
        finally:
            if self._thread is not None:
                self._thread.shutdown(cancel_futures=True)

    def write(self, data: bytes, *, last: bool) -> None:
        if self._thread is None:
            self._write(data, last)
            return
        self._waiting.append(self._thread.submit(self._write, data, last))
        if len(self._waiting) > _AHEAD:
            self._waiting.popleft().result()

    def _write(self, data: bytes, last: bool) -> None:
        if self._stream is not None:
            data = (b"" if self._number else self._stream.header) + self._stream.seal(self._number, data, last=last)
            self._number += 1
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self._size += len(data)
        self._started = start_writing(self._descriptor, self._started, self._size)


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
    _RECORD = struct.Struct("<QQQqq32s")  # device, inode, size, time of change of bytes and of inode in ns, digest

    def __init__(self, cache: Path, folder: Path) -> None:
        self._path = cache / blake3_bytes(os.fsencode(os.path.realpath(folder))).removeprefix(PREFIX)[:32]
        self._looks, self._tree = b"", b""
        self._known = self._read()
        self._seen: dict[bytes, bytes] = {}
        self._began = time.time_ns()

    def _read(self) -> dict[bytes, bytes]:
        try:
            data = self._path.read_bytes()
        except OSError:
            return {}
        body, check = data[:-32], data[-32:]
        size, start = self._RECORD.size, self._HEAD.size
        if not body.startswith(self._MAGIC) or (len(body) - start) % size or blake3(body).digest() != check:
            return {}
        _, self._looks, self._tree = self._HEAD.unpack_from(body)
        return {body[at : at + size - 32]: body[at + size - 32 : at + size] for at in range(start, len(body), size)}

    def tree(self, files: Sequence[Found]) -> tuple[str, set[bytes]] | None:
        """The digest of the tree and of its files where nothing changed in any of them."""
        keys = [self._key(file.status) for file in files]
        if self._looks != _look(files, keys) or not all(map(self._known.__contains__, keys)):
            return None
        return PREFIX + self._tree.hex(), {self._known[key] for key in keys}

    def digest(self, status: os.stat_result) -> str | None:
        """The digest of a file that has not changed since, or None."""
        key = self._key(status)
        digest = self._known.get(key)
        if digest is None:
            return None
        self._seen[key] = digest
        return PREFIX + digest.hex()

    def learn(self, status: os.stat_result, raw: bytes) -> None:
        """Keep what was read; not of a file that changed so lately that its times may not tell of another change."""
        settled = self._began - _SETTLED
        if status.st_mtime_ns < settled and status.st_ctime_ns < settled:
            self._seen[self._key(status)] = raw

    def save(self, files: Sequence[Found], tree: str) -> None:
        """Write down what is known now, in place of what was."""
        looks = _look(files, [self._key(file.status) for file in files])
        if self._seen == self._known and looks == self._looks:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        body = self._HEAD.pack(self._MAGIC, looks, bytes.fromhex(tree.removeprefix(PREFIX)))
        body += b"".join(key + digest for key, digest in self._seen.items())
        temporary = self._path.with_name(f".{secrets.token_hex(8)}")
        temporary.write_bytes(body + blake3(body).digest())
        temporary.replace(self._path)

    def _key(self, status: os.stat_result) -> bytes:
        values = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, b"")
        return self._RECORD.pack(*values)[:-32]


def _look(files: Sequence[Found], keys: Sequence[bytes]) -> bytes:
    """What the files look like from outside, with their names."""
    names = "\0".join([file.name for file in files]).encode()
    return blake3(b"".join([names, *keys])).digest()
