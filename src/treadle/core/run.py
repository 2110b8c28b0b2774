"""A run as a step sees it: make artifacts, log numbers, tell how far it is."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any, Protocol, TypeVar

from treadle.core.artifacts import Artifact, Builder
from treadle.core.executors import Executor
from treadle.core.fact import now
from treadle.core.journal import Journal
from treadle.core.store import Store

A = TypeVar("A", bound=Artifact)
Progress = Callable[[float, float | None, str, str], None]
Points = Iterable[tuple[int | None, Mapping[str, float]]]

METRICS = "metrics"  # the stream of the journal


class Keeper(Protocol):
    """What a run asks of those who keep it."""

    store: Store
    journal: Journal

    def keyed_person(self, person: str) -> str:
        """The keyed digest that stands for a person."""
        ...


class Run:
    """What a step is given: make artifacts, log numbers, tell how far it is. ``folder`` is the project's."""

    def __init__(
        self, keeper: Keeper, identifier: str, seed: int, progress: Progress, folder: Path, executor: Executor
    ) -> None:
        self.id = identifier
        self.folder = folder
        self.executor = executor
        self.version = 0  # of the step, once it runs
        self.place: Any = None  # where the file says the step runs, for a step that can run elsewhere than here
        self.store = keeper.store
        self.seed = seed
        self.metrics: dict[str, float] = {}
        self.scratch = keeper.store.new_folder("run-")
        self._keeper = keeper
        self._progress = progress

    def create(self, kind: type[A]) -> Builder[A]:
        """A folder to fill and commit as an artifact of this kind; use it in a ``with`` block."""
        return Builder(kind, self.store)

    def log(self, step: int | None = None, **metrics: float) -> None:
        """Points over time (a loss per step); kept in the journal."""
        self._keeper.journal.append_lines(METRICS, self._line(step, metrics, now()), 1)

    def log_many(self, points: Points) -> None:
        """Many points at once, each a step and its numbers by name, in one write to the journal."""
        moment = now()
        lines = [self._line(step, metrics, moment) for step, metrics in points]
        if lines:
            self._keeper.journal.append_lines(METRICS, b"".join(lines), len(lines))

    def _line(self, step: int | None, metrics: Mapping[str, float], moment: str) -> bytes:
        """A row of the journal: what `segment.line` gives for it, in a fraction of the time."""
        values = ",".join([f"{_quoted(name)}:{number(metrics[name])}" for name in sorted(metrics)])
        place = "null" if step is None else int(step)
        text = f'{{"id":"{self.id}","step":{place},"time":"{moment}","values":{{{values}}}}}\n'
        return text.encode("utf-8", "backslashreplace")

    def summary(self, **metrics: float) -> None:
        """The run's final numbers; kept in the ledger."""
        self.metrics.update({name: float(value) for name, value in metrics.items()})

    def progress(self, done: float, total: float | None, unit: str, note: str = "") -> None:
        """How far it is, for whoever watches."""
        self._progress(done, total, unit, note)

    def keyed(self, person: str) -> str:
        """The keyed digest that stands for a person in everything that is stored."""
        return self._keeper.keyed_person(person)


def number(value: float) -> str:
    """A number as JSON has it; what is none (a loss that ran away) as the text ``nan``, ``inf`` or ``-inf``."""
    found = float(value)
    return repr(found) if math.isfinite(found) else f'"{found}"'


@functools.lru_cache(1024)
def _quoted(name: str) -> str:
    return encode_basestring(name)
