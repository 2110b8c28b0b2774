"""A Git repository at one commit, read without trusting it: no checkout, no hook, no filter, no transport but the one
asked for, and nothing that its own settings name is run.

A repository behind an address is fetched into a folder of its own that goes when it is closed.
"""

from __future__ import annotations

import base64
import os
import re
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
from urllib.parse import urlsplit

from treadle.core.errors import UserError
from treadle.core.secrets import resolve

_SCHEMES = ("https", "http", "ssh", "git", "file")
_SCP = re.compile(r"(?:[\w.-]+@)?[\w.-]+:(?!/?/)[^:]")  # git@host:path
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_PEELED = ("^{}", "")  # what a tag with a message is of, then what a name itself is
_REF = re.compile(r"[A-Za-z0-9_][\w./+@#-]{0,250}\Z")
_KEPT = ("GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_TRACE_CURL_NO_DATA")
_WATCHED_EVERY = 0.5  # seconds
_MOST_PATHS = 2_000_000  # of a tree; a few hundred bytes of it can name billions
_LONGEST_LISTING = 1 << 29  # bytes of all paths
_LONGEST_WORD = 1 << 20  # bytes of one
# What the settings of a repository could have run while it is read.
_OFF = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "log.showSignature=false", "core.alternateRefsCommand=",
        "protocol.ext.allow=never", "http.followRedirects=false", "submodule.recurse=false",
        "fetch.recurseSubmodules=false", "gc.auto=0", "maintenance.auto=false")  # fmt: skip


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


@dataclass(frozen=True, slots=True)
class Place:
    """Where a repository is, and what of it is asked for."""

    location: str
    ref: str = "HEAD"
    token: str | None = None
    seconds: float = 3600.0
    largest: int = 10_000_000_000

    def __post_init__(self) -> None:
        if not _REF.match(self.ref) or ".." in self.ref or "@{" in self.ref:
            raise UserError(f"git: {self.ref[:60]!r} names no commit, branch or tag; expected one, such as main")
        if "::" in self.location:
            raise UserError("git: an address with :: would run a helper; give https, ssh or a folder")
        if not self.remote:
            return
        try:
            parts = urlsplit(self.location) if "://" in self.location else None
        except ValueError:
            raise UserError("git: that is no address; expected one such as https://host/name.git") from None
        if parts is not None and parts.scheme not in _SCHEMES:
            raise UserError(f"git: nobody opens {parts.scheme}://; expected one of {', '.join(_SCHEMES)}, or a folder")
        if parts is not None and (parts.password or (parts.username and parts.scheme.startswith("http"))):
            raise UserError("git: an address with a key in it is refused; write `token: ${env:NAME}`")
        if self.location.startswith("-") or (parts and (parts.hostname or "").startswith("-")):
            raise UserError("git: an address does not begin with a dash")

    @property
    def remote(self) -> bool:
        """Whether it has to be fetched."""
        return "://" in self.location or bool(_SCP.match(self.location) and not Path(self.location).exists())


