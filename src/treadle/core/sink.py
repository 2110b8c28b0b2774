"""A sink: another tool that is told what the record says, without ever holding it up.

A sink follows the ledger from a cursor. What it is given may be given again after a failure or a kill, and then it has
to leave no double: everything has a key that stays the same (a run's id; of a point its place in the run). It is given
rows of the ledger, and rows of kind ``points`` in the place of each sealed piece of the journal's metrics:

    run.started run.noted run.finished artifact version alias turn.begun turn.ended     as in the ledger
    points      {"run": id, "first": place in the sealed piece, "points": [{"step", "time", "values"}, ...]}

A row of points holds at most ``POINTS`` of one run; a value is a number, or the text ``nan``, ``inf`` or ``-inf``.

What a row says of a run is for the sink's convenience only; `View.run` gives all of it, with what may not leave the
project replaced. A plugin of the group ``treadle.sinks`` is a class with ``open``, switched on by the variable of the
environment that the other tool's own client reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from treadle.core.errors import UserError
from treadle.core.fact import Row

GROUP = "treadle.sinks"
POINTS = 1_000  # of one run that a row holds at most


class Unavailable(UserError):
    """The other side does not answer now; what waits is tried again later."""


@dataclass(frozen=True, slots=True)
class SentRun:
    """A run as other tools may see it.

    ``parameters`` are flat, nested names joined by a point. A text among them and among the tags stands as it is where
    it is one plain word, and as the keyed digest that stands for it otherwise. ``ended`` is None while it runs,
    and where it was cut off; ``turn`` is the number of the turn of the cycle that it belongs to.
    """

    id: str
    step: str
    name: str
    kind: str
    status: str
    started: str
    ended: str | None
    seed: int | None
    commit: str | None
    turn: int | None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SentArtifact:
    """An artifact as other tools may see it. ``name`` is that of the version it is, else of the project; ``number`` is
    None where it is no version."""

    digest: str
    kind: str
    name: str
    number: int | None
    bytes: int
    documents: int


@dataclass(frozen=True, slots=True)
class Ref:
    """Something that was erased here: the values of tags of a run, or an artifact by its digest."""

    run: str | None = None
    tags: tuple[str, ...] = ()
    artifact: str | None = None


class View(Protocol):
    """What a sink may look up. ``identity`` tells the project from others, wherever its store goes."""

    project: str
    identity: str
    folder: Path

    def run(self, identifier: str) -> SentRun | None:
        """A run as it stands now."""
        ...

    def artifact(self, digest: str) -> SentArtifact | None:
        """An artifact that a run made or took."""
        ...

    def version(self, name: str, number: int) -> str | None:
        """The digest of the model that is a version of this name."""
        ...

    def points(self, run: str) -> list[dict[str, Any]]:
        """Every row about a run's metrics, in the order they were logged."""
        ...

    def points_before(self, run: str, seq: int) -> int:
        """How many rows about a run's metrics were sealed before row ``seq`` of the ledger."""
        ...


class Sink(Protocol):
    """``place`` is where it leads, as people are shown it: no password in it. The cursor belongs to the place."""

    variables: ClassVar[str]  # what switches it on, for a message
    place: str

    @classmethod
    def open(cls, view: View) -> Self | None:
        """Ready to deliver, or None where it is not switched on. It asks nobody yet; ``UserError`` when what switches
        it on leads nowhere it could deliver to."""
        ...

    def deliver(self, batch: Sequence[Row], *, again: bool) -> list[str]:
        """Bring rows over, all of them when this returns; what the other side refuses for good is told, a line each.

        ``again``: an earlier attempt at these rows broke off, anywhere. ``Unavailable`` when they have to wait.
        """
        ...

    def retract(self, refs: Sequence[Ref]) -> list[str]:
        """Take back what was erased here; what the other side does not let go of is told, a line each."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
