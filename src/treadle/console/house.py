"""The house: the open project, and what all pages share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from treadle.console.lately import Lately
from treadle.console.problem import Problem
from treadle.core.errors import TreadleError
from treadle.project import Project
from treadle.record.interaction_index import InteractionIndex
from treadle.stages.improve import Improved, gathered

CHANGE_SECONDS = 4.0  # how long an approval waits for whoever holds the project
_CATCH_UP_SECONDS = 1.0
_CATCH_UP_WAIT = 0.03  # a page waits so long for the latest interactions
_DUE_SECONDS, _DUE_REST = 20.0, 40.0


class _Held(Exception):
    """Another process holds the project."""


class House:
    """One for each console. Everything here may be called from any thread."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.writing = threading.Lock()  # feedback and cases are written one at a time
        self._changing = threading.Lock()
        self._closing = False
        self._caught_up = Lately(self._catch_up, _CATCH_UP_SECONDS)
        self._warm = threading.Thread(target=_warm_up, daemon=True)
        self._warm.start()
        self._improved = Lately(lambda: gathered(project.file.improve, project.record), _DUE_SECONDS, _DUE_REST)

    def close(self) -> None:
        """Let what still works in the background come to its end."""
        self._closing = True
        self._warm.join()
        self._caught_up.close()
        self._improved.close()

    def interactions(self) -> InteractionIndex:
        """The index, with what came in lately."""
        self._caught_up.get(_CATCH_UP_WAIT)
        return self.project.record.interactions

    def improved(self) -> Improved | None:
        """What is due, as it was lately; None while it is counted for the first time."""
        return self._improved.get() or self._improved.get(_CATCH_UP_WAIT)

    def written(self) -> None:
        """Something was written here, and the next page has to show it."""
        self._caught_up.expire()
        self._improved.expire()
        self._caught_up.get(_CATCH_UP_SECONDS)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the project's lock; raises ``Problem`` when somebody else has it for more than a few seconds."""
        deadline = time.monotonic() + CHANGE_SECONDS
        if not self._changing.acquire(timeout=CHANGE_SECONDS):
            raise _busy()
        try:
            while True:
                try:
                    with self.project.record.workspace.exclusive(_held):
                        yield
                        return
                except _Held:
                    if time.monotonic() >= deadline:
                        raise _busy() from None
                    time.sleep(0.1)
        finally:
            self._changing.release()

    def _catch_up(self) -> bool:
        while not self._closing and not self.project.record.interactions.catch_up(_CATCH_UP_SECONDS):
            continue
        self.project.record.documents.catch_up(_CATCH_UP_SECONDS)
        return True


def _warm_up() -> None:
    """Import what takes long, so that the first page that needs it does not wait; what is missing is done without."""
    with suppress(ImportError, TreadleError):
        import pyarrow.parquet  # noqa: F401

        from treadle.text.personal_data import redact

        redact("")


def _held(_holder: str) -> None:
    raise _Held


def _busy() -> Problem:
    return Problem(
        503,
        "A turn is running",
        "Another process is changing the project just now, most likely a turn that trains. Nothing was written.",
        "Your page is still good: go back and send it again when the turn has ended.",
    )
