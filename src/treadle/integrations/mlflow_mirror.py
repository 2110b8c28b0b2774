"""The mirror to an MLflow tracking server: runs, metrics over time, datasets, registered versions and their aliases.

A run carries the tag ``treadle.run_id`` and is looked for by it before it is made. Parameters, tags, datasets, versions
and aliases may be sent twice; of points that may be there already the history is read first, and only what is missing
goes out. What somebody deleted there is not made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, Self

from treadle.core.errors import UserError
from treadle.core.fact import Row
from treadle.core.sink import Ref, SentRun, View
from treadle.integrations.mlflow_api import MlflowApi, Refused, pair, plain_name, refusals
from treadle.integrations.mlflow_models import MlflowModels

_RUN = "treadle.run_id"
_METRICS, _PAIRS, _PAGE = 1_000, 100, 10_000  # of one call: what MLflow takes
_LONGEST_VALUE = 6_000  # characters of a parameter
_DIGEST_DIGITS = 32
# Kinds that a run takes and that are no dataset.
_NO_DATA = (
    "model",
    "optimized",
    "release",
    "tokens",
    "report",
    "evaluation",
    "index",
    "profile",
    "quality",
    "suppression",
)
_STATUS = {"running": "RUNNING", "done": "FINISHED", "failed": "FAILED", "crashed": "KILLED"}

Point = tuple[str, float, int, int]  # key, value, milliseconds, step


class MlflowMirror:
    """Runs, points, tags, datasets, model versions and aliases, in an experiment with the project's name."""

    variables: ClassVar[str] = "MLFLOW_TRACKING_URI"

    def __init__(self, view: View, api: MlflowApi) -> None:
        self.place = api.url
        self._view = view
        self._api = api
        self._experiment: str | None = None
        self._runs: dict[str, str | None] = {}
        self._models = MlflowModels(view, api, self._find)

    @classmethod
    def open(cls, view: View) -> Self | None:
        """On where MLFLOW_TRACKING_URI is set."""
        uri = os.environ.get(cls.variables)
        return cls(view, MlflowApi(uri)) if uri else None

    def deliver(self, batch: Sequence[Row], *, again: bool) -> list[str]:
        """As ``Sink``."""
        self._prepare()
        told: list[str] = []
        points: dict[str, list[Row]] = {}
        for row in batch:
            if row.kind == "points":
                points.setdefault(row.body["run"], []).append(row)
        runs = dict.fromkeys(str(row.body["run"]) for row in batch if row.kind == "points" or row.kind[:4] == "run.")
        finished = {row.body["run"]: row.time for row in batch if row.kind == "run.finished"}
        for each in runs:
            bring = partial(self._bring_run, each, points.get(each, []), finished.get(each), again=again)
            told += refusals(each, bring)
        for row in batch:
            if row.kind == "version" and row.body["of"] == "model":
                told += refusals(f"model {row.body['name']}", partial(self._models.bring_version, row))
            elif row.kind == "alias" and row.body["of"] == "model":
                told += refusals(f"alias {row.body['alias']}", partial(self._models.bring_alias, row))
        return told

    def _prepare(self) -> None:
        """Make sure of the server, once; the experiment is found, or made."""
        if self._experiment is not None:
            return
        if (found := self._api.identity()) is not None:
            whose = "this project's own" if found == self._view.identity else "another project's"
            raise UserError(f"{self.place} is {whose} server, and no mirror; unset {self.variables} where Treadle runs")
        name = self._view.project
        try:
            found = self._api.get("experiments/get-by-name", experiment_name=name)["experiment"]
        except Refused as error:
            if error.code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self._experiment = str(self._api.post("experiments/create", {"name": name})["experiment_id"])
            return
        if found.get("lifecycle_stage") == "deleted":
            raise UserError(f"{self.place}: experiment {name!r} was deleted; run: mlflow experiments restore")
        self._experiment = str(found["experiment_id"])

    # -- runs

    def _bring_run(self, identifier: str, rows: list[Row], finished: str | None, *, again: bool) -> None:
        run = self._view.run(identifier)
        theirs = self._find(run) if run else None
        if run is None or theirs is None:
            return
        tags = [pair(name, value) for name, value in _tags(run, self._view.project)]
        self._log(theirs, "params", [pair(name, value, _LONGEST_VALUE) for name, value in run.parameters.items()])
        self._log(theirs, "tags", tags)
        self._bring_datasets(theirs, run)
        points = [point for row in rows for point in _points(row)]
        if finished is not None:
            points += self._last(run, run.ended or finished)
        if points:
            self._bring_points(theirs, points, again=again)
        if finished is not None:
            ended = _milliseconds(run.ended or finished)
            self._api.post("runs/update", {"run_id": theirs, "status": _STATUS[run.status], "end_time": ended})

    def _find(self, run: SentRun) -> str | None:
        """The id that MLflow gave it; None where somebody deleted it there."""
        if run.id not in self._runs:
            body = {
                "experiment_ids": [self._experiment],
                "filter": f"tags.`{_RUN}` = '{run.id}'",
                "run_view_type": "ALL",
                "max_results": 10,
            }
            found = self._api.post("runs/search", body).get("runs", [])
            alive = [each["info"]["run_id"] for each in found if each["info"]["lifecycle_stage"] == "active"]
            self._runs[run.id] = alive[0] if alive else None if found else self._create(run)
        return self._runs[run.id]

    def _create(self, run: SentRun) -> str:
        tags = [{"key": _RUN, "value": run.id}]
        began = _milliseconds(run.started)
        body = {"experiment_id": self._experiment, "run_name": run.name, "tags": tags, "start_time": began}
        return str(self._api.post("runs/create", body)["run"]["info"]["run_id"])

    def _log(self, theirs: str, what: str, pairs: list[dict[str, str]]) -> None:
        for some in _pieces(pairs, _PAIRS):
            self._api.post("runs/log-batch", {"run_id": theirs, what: some})

    def _bring_datasets(self, theirs: str, run: SentRun) -> None:
        datasets = []
        for name, digest in run.inputs.items():
            artifact = self._view.artifact(digest)
            if artifact is None or artifact.kind in _NO_DATA:
                continue
            dataset = {
                "name": f"{artifact.kind}/{artifact.name}",
                "digest": digest.removeprefix("b3:")[:_DIGEST_DIGITS],
                "source_type": "treadle",
                "source": json.dumps({"digest": digest, "version": artifact.number}),
                "profile": json.dumps({"documents": artifact.documents, "bytes": artifact.bytes}),
            }
            datasets.append({"tags": [{"key": "mlflow.data.context", "value": name}], "dataset": dataset})
        if datasets:
            self._api.post("runs/log-inputs", {"run_id": theirs, "datasets": datasets})

    def _last(self, run: SentRun, ended: str) -> Iterator[Point]:
        """What makes MLflow's latest value of each metric the run's final one, where the points alone do not."""
        latest: dict[str, tuple[int, int, float]] = {}
        for row in self._view.points(run.id):
            for key, value, moment, step in _of_point(row):
                latest[key] = max(latest.get(key, (step, moment, value)), (step, moment, value))
        for name, value in run.metrics.items():
            key = plain_name(name)
            step, moment, shown = latest.get(key, (0, 0, None))
            if shown != value:
                yield key, float(value), max(_milliseconds(ended), moment + 1), step

    def _bring_points(self, theirs: str, points: list[Point], *, again: bool) -> None:
        if again:
            points = self._missing(theirs, points)
        for some in _pieces(points, _METRICS):
            self._api.post("runs/log-batch", {"run_id": theirs, "metrics": [_metric(*point) for point in some]})

    def _missing(self, theirs: str, points: list[Point]) -> list[Point]:
        there: set[tuple[str, str, int, int]] = set()
        for key in dict.fromkeys(point[0] for point in points):
            there.update(self._history(theirs, key))
        return [point for point in points if _same(*point) not in there]

    def _history(self, theirs: str, key: str) -> Iterator[tuple[str, str, int, int]]:
        token: str | None = ""
        while token is not None:
            more = {"page_token": token} if token else {}
            found = self._api.get("metrics/get-history", run_id=theirs, metric_key=key, max_results=_PAGE, **more)
            for each in found.get("metrics", []):
                yield _same(key, float(each["value"]), int(each["timestamp"]), int(each.get("step", 0)))
            token = found.get("next_page_token") or None

    # -- erasing

    def retract(self, refs: Sequence[Ref]) -> list[str]:
        """Tags and registered versions are deleted; that a run took a dataset MLflow keeps, by its digest."""
        self._prepare()
        told: list[str] = []
        for ref in refs:
            if ref.run is not None:
                told += refusals(ref.run, partial(self._drop_tags, ref))
            elif ref.artifact is not None:
                told += self._drop_artifact(ref.artifact)
        return told

    def _drop_tags(self, ref: Ref) -> None:
        run = self._view.run(str(ref.run))
        theirs = self._find(run) if run else None
        for name in ref.tags if theirs else ():
            try:
                self._api.post("runs/delete-tag", {"run_id": theirs, "key": plain_name(name)})
            except Refused as error:
                if error.code != "RESOURCE_DOES_NOT_EXIST":
                    raise

    def _drop_artifact(self, digest: str) -> list[str]:
        artifact = self._view.artifact(digest)
        if artifact is None:
            return []
        if artifact.kind == "model" and artifact.number is not None:
            return refusals(digest[:11], partial(self._models.drop_version, artifact.name, digest))
        if artifact.kind in ("dataset", "corpus"):
            return [f"{artifact.kind} {digest[:11]}: MLflow keeps that runs took it, by its digest"]
        return []

    def close(self) -> None:
        """Close connections."""
        self._api.close()


