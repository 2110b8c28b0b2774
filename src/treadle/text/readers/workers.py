"""A pool of processes that read documents, each of which can be killed without harm to any other document.

Threads of this process hold one worker each; what they give comes back in the order it is asked for.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from treadle.core.errors import MissingExtra, TreadleError
from treadle.text.readers.piece import Documents, Piece, Unreadable, from_json

_LENGTH = 8  # bytes that say how long an answer is
_LARGEST_ANSWER = 1 << 30  # bytes
_DOCUMENTS_EACH = 2_000  # then a worker is replaced, whatever its libraries have gathered
_PATIENCE = 4  # times the limit of processor time that a document may take by the clock
_SPARE = 5.0  # seconds, for a machine that is busy
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "PYTHONHASHSEED", "VIRTUAL_ENV")


class Workers:
    """Started as they are needed, and ended by ``close``."""

    def __init__(self, options: Documents) -> None:
        self._options = options
        self.count = options.workers or min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
        self._threads = ThreadPoolExecutor(self.count, thread_name_prefix="treadle-reader")
        self._local = threading.local()
        self._all: list[_Worker] = []

    def submit(self, kind: str, data: bytes) -> Future[Sequence[Piece]]:
        """The pieces of a document. A document that cannot be read is one ``Unreadable``, after what was read of it."""
        return self._threads.submit(self._read, kind, data)

    def close(self) -> None:
        """End the workers. What has not begun is not read."""
        for worker in self._all:
            worker.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._all:
            worker.kill()

    def _read(self, kind: str, data: bytes) -> Sequence[Piece]:
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = self._local.worker = _Worker(self._options)
            self._all.append(worker)
        return worker.read(kind, data)


class _Worker:
    """One process, replaced when it ends or is killed."""

    def __init__(self, options: Documents) -> None:
        self._options = options
        self._settings = asdict(options)
        self._process: subprocess.Popen[bytes] | None = None
        self._done = 0
        self._stopped = False

    def stop(self) -> None:
        """Let whichever thread waits for an answer have none; its pipes are for that thread to close."""
        self._stopped = True
        process = self._process
        if process is not None:
            process.kill()

    def read(self, kind: str, data: bytes) -> Sequence[Piece]:
        answer = self._ask(kind, data)
        if isinstance(answer, str):
            return [Unreadable(answer)]
        if "missing" in answer:
            raise MissingExtra(answer["missing"][0], extra=answer["missing"][1])
        if not answer.get("sound", True):
            self.kill()
        try:
            pieces = [from_json(piece) for piece in answer["pieces"]]
        except (TypeError, ValueError, KeyError):
            self.kill()
            return [Unreadable("the reader gave something that is no text")]
        reason = answer.get("reason")
        return [*pieces, Unreadable(str(reason))] if reason else pieces

    def kill(self) -> None:
        """End the process now, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for stream in (process.stdin, process.stdout):
                with suppress(OSError):
                    assert stream is not None
                    stream.close()
            process.wait()

    def _ask(self, kind: str, data: bytes) -> dict[str, Any] | str:
        """The worker's answer, or why there is none."""
        if self._done >= _DOCUMENTS_EACH:
            self.kill()
        for _ in range(2):  # one that died while it had nothing to do is no fault of this document
            if self._stopped:
                return "not read: reading was stopped"
            process = self._started()
            if self._sent(process, kind, data):
                break
            self.kill()
        else:
            raise TreadleError("a process that reads documents ends at once; run `treadle doctor`")
        self._done += 1
        deadline = time.monotonic() + _PATIENCE * self._options.seconds + _SPARE
        try:
            length = int.from_bytes(_received(process, _LENGTH, deadline), "big")
            if length > _LARGEST_ANSWER:
                self.kill()
                return f"its text is larger than {_LARGEST_ANSWER} bytes"
            answer = json.loads(_received(process, length, deadline))
        except TimeoutError:
            self.kill()
            return f"took longer than {self._options.seconds} seconds; its reader was stopped"
        except EOFError:
            return self._last_words(process)
        except ValueError:
            self.kill()
            return "the reader gave something that is no text"
        return answer if isinstance(answer, dict) else "the reader gave something that is no text"

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.kill()
        self._done = 0
        program = f"import sys; sys.path[:] = {sys.path!r}; from treadle.text.readers.worker import main; main()"
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
        )
        return self._process

    def _sent(self, process: subprocess.Popen[bytes], kind: str, data: bytes) -> bool:
        header = json.dumps({"kind": kind, "options": self._settings, "bytes": len(data)}).encode("ascii")
        assert process.stdin is not None
        try:
            process.stdin.write(len(header).to_bytes(_LENGTH, "big") + header)
            process.stdin.write(data)
            process.stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def _last_words(self, process: subprocess.Popen[bytes]) -> str:
        try:
            code = process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            code = 0
        self.kill()
        if code == -signal.SIGXCPU:
            return f"took longer than {self._options.seconds} seconds; its reader was stopped"
        if code < 0:
            name = signal.Signals(-code).name
            return f"its reader died ({name}), with {self._options.memory} MiB of memory allowed"
        return f"its reader ended without an answer (exit code {code})"


def _received(process: subprocess.Popen[bytes], count: int, deadline: float) -> bytes:
    """Exactly so many bytes of the answer; ``TimeoutError`` or ``EOFError``."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    ready = select.poll()
    ready.register(descriptor, select.POLLIN | select.POLLHUP)
    pieces = bytearray()
    while len(pieces) < count:
        left = deadline - time.monotonic()
        if left <= 0 or not ready.poll(left * 1000):
            raise TimeoutError
        piece = os.read(descriptor, min(1 << 20, count - len(pieces)))
        if not piece:
            raise EOFError
        pieces += piece
    return bytes(pieces)
