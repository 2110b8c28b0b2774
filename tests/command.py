"""Runs the command line in a process of its own, forked from one that has loaded what commands import."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

LOADED = Path(__file__).with_name("loaded.py")
WHEN_LOADED = ("PYTHON", "OMP_", "HF_", "TRANSFORMERS_", "TORCH_", "CUDA_", "LD_")  # are read while modules are loaded
_WORTH_LOADING = 3


class Loaded:
    """The process that forks. Ends with this one, which has the other end of its socket."""

    def __init__(self, early: dict[str, str]) -> None:
        self.environment = early
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            command = [sys.executable, str(LOADED), str(theirs.fileno())]
            given = {name: value for name, value in os.environ.items() if not name.startswith(WHEN_LOADED)} | early
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=given)

    def close(self) -> None:
        self._socket.close()
        self._process.wait(60)

    def run(
        self, arguments: list[str], folder: Path, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "treadle", *arguments]
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
            process, ended = self._fork(arguments, folder, environment, out.fileno(), error.fileno())
            try:
                code = int(_line(ended, timeout))
            except TimeoutError:
                os.kill(process, signal.SIGKILL)
                raise subprocess.TimeoutExpired(command, timeout) from None
            finally:
                os.close(ended)
            out.seek(0)
            error.seek(0)
            return subprocess.CompletedProcess(command, code, out.read(), error.read())

    def start(self, arguments: list[str], folder: Path, environment: Mapping[str, str]) -> Started:
        said, theirs = os.pipe()
        fcntl.fcntl(said, fcntl.F_SETPIPE_SZ, 1 << 20)  # nobody reads before its end
        try:
            return Started(*self._fork(arguments, folder, environment, theirs, theirs, apart=True), said)
        finally:
            os.close(theirs)

    def _fork(
        self,
        arguments: list[str],
        folder: Path,
        environment: Mapping[str, str],
        out: int,
        error: int,
        apart: bool = False,
    ) -> tuple[int, int]:
        """The number of the process, and the file to which its exit code is written."""
        order = {"arguments": arguments, "folder": str(folder), "environment": dict(environment), "apart": apart}
        ended, theirs = os.pipe()
        try:
            with Path(os.devnull).open() as nothing, self._lock:
                files = [nothing.fileno(), out, error, theirs]
                socket.send_fds(self._socket, [json.dumps(order).encode()], files)
        finally:
            os.close(theirs)
        return int(_line(ended, 120)), ended


class Started:
    """A command that goes on, in a process group of its own: what tests use of ``subprocess.Popen``."""

    def __init__(self, pid: int, ended: int, said: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdout = os.fdopen(said)
        self._ended = ended

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            try:
                self.returncode = int(_line(self._ended, 3_600 if timeout is None else timeout))
            except TimeoutError:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 3_600) from None
            os.close(self._ended)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for its end; what else it said, at most what a pipe holds."""
        self.wait(timeout)
        with self.stdout:
            return self.stdout.read(), None


def run(
    *arguments: str, folder: Path | None = None, timeout: float = 300, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """``python -m treadle`` with these arguments, in a folder; what it said and its exit code."""
    given = dict(os.environ if environment is None else environment)
    ready = None if "rebuild" in arguments else loaded(given)
    if ready is None:
        # A rebuild compares: it has to have another seed of hashes than what it compares with.
        return subprocess.run(
            [sys.executable, "-m", "treadle", *arguments],
            cwd=folder, env=given, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip
    return ready.run(list(arguments), folder or Path.cwd(), given, timeout)


def start(*arguments: str, folder: Path | None = None) -> Started | subprocess.Popen[str]:
    """The same, going on; what it says to either stream is in ``stdout``."""
    given = dict(os.environ)
    ready = loaded(given)
    if ready is not None:
        return ready.start(list(arguments), folder or Path.cwd(), given)
    # What a shell starts in the background is deaf to SIGINT, and so are its children, unless they are told otherwise.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "treadle", *arguments],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
            start_new_session=True,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)


_loaded: list[Loaded] = []
_wanted: dict[tuple[tuple[str, str], ...], int] = {}  # how often each environment was asked for


def loaded(environment: Mapping[str, str]) -> Loaded | None:
    """One that was loaded in such an environment. What a single test sets is not worth loading all again; what a
    library sets when it is imported stays, and is."""
    early = _read_early(environment)
    for each in _loaded:
        if each.environment == early:
            return each
    key = tuple(sorted(early.items()))
    _wanted[key] = _wanted.get(key, 0) + 1
    if _loaded and _wanted[key] < _WORTH_LOADING:
        return None
    _loaded.append(Loaded(early))
    return _loaded[-1]


def close() -> None:
    """End them."""
    while _loaded:
        _loaded.pop().close()


def _read_early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(WHEN_LOADED)}


def _line(file: int, seconds: float) -> str:
    """The next line, byte by byte, so that nothing behind it is taken."""
    line, until = b"", time.monotonic() + seconds
    while not line.endswith(b"\n"):
        if not select.select([file], [], [], max(0.0, until - time.monotonic()))[0]:
            raise TimeoutError
        byte = os.read(file, 1)
        assert byte, "the process that runs the commands ended"
        line += byte
    return line.decode()
