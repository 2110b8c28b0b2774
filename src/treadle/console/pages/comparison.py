"""``/compare``: two runs or versions beside each other; ``?format=json`` gives a `ComparePage`."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.console.charts import Curves, curves
from treadle.console.flips import Flips, flips
from treadle.console.pages.run import Points, points_of
from treadle.console.problem import Problem
from treadle.console.visit import Page, Visit
from treadle.record.record import Record
from treadle.record.reference import resolve
from treadle.stages.track.difference import Difference, difference
from treadle.stages.track.names import DocumentNames

_RECENT = 30  # versions offered


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
    kinds_of = {_kind(record, a), _kind(record, b)}
    found = difference(record, a, b)
    turned = flips(record, a, b, query.text("metric", most=100)) if kinds_of == {"model"} else None
    view = ComparePage(a, b, known, found, _overlays(record, a, b), turned)
    return Page("compare.html", f"{a} and {b}", "runs", view)


def _kind(record: Record, ref: str) -> str:
    reference = resolve(record, ref, DocumentNames(record).locate)
    if reference.kind == "artifact" and not record.store.has(reference.id):
        raise Problem(410, "Erased", f"{ref} was erased, so there is nothing to compare.", back="/compare")
    return reference.of or reference.kind


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
