"""Temporary folders: each process has one of its own in a store, and holds a lock on it that ends with the process.

What a killed process left is told from what a living one is writing by that lock alone, and swept away.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path


class Workplace:
    """The temporary folders under ``tmp/`` of a store."""

    def __init__(self, folder: Path) -> None:
        self._tmp = folder
        self._lock = threading.Lock()
        self._own: tuple[Path, int] | None = None

    @property
    def path(self) -> Path:
        """This process's own folder, made on first use."""
        with self._lock:
            if self._own is not None and not self._own[0].exists():  # somebody removed it by hand
                os.close(self._own[1])
                self._own = None
            if self._own is None:
                self._own = self._new()
            return self._own[0]

    def new_folder(self, prefix: str) -> Path:
        """A fresh folder in it."""
        return Path(tempfile.mkdtemp(prefix=prefix, dir=self.path))

    def new_file(self, prefix: str) -> Path:
        """The name of a file that is not there yet."""
        return self.path / f"{prefix}{secrets.token_hex(8)}"

    def _new(self) -> tuple[Path, int]:
        self._tmp.mkdir(parents=True, exist_ok=True)
        while True:
            path = Path(tempfile.mkdtemp(dir=self._tmp))
            descriptor = _locked(path)
            if descriptor is not None and path.exists():
                return path, descriptor
            if descriptor is not None:  # swept away before it was locked
                os.close(descriptor)

    def everyones(self, name: str) -> Iterator[Path]:
        """What lies in a folder of that name in the folder of each process."""
        for path in self._tmp.iterdir() if self._tmp.is_dir() else ():
            yield from (path / name).iterdir() if (path / name).is_dir() else ()

    def clear(self) -> None:
        """Remove what killed writers left behind; what a living process is writing (a server sealing) stays."""
        for path in self._tmp.iterdir() if self._tmp.is_dir() else ():
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
                continue
            if self._own is not None and path == self._own[0]:
                continue
            descriptor = _locked(path)
            if descriptor is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(descriptor)

    def close(self) -> None:
        """Remove this process's folder."""
        with self._lock:
            if self._own is not None:
                shutil.rmtree(self._own[0], ignore_errors=True)
                os.close(self._own[1])
                self._own = None


def _locked(folder: Path) -> int | None:
    """An open descriptor with the lock on a folder, or None when another process has it or it is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
