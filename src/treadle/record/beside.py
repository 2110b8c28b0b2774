"""Mirrors are brought up to date beside the work, by a process of its own: nothing that another tool does or does not
do can slow a run down or fail it.

Once the ledger has grown it is started when the project is closed, and every ``EVERY_SECONDS`` while it stays open.
Whoever closes waits for it a moment, so that after a command that ended the mirrors have usually seen it, and then
leaves it to itself; it ends by itself as soon as nothing waits.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

from treadle.core.errors import TreadleError
from treadle.record.mirrors import any_on
from treadle.record.outgoing import Outgoing
from treadle.record.record import Record

EVERY_SECONDS = 60.0  # the journal's pieces are sealed as often
WAIT_SECONDS = 3.0
VARIABLE = "TREADLE_BESIDE"  # set for the process that delivers, so that it starts no other

_log = logging.getLogger(__name__)


class Beside:
    """Starts the process that delivers, for as long as one record is open."""

    def __init__(self, record: Record, folder: Path) -> None:
        self._record, self._folder = record, folder
        self._seen = self._size()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        if VARIABLE not in os.environ:
            self._thread = threading.Thread(target=self._go, name="mirrors", daemon=True)
            self._thread.start()

    def _size(self) -> int:
        rows = self._record.ledger.database.query("SELECT coalesce(max(seq), 0) FROM ledger")
        return int(rows[0][0])

    def _go(self) -> None:
        while not self._closed.wait(EVERY_SECONDS):
            self._start()

    def _start(self) -> None:
        """Start it where there is something new and somebody to tell; never more than one."""
        try:
            size = self._size()
            if size == self._seen or (self._process is not None and self._process.poll() is None):
                return
            if any_on(Outgoing(self._record, self._folder)):
                command = [sys.executable, "-m", "treadle", "-C", str(self._folder), "mirror", "--due"]
                quiet = subprocess.DEVNULL
                self._process = subprocess.Popen(
                    command,
                    stdin=quiet,
                    stdout=quiet,
                    stderr=quiet,
                    start_new_session=True,  # Ctrl-C is for the command, not for it
                    env={**os.environ, VARIABLE: "1"},
                )
            self._seen = size
        except (OSError, TreadleError) as error:
            _log.warning("mirrors are not brought up to date now: %s", error)

    def close(self) -> None:
        """Bring over what is new, waiting a moment for it."""
        if self._thread is None:
            return
        self._closed.set()
        self._thread.join()
        self._start()
        if self._process is not None:
            try:
                self._process.wait(WAIT_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.returncode = 0  # it goes on by itself, and nobody waits for it any more
