"""Runs by filter. What is in the ledger is compared as it is there; texts are read where a filter looks into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.integrations.mlflow_tracking.fields import Fields, page
from treadle.integrations.mlflow_tracking.filters import Clause, holds, ordered, parse_filter, parse_order
from treadle.integrations.mlflow_tracking.problem import invalid
from treadle.integrations.mlflow_tracking.run_view import RunView
from treadle.integrations.mlflow_tracking.tracker import Tracker

_TEXTS = ("run_id", "run_name", "status", "artifact_uri", "user_id", "experiment_id")
_NUMBERS = ("start_time", "end_time")
_GROUPS = ("metric", "parameter", "tag")
_PAGE, _MOST = 1_000, 50_000


class _SearchedRun:
    """A run that is searched; reads nothing that no clause asks for."""

    def __init__(self, tracker: Tracker, view: RunView) -> None:
        self.view = view
        self._tracker = tracker

    def value(self, group: str, key: str) -> Any:
        """What is compared; None where there is none."""
        if group == "metric":
            return self.view.metrics().get(key)
        if group == "parameter":
            return self.view.params.get(key)
        if group == "tag":
            return self.view.tags.get(key)
        return self.view.info.get(key)

    def meets(self, clauses: Sequence[Clause]) -> bool:
        """Whether all hold; those that need no text are asked first."""
        return all(self._meets(clause) for clause in sorted(clauses, key=_effort))

    def _meets(self, clause: Clause) -> bool:
        if clause.group == "dataset":
            return self._dataset(clause)
        if clause.group == "tag" and clause.operator == "=":
            return self.view.tag_is(clause.key, clause.value)
        if clause.group == "attribute" and clause.key == "status":
            return holds(clause, self.view.status)
        return holds(clause, self.value(clause.group, clause.key))

    def _dataset(self, clause: Clause) -> bool:
        links = self._tracker.record.cards.get("run_links", self.view.id) or {}
        values = []
        for each in links.get("datasets", []):
            if clause.key == "context":
                values += [tag["value"] for tag in each["tags"] if tag["key"] == "mlflow.data.context"]
            else:
                values.append(each["dataset"].get(clause.key))
        return any(holds(clause, value) for value in values)


def _effort(clause: Clause) -> int:
    quick = clause.operator == "=" or clause.key in ("status", "start_time", "end_time", "run_id")
    return 0 if quick and clause.group in ("tag", "attribute") else 2 if clause.group == "metric" else 1


def search(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Runs of some experiments for which a filter holds, the latest first."""
    clauses = parse_filter(fields.text("filter"), texts=_TEXTS, numbers=_NUMBERS, groups=(*_GROUPS, "dataset"))
    orders = parse_order(fields.texts("order_by", most=100), (*_TEXTS, *_NUMBERS), groups=_GROUPS)
    size = fields.whole("max_results", _PAGE, least=1)
    if size > _MOST:
        raise invalid(f"Invalid value for request parameter max_results. It must be at most {_MOST}, but got {size}")
    experiments = frozenset(fields.texts("experiment_ids", most=400))
    view = fields.text("run_view_type", "ACTIVE_ONLY")
    found = []
    for run in tracker.runs(experiments):
        each = RunView(tracker, run)
        if each.experiment not in experiments or (view != "ALL" and each.deleted != (view == "DELETED_ONLY")):
            continue
        searched = _SearchedRun(tracker, each)
        if searched.meets(clauses):
            found.append((searched, each))
    default = [("attribute", "start_time", False), ("attribute", "run_id", True)]
    chosen, more = page(ordered(found, [*orders, *default]), fields, size)
    return {"runs": [each.public() for each in chosen], **more}
