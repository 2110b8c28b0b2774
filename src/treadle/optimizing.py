"""``treadle optimize``: ways of making a model smaller or faster, measured one by one, and the frontier they draw.

What was measured before is remembered. The unchanged model is always measured, because all others are compared with it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from treadle.core.driver import Driver, Listener
from treadle.core.errors import Refused, UserError, nearest
from treadle.lm import optimization
from treadle.lm.model import Model
from treadle.lm.optimization import UNCHANGED
from treadle.project import Project
from treadle.record.record import Record
from treadle.record.reference import resolve
from treadle.record.report import Report
from treadle.stages.deploy.optimizing import Asked, Point, draw_frontier, drawn, items_for, measured
from treadle.stages.prepare.division import choose_tests
from treadle.text.dataset import Dataset

LIMIT = 0.01


@dataclass(frozen=True)
class Optimizing:
    """What was measured of a model, and ``report`` with the picture."""

    drawn: dict[str, Any]
    report: Report
    points: tuple[Point, ...]

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return {**self.drawn, "report": self.report.digest, "page": self.report.shown("frontier.html")}

    def lines(self) -> list[list[str]]:
        """A table for a person."""
        drawn = self.drawn
        first = drawn["points"][0]["speed"]
        rows = [["way", "MB", f"{drawn['unit']}/CPU s", "", drawn["metric"], "loss [95 % interval]", ""]]
        for point in drawn["points"]:
            verdict = "on the frontier" if point["name"] in drawn["frontier"] else point["verdict"]
            rows.append(
                [
                    point["name"],
                    f"{point['size'] / 1e6:,.1f}",
                    f"{point['speed']:,.1f}",
                    f"{point['speed'] / first:.2f}x",
                    f"{point['value']:.4g}",
                    f"{point['loss']:+.2%} [{point['low']:+.2%}, {point['high']:+.2%}]",
                    verdict,
                ]
            )
        return rows


def optimize_ref(
    project: Project,
    ref: str,
    *,
    limit: float = LIMIT,
    budget: float | None = None,
    ways: Sequence[str] = (),
    items: int | None = None,
    listener: Listener | None = None,
) -> Optimizing:
    """Measure the ways one after the other until ``budget`` seconds are over; what is not reached is named.

    ``UserError`` for a reference that is no model of the record, for a way that there is not, and for one that was
    asked for by name and cannot be done here.
    """
    record, file = project.record, project.file
    driver = Driver(record.runs, project.folder, seed=file.seed, listener=listener)
    driver.stage("deploy")
    model, dataset = _model(record, ref), _dataset(record)
    chosen = _chosen(project, ways)
    tests = driver.run(choose_tests, dataset)  # as the cycle does, so that what it chose is remembered
    asked = Asked(file.task, limit, items or items_for(file.task), file.deploy.system_prompt)
    began, points, left_out = time.monotonic(), list[Point](), dict[str, str]()
    for name in chosen:
        if points and budget is not None and time.monotonic() - began > budget:
            left_out[name] = f"the budget of {budget:g} seconds was over"
            continue
        driver.listener.say(f"{name}:")
        try:
            points.append(measured(driver, name, model, dataset, tests, asked, points[0] if points else None))
        except (UserError, Refused) as error:
            if name in ways or name == UNCHANGED:
                raise
            left_out[name] = str(error)
    report = driver.run(
        draw_frontier,
        model,
        tests,
        tuple(point.optimized for point in points),
        tuple(point.evaluation for point in points),
        tuple(point.timing for point in points),
        tuple(point.weighed for point in points),
        ref=ref,
        task=asked.task,
        limit=limit,
        items=asked.items,
        names=[point.name for point in points],
        settings=[dict(point.settings) for point in points],
        left_out=list(left_out),
    )
    shown = drawn(ref, asked, model.digest, tests.digest, points, list(left_out))
    return Optimizing({**shown, "left_out": left_out}, report, tuple(points))


def _model(record: Record, ref: str) -> Model:
    found = resolve(record, ref, lambda _: [])
    if found.of != Model.kind:
        raise UserError(f"optimize {ref}: that is a {found.of or found.kind}; expected a model: model@v1, @champion")
    if not record.store.has(found.id):
        raise UserError(f"optimize: {ref} is no longer in the store; treadle pull REMOTE fetches what a remote has")
    return Model(found.id, record.store)


def _dataset(record: Record) -> Dataset:
    version = record.versions.latest(Dataset.kind)
    if version is None:
        raise UserError("optimize: there is no dataset yet to measure on; treadle run makes dataset@v1")
    dataset = Dataset(version.digest, record.store)
    if not record.store.has(version.digest) or dataset.counts()["test"] < 2:
        raise UserError(f"optimize: {version.short} is gone from the store, or has no two test items to measure on")
    return dataset


def _chosen(project: Project, ways: Sequence[str]) -> list[str]:
    """The unchanged model, then what was asked for, or everything that is installed for the task."""
    task, known = project.file.task, optimization.names(project.file.task)
    for name in ways:
        if ":" not in name and name not in known:
            raise UserError(f"optimize --try {name}: there is no such way for a {task} model;{nearest(name, known)}")
        tasks = optimization.load(name, project.folder).tasks
        if task not in tasks:
            raise UserError(f"optimize --try {name}: it is for {' and '.join(tasks)}, and this model is for {task}")
    return list(dict.fromkeys([UNCHANGED, *(ways or known)]))
