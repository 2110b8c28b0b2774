"""``/compare``: two runs or versions beside each other; ``?format=json`` gives a `ComparePage`."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.console.charts import Curves, curves
from treadle.console.pages.run import Points, points_of
from treadle.console.problem import Problem
from treadle.console.visit import Page, Visit
from treadle.record.record import Record
from treadle.record.reference import resolve
from treadle.stages.track.difference import Difference, difference
from treadle.stages.track.flips import Flips
from treadle.stages.track.names import DocumentNames

_RECENT = 30  # versions offered
_MOST_BYTES = 24 << 20  # of the items of an evaluation


@dataclass(frozen=True, slots=True)
class Overlay:
    """One metric of both, over each other."""

    metric: str
    a: Points
    b: Points
    drawn: Curves | None


@dataclass(frozen=True, slots=True)
class ComparePage:
    """``difference`` as ``treadle diff --json`` gives it; everything is None or empty until both sides are named."""

    a: str
    b: str
    known: tuple[str, ...]
    difference: Difference | None = None
    curves: tuple[Overlay, ...] = ()
    flips: Flips | None = None


def compare(visit: Visit) -> Page:
    """Compare, or ask for what is missing."""
    record, query = visit.record, visit.query
    a, b = query.text("a", most=200), query.text("b", most=200)
    kinds = ("model", "dataset")
    known = tuple(each.short for kind in kinds for each in record.versions.all(kind)[: -_RECENT - 1 : -1])
    if not a or not b:
        return Page("compare.html", "Compare", "runs", ComparePage(a, b, known))
    for ref in (a, b):
        _refuse_erased(record, ref)
    found = difference(record, a, b, metric=query.text("metric", most=100), most_bytes=_MOST_BYTES)
    view = ComparePage(a, b, known, found, _overlays(record, a, b), found.items)
    return Page("compare.html", f"{a} and {b}", "runs", view)


def _refuse_erased(record: Record, ref: str) -> None:
    reference = resolve(record, ref, DocumentNames(record).locate)
    if reference.kind == "artifact" and not record.store.has(reference.id):
        raise Problem(410, "Erased", f"{ref} was erased, so there is nothing to compare.", back="/compare")


def _overlays(record: Record, a: str, b: str) -> tuple[Overlay, ...]:
    first, second = _points(record, a), _points(record, b)
    return tuple(
        Overlay(name, points, second[name], curves({a: points, b: second[name]}))
        for name, points in first.items()
        if name in second and a != b
    )


def _points(record: Record, ref: str) -> dict[str, Points]:
    reference = resolve(record, ref, DocumentNames(record).locate)
    if reference.kind == "run":
        return points_of(record, reference.id)
    producer = record.runs.producer(reference.id)
    return points_of(record, producer.id) if producer else {}
