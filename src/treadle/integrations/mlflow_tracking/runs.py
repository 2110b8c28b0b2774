"""Runs: begun, told of, ended, put away. Each is a run of the record, with the same bits in its name."""

from __future__ import annotations

import json
import re
from secrets import token_hex
from typing import Any

from treadle.core.texts import Texts
from treadle.integrations.mlflow_tracking import files
from treadle.integrations.mlflow_tracking.fields import PARAM_LENGTH, Fields, name_of, tag_of, tags_of
from treadle.integrations.mlflow_tracking.points import Point, point_of
from treadle.integrations.mlflow_tracking.problem import absent, invalid
from treadle.integrations.mlflow_tracking.run_view import (
    BEGAN,
    DELETED,
    ENDED,
    EXPERIMENT,
    KILLED,
    RUN_NAME,
    TAGGED_USER,
    USER,
    RunView,
    kept,
)
from treadle.integrations.mlflow_tracking.tracker import Tracker, now, plain_name

METRICS_AT_ONCE, OTHERS_AT_ONCE, ENTITIES_AT_ONCE = 1_000, 100, 1_000
_COMMIT_TAG, _HISTORY_TAG = "mlflow.source.git.commit", "mlflow.log-model.history"
_COMMIT = re.compile(r"[0-9a-f]{7,64}\Z")
_ENDS = {"FINISHED": "done", "FAILED": "failed", "KILLED": "failed"}
_NUMBERED = {"1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}


def create(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Begin one."""
    identifier = fields.text("experiment_id", "0", most=40) or "0"
    name, tags = fields.text("run_name", most=500), tags_of(fields, most=1_000)
    if name and tags.get(RUN_NAME, name) != name:
        raise invalid(f"Both 'run_name' argument and '{RUN_NAME}' tag are specified, but with different values")
    user, began = fields.text("user_id", most=256), fields.moment("start_time", now())
    with tracker.lock:
        experiment = tracker.experiment(identifier, active=True)
        name = name or tags.get(RUN_NAME) or "run-" + token_hex(4)
        tags[RUN_NAME] = name
        marks: dict[str, Any] = {EXPERIMENT: int(identifier), BEGAN: began}
        if user and tags.get(TAGGED_USER) != user:
            marks[USER] = user
        commit = tags.get(_COMMIT_TAG, "")
        run = tracker.reported.begin(
            plain_name(experiment["name"], identifier),
            plain_name(name, "run"),
            tags=tags | marks,
            user=tags.get(TAGGED_USER) or user,
            commit=commit if _COMMIT.match(commit) else None,
        )
    return {"run": RunView(tracker, run).public()}


def get(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """One with all its data."""
    return {"run": tracker.run(fields.needed("run_id", "run_uuid", most=256)).public()}


def update(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Give it another state or name. One that goes on again is running again."""
    identifier = fields.needed("run_id", "run_uuid", most=256)
    status = fields.text("status")
    status = _NUMBERED.get(status, status)
    if status not in ("", "RUNNING", "SCHEDULED", *_ENDS):
        raise invalid(f"Invalid value '{status[:40]}' for parameter 'status' supplied")
    name = fields.text("run_name", most=500)
    with tracker.lock:
        run = tracker.run(identifier)
        if run.deleted:
            raise invalid(f"The run {identifier} must be in the 'active' state. Current state is deleted.")
        if name:
            tracker.reported.tell(run.run, tags={RUN_NAME: name})
        if status in _ENDS:
            _end(tracker, run, status, fields.moment("end_time", now()))
        elif status and run.run.status != "running":
            tracker.reported.resume(run.run)
        return {"run_info": tracker.run(identifier).info}


def _end(tracker: Tracker, run: RunView, status: str, ended: int) -> None:
    marks: dict[str, Any] = {ENDED: ended}
    if (status == "KILLED") != bool(run.marks.get(KILLED)):
        marks[KILLED] = True if status == "KILLED" else None
    tracker.reported.tell(run.run, tags=marks)
    files.settle_run(tracker, run.id)
    _finish(tracker, tracker.run(run.id), _ENDS[status], ended)


def _finish(tracker: Tracker, run: RunView, status: str, ended: int | None) -> None:
    began = run.marks.get(BEGAN)
    seconds = None if ended is None or began is None else max(0.0, round((ended - began) / 1000, 3))
    tracker.reported.finish(run.run, status, seconds, run.metrics())


def delete(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Put it away. Nothing is taken out of the record."""
    run = tracker.run(fields.needed("run_id", most=256))
    tracker.reported.tell(run.run, tags={DELETED: now()})
    return {}


def restore(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Take it back."""
    run = tracker.run(fields.needed("run_id", most=256))
    tracker.reported.tell(run.run, tags={DELETED: None})
    return {}


def log_metric(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """One value of one metric."""
    point = point_of(fields, now())
    _log(tracker, fields, [point], {}, {})
    return {}


def log_param(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """One setting."""
    _log(tracker, fields, [], {name_of(fields): fields.text("value", most=PARAM_LENGTH)}, {})
    return {}


def set_tag(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """One tag; a later value replaces an earlier one."""
    name, value = tag_of(fields)
    _log(tracker, fields, [], {}, {name: value})
    return {}


def delete_tag(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Take a tag away."""
    name = name_of(fields)
    with tracker.lock:
        run = tracker.run(fields.needed("run_id", most=256), active=True)
        if name not in run.tags:
            raise absent(f"No tag with name: {name} in run with id {run.id}")
        tracker.reported.tell(run.run, tags={name: None})
    return {}


def log_batch(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Metrics, settings and tags together."""
    present = now()
    points = [point_of(each, present) for each in fields.objects("metrics", most=METRICS_AT_ONCE)]
    given = [
        (name_of(each), each.text("value", most=PARAM_LENGTH)) for each in fields.objects("params", most=OTHERS_AT_ONCE)
    ]
    tags = tags_of(fields, most=OTHERS_AT_ONCE)
    if len(points) + len(given) + len(tags) > ENTITIES_AT_ONCE:
        raise invalid(f"A batch logging request can contain at most {ENTITIES_AT_ONCE} metrics, params and tags")
    params = dict(given)
    if len(params) < len(given):
        raise invalid("Duplicate parameter keys have been submitted; a request has one value for each key")
    _log(tracker, fields, points, params, tags)
    return {}


def _log(tracker: Tracker, fields: Fields, points: list[Point], params: dict[str, str], tags: dict[str, str]) -> None:
    """What is refused is refused before anything is written."""
    identifier = fields.needed("run_id", "run_uuid", most=256)
    if not params and not tags:
        run = tracker.run(identifier, active=True)
    else:
        with tracker.lock:
            run = tracker.run(identifier, active=True)
            new = _new_params(tracker, run, params)
            if new or tags:
                tracker.reported.tell(run.run, parameters=new, tags=tags)
    if points:
        tracker.points.write(run.run.id, points)
        if run.run.status != "running":  # after its end: its final numbers are others now
            with tracker.lock:
                _finish(tracker, tracker.run(identifier), run.run.status, run.marks.get(ENDED))


def _new_params(tracker: Tracker, run: RunView, params: dict[str, str]) -> dict[str, Any]:
    """Settings that it does not have yet; one with another value is refused."""
    settings = kept(params)
    forms = Texts(tracker.keys).settings(settings)
    before = run.run.parameters
    for name, form in forms.items():
        if name in before and (type(before[name]), before[name]) != (type(form), form):
            raise invalid(
                f"Changing param values is not allowed. Param with key='{name}' was already logged with "
                f"value='{run.params[name][:200]}' for run ID='{run.id}'. Attempted logging new value "
                f"'{params[name][:200]}'."
            )
    return {name: value for name, value in settings.items() if name not in before}


def log_model(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """The older way to say that a model was logged: a tag that grows."""
    try:
        model = json.loads(fields.needed("model_json"))
    except (ValueError, RecursionError):
        raise invalid("Malformed model info: expected JSON") from None
    if not isinstance(model, dict) or not model.get("artifact_path") or not model.get("flavors"):
        raise invalid("Model json is missing mandatory fields: artifact_path, flavors")
    model.pop("utc_time_created" if "utc_time_created" not in model else "", None)
    with tracker.lock:
        run = tracker.run(fields.needed("run_id", most=256), active=True)
        try:
            before = json.loads(run.tag(_HISTORY_TAG) or "[]")
        except ValueError:  # erased
            before = []
        tracker.reported.tell(run.run, tags={_HISTORY_TAG: json.dumps([*before, model])})
    return {}


def log_inputs(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Data sets, which stay where they are, and models that a run takes."""
    datasets = []
    for each in fields.objects("datasets", most=1_000):
        dataset = each.object("dataset")
        told = {
            "name": dataset.needed("name", most=500),
            "digest": dataset.needed("digest", most=36),
            "source_type": dataset.text("source_type"),
            "source": dataset.text("source", most=65_535),
            "schema": dataset.text("schema", most=1_048_575),
            "profile": dataset.text("profile", most=16_777_215),
        }
        tags = [
            {"key": tag.text("key", most=255), "value": tag.text("value", most=500)}
            for tag in each.objects("tags", most=100)
        ]
        datasets.append({"dataset": {name: value for name, value in told.items() if value}, "tags": tags})
    models = [{"model_id": each.needed("model_id", most=100)} for each in fields.objects("models", most=1_000)]
    lines = [_described(each) for each in datasets] + [f"takes the model {each['model_id']}" for each in models]
    _link(tracker, fields, {"datasets": datasets, "models_in": models}, lines)
    return {}


def log_outputs(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Models that a run made."""
    models = [
        {"model_id": each.needed("model_id", most=100), "step": each.whole("step")}
        for each in fields.objects("models", most=1_000)
    ]
    _link(tracker, fields, {"models_out": models}, [])
    return {}


def _link(tracker: Tracker, fields: Fields, new: dict[str, list[Any]], lines: list[str]) -> None:
    with tracker.lock:
        run = tracker.run(fields.needed("run_id", most=256), active=True)
        links = tracker.record.cards.get("run_links", run.id) or {}
        for name, found in new.items():
            links[name] = _merged(links.get(name, []), found)
        tracker.record.cards.put("run_links", run.id, links)
        if lines:
            tracker.reported.tell(run.run, note="\n".join(lines))


def _merged(before: list[Any], found: list[Any]) -> list[Any]:
    """Each thing once; a data set by its name and digest, with all its tags."""
    by: dict[Any, Any] = {}
    for each in [*before, *found]:
        dataset = each.get("dataset", {})
        key = (dataset["name"], dataset["digest"]) if dataset else json.dumps(each, sort_keys=True)
        if dataset and key in by:
            by[key]["tags"] += [tag for tag in each["tags"] if tag not in by[key]["tags"]]
        by.setdefault(key, each)
    return list(by.values())


def _described(taken: dict[str, Any]) -> str:
    dataset, context = taken["dataset"], [tag["value"] for tag in taken["tags"] if tag["key"] == "mlflow.data.context"]
    told = f"takes the data set {dataset['name']}, digest {dataset['digest']}"
    return told + (f", for {context[0]}" if context else "") + f", from {dataset.get('source', 'not recorded')[:500]}"
