"""Versions of registered models."""

from __future__ import annotations

import re
from typing import Any

from treadle.core.artifacts import Artifact, Entry, manifest_bytes
from treadle.core.errors import UserError
from treadle.integrations.mlflow_tracking import files, logged_models, model_cards
from treadle.integrations.mlflow_tracking.fields import Fields, page, tag_of, tags_of
from treadle.integrations.mlflow_tracking.filters import Searched, ordered, parse_filter, parse_order
from treadle.integrations.mlflow_tracking.problem import absent, invalid
from treadle.integrations.mlflow_tracking.registry_cards import (
    MODEL,
    PROMPT,
    TIMES,
    VALUE_LENGTH,
    VERSION,
    all_models,
    card_of,
    cards_of,
    change_version,
    model_of,
    number_of,
    orders_of,
    point,
    public_version,
    version_of,
    versions_of,
)
from treadle.integrations.mlflow_tracking.tracker import ROOT, Tracker, now, plain_name
from treadle.lm.model import Model

_VERSIONS_AT_ONCE = (10_000, 200_000)
_STAGES = ("None", "Staging", "Production", "Archived")


def create(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """The next version of a registered model."""
    source = fields.needed("source", most=2_048)
    run, present = fields.text("run_id", most=256), now()
    tags = tags_of(fields, most=1_000, length=VALUE_LENGTH)
    with tracker.lock:
        identifier, content = model_of(tracker, fields)
        number = content["latest"] + 1
        card: dict[str, Any] = {
            "source": source,
            "run": run,
            "model_id": fields.text("model_id", most=100) or _logged(source),
            "run_link": fields.text("run_link", most=2_048),
            "description": fields.text("description"),
            "tags": tags,
            "created": present,
            "updated": present,
            "stage": "None",
        }
        if card["model_id"]:
            card["run"] = run or model_cards.read(tracker, card["model_id"])["source_run"]
        card["digest"] = _register(tracker, content, card, number)
        tracker.record.cards.put(VERSION, f"{identifier}.{number}", card)
        tracker.record.cards.put(MODEL, identifier, content | {"latest": number, "updated": present})
        if card["model_id"]:
            logged_models.registered(tracker, card["model_id"], content["name"], str(number))
        return {"model_version": version_of(tracker, identifier, content, number)}


def _register(tracker: Tracker, content: dict[str, Any], card: dict[str, Any], number: int) -> str | None:
    """The artifact behind a version, registered in the record; None where it lies elsewhere."""
    made = _artifact(tracker, card)
    if made is None:
        return None
    producer = tracker.record.runs.producer(made.digest)
    try:
        versions_of(tracker, content).register("model", made.digest, producer.id if producer else None, number)
    except UserError as error:
        raise invalid(str(error)) from None
    return made.digest


def _artifact(tracker: Tracker, card: dict[str, Any]) -> Artifact | None:
    source = card["source"]
    if card["model_id"]:
        return logged_models.artifact(tracker, card["model_id"])
    if not source.startswith(ROOT):
        return None
    place = files.place_of(source.removeprefix(ROOT))
    files.settle(tracker, place.owner)
    prefix = place.path + "/" if place.path else ""
    inside = [
        Entry(entry.path[len(prefix) :], entry.size, entry.digest)
        for entry in files.entries(tracker, place.owner)
        if entry.path.startswith(prefix)
    ]
    if not inside:
        raise absent(f"There are no files at {source[:200]}; log the model before it is registered")
    made = Model(tracker.record.store.put_bytes(manifest_bytes(inside)), tracker.record.store)
    run = tracker.run(place.owner.partition("/")[2])
    name = plain_name(place.path.rpartition("/")[2], "model")
    name = name if run.run.outputs.get(name, made.digest) == made.digest else f"{name}-{made.digest[3:11]}"
    tracker.reported.tell(run.run, outputs={name: made})
    return made


def _logged(source: str) -> str:
    """The logged model that a source names, also by the place of its files."""
    if source.startswith("models:/m-"):
        return source.removeprefix("models:/").partition("/")[0]
    match = re.search(r"/models/(m-[0-9a-f]{32})/artifacts/?\Z", source)
    return match[1] if match and source.startswith(ROOT) else ""


def get(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """One by name and number."""
    identifier, content = model_of(tracker, fields)
    return {"model_version": version_of(tracker, identifier, content, number_of(fields))}


def update(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Another description."""
    return change_version(tracker, fields, lambda card: card.update(description=fields.text("description")))


def transition(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Another stage, as MLflow had them before aliases."""
    stage = fields.needed("stage", most=40).capitalize()
    if stage not in _STAGES:
        raise invalid(f"Invalid Model Version stage: {stage}. Value must be one of {', '.join(_STAGES)}.")
    with tracker.lock:
        identifier, content = model_of(tracker, fields)
        if fields.flag("archive_existing_versions"):
            for number, card in cards_of(tracker, identifier, content):
                if card["stage"] == stage and number != number_of(fields):
                    tracker.record.cards.put(VERSION, f"{identifier}.{number}", card | {"stage": "Archived"})
        return change_version(tracker, fields, lambda card: card.update(stage=stage))


def delete(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Put it away; the record keeps it."""
    with tracker.lock:
        identifier, content = model_of(tracker, fields)
        number = number_of(fields)
        for alias in [alias for alias, of in content["aliases"].items() if of == number]:
            del content["aliases"][alias]
            point(tracker, content, alias, None)
        tracker.record.cards.put(MODEL, identifier, content | {"updated": now()})
        change_version(tracker, fields, lambda card: card.update(deleted=True))
    return {}


def search(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Those of all models for which a filter holds, the latest first."""
    texts, numbers = ("name", "run_id", "source_path"), ("version_number", *TIMES)
    clauses = parse_filter(fields.text("filter"), texts=texts, numbers=numbers, groups=("tag",))
    orders = parse_order(orders_of(fields), ("name", *numbers), groups=())
    found = []
    for identifier, content in all_models(tracker):
        for number, card in cards_of(tracker, identifier, content):
            told = public_version(tracker, content, number, card)
            attributes = {**told, "source_path": card["source"], "version_number": number}
            searched = Searched(attributes, {"tag": {PROMPT: "false"} | card["tags"]})
            if searched.meets(clauses):
                found.append((searched, told))
    default = [
        ("attribute", "last_updated_timestamp", False),
        ("attribute", "name", True),
        ("attribute", "version_number", False),
    ]
    size = fields.whole("max_results", _VERSIONS_AT_ONCE[0], least=1, most=_VERSIONS_AT_ONCE[1])
    chosen, more = page(ordered(found, [*orders, *default]), fields, size)
    return {"model_versions": chosen, **more}


def download_uri(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Where the files of a version are said to lie."""
    identifier, content = model_of(tracker, fields)
    card = card_of(tracker, identifier, content, number_of(fields))
    if card["model_id"]:
        experiment = model_cards.read(tracker, card["model_id"])["experiment"]
        return {"artifact_uri": tracker.place_of_model(experiment, card["model_id"])}
    return {"artifact_uri": card["source"]}


def set_tag(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Set a tag."""
    name, value = tag_of(fields, length=VALUE_LENGTH)
    change_version(tracker, fields, lambda card: card["tags"].update({name: value}))
    return {}


def delete_tag(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Take a tag away."""
    name = fields.needed("key", most=250)
    change_version(tracker, fields, lambda card: card["tags"].pop(name, None))
    return {}
