"""Experiments: groups of runs, each a card of the record."""

from __future__ import annotations

from typing import Any

from treadle.integrations.mlflow_tracking.fields import Fields, name_of, page, tag_of, tags_of
from treadle.integrations.mlflow_tracking.filters import Searched, ordered, parse_filter, parse_order
from treadle.integrations.mlflow_tracking.problem import TAKEN, Problem, absent, invalid
from treadle.integrations.mlflow_tracking.tracker import Tracker, listed, now

_KIND = "experiment"
_TEXT, _NUMBERS = ("name", "experiment_id"), ("creation_time", "last_update_time")
_VALUE = 20_000  # characters of a tag
_PAGE, _MOST = 1_000, 50_000


def create(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """A new one; its name is taken by none, not even by a deleted one."""
    name = fields.needed("name", most=500)
    location = fields.text("artifact_location", most=2_048)
    if location.startswith("runs:"):
        raise invalid(f"Artifact location cannot be a runs:/ URI. Given: '{location[:100]}'")
    tags = tags_of(fields, length=_VALUE)
    present = now()
    content = {"name": name, "created": present, "updated": present, "deleted": False, "tags": tags}
    with tracker.lock:
        _refuse_taken(tracker, name)
        known = [int(identifier) for identifier, _ in tracker.record.cards.all(_KIND)]
        identifier = str(max(known, default=0) + 1)
        tracker.record.cards.put(_KIND, identifier, content | ({"location": location.rstrip("/")} if location else {}))
    return {"experiment_id": identifier}


def get(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """One by its id."""
    identifier = fields.needed("experiment_id", most=40)
    return {"experiment": _public(tracker, identifier, tracker.experiment(identifier))}


def get_by_name(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """One by its name."""
    name = fields.needed("experiment_name", most=500)
    for identifier, content in _all(tracker):
        if content["name"] == name:
            return {"experiment": _public(tracker, identifier, content)}
    raise absent(f"Could not find experiment with name '{name[:100]}'")


def search(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Those for which a filter holds, the latest first."""
    clauses = parse_filter(fields.text("filter"), texts=_TEXT, numbers=_NUMBERS, groups=("tag",))
    order = parse_order(fields.texts("order_by"), (*_TEXT, *_NUMBERS), groups=())
    size = fields.whole("max_results", _PAGE, least=1, most=_MOST)
    view = fields.text("view_type", "ACTIVE_ONLY")
    found = []
    for identifier, content in _all(tracker):
        if view != "ALL" and content["deleted"] != (view == "DELETED_ONLY"):
            continue
        told = _public(tracker, identifier, content)
        searched = Searched({name: told[name] for name in (*_TEXT, *_NUMBERS)}, {"tag": content["tags"]})
        if searched.meets(clauses):
            found.append((searched, told))
    default = [("attribute", "creation_time", False), ("attribute", "experiment_id", True)]
    chosen, more = page(ordered(found, [*order, *default]), fields, size)
    return {"experiments": chosen, **more}


def update(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Rename it."""
    name = fields.needed("new_name", most=500)

    def rename(content: dict[str, Any]) -> None:
        if content["name"] != name:
            _refuse_taken(tracker, name)
        content["name"] = name

    return _change(tracker, fields, rename, active=True)


def delete(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Put it away; its runs stay in the record."""
    return _change(tracker, fields, lambda content: content.update(deleted=True), active=True)


def restore(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Take it back."""
    return _change(tracker, fields, lambda content: content.update(deleted=False))


def set_tag(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Set a tag."""
    name, value = tag_of(fields, length=_VALUE)
    return _change(tracker, fields, lambda content: content["tags"].update({name: value}), active=True)


def delete_tag(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Take a tag away."""
    name = name_of(fields)

    def remove(content: dict[str, Any]) -> None:
        if content["tags"].pop(name, None) is None:
            raise absent(f"No tag with name: {name} in experiment")

    return _change(tracker, fields, remove, active=True)


def _change(tracker: Tracker, fields: Fields, change: Any, *, active: bool = False) -> dict[str, Any]:
    identifier = fields.needed("experiment_id", most=40)
    with tracker.lock:
        content = tracker.experiment(identifier, active=active)
        change(content)
        tracker.record.cards.put(_KIND, identifier, content | {"updated": now()})
    return {}


def _all(tracker: Tracker) -> list[tuple[str, dict[str, Any]]]:
    tracker.experiment("0")  # which there always is
    return [(each, tracker.experiment(each)) for each, _ in tracker.record.cards.all(_KIND)]


def _refuse_taken(tracker: Tracker, name: str) -> None:
    for identifier, content in _all(tracker):
        if content["name"] == name:
            deleted = " It is deleted: restore it, or choose another name." if content["deleted"] else ""
            raise Problem(TAKEN, f"Experiment '{name[:100]}' already exists with id {identifier}.{deleted}")


def _public(tracker: Tracker, identifier: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "experiment_id": identifier,
        "name": content["name"],
        "artifact_location": tracker.place_of(identifier),
        "lifecycle_stage": "deleted" if content["deleted"] else "active",
        "creation_time": content["created"],
        "last_update_time": content["updated"],
        "tags": listed(content["tags"]),
    }
