"""The container of a release, run by docker or podman: started, put in the place of the one before, taken away.

A port of this machine leads into one container, and nothing stands in front of it, so one release cannot follow
another without a gap. It is kept short: the next one is tried first, at a free port beside the one that runs, where it
has to load and to answer as what it is. Then the one that runs answers what it has begun and ends, and the next one
starts at its port, from files that are in memory by now. Where it does not answer there, the one before runs again.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from treadle.core.errors import UserError
from treadle.stages.deploy.call import output_of
from treadle.stages.deploy.targets import Plan, Written, smoke

STOPPING = 45  # seconds until a container that is to end is killed: a drain of thirty, and some
_PAUSE = 0.2  # seconds between two looks


@dataclass(frozen=True)
class Container:
    """What one is run with: ``port`` of 127.0.0.1 leads to ``inside``. ``beside``: whether two have room; ``seconds``
    until it is ready."""

    tool: str
    name: str
    image: str
    options: tuple[str, ...]
    port: int
    inside: int
    beside: bool
    seconds: float

    def shown(self) -> str:
        """How it is started, as a shell takes it."""
        return shlex.join(self._run())

    def start(self, written: Written) -> None:
        """Run the release, in the place of what runs under its name. ``UserError`` or ``Refused`` where it does not
        start, or answers as another; what ran before runs then."""
        self._tidy()
        state = self._state(self.name)
        if state is None:
            output_of(self._run())
            self._ask(self.name, f"http://127.0.0.1:{self.port}", written)
            return
        if state == "true" and self.beside:
            self._try(written)
        self._exchange(written)

    def stopped(self) -> str:
        """How it is stopped, as a shell takes it."""
        return shlex.join(self._stop())

    def end(self) -> None:
        """Let it answer what it has begun, and take it away, with what an apply left that was killed."""
        if self._state(self.name) is not None:
            output_of(self._stop())
        for each in (self.name, f"{self.name}-next", f"{self.name}-before"):
            self._remove(each)

    def _try(self, written: Written) -> None:
        """Beside the one that runs, with a journal of its own that goes with it."""
        tried = f"{self.name}-next"
        run = (*self._tool("run", "--detach", "--name", tried), *self.options)
        try:
            output_of((*run, "--publish", f"127.0.0.1::{self.inside}", self.image))
            place = output_of(self._tool("port", tried, f"{self.inside}/tcp")).split()[0]
            self._ask(tried, f"http://{place}", written)
        finally:
            self._remove(tried)

    def _exchange(self, written: Written) -> None:
        with self._kept():
            output_of(self._run())
            self._ask(self.name, f"http://127.0.0.1:{self.port}", written)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """The one before, stopped, until the next one has answered; it runs again where that does not."""
        before = f"{self.name}-before"
        try:
            output_of(self._stop())
            output_of(self._tool("rename", self.name, before))
        except BaseException:
            with suppress(UserError):  # it may still be ending
                output_of(self._stop())
                output_of(self._tool("start", self.name))
            raise
        try:
            yield
        except BaseException:
            self._remove(self.name)
            with suppress(UserError):  # the first error says why
                output_of(self._tool("rename", before, self.name))
                output_of(self._tool("start", self.name))
            raise
        output_of(self._tool("rm", before))

    def _tidy(self) -> None:
        """What an apply left that was killed."""
        self._remove(f"{self.name}-next")
        before = f"{self.name}-before"
        if self._state(before) is not None:
            self._remove(self.name)  # it may never have answered
            output_of(self._tool("rename", before, self.name))
            output_of(self._tool("start", self.name))

    def _ask(self, name: str, url: str, written: Written) -> None:
        """Once it is ready. Its last words go to where errors are read when it is not."""
        until = time.monotonic() + self.seconds
        try:
            while not _ready(url):
                if self._state(name) != "true":
                    raise UserError(f"{written.model} ended before it was ready; its last words are above")
                if time.monotonic() > until:
                    raise UserError(
                        f"{written.model} was not ready within {self.seconds:.0f} s; its last words are above"
                    )
                time.sleep(_PAUSE)
            smoke(Plan((), url), written)
        except BaseException:
            subprocess.run(self._tool("logs", "--tail", "20", name), stdout=2, check=False)
            raise

    def _state(self, name: str) -> str | None:
        """``true`` while it runs, ``false`` when it has ended, None where there is none."""
        with suppress(UserError):
            said = output_of(self._tool("inspect", "--type", "container", "--format", "{{.State.Running}}", name))
            return said.strip()
        return None

    def _run(self) -> tuple[str, ...]:
        published = ("--volume", f"{self.name}:/journal", "--publish", f"127.0.0.1:{self.port}:{self.inside}")
        return (*self._tool("run", "--detach", "--name", self.name), *self.options, *published, self.image)

    def _stop(self) -> tuple[str, ...]:
        return self._tool("stop", "-t", str(STOPPING), self.name)

    def _remove(self, name: str) -> None:
        with suppress(UserError):
            output_of(self._tool("rm", "--force", "--volumes", name))

    def _tool(self, *arguments: str) -> tuple[str, ...]:
        return (self.tool, *arguments)


def _ready(url: str) -> bool:
    import httpx

    try:
        return httpx.get(f"{url}/health/ready", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
