"""Fixtures over a record on disk."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from treadle.core.workspace import Workspace

WRITER = Path(__file__).with_name("writer.py")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """An empty record."""
    with Workspace(tmp_path / "store") as opened:
        yield opened


class Writer:
    """A process that writes to a record and prints what was acknowledged, a line each."""

    def __init__(self, *arguments: object) -> None:
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by _close)
        self._error = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by _close)
        command = [sys.executable, str(WRITER), *map(str, arguments)]
        self._process = subprocess.Popen(command, stdout=self._out, stderr=self._error)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def lines(self) -> list[str]:
        """What was acknowledged so far; a line that was cut off was acknowledged to nobody."""
        text = _whole(self._out)
        return text[: text.rfind("\n") + 1].splitlines()

    def first(self) -> str:
        """The first line, waited for."""
        while not self.lines():
            assert self.running, self._said()
            time.sleep(0.002)
        return self.lines()[0]

    def kill(self) -> list[str]:
        """End it at once, as the kernel does when memory is short; what was acknowledged."""
        self._process.kill()
        self._process.wait(60)
        return self._close()

    def finish(self) -> list[str]:
        """Wait for its end; fails with what it said on stderr when it did not end well."""
        self._process.wait(120)
        assert self._process.returncode == 0, self._said()
        return self._close()

    def _said(self) -> str:
        return _whole(self._error)

    def _close(self) -> list[str]:
        lines = self.lines()
        self._out.close()
        self._error.close()
        return lines


def _whole(file: IO[str]) -> str:
    """What is in a file, without moving the place where its writer goes on."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()