def find_commit(place: Place, folder: Path) -> str:
    """The id of the commit that ``place`` names now; a server is asked for its names and nothing else."""
    if not place.remote:
        return _resolve(_local(place, folder), place, _environment())
    if _COMMIT.match(place.ref):
        return place.ref
    # In Git's own order (gitrevisions), so that a name means the same here and on a server: a tag before a branch.
    names = [
        f"{before}{place.ref}{peeled}" for before in ("", "refs/", "refs/tags/", "refs/heads/") for peeled in _PEELED
    ]
    command = [*_git(), "ls-remote", "--", place.location, *names]
    found: dict[str, str] = {}
    for line in _said(command, _environment(place), place).decode("utf-8", "replace").splitlines():
        commit, _, name = line.partition("\t")
        found[name] = commit
    commit = next((found[name] for name in names if name in found), "")
    if not _COMMIT.match(commit):
        raise UserError(f"git: {place.location} has no branch or tag {place.ref!r}; name one that it has")
    return commit


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
            self._root = self._fetch() if self._place.remote else _local(self._place, self._folder)
            self.commit = self.commit or _resolve(self._root, self._place, _environment())
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
            raise UserError(_late(self._place))
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
            raise UserError(_late(self._place))
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
                raise UserError(_late(self._place))
        return data

    def _fetch(self) -> Path:
        self.commit = find_commit(self._place, self._folder)
        self._fetched = Path(tempfile.mkdtemp(prefix="treadle-git-"))
        environment = _environment(self._place)
        _said([*_git(), "init", "--quiet", "--bare", "--template=", str(self._fetched)], environment, self._place)
        depth = [] if self._history else ["--depth=1"]
        fetch = ["-C", str(self._fetched), "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", *depth]
        for wanted in ([self.commit], ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]):
            try:
                self._watched([*_git(), *fetch, "--", self._place.location, *wanted], environment)
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
                        raise UserError(_late(self._place))
                    if _size(self._fetched) > self._place.largest:
                        most = f"{self._place.largest} bytes; raise largest_fetch"
                        raise UserError(f"git: {self._place.location} is larger than {most}")
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # what it started as well
                process.wait()
            if process.returncode:
                out.seek(0)
                raise UserError(_failed(self._place, out.read(4096)))

    @contextmanager
    def _running(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that is read as it speaks, until the deadline."""
        process = subprocess.Popen(
            [*_git(), "-C", str(self._root), *arguments],
            env=_environment(),
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
        return _said([*_git(), "-C", str(self._root), *arguments], _environment(), self._place)


class _Blobs:
    """One ``git cat-file --batch``."""

    def __init__(self, root: Path, seconds: float) -> None:
        self._process = subprocess.Popen(
            [*_git(), "-C", str(root), "cat-file", "--batch"],
            env=_environment(),
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


def _git() -> list[str]:
    git = shutil.which("git")
    if git is None:
        raise UserError("git: there is no git on this machine; install it")
    return [git, "--no-pager", "--no-optional-locks", *(word for off in _OFF for word in ("-c", off))]


def _environment(place: Place | None = None) -> dict[str, str]:
    """The user's own, without what would point Git elsewhere. Reading opens no connection; with ``place``, only those
    to it.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    kept |= {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": ":".join(_SCHEMES) if place else "none",
        "LC_ALL": "C.UTF-8",
    }
    if place is not None and place.token is not None:
        # By the environment, since arguments can be read by everybody on the machine; and for this server only.
        login = base64.b64encode(f"x-access-token:{resolve(place.token)}".encode()).decode("ascii")
        parts = urlsplit(place.location)
        key = f"http.{parts.scheme}://{parts.netloc}/.extraHeader"
        kept |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": key}
        kept["GIT_CONFIG_VALUE_0"] = f"Authorization: Basic {login}"
    return kept


def _local(place: Place, folder: Path) -> Path:
    path = folder / Path(place.location).expanduser()
    if not path.is_dir():
        raise UserError(f"git: no folder {path}; give a repository or its address")
    return path


def _resolve(root: Path, place: Place, environment: Mapping[str, str]) -> str:
    command = [*_git(), "-C", str(root), "rev-parse", "--verify", "--quiet", f"{place.ref}^{{commit}}"]
    done = _ran(command, environment, place)
    commit = done.stdout.decode("ascii", "replace").strip()
    if done.returncode == 0 and _COMMIT.match(commit):
        return commit
    if done.stderr.strip():
        raise UserError(_failed(place, done.stderr))
    raise UserError(f"git: {place.location} has no commit, branch or tag {place.ref!r}; name one that it has")


def _said(command: list[str], environment: Mapping[str, str], place: Place) -> bytes:
    done = _ran(command, environment, place)
    if done.returncode:
        raise UserError(_failed(place, done.stderr))
    return done.stdout


def _ran(command: list[str], environment: Mapping[str, str], place: Place) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=place.seconds,
            check=False,
            start_new_session=True,  # without a terminal nobody is asked for a password
        )
    except subprocess.TimeoutExpired:
        raise UserError(_late(place)) from None


def _failed(place: Place, said: bytes) -> str:
    lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[0] if lines else "nothing")
    return f"git: {place.location} cannot be read; Git said: {told[:200]}; check the place and your access"


def _late(place: Place) -> str:
    return f"git: {place.location} took over {place.seconds:g} s; raise seconds"


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
