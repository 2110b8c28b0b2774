"""Registered models and their aliases."""

from __future__ import annotations

import re
from secrets import token_hex
from typing import Any

from treadle.integrations.mlflow_tracking.fields import Fields, page, tag_of, tags_of
from treadle.integrations.mlflow_tracking.filters import Searched, ordered, parse_filter, parse_order
from treadle.integrations.mlflow_tracking.problem import TAKEN, Problem, invalid
from treadle.integrations.mlflow_tracking.registry_cards import (
    MODEL,
    PROMPT,
    TIMES,
    VALUE_LENGTH,
    all_models,
    card_of,
    change_model,
    find_model,
    latest_of,
    model_name,
    model_of,
    number_of,
    orders_of,
    point,
    public_model,
    version_of,
)
from treadle.integrations.mlflow_tracking.tracker import Tracker, now, plain_name

_ALIAS = re.compile(r"[\w-]{1,255}\Z", re.ASCII)
_MODELS_AT_ONCE = (100, 1_000)


def create(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """A new name."""
    name = model_name(fields, "name")
    present = now()
    content = {"name": name, "created": present, "updated": present, "description": fields.text("description"),
               "tags": tags_of(fields, most=1_000, length=VALUE_LENGTH), "aliases": {}, "latest": 0}  # fmt: skip
    with tracker.lock:
        if find_model(tracker, name) is not None:
            raise Problem(TAKEN, f"Registered Model (name={name[:100]}) already exists.")
        identifier = token_hex(8)
        called = plain_name(re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:64], "model")
        taken = {other["called"] for _, other in tracker.record.cards.all(MODEL) if other.get("called")}
        taken |= tracker.record.versions.projects("model")  # also of a model whose card was erased
        if called in (taken | {tracker.record.name}):  # the project's own champion is moved by its gates alone
            called = f"{called[:50]}-{identifier[:8]}"
        content["called"] = called
        tracker.record.cards.put(MODEL, identifier, content)
        return {"registered_model": public_model(tracker, identifier, content)}


def get(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """One by its name."""
    return {"registered_model": public_model(tracker, *model_of(tracker, fields))}


def rename(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Another name; in the record its versions keep theirs."""
    new = model_name(fields, "new_name")
    with tracker.lock:
        if find_model(tracker, new) is not None:
            raise Problem(TAKEN, f"Registered Model (name={new[:100]}) already exists.")
        return change_model(tracker, fields, lambda content: content.update(name=new))


def update(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Another description."""
    return change_model(tracker, fields, lambda content: content.update(description=fields.text("description")))


def delete(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Put it away; its versions stay in the record, its aliases point at nothing."""
    with tracker.lock:
        identifier, content = model_of(tracker, fields)
        for alias in content["aliases"]:
            point(tracker, content, alias, None)
        tracker.record.cards.put(MODEL, identifier, content | {"deleted": True, "aliases": {}, "updated": now()})
    return {}


def search(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Those for which a filter holds, by name."""
    clauses = parse_filter(fields.text("filter"), texts=("name",), numbers=TIMES, groups=("tag",))
    orders = parse_order(orders_of(fields), ("name", "timestamp", *TIMES), groups=())
    found = []
    for identifier, content in all_models(tracker):
        times = {"creation_timestamp": content["created"], "last_updated_timestamp": content["updated"]}
        attributes = {"name": content["name"], "timestamp": content["updated"], **times}
        searched = Searched(attributes, {"tag": {PROMPT: "false"} | content["tags"]})
        if searched.meets(clauses):
            found.append((searched, (identifier, content)))
    size = fields.whole("max_results", _MODELS_AT_ONCE[0], least=1, most=_MODELS_AT_ONCE[1])
    chosen, more = page(ordered(found, [*orders, ("attribute", "name", True)]), fields, size)
    return {"registered_models": [public_model(tracker, *each) for each in chosen], **more}


def latest_versions(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """The latest version in each stage."""
    identifier, content = model_of(tracker, fields)
    stages = {stage.lower() for stage in fields.texts("stages", most=10)}
    found = latest_of(tracker, identifier, content)
    return {"model_versions": [each for each in found if not stages or each["current_stage"].lower() in stages]}


def set_tag(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Set a tag."""
    name, value = tag_of(fields, length=VALUE_LENGTH)
    change_model(tracker, fields, lambda content: content["tags"].update({name: value}))
    return {}


def delete_tag(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Take a tag away."""
    name = fields.needed("key", most=250)
    change_model(tracker, fields, lambda content: content["tags"].pop(name, None))
    return {}


def set_alias(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Point an alias at a version."""
    alias = fields.needed("alias", most=255)
    if not _ALIAS.match(alias):
        raise invalid(f"Invalid alias name: '{alias[:100]}'. Names may only contain alphanumerics, underscores, dashes")
    if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        raise invalid(f"'{alias}' alias name is reserved.")
    with tracker.lock:
        identifier, content = model_of(tracker, fields)
        number = number_of(fields)
        card = card_of(tracker, identifier, content, number)
        content["aliases"][alias] = number
        tracker.record.cards.put(MODEL, identifier, content | {"updated": now()})
        point(tracker, content, alias, card.get("digest"))
    return {}


def delete_alias(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """It points at nothing from now on."""
    alias = fields.needed("alias", most=255)
    with tracker.lock:
        identifier, content = model_of(tracker, fields)
        if content["aliases"].pop(alias, None) is not None:
            tracker.record.cards.put(MODEL, identifier, content | {"updated": now()})
            point(tracker, content, alias, None)
    return {}


def version_by_alias(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """What an alias points at."""
    identifier, content = model_of(tracker, fields)
    alias = fields.needed("alias", most=255)
    if alias not in content["aliases"]:
        raise invalid(f"Registered model alias {alias} not found.")
    return {"model_version": version_of(tracker, identifier, content, content["aliases"][alias])}