def _tags(run: SentRun, project: str) -> Iterator[tuple[str, Any]]:
    yield "treadle.project", project
    yield "treadle.step", run.step
    yield "treadle.kind", run.kind
    yield "treadle.status", run.status
    if run.seed is not None:
        yield "treadle.seed", run.seed
    if run.turn is not None:
        yield "treadle.turn", run.turn
    if run.commit is not None:
        yield "mlflow.source.git.commit", run.commit.removesuffix("+")
    yield "mlflow.source.name", "treadle"
    yield from run.tags.items()


def _points(row: Row) -> Iterator[Point]:
    for point in row.body["points"]:
        yield from _of_point(point)


def _of_point(point: dict[str, Any]) -> Iterator[Point]:
    step = int(point["step"] or 0)
    for name, value in point["values"].items():
        yield plain_name(name), float(value), _milliseconds(point["time"]), step


def _milliseconds(time: str) -> int:
    return round(datetime.fromisoformat(time).timestamp() * 1000)


def _same(key: str, value: float, moment: int, step: int) -> tuple[str, str, int, int]:
    """A point as it is compared: a value that is none is not equal to itself, and infinity MLflow's database keeps as
    the largest number."""
    shown = "inf" if value >= 1.797e308 else "-inf" if value <= -1.797e308 else repr(value)
    return key, shown, moment, step


def _metric(key: str, value: float, moment: int, step: int) -> dict[str, Any]:
    names = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    return {"key": key, "value": names.get(repr(value), value), "timestamp": moment, "step": step}


def _pieces(items: list[Any], size: int) -> Iterable[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
