"""Where signed heads are published: a file, a folder, the tags of a Git repository. All are only ever added to.

    file:PATH, PATH       one head a line, as in ``head.json``
    PATH/                 a file for each head: ``head-000000000063.json``
    git:PATH              an annotated tag for each head: ``treadle-head-63``
    git:PATH#REMOTE       the same, pushed to that remote at once, and read from there too

A target helps against the owner of the project as far as the owner cannot rewrite it.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from treadle.core.errors import Refused, UserError
from treadle.core.head import Head

FORMS = "file:PATH, PATH/ for a file a head, git:PATH or git:PATH#REMOTE"
_GIT_SECONDS = 60
# What git sets for its hooks, which would lead to another repository than the one that is named.
_ELSEWHERE = {
    f"GIT_{name}" for name in ("DIR", "WORK_TREE", "INDEX_FILE", "OBJECT_DIRECTORY", "COMMON_DIR", "NAMESPACE")
}


class HeadTarget(Protocol):
    """Somewhere heads are published. ``UserError`` where it cannot be reached."""

    name: str

    def publish(self, head: Head, public: str) -> None:
        """Add a head, so that it survives a loss of power; nothing when it is there already.

        ``Refused`` when another head of that size is.
        """

    def heads(self) -> Iterator[Head | str]:
        """Every head there, as far as it can be read, else what is wrong with it; ``UserError`` when there is none
        because the target is missing."""


def head_target(name: str, folder: Path) -> HeadTarget:
    """The target of a name as it is written in the settings; relative paths start at ``folder``."""
    kind, colon, rest = name.partition(":")
    if "://" in name or (colon and kind not in ("file", "git")) or not (rest if colon else name):
        raise UserError(f"{name!r} is no place for heads; expected {FORMS}")
    if kind == "git" and colon:
        path, _, remote = rest.partition("#")
        return GitTags(name, folder / path, remote)
    path = rest if colon else name
    whole = (folder / path).expanduser()
    return HeadFolder(name, whole) if path.endswith("/") or whole.is_dir() else HeadList(name, whole)


class HeadList:
    """A file to which a line is added for each head."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path

    def publish(self, head: Head, public: str) -> None:
        """Add a line; one that was cut off by a loss of power is replaced."""
        line = head.encode(public) + b"\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                data = file.read()
                whole = data.rfind(b"\n") + 1
                if _refuse_other(head, data[:whole].splitlines(), self.name):
                    return
                if whole < len(data):
                    if not _torn(data[whole:]):
                        line = b"\n" + line
                    else:
                        file.truncate(whole)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}; the file must be writable") from None

    def heads(self) -> Iterator[Head | str]:
        """A head a line."""
        data = _read(self._path)
        *lines, last = data.split(b"\n")
        for number, line in enumerate(lines, 1):
            yield from _decoded(line, f"line {number}")
        if last and not (lines and _torn(last)):
            yield from _decoded(last, f"line {len(lines) + 1}")


class HeadFolder:
    """A folder with a file for each head."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path

    def publish(self, head: Head, public: str) -> None:
        """Add a file, whole or not at all."""
        path = self._path / f"head-{head.size:012}.json"
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(head.encode(public) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, path)
            except FileExistsError:
                if not _refuse_other(head, [path.read_bytes()], self.name):
                    raise Refused(f"{path} is not a head over {head.size} rows; run treadle verify") from None
            finally:
                temporary.unlink()
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}; the folder must be writable") from None

    def heads(self) -> Iterator[Head | str]:
        """The heads by size."""
        if not self._path.is_dir():
            raise UserError(f"there is no folder {self._path}; expected heads that were published there")
        for path in sorted(self._path.glob("head-*.json")):
            yield from _decoded(_read(path), path.name)


class GitTags:
    """Annotated tags that carry a head as their message, on a blob with the same; no commit is touched."""

    def __init__(self, name: str, path: Path, remote: str) -> None:
        self.name = name
        self._path = path
        self._remote = remote

    def publish(self, head: Head, public: str) -> None:
        """Add a tag, and push it where the target has a remote."""
        line, tag = head.encode(public).decode(), f"treadle-head-{head.size}"
        if not _refuse_other(head, self._messages(f"refs/tags/{tag}"), self.name):
            blob = self._git("hash-object", "-w", "--stdin", given=line + "\n").strip()
            self._git("tag", "--annotate", "--message", line, tag, blob)
        if self._remote:
            self._git("push", "--quiet", self._remote, f"refs/tags/{tag}")

    def heads(self) -> Iterator[Head | str]:
        """The heads of all tags, here and at the remote."""
        places = ["refs/tags/treadle-head-*"]
        if self._remote:
            kept = f"refs/treadle/{self._remote}"
            self._git("fetch", "--quiet", "--no-tags", self._remote, f"+refs/tags/treadle-head-*:{kept}/treadle-head-*")
            places.append(f"{kept}/treadle-head-*")
        for line in dict.fromkeys(self._messages(*places)):
            yield from _decoded(line.encode(), "a tag")

    def _messages(self, *patterns: str) -> list[str]:
        return self._git("for-each-ref", "--format=%(contents:subject)", *patterns).splitlines()

    def _git(self, *arguments: str, given: str = "") -> str:
        """What git says; ``UserError`` with its own words when it cannot."""
        surroundings = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
        for who in ("AUTHOR", "COMMITTER"):
            surroundings |= {f"GIT_{who}_NAME": "treadle", f"GIT_{who}_EMAIL": "treadle@localhost"}
        surroundings |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        command = ["git", "-C", str(self._path), "-c", "tag.gpgSign=false", *arguments]
        try:
            done = subprocess.run(
                command,
                input=given,
                env=surroundings,
                capture_output=True,
                text=True,
                timeout=_GIT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"{self.name}: git cannot be run: {error}") from None
        if done.returncode:
            said = " ".join(done.stderr.split())[:200]
            raise UserError(
                f"{self.name}: git {arguments[0]} failed: {said}; the repository must be there and writable"
            )
        return done.stdout


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; expected heads that were published there") from None


def _decoded(line: bytes, where: str) -> Iterator[Head | str]:
    try:
        yield Head.decode(line)
    except ValueError as error:
        yield f"{where} is {error}"


def _torn(line: bytes) -> bool:
    """Whether a line was cut off while it was written."""
    try:
        Head.decode(line)
    except ValueError:
        return True
    return False


def _refuse_other(head: Head, lines: list[bytes] | list[str], name: str) -> bool:
    """Whether a head is among the lines; ``Refused`` when another one of its size is."""
    for line in lines:
        try:
            found = Head.decode(line)
        except ValueError:
            continue
        if found == head:
            return True
        if found.size == head.size:
            raise Refused(f"{name} has another head over {head.size} rows: not this history; run treadle verify")
    return False
