"""The engine's own process: ``python -m treadle.lm.engine_worker FD``, started by ``engine_process`` and nobody else.

A step of a native engine holds Python's lock, so that in a server's process every client would wait for it. Here it has
the lock to itself. The worker ends when its parent says so, or ends.
"""

from __future__ import annotations

import ctypes
import importlib
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from treadle.core.errors import UserError
from treadle.lm.engine_wire import (
    Cancel,
    Classify,
    Close,
    DropAdapter,
    Embed,
    Extract,
    Failed,
    FrameBuffer,
    Generate,
    LoadAdapter,
    Open,
    Ready,
    Reply,
    Report,
    Request,
    Score,
    Tag,
    Tokens,
    Values,
    decode_request,
    encode,
)

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SLICE_TOKENS = 512  # of a long job done between two steps, so that answers under way go on
_SLICE_TEXTS = 16
_LABELED_TOGETHER = 128  # texts, of as many requests as wait: a classifier sorts them by length, and has no answers


class Backend(Protocol):
    """An engine as the worker drives it: everything is called in turn, from one thread."""

    context_length: int

    @classmethod
    def open(cls, folder: Path, threads: int | None, settings: dict[str, Any]) -> Backend:
        """Load and warm up; ``UserError`` when ``folder`` holds nothing it can run."""
        ...

    def add(self, request: Generate) -> None:
        """Queue a request; ``UserError`` when it cannot be done."""
        ...

    def cancel(self, number: int) -> None:
        """Have the next ``step`` end a request. Unknown numbers have ended by themselves."""
        ...

    def pending(self) -> tuple[int, int]:
        """Requests (running, queued); ``step`` is called while there are any."""
        ...

    def step(self) -> list[Tokens]:
        """Go on with all requests by about one token; what came of it."""
        ...

    def score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
        """Natural-log probability of each continuation token."""
        ...

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector of length 1 a text."""
        ...

    def classify(self, texts: Sequence[str]) -> tuple[list[str], list[list[float]]]:
        """The labels, and their probabilities for each text."""
        ...

    def tag(self, texts: Sequence[str]) -> tuple[list[str], list[list[float]]]:
        """The types, and for each text its spans as ``Values`` has them."""
        ...

    def extract(self, pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        """Start, end and probability of the answer in each (question, text)."""
        ...


@runtime_checkable
class ScoresSome(Protocol):
    """A backend that knows best how many pairs to score at a time."""

    def score_some(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
        """As ``Backend.score`` for the first pairs, at least one."""
        ...


@runtime_checkable
class LoadsAdapters(Protocol):
    """A backend that takes adapters while it runs; its requests then name one."""

    def load_adapter(self, message: LoadAdapter) -> None:
        """Verify and load; ``UserError`` when it is not what the message says, or does not fit."""
        ...

    def drop_adapter(self, adapter: int) -> None:
        """Unload."""
        ...

    def score_with(self, adapter: int, pairs: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
        """As ``Backend.score``, by an adapter that is loaded."""
        ...


Job = Score | Embed | Classify | Tag | Extract


class Worker:
    """One backend and one parent."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._frames = FrameBuffer()
        self._jobs: deque[tuple[Job, list[list[float]]]] = deque()
        self._inbox: deque[Request] = deque()
        self._adapters: set[int] = set()

    def run(self) -> None:
        """Answer until the parent says ``Close`` or is gone."""
        backend = self._open()
        if backend is None:
            return
        self._send(Ready(backend.context_length))
        idle = (0, 0)
        while self._receive(wait=backend.pending() == idle and not self._jobs):
            while self._inbox:
                message = self._inbox.popleft()
                if isinstance(message, Close):
                    return
                self._take(backend, message)
            tokens = backend.step() if backend.pending() != idle else []
            if self._jobs:
                self._go_on(backend)
            self._send(Report(tokens, *backend.pending()))

    def _open(self) -> Backend | None:
        while not self._inbox:
            if not self._receive(wait=True):
                return None
        opening = self._inbox.popleft()
        if not isinstance(opening, Open):
            return None
        module, _, name = opening.backend.partition(":")
        try:
            kind: type[Backend] = getattr(importlib.import_module(module), name)
            backend = kind.open(Path(opening.folder), opening.threads, opening.settings)
            for each in opening.adapters:
                self._load(backend, each, told=False)  # one that fails is not there for who asks for it
        except UserError as error:
            self._send(Failed(0, str(error), user=True))
        except Exception as error:  # a native library may raise anything
            self._send(Failed(0, first_line(error), user=False))
        else:
            return backend
        return None

    def _take(self, backend: Backend, message: Request) -> None:
        match message:
            case Generate() | Score() if message.adapter and message.adapter not in self._adapters:
                self._send(Failed(message.number, "the release's adapter is not loaded; see the log", user=False))
            case LoadAdapter():
                self._load(backend, message, told=True)
            case DropAdapter() if message.adapter in self._adapters:
                self._adapters.discard(message.adapter)
                _adapting(backend).drop_adapter(message.adapter)
            case Generate():
                try:
                    backend.add(message)
                except UserError as error:
                    self._send(Failed(message.number, str(error), user=True))
            case Cancel():
                backend.cancel(message.number)
                self._jobs = deque(job for job in self._jobs if job[0].number != message.number)
            case Score() | Embed() | Classify() | Tag() | Extract():
                self._jobs.append((message, []))

    def _load(self, backend: Backend, message: LoadAdapter, *, told: bool) -> None:
        try:
            if message.adapter not in self._adapters:  # one that was opened again has it
                _adapting(backend).load_adapter(message)
        except UserError as error:
            if told:
                self._send(Failed(message.number, str(error), user=True))
            else:
                sys.stderr.write(f"{error}\n")
            return
        self._adapters.add(message.adapter)
        if told:
            self._send(Values(message.number, []))

    def _go_on(self, backend: Backend) -> None:
        """Do a slice of the oldest job; texts to label also of those that wait right behind it."""
        job, rows = self._jobs[0]
        if isinstance(job, Classify):
            self._label(backend)
            return
        labels: list[str] = []
        items = job.pairs if isinstance(job, Score | Extract) else job.texts
        try:
            match job:
                case Score() if job.adapter:
                    rows += _adapting(backend).score_with(job.adapter, _slice(job.pairs, len(rows)))
                case Score():
                    if isinstance(backend, ScoresSome):
                        rows += backend.score_some(job.pairs[len(rows) :])
                    else:
                        rows += backend.score(_slice(job.pairs, len(rows)))
                case Embed():
                    rows += backend.embed(job.texts[len(rows) :][:_SLICE_TEXTS])
                case Tag():
                    labels, more = _able(backend, "tag")(job.texts[len(rows) :][:_SLICE_TEXTS])
                    rows += more
                case Extract():
                    rows += _able(backend, "extract")(job.pairs[len(rows) :][:_SLICE_TEXTS])
        except UserError as error:
            self._jobs.popleft()
            self._send(Failed(job.number, str(error), user=True))
        else:
            if len(rows) == len(items):
                self._jobs.popleft()
                self._send(Values(job.number, rows, labels))

    def _label(self, backend: Backend) -> None:
        """Label the texts of the oldest jobs together, as many as go at once."""
        taken: list[tuple[Classify, list[list[float]], list[str]]] = []
        room = _LABELED_TOGETHER
        for job, rows in self._jobs:
            if not isinstance(job, Classify) or room == 0:
                break
            texts = job.texts[len(rows) :][:room]
            room -= len(texts)
            taken.append((job, rows, texts))
        try:
            labels, found = backend.classify([text for _, _, texts in taken for text in texts])
        except UserError as error:
            for job, _, _ in taken:
                self._jobs.popleft()
                self._send(Failed(job.number, str(error), user=True))
            return
        values = iter(found)
        for job, rows, texts in taken:
            rows += [next(values) for _ in texts]
            if len(rows) == len(job.texts):
                self._jobs.popleft()
                self._send(Values(job.number, rows, labels))

    def _receive(self, *, wait: bool) -> bool:
        """Take in what has arrived, waiting for something if asked; False when the parent is gone."""
        while True:
            readable, _, _ = select.select([self._connection], [], [], None if wait and not self._inbox else 0)
            if not readable:
                return True
            data = self._connection.recv(1 << 18)
            if not data:
                return False
            self._inbox.extend(decode_request(frame) for frame in self._frames.feed(data))

    def _send(self, reply: Reply) -> None:
        self._connection.sendall(encode(reply))


