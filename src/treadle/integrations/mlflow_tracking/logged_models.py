"""Logged models: a card with what is said of one, and an artifact with its files."""

from __future__ import annotations

from contextlib import suppress
from secrets import token_hex
from typing import Any

from treadle.core.artifacts import Artifact
from treadle.integrations.mlflow_tracking import files
from treadle.integrations.mlflow_tracking.fields import PARAM_LENGTH, Fields, name_of, page, tags_of
from treadle.integrations.mlflow_tracking.filters import Searched, ordered, parse_filter, parse_order
from treadle.integrations.mlflow_tracking.model_cards import KIND, read
from treadle.integrations.mlflow_tracking.points import Point
from treadle.integrations.mlflow_tracking.problem import Problem, absent, invalid
from treadle.integrations.mlflow_tracking.tracker import Tracker, listed, now

_STATES = (
    "LOGGED_MODEL_STATUS_UNSPECIFIED",
    "LOGGED_MODEL_PENDING",
    "LOGGED_MODEL_READY",
    "LOGGED_MODEL_UPLOAD_FAILED",
)
_TEXTS = ("name", "model_id", "model_type", "status", "source_run_id")
_NUMBERS = ("creation_timestamp", "creation_time", "last_updated_timestamp", "last_updated_time")
_PAGE, _MOST = 100, 1_000


def create(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """A new one, whose files are to come."""
    experiment = fields.text("experiment_id", "0", most=40) or "0"
    model, present = "m-" + token_hex(16), now()
    with tracker.lock:
        tracker.experiment(experiment, active=True)
        run = fields.text("source_run_id", most=256)
        if run:
            tracker.run(run, active=True)
        content = {
            "experiment": experiment,
            "name": fields.text("name", most=500) or "model-" + model[2:10],
            "model_type": fields.text("model_type", most=500),
            "source_run": run,
            "created": present,
            "updated": present,
            "status": _STATES[1],
            "params": _params(fields),
            "tags": tags_of(fields, most=1_000),
        }
        tracker.record.cards.put(KIND, model, content)
        return {"model": _public(tracker, model, content)}


def artifact(tracker: Tracker, model: str) -> Artifact | None:
    """Its files; None where none came."""
    files.settle_model(tracker, model)
    digest = read(tracker, model).get("artifact")
    return Artifact(digest, tracker.record.store) if digest else None


def get(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """One by its id."""
    model = fields.needed("model_id", most=100)
    return {"model": _public(tracker, model, read(tracker, model))}


def finalize(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Its files are there, or could not be sent."""
    model, status = fields.needed("model_id", most=100), fields.text("status")
    status = _STATES[int(status)] if status in ("0", "1", "2", "3") else status
    if status not in _STATES:
        raise invalid(f"Invalid model status: {status[:60]}")
    read(tracker, model)
    files.settle_model(tracker, model)
    return _change(tracker, model, {"status": status})


def delete(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Put it away; its artifact stays in the record."""
    model = fields.needed("model_id", most=100)
    with tracker.lock:
        read(tracker, model)
        with suppress(Problem):  # such as files that were erased: it may be put away all the same
            files.settle_model(tracker, model)
        _change(tracker, model, {"deleted": True})
    return {}


def set_tags(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Set tags."""
    model = fields.needed("model_id", most=100)
    with tracker.lock:
        return _change(tracker, model, {"tags": read(tracker, model)["tags"] | tags_of(fields, most=1_000)})


def delete_tag(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Take a tag away."""
    model, name = fields.needed("model_id", most=100), fields.needed("tag_key", most=250)
    with tracker.lock:
        tags = read(tracker, model)["tags"]
        if tags.pop(name, None) is None:
            raise absent(f"No tag with key {name!r} found for model with ID {model!r}.")
        _change(tracker, model, {"tags": tags})
    return {}


def log_params(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Set parameters."""
    model = fields.needed("model_id", most=100)
    with tracker.lock:
        _change(tracker, model, {"params": read(tracker, model)["params"] | _params(fields)})
    return {}


def search(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Those of some experiments for which a filter holds, the latest first."""
    if fields.objects("datasets", most=1_000):
        raise Problem("NOT_IMPLEMENTED", "logged-models/search: 'datasets' is not served; see docs/reference/mlflow.md")
    groups = ("metric", "parameter", "tag")
    clauses = parse_filter(fields.text("filter"), texts=_TEXTS, numbers=_NUMBERS, groups=groups)
    orders = []
    for each in fields.objects("order_by", most=100):
        ((group, key, _),) = parse_order([each.needed("field_name")], (*_TEXTS, *_NUMBERS), groups=groups)
        orders.append((group, key, "ascending" not in each or each.flag("ascending")))
    experiments = frozenset(fields.texts("experiment_ids"))
    found = []
    for model, content in tracker.record.cards.all(KIND):
        if content and not content.get("deleted") and content["experiment"] in experiments:
            told = _public(tracker, model, content)
            searched = _searched(told)
            if searched.meets(clauses):
                found.append((searched, told))
    default = [("attribute", "creation_timestamp", False), ("attribute", "model_id", True)]
    size = fields.whole("max_results", _PAGE, least=1, most=_MOST)
    chosen, more = page(ordered(found, [*orders, *default]), fields, size)
    return {"models": chosen, **more}


def _searched(told: dict[str, Any]) -> Searched:
    info, data = told["info"], told["data"]
    created, changed = info["creation_timestamp_ms"], info["last_updated_timestamp_ms"]
    attributes = {name: info.get(name) for name in _TEXTS} | dict(
        zip(_NUMBERS, (created, created, changed, changed), strict=True)
    )
    metrics = {each["key"]: each["value"] for each in data["metrics"]}
    groups = {
        "metric": metrics,
        "parameter": {each["key"]: each["value"] for each in data["params"]},
        "tag": {each["key"]: each["value"] for each in info["tags"]},
    }
    return Searched(attributes, groups)


def _change(tracker: Tracker, model: str, changed: dict[str, Any]) -> dict[str, Any]:
    with tracker.lock:
        content = read(tracker, model) | changed | {"updated": now()}
        tracker.record.cards.put(KIND, model, content)
        return {"model": _public(tracker, model, content)}


def _params(fields: Fields) -> dict[str, str]:
    return {name_of(each): each.text("value", most=PARAM_LENGTH) for each in fields.objects("params", most=10_000)}


def _public(tracker: Tracker, model: str, content: dict[str, Any]) -> dict[str, Any]:
    run = content["source_run"]
    metrics = []
    if run:
        points: dict[tuple[str, tuple[str, str]], Point] = {}
        for point in tracker.points.of(tracker.run(run).run.id):
            place = (point.key, point.dataset)
            if point.model == model and (place not in points or point.rank >= points[place].rank):
                points[place] = point
        metrics = [point.public(run_id=run) for point in points.values()]
    return {
        "info": {
            "model_id": model,
            "experiment_id": content["experiment"],
            "name": content["name"],
            "creation_timestamp_ms": content["created"],
            "last_updated_timestamp_ms": content["updated"],
            "artifact_uri": tracker.place_of_model(content["experiment"], model),
            "status": content["status"],
            "model_type": content["model_type"],
            "source_run_id": run,
            "tags": listed(content["tags"]),
            "registrations": content.get("registrations", []),
        },
        "data": {"params": listed(content["params"]), "metrics": metrics},
    }


def registered(tracker: Tracker, model: str, name: str, version: str) -> None:
    """It is a version of a registered model as well."""
    with tracker.lock:
        before = read(tracker, model).get("registrations", [])
        _change(tracker, model, {"registrations": [*before, {"name": name, "version": version}]})
