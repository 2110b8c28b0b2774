"""One life of an engine's worker: started, spoken to, ended. ``engine_process`` starts the next one.

A worker is a process of its own, so that what kills it kills nothing else. What computes for a step, and for nobody who
waits for an answer, may be a thread of this process: torch takes seconds to load, and here it is loaded once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, cast

from treadle.core.errors import TreadleError
from treadle.lm.engine_wire import Close, FrameBuffer, Reply, Request, decode_reply, encode

_LAST_WORDS = 4096  # bytes of the worker's stderr that are kept
_CLOSING_SECONDS = 5.0
_WORDS_SECONDS = 1.0  # for the last words of a worker that has ended; a process that it left may hold the line open


class Life(Protocol):
    """What there is to a running worker, besides the socket: ``subprocess.Popen`` has it."""

    pid: int

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; ``subprocess.TimeoutExpired`` when it has none in time."""
        ...

    def kill(self) -> None:
        """End it, and what it has started; nothing where they have ended."""
        ...


class WorkerProcess(asyncio.Protocol):
    """A worker and the socket to it. Belongs to the event loop that started it."""

    def __init__(self, process: Life, on_reply: Callable[[Reply], None]) -> None:
        loop = asyncio.get_running_loop()
        self.heard_at = loop.time()
        self.gone: asyncio.Future[str] = loop.create_future()
        """Why it ended, once it has."""
        self._process = process
        self._on_reply = on_reply
        self._frames = FrameBuffer()
        self._transport: asyncio.Transport | None = None
        self._words = _LastWords()
        self._why: str | None = None
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        on_reply: Callable[[Reply], None],
        environment: dict[str, str],
        *,
        here: bool = False,
        python: str = sys.executable,
    ) -> WorkerProcess:
        """Spawn a worker, or start one ``here``, in a thread; it waits for ``Open``. ``python``: who runs it.

        Called in the loop's own thread: Linux ends the worker with the thread that started it.
        """
        ours, theirs = socket.socketpair()
        our_errors, their_errors = socket.socketpair()
        try:
            process: Life = (
                _Thread(theirs, their_errors) if here else _spawned(theirs, their_errors, environment, python)
            )
        except BaseException:
            ours.close()
            our_errors.close()
            raise
        loop = asyncio.get_running_loop()
        worker = cls(process, on_reply)
        try:
            await loop.create_unix_connection(lambda: worker._words, sock=our_errors)
            await loop.create_unix_connection(lambda: worker, sock=ours)
        except BaseException:  # cancelled meanwhile
            worker._words.close()
            ours.close()  # before it is waited for: a thread that nobody can kill ends by this
            our_errors.close()
            process.kill()
            process.wait()
            raise
        return worker

    @property
    def pid(self) -> int:
        """Of the worker."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True until the connection has ended."""
        return not self.gone.done() and self._why is None

    def send(self, message: Request) -> None:
        """Hand a message over; after the worker's end, nothing happens."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(message))

    def kill(self, why: str) -> None:
        """End it the hard way; ``why`` is what its requests are told."""
        self._why = self._why or why
        if self._process.poll() is None:
            self._process.kill()
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Tell it to end, and kill it when it does not."""
        self._why = self._why or "the engine was closed"
        self.send(Close())
        try:
            await asyncio.wait_for(asyncio.shield(self.gone), _CLOSING_SECONDS)
        except TimeoutError:
            self.kill("the engine was closed")
            await self.gone

    def memory_bytes(self) -> int:
        """Resident size of the worker; 0 where this system does not say."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self.heard_at = asyncio.get_running_loop().time()
        try:
            for frame in self._frames.feed(data):
                self._on_reply(decode_reply(frame))
        except (TreadleError, ValueError) as error:
            self.kill(f"the engine's worker talks nonsense: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio, once."""
        self._ending = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        if self._why is None:  # it closed the socket by itself, so it is about to end
            await asyncio.to_thread(_wait, self._process, _CLOSING_SECONDS)
        if self._process.poll() is None:
            self._process.kill()
        code = await asyncio.to_thread(self._process.wait)
        self._process.kill()  # what it has started and left
        await asyncio.wait({self._words.ended}, timeout=_WORDS_SECONDS)
        self._words.close()
        self.gone.set_result(self._why or f"the engine's worker {_ended_by(code)}{self._words.quoted()}")


class _Process(subprocess.Popen[bytes]):
    """A worker with what it starts: some engines compute in processes of their own."""

    def kill(self) -> None:
        """End all of them."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def _spawned(connection: socket.socket, errors: socket.socket, environment: dict[str, str], python: str) -> _Process:
    with connection, errors:
        return _Process(
            # -P: a file of the user's in this folder must not stand in for a library's module
            [python, "-P", "-m", "treadle.lm.engine_worker", str(connection.fileno())],
            pass_fds=[connection.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=errors.fileno(),
            stderr=errors.fileno(),
            env={**os.environ, **environment},
            process_group=0,  # so that Ctrl-C does not reach it before it can ignore it; its number is the worker's
        )


class _Thread:
    """A worker in this process. It cannot be killed: with its connection gone, it ends after what it is doing."""

    def __init__(self, connection: socket.socket, errors: socket.socket) -> None:
        self.pid = os.getpid()
        self._code = 0
        self._thread = threading.Thread(
            target=self._run, args=(connection, errors), name="treadle-engine-worker", daemon=True
        )
        self._thread.start()

    def _run(self, connection: socket.socket, errors: socket.socket) -> None:
        from treadle.lm.engine_worker import Worker, first_line

        with connection, errors:
            try:
                Worker(connection).run()
            except (BrokenPipeError, ConnectionResetError):  # nobody listens any more
                return
            except Exception as error:  # a process would end with this on its stderr
                self._code = 1
                with suppress(OSError):
                    errors.sendall(first_line(error).encode())

    def poll(self) -> int | None:
        return None if self._thread.is_alive() else self._code

    def wait(self, timeout: float | None = None) -> int:
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise subprocess.TimeoutExpired("treadle-engine-worker", timeout or 0)
        return self._code

    def kill(self) -> None:
        return


class _LastWords(asyncio.Protocol):
    """The end of what a worker writes to its stderr."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tail = b""
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-_LAST_WORDS:]

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)

    def quoted(self) -> str:
        """The last line, behind a colon."""
        lines = [line.strip() for line in self._tail.decode(errors="replace").splitlines() if line.strip()]
        return f": {lines[-1][:300]}" if lines else ""


def _wait(process: Life, seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _ended_by(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