def _able(backend: Backend, what: str) -> Any:
    """What a backend does; ``UserError`` for one that does not know of it."""
    if not hasattr(backend, what):
        raise UserError(f"{type(backend).__name__} cannot {what}; choose engine: transformers")
    return getattr(backend, what)


def _adapting(backend: Backend) -> LoadsAdapters:
    """A backend that takes adapters; ``UserError`` for one that does not."""
    if not isinstance(backend, LoadsAdapters):
        raise UserError(f"{type(backend).__name__} loads no adapters while it runs; choose engine: vllm")
    return backend


def _slice(pairs: list[tuple[list[int], list[int]]], start: int) -> list[tuple[list[int], list[int]]]:
    tokens = 0
    for end in range(start, len(pairs)):
        tokens += len(pairs[end][0]) + len(pairs[end][1])
        if tokens >= _SLICE_TOKENS:
            return pairs[start : end + 1]
    return pairs[start:]


def first_line(error: BaseException) -> str:
    """What a native library says, in one line of bounded length; its first lines may only say where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("Exception from ")]
    return f"{type(error).__name__}: {(said or lines or ['no message'])[0][:300]}"


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, even while a native call hangs. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main(arguments: Sequence[str]) -> None:
    """Serve the parent at the other end of the socket whose number is given."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent decides
    die_with_parent()
    with socket.socket(fileno=int(arguments[0])) as connection, suppress(BrokenPipeError, ConnectionResetError):
        Worker(connection).run()


if __name__ == "__main__":
    main(sys.argv[1:])
