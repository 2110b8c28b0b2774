"""MLflow with its SQLite backend, asked over a pipe; run by the interpreter of its own environment.

Each line on stdin is ``[operation, arguments...]`` in JSON; the answer is one line: seconds, and what was found.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient  # type: ignore[import-not-found]
from mlflow.entities import Metric  # type: ignore[import-not-found]
from mlflow.store.tracking.dbmodels.models import (  # type: ignore[import-not-found]
    SqlLatestMetric,
    SqlMetric,
    SqlParam,
    SqlRun,
    SqlTag,
)
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # type: ignore[import-not-found]


class Peer:
    """One store in one file."""

    def __init__(self, uri: str, artifacts: str) -> None:
        self.client = MlflowClient(uri)
        self.store = SqlAlchemyStore(uri, artifacts)
        self.experiment = self.client.create_experiment("benchmark")
        self.run = self.client.create_run(self.experiment).info.run_id
        self.place = 0
        self.opened: list[str] = []

    def log_metric(self, count: int) -> int:
        """One at a time."""
        for _ in range(count):
            self.place += 1
            self.client.log_metric(self.run, "loss", 1 / self.place, step=self.place)
        return count

    def log_batch(self, calls: int) -> int:
        """A thousand at a time."""
        for _ in range(calls):
            start, self.place = self.place, self.place + 1000
            moment = int(time.time() * 1000)
            points = [Metric("loss", 1 / (start + i + 1), moment, start + i) for i in range(1000)]
            self.client.log_batch(self.run, metrics=points)
        return calls

    def fill(self, name: str, runs: list[dict[str, Any]]) -> int:
        """Runs with their history, through its own models, many in a transaction: its API would take minutes."""
        experiment = self.client.create_experiment(name)
        template = self.client.create_run(experiment)
        with self.store.ManagedSessionMaker() as session:
            base = session.query(SqlRun).filter(SqlRun.run_uuid == template.info.run_id).one()
            for number, run in enumerate(runs):
                session.add_all(_models(base, f"{name}{number:030}"[-32:], number, run))
                if number % 500 == 499:
                    session.flush()
                    session.expunge_all()
                    base = session.query(SqlRun).filter(SqlRun.run_uuid == template.info.run_id).one()
        self.client.delete_run(template.info.run_id)
        self.opened = [f"{name}{number:030}"[-32:] for number in range(len(runs))]
        self.experiment = experiment
        return len(runs)

    def search(self, where: str, order: str, limit: int) -> int:
        """Runs that match, with their settings and metrics."""
        found = self.client.search_runs([self.experiment], where, order_by=[order], max_results=limit)
        return len([(run.info.run_id, run.info.status, run.data.params, run.data.metrics) for run in found])

    def get_run(self) -> int:
        """The last run, without its history."""
        return len(self.client.get_run(self.opened[-1]).data.metrics)

    def open_run(self) -> int:
        """The last run with everything that was logged, as its page shows it."""
        found = self.client.get_run(self.opened[-1])
        return sum(len(self.client.get_metric_history(self.opened[-1], name)) for name in found.data.metrics)


def _models(base: Any, identifier: str, number: int, run: dict[str, Any]) -> list[Any]:
    moment = base.start_time + number
    columns = {name: getattr(base, name) for name in [column.key for column in SqlRun.__table__.columns]}
    columns |= {"run_uuid": identifier, "name": "fit", "start_time": moment, "end_time": moment, "status": "FINISHED"}
    found: list[Any] = [SqlRun(**columns)]
    found += [SqlParam(run_uuid=identifier, key=key, value=str(value)) for key, value in run["params"].items()]
    tags = {**run["tags"], "mlflow.runName": "fit", "mlflow.user": "somebody"}
    found += [SqlTag(run_uuid=identifier, key=key, value=str(value)) for key, value in tags.items()]
    for key, values in run["metrics"].items():
        points = [
            {"run_uuid": identifier, "key": key, "value": value, "timestamp": moment, "step": step, "is_nan": False}
            for step, value in enumerate(values)
        ]
        found += [SqlMetric(**point) for point in points]
        found.append(SqlLatestMetric(**points[-1]))
    return found


def main() -> None:
    """Answer until the pipe ends."""
    out = sys.stdout
    sys.stdout = sys.stderr
    peer = Peer(sys.argv[1], sys.argv[2])
    for line in sys.stdin:
        operation, *arguments = json.loads(line)
        work: Callable[..., int] = getattr(peer, operation)
        began = time.perf_counter()
        found = work(*arguments)
        print(json.dumps([time.perf_counter() - began, found]), file=out, flush=True)


if __name__ == "__main__":
    main()
