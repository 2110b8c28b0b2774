"""What a run knows of its surroundings: packages, source with what is not committed, command, machine.

The environment (Python and packages) is one object in the store, the surroundings another: a branch, a diff and a
command line are free text, so they are salted, and secrets in them are concealed before they are stored. Git is
asked at most every ``LOOK_SECONDS``; the salt is new with each look, so runs that begin together share one object.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from secrets import token_hex
from typing import Any

from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.secrets import conceal, is_secret
from treadle.core.store import Store

FORMAT = 1
LOOK_SECONDS = 5.0
DIFF_LIMIT = 1 << 20  # bytes of a diff that are kept
_GIT_SECONDS = 10
_THREADS = "OMP_NUM_THREADS"
_OPTION = re.compile(r"[-+]{0,2}[A-Za-z_][\w.-]*\Z")

_seen: dict[Path, _Look] = {}


@dataclass(frozen=True, slots=True)
class Source:
    """The state of a Git work tree. ``diff`` is against the commit, secrets concealed, at most ``DIFF_LIMIT`` bytes of
    ``diff_bytes``; files that Git does not know are not in it."""

    commit: str | None = None
    branch: str | None = None
    diff: str = ""
    diff_bytes: int = 0

    @property
    def revision(self) -> str | None:
        """The commit, with ``+`` when there are changes that are not committed."""
        return f"{self.commit}+" if self.commit and self.diff_bytes else self.commit


def source(folder: Path) -> Source:
    """What Git says of a folder; empty where it is no work tree or there is no Git."""
    return _latest(folder).source


@dataclass(frozen=True, slots=True)
class _Look:
    """What Git said at a time, the salt of what is stored of it, and where that was: root of the store, digest."""

    source: Source
    time: float = field(default_factory=time.monotonic)
    salt: str = field(default_factory=lambda: token_hex(16))
    kept: set[tuple[Path, str]] = field(default_factory=set)


def _latest(folder: Path) -> _Look:
    known = _seen.get(folder)
    if known is None or time.monotonic() - known.time > LOOK_SECONDS:
        known = _seen[folder] = _Look(_look(folder))
    return known


def _look(folder: Path) -> Source:
    git = shutil.which("git")
    if git is None:
        return Source()
    command = [git, "--no-optional-locks", "-C", str(folder)]
    told, _ = _ask([*command, "rev-parse", "HEAD", "--abbrev-ref", "HEAD"])
    commit, _, branch = told.decode("utf-8", "replace").strip().partition("\n")
    if not branch:  # no work tree, or one without a commit
        return Source()
    # Drivers for diffs that the repository's settings name are not run.
    diff, size = _ask([*command, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD"], DIFF_LIMIT)
    return Source(commit, None if branch == "HEAD" else branch, conceal(diff.decode("utf-8", "replace")), size)


def _ask(command: list[str], limit: int = 4096) -> tuple[bytes, int]:
    """The first bytes of what a command says, and how many there were; nothing where it failed."""
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            late = threading.Timer(_GIT_SECONDS, process.kill)
            late.start()
            try:
                said = process.stdout.read(limit)
                size = len(said)
                while data := process.stdout.read(1 << 16):
                    size += len(data)
            finally:
                late.cancel()
    except OSError:
        return b"", 0
    return (said, size) if process.returncode == 0 else (b"", 0)


@functools.cache
def environment() -> bytes:
    """Python and every installed package, as it is stored."""
    installed = {dist.name: dist.version for dist in distributions() if dist.name}
    return canonical_json({"format": FORMAT, "python": platform.python_version(), "packages": installed})


def machine() -> dict[str, Any]:
    """The class of the host: nothing that names it."""
    return {"cpus": os.cpu_count(), "system": platform.system(), "arch": platform.machine()}


def keep_surroundings(folder: Path, store: Store) -> str:
    """Store everything else: branch, diff, command line, threads, memory; the object's digest."""
    look = _latest(folder)
    told = _surroundings(look.source, look.salt)
    if (store.root, blake3_bytes(told)) in look.kept and not store.has_object(blake3_bytes(told)):
        look = _seen[folder] = _Look(_look(folder))  # erased meanwhile: the same bytes must not come back
        told = _surroundings(look.source, look.salt)
    digest = store.put_bytes(told)
    look.kept.add((store.root, digest))
    return digest


def _surroundings(found: Source, salt: str) -> bytes:
    value = {
        "format": FORMAT,
        "salt": salt,
        "branch": conceal(found.branch) if found.branch else None,
        "diff": found.diff,
        "diff_bytes": found.diff_bytes,
        "command": command_line(sys.orig_argv),
        "threads": {"available": len(os.sched_getaffinity(0)), _THREADS: os.environ.get(_THREADS)},
        "memory_bytes": _memory(),
    }
    return canonical_json(value)


def command_line(arguments: list[str]) -> str:
    """A command with its secrets concealed, also those behind an option such as ``--token`` or in ``token=...``."""
    shown, before = [], ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if before.startswith("-") and not argument.startswith("--") and is_secret(_bare(before), argument):
            shown.append("[secret]")
        elif equals and _OPTION.match(name) and is_secret(_bare(name), value):
            shown.append(f"{name}=[secret]")
        else:
            shown.append(argument)
        before = "" if equals else argument
    return conceal(shlex.join(shown))


def _bare(option: str) -> str:
    return option.lstrip("-+").rpartition(".")[2]


@functools.cache
def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
