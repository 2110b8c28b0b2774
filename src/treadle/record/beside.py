"""Mirrors are brought up to date beside the work, by a process of its own: nothing that another tool does or does not
do can slow a run down or fail it.

Where the ledger has grown it is started every ``EVERY_SECONDS`` while a project is open, and when it is closed. Nobody
waits for it before this process is about to end: then for a moment, so that after a command or a script the mirrors
have usually seen it. Afterwards it is left to itself, and ends as soon as nothing waits.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from treadle.core.errors import TreadleError
from treadle.record.mirrors import Mirrors
from treadle.record.record import Record

EVERY_SECONDS = 60.0  # the journal's pieces are sealed as often
WAIT_SECONDS = 3.0
VARIABLE = "TREADLE_BESIDE"  # set for the process that delivers, so that it starts no other

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_going: dict[Path, subprocess.Popen[bytes]] = {}  # by the folder of the project
_owed: set[Path] = set()  # folders where something came while a process was at it


class Beside:
    """Starts the process that delivers, for as long as one record is open."""

    def __init__(self, record: Record, folder: Path) -> None:
        self._record, self._folder = record, folder
        self._seen = self._size()
        self._looking = threading.Lock()
        self._closed = threading.Event()
        self._on = VARIABLE not in os.environ
        if self._on:
            threading.Thread(target=self._go, name="mirrors", daemon=True).start()

    def _size(self) -> int:
        rows = self._record.ledger.database.query("SELECT coalesce(max(seq), 0) FROM ledger")
        return int(rows[0][0])

    def _go(self) -> None:
        while not self._closed.wait(EVERY_SECONDS):
            with self._looking:
                if not self._closed.is_set():
                    self._look()

    def _look(self) -> None:
        """Start it where there is something new and somebody to tell."""
        try:
            size = self._size()
            if size > self._seen and Mirrors(self._record, self._folder).any_due():
                _start(self._folder)
            self._seen = size
        except (OSError, TreadleError) as error:
            _log.warning("mirrors are not brought up to date now: %s", error)

    def close(self) -> None:
        """Have what is new brought over; does not wait for it."""
        self._closed.set()
        with self._looking:
            if self._on:
                self._look()


def _start(folder: Path) -> None:
    """One process for a project at a time; it goes on until nothing is left."""
    _wait_at_the_end()
    with _lock:
        before = _going.get(folder)
        if before is not None and before.poll() is None:
            _owed.add(folder)
            return
        _owed.discard(folder)
        quiet = subprocess.DEVNULL
        _going[folder] = subprocess.Popen(
            [sys.executable, "-m", "treadle", "-C", str(folder), "mirror", "--due"],
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            start_new_session=True,  # Ctrl-C is for the command, not for it
            env={**os.environ, VARIABLE: "1"},
        )


@functools.cache
def _wait_at_the_end() -> None:
    atexit.register(finish)


def finish() -> None:
    """Wait a moment for those that are at it, and for one more where something came meanwhile."""
    end = time.monotonic() + WAIT_SECONDS
    for folder in list(_going):
        if _ended(folder, end) and folder in _owed:
            _start(folder)
            _ended(folder, end)
        _going.pop(folder).returncode = 0  # it goes on by itself, and is not asked about any more


def _ended(folder: Path, end: float) -> bool:
    try:
        _going[folder].wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True
