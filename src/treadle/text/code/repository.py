"""A Git repository at one commit, read without trusting it: no checkout, no hook, no filter, no transport but the one
asked for, and nothing that its own settings name is run.

A repository behind an address is fetched into a folder of its own that goes when it is closed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from treadle.core.errors import UserError
from treadle.text.code.command import git_command, git_environment, git_failed, git_said, too_late
from treadle.text.code.place import Place, find_commit, local_folder, resolve_commit

_WATCHED_EVERY = 0.5  # seconds
_MOST_PATHS = 2_000_000  # of a tree; a few hundred bytes of it can name billions
_LONGEST_LISTING = 1 << 29  # bytes of all paths
_LONGEST_WORD = 1 << 20  # bytes of one


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a tree. ``size`` in bytes; -1 for what is no file."""

    path: str
    mode: str
    object: str
    size: int


@dataclass(frozen=True, slots=True)
class Change:
    """The commit that last changed a path: its id, when it was written, and by which address."""

    commit: str
    time: str
    author: str


class Repository:
    """One commit of a repository. A context manager: what was fetched is gone after it."""

    def __init__(self, place: Place, folder: Path, *, history: bool) -> None:
        self._place, self._folder, self._history = place, folder, history
        self._deadline = time.monotonic() + place.seconds
        self._fetched: Path | None = None
        self._blobs: _Blobs | None = None
        self.commit = ""

    def __enter__(self) -> Repository:
        try:
            self._root = self._fetch() if self._place.remote else local_folder(self._place, self._folder)
            self.commit = self.commit or resolve_commit(self._root, self._place, git_environment())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._blobs is not None:
            self._blobs.close()
        if self._fetched is not None:
            shutil.rmtree(self._fetched, ignore_errors=True)

    def entries(self) -> list[Entry]:
        """Every path of the commit's tree, in the order of their bytes; ``UserError`` for more than there can be."""
        found: list[tuple[bytes, Entry]] = []
        longest = _LONGEST_LISTING
        with self._running("ls-tree", "-r", "-l", "-z", "--full-tree", self.commit) as process:
            for line in _words(process, self._place):
                longest -= len(line)
                if len(found) == _MOST_PATHS or longest < 0:
                    most = f"{_MOST_PATHS:,} paths" if longest >= 0 else f"{_LONGEST_LISTING:,} bytes of paths"
                    raise UserError(f"git: {self._place.location} has more than {most}; take a smaller repository")
                about, _, path = line.partition(b"\t")
                mode, _, identity, size = about.decode("ascii").split()
                found.append((path, Entry(_text(path), mode, identity, int(size) if size.isdigit() else -1)))
            if process.wait() and time.monotonic() < self._deadline:
                raise UserError(f"git: {self._place.location} has a tree that cannot be read; look with git fsck")
        if time.monotonic() > self._deadline:
            raise UserError(too_late(self._place))
        return [entry for _, entry in sorted(found, key=lambda item: item[0])]

    def tip(self) -> Change:
        """The commit itself."""
        said = self._said("log", "-1", "--no-mailmap", "--format=%H %at %ae", self.commit)
        return _change(said.decode("utf-8", "replace").strip())

    def changes(self, paths: set[str]) -> dict[str, Change]:
        """Which commit last changed each path, as far as history says; a merge is looked through to what it merged."""
        mark = secrets.token_hex(8)  # a path cannot look like it
        command = ["log", "-z", "--no-mailmap", "--no-renames", "--no-ext-diff", "-O/dev/null", "--name-only"]
        left, found = set(paths), dict[str, Change]()
        with self._running(*command, f"--format=format:{mark} %H %at %ae", self.commit) as process:
            change: Change | None = None
            for said in map(_text, _words(process, self._place)):
                word = said
                if said.startswith(mark):
                    about, _, word = said.partition("\n")
                    change = _change(about.removeprefix(mark).strip())
                if change is not None and word in left:
                    left.discard(word)
                    found[word] = change
                if not left:
                    break
            if left and process.wait() and time.monotonic() < self._deadline:
                raise UserError(f"git: {self._place.location} has no history that can be read; set times: commit")
        if left and time.monotonic() > self._deadline:
            raise UserError(too_late(self._place))
        return found

    def blob(self, identity: str) -> bytes | None:
        """The bytes of a file; None where the repository has lost or damaged them."""
        if self._blobs is None:
            self._blobs = _Blobs(self._root, max(1.0, self._deadline - time.monotonic()))
        data = self._blobs.read(identity)
        if data is None:
            self._blobs.close()
            self._blobs = None
            if time.monotonic() > self._deadline:
                raise UserError(too_late(self._place))
        return data

    def _fetch(self) -> Path:
        self.commit = find_commit(self._place, self._folder)
        self._fetched = Path(tempfile.mkdtemp(prefix="treadle-git-"))
        environment = git_environment(self._place)
        git_said(
            [*git_command(), "init", "--quiet", "--bare", "--template=", str(self._fetched)], environment, self._place
        )
        depth = [] if self._history else ["--depth=1"]
        fetch = ["-C", str(self._fetched), "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", *depth]
        for wanted in ([self.commit], ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]):
            try:
                self._watched([*git_command(), *fetch, "--", self._place.location, *wanted], environment)
            except UserError:
                if wanted != [self.commit] or time.monotonic() > self._deadline:
                    raise
                fetch = [part for part in fetch if part != "--depth=1"]  # a server that gives no commit by its id
            else:
                break
        return self._fetched

    def _watched(self, command: list[str], environment: Mapping[str, str]) -> None:
        """Run a fetch, and end it when it takes too long or too much."""
        assert self._fetched is not None
        with tempfile.TemporaryFile() as out:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
            try:
                while process.poll() is None:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(_WATCHED_EVERY)
                    if time.monotonic() > self._deadline:
                        raise UserError(too_late(self._place))
                    if _size(self._fetched) > self._place.largest:
                        most = f"{self._place.largest} bytes; raise largest_fetch"
                        raise UserError(f"git: {self._place.location} is larger than {most}")
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # what it started as well
                process.wait()
            if process.returncode:
                out.seek(0)
                raise UserError(git_failed(self._place, out.read(4096)))

    @contextmanager
    def _running(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that is read as it speaks, until the deadline."""
        process = subprocess.Popen(
            [*git_command(), "-C", str(self._root), *arguments],
            env=git_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        late = threading.Timer(max(0.0, self._deadline - time.monotonic()), process.kill)
        late.start()
        try:
            yield process
        finally:
            late.cancel()
            process.kill()
            process.communicate()

    def _said(self, *arguments: str) -> bytes:
        return git_said([*git_command(), "-C", str(self._root), *arguments], git_environment(), self._place)


class _Blobs:
    """One ``git cat-file --batch``."""

    def __init__(self, root: Path, seconds: float) -> None:
        self._process = subprocess.Popen(
            [*git_command(), "-C", str(root), "cat-file", "--batch"],
            env=git_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._late = threading.Timer(seconds, self._process.kill)
        self._late.daemon = True
        self._late.start()

    def read(self, identity: str) -> bytes | None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(identity.encode("ascii") + b"\n")
            self._process.stdin.flush()
            words = self._process.stdout.readline().split()
            if len(words) != 3 or words[1] != b"blob":
                return None
            data = self._process.stdout.read(int(words[2]))
            complete = len(data) == int(words[2]) and self._process.stdout.read(1) == b"\n"
        except OSError:
            return None
        return data if complete else None

    def close(self) -> None:
        self._late.cancel()
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(OSError):
                stream.close()
        self._process.wait()


def _words(process: subprocess.Popen[bytes], place: Place) -> Iterator[bytes]:
    """What stands between NULs."""
    assert process.stdout is not None
    rest = b""
    while data := process.stdout.read1(1 << 16):  # type: ignore[attr-defined]
        *whole, rest = (rest + data).split(b"\0")
        yield from filter(None, whole)
        if len(rest) > _LONGEST_WORD:
            raise UserError(f"git: {place.location} has a path longer than {_LONGEST_WORD:,} bytes")
    if rest:
        yield rest


def _text(path: bytes) -> str:
    """A path need not be UTF-8, and a locator has to be."""
    return path.decode("utf-8", "backslashreplace")


def _change(about: str) -> Change:
    commit, _, rest = about.partition(" ")
    seconds, _, author = rest.partition(" ")
    try:
        moment = datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        moment = ""
    return Change(commit, moment, author.strip().lower())


def _size(folder: Path) -> int:
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(f"{path}/{name}").st_size
            except OSError:  # gone meanwhile
                continue
    return total
