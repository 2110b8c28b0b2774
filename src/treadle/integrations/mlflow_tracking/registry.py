"""Registered models. A version is a Treadle version of the same number; an alias is an alias, with its history.

What has the same files as an earlier version is that version in the record, under its first number. What lies where
this machine does not look (another bucket) is known to MLflow's clients, and is no version of the record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

from treadle.core.artifacts import Artifact, Entry, manifest_bytes
from treadle.core.errors import UserError
from treadle.integrations.mlflow_tracking import files, logged_models, model_cards
from treadle.integrations.mlflow_tracking.fields import Fields, page, tag_of, tags_of
from treadle.integrations.mlflow_tracking.filters import Searched, ordered, parse_filter, parse_order
from treadle.integrations.mlflow_tracking.problem import TAKEN, Problem, absent, invalid
from treadle.integrations.mlflow_tracking.tracker import ROOT, Tracker, listed, now, plain_name
from treadle.lm.model import Model
from treadle.record.version import Versions

_MODEL, _VERSION = "registered_model", "model_version"
_VALUE = 100_000  # characters of a tag
_MODELS_AT_ONCE, _VERSIONS_AT_ONCE = (100, 1_000), (10_000, 200_000)
_ALIAS = re.compile(r"[\w-]{1,255}\Z", re.ASCII)
_STAGES = ("None", "Staging", "Production", "Archived")
_TIMES = ("creation_timestamp", "last_updated_timestamp")
_OPTIONAL = {"run_id": "run", "run_link": "run_link", "model_id": "model_id", "description": "description"}
_PROMPT = "mlflow.prompt.is_prompt"


# -- registered models


def create_model(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """A new name."""
    name = _model_name(fields, "name")
    present = now()
    content = {"name": name, "created": present, "updated": present, "description": fields.text("description"),
               "tags": tags_of(fields, most=1_000, length=_VALUE), "aliases": {}, "latest": 0}  # fmt: skip
    with tracker.lock:
        if _find(tracker, name) is not None:
            raise Problem(TAKEN, f"Registered Model (name={name[:100]}) already exists.")
        identifier = token_hex(8)
        called = plain_name(name, "model")
        taken = {other["called"] for _, other in tracker.record.cards.all(_MODEL) if other}
        if called in (taken | {tracker.record.name}):  # the project's own champion is moved by its gates alone
            called = f"{called[:50]}-{identifier[:8]}"
        content["called"] = called
        tracker.record.cards.put(_MODEL, identifier, content)
        return {"registered_model": _public_model(tracker, identifier, content)}


def get_model(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """One by its name."""
    return {"registered_model": _public_model(tracker, *_model(tracker, fields))}


def rename_model(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Another name; in the record its versions keep theirs."""
    new = _model_name(fields, "new_name")
    with tracker.lock:
        if _find(tracker, new) is not None:
            raise Problem(TAKEN, f"Registered Model (name={new[:100]}) already exists.")
        return _change_model(tracker, fields, lambda content: content.update(name=new))


def update_model(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Another description."""
    return _change_model(tracker, fields, lambda content: content.update(description=fields.text("description")))


def delete_model(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Put it away; its versions stay in the record, its aliases point at nothing."""
    with tracker.lock:
        identifier, content = _model(tracker, fields)
        for alias in content["aliases"]:
            _point(tracker, content, alias, None)
        tracker.record.cards.put(_MODEL, identifier, content | {"deleted": True, "aliases": {}, "updated": now()})
    return {}


def search_models(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Those for which a filter holds, by name."""
    clauses = parse_filter(fields.text("filter"), texts=("name",), numbers=_TIMES, groups=("tag",))
    orders = parse_order(_orders(fields), ("name", "timestamp", *_TIMES), groups=())
    found = []
    for identifier, content in _models(tracker):
        times = {"creation_timestamp": content["created"], "last_updated_timestamp": content["updated"]}
        attributes = {"name": content["name"], "timestamp": content["updated"], **times}
        searched = Searched(attributes, {"tag": {_PROMPT: "false"} | content["tags"]})
        if searched.meets(clauses):
            found.append((searched, (identifier, content)))
    size = fields.whole("max_results", _MODELS_AT_ONCE[0], least=1, most=_MODELS_AT_ONCE[1])
    chosen, more = page(ordered(found, [*orders, ("attribute", "name", True)]), fields, size)
    return {"registered_models": [_public_model(tracker, *each) for each in chosen], **more}


def latest_versions(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """The latest version in each stage."""
    identifier, content = _model(tracker, fields)
    stages = {stage.lower() for stage in fields.texts("stages", most=10)}
    found = _latest(tracker, identifier, content)
    return {"model_versions": [each for each in found if not stages or each["current_stage"].lower() in stages]}


def set_model_tag(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Set a tag."""
    name, value = tag_of(fields, length=_VALUE)
    _change_model(tracker, fields, lambda content: content["tags"].update({name: value}))
    return {}


def delete_model_tag(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Take a tag away."""
    name = fields.needed("key", most=250)
    _change_model(tracker, fields, lambda content: content["tags"].pop(name, None))
    return {}


# -- aliases


def set_alias(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Point an alias at a version."""
    alias = fields.needed("alias", most=255)
    if not _ALIAS.match(alias):
        raise invalid(f"Invalid alias name: '{alias[:100]}'. Names may only contain alphanumerics, underscores, dashes")
    if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        raise invalid(f"'{alias}' alias name is reserved.")
    with tracker.lock:
        identifier, content = _model(tracker, fields)
        number = _number(fields)
        card = _card(tracker, identifier, content, number)
        content["aliases"][alias] = number
        tracker.record.cards.put(_MODEL, identifier, content | {"updated": now()})
        _point(tracker, content, alias, card.get("digest"))
    return {}


def delete_alias(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """It points at nothing from now on."""
    alias = fields.needed("alias", most=255)
    with tracker.lock:
        identifier, content = _model(tracker, fields)
        if content["aliases"].pop(alias, None) is not None:
            tracker.record.cards.put(_MODEL, identifier, content | {"updated": now()})
            _point(tracker, content, alias, None)
    return {}


def version_by_alias(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """What an alias points at."""
    identifier, content = _model(tracker, fields)
    alias = fields.needed("alias", most=255)
    if alias not in content["aliases"]:
        raise invalid(f"Registered model alias {alias} not found.")
    return {"model_version": _version(tracker, identifier, content, content["aliases"][alias])}


def _point(tracker: Tracker, content: dict[str, Any], alias: str, digest: str | None) -> None:
    versions = _versions(tracker, content)
    known = versions.find("model", digest) if digest else None
    tag = re.sub(r"[^a-z0-9_-]", "-", alias.lower())
    if versions.alias("model", tag) != known:
        versions.point(tag, known, reason="set by a client")


# -- versions


def create_version(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """The next version of a registered model."""
    source = fields.needed("source", most=2_048)
    run, present = fields.text("run_id", most=256), now()
    tags = tags_of(fields, most=1_000, length=_VALUE)
    with tracker.lock:
        identifier, content = _model(tracker, fields)
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
        tracker.record.cards.put(_VERSION, f"{identifier}.{number}", card)
        tracker.record.cards.put(_MODEL, identifier, content | {"latest": number, "updated": present})
        if card["model_id"]:
            logged_models.registered(tracker, card["model_id"], content["name"], str(number))
        return {"model_version": _version(tracker, identifier, content, number)}


def _register(tracker: Tracker, content: dict[str, Any], card: dict[str, Any], number: int) -> str | None:
    """The artifact behind a version, registered in the record; None where it lies elsewhere."""
    made = _artifact(tracker, card)
    if made is None:
        return None
    producer = tracker.record.runs.producer(made.digest)
    try:
        _versions(tracker, content).register("model", made.digest, producer.id if producer else None, number)
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


def get_version(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """One by name and number."""
    identifier, content = _model(tracker, fields)
    return {"model_version": _version(tracker, identifier, content, _number(fields))}


def update_version(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Another description."""
    return _change_version(tracker, fields, lambda card: card.update(description=fields.text("description")))


def transition(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Another stage, as MLflow had them before aliases."""
    stage = fields.needed("stage", most=40).capitalize()
    if stage not in _STAGES:
        raise invalid(f"Invalid Model Version stage: {stage}. Value must be one of {', '.join(_STAGES)}.")
    with tracker.lock:
        identifier, content = _model(tracker, fields)
        if fields.flag("archive_existing_versions"):
            for number, card in _cards(tracker, identifier, content):
                if card["stage"] == stage and number != _number(fields):
                    tracker.record.cards.put(_VERSION, f"{identifier}.{number}", card | {"stage": "Archived"})
        return _change_version(tracker, fields, lambda card: card.update(stage=stage))


def delete_version(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Put it away; the record keeps it."""
    with tracker.lock:
        identifier, content = _model(tracker, fields)
        number = _number(fields)
        for alias in [alias for alias, of in content["aliases"].items() if of == number]:
            del content["aliases"][alias]
            _point(tracker, content, alias, None)
        tracker.record.cards.put(_MODEL, identifier, content | {"updated": now()})
        _change_version(tracker, fields, lambda card: card.update(deleted=True))
    return {}


def search_versions(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Those of all models for which a filter holds, the latest first."""
    texts, numbers = ("name", "run_id", "source_path"), ("version_number", *_TIMES)
    clauses = parse_filter(fields.text("filter"), texts=texts, numbers=numbers, groups=("tag",))
    orders = parse_order(_orders(fields), ("name", *numbers), groups=())
    found = []
    for identifier, content in _models(tracker):
        for number, card in _cards(tracker, identifier, content):
            told = _public_version(tracker, content, number, card)
            attributes = {**told, "source_path": card["source"], "version_number": number}
            searched = Searched(attributes, {"tag": {_PROMPT: "false"} | card["tags"]})
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
    identifier, content = _model(tracker, fields)
    card = _card(tracker, identifier, content, _number(fields))
    if card["model_id"]:
        experiment = model_cards.read(tracker, card["model_id"])["experiment"]
        return {"artifact_uri": tracker.place_of_model(experiment, card["model_id"])}
    return {"artifact_uri": card["source"]}


def set_version_tag(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Set a tag."""
    name, value = tag_of(fields, length=_VALUE)
    _change_version(tracker, fields, lambda card: card["tags"].update({name: value}))
    return {}


def delete_version_tag(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Take a tag away."""
    name = fields.needed("key", most=250)
    _change_version(tracker, fields, lambda card: card["tags"].pop(name, None))
    return {}


# -- cards


def _model_name(fields: Fields, field: str) -> str:
    name = fields.needed(field, most=256)
    if not name.strip() or "/" in name or ":" in name or name in (".", ".."):
        raise invalid(f"Invalid model name '{name[:100]}'. Names cannot contain '/' or ':'.")
    return name


def _models(tracker: Tracker) -> Iterator[tuple[str, dict[str, Any]]]:
    for identifier, content in tracker.record.cards.all(_MODEL):
        if content and not content.get("deleted"):
            yield identifier, content


def _find(tracker: Tracker, name: str) -> tuple[str, dict[str, Any]] | None:
    return next((each for each in _models(tracker) if each[1]["name"] == name), None)


def _model(tracker: Tracker, fields: Fields) -> tuple[str, dict[str, Any]]:
    name = fields.needed("name", most=256)
    found = _find(tracker, name)
    if found is None:
        raise absent(f"Registered Model with name={name[:100]} not found")
    return found


def _number(fields: Fields) -> int:
    return fields.whole("version", least=1)


def _card(tracker: Tracker, identifier: str, content: dict[str, Any], number: int) -> dict[str, Any]:
    card = tracker.record.cards.get(_VERSION, f"{identifier}.{number}")
    if not card or card.get("deleted"):
        raise absent(f"Model Version (name={content['name'][:100]}, version={number}) not found")
    return card


def _cards(tracker: Tracker, identifier: str, content: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The versions of a model, the latest first."""
    for number in range(content["latest"], 0, -1):
        card = tracker.record.cards.get(_VERSION, f"{identifier}.{number}")
        if card and not card.get("deleted"):
            yield number, card


def _change_model(tracker: Tracker, fields: Fields, change: Any) -> dict[str, Any]:
    with tracker.lock:
        identifier, content = _model(tracker, fields)
        change(content)
        content["updated"] = now()
        tracker.record.cards.put(_MODEL, identifier, content)
        return {"registered_model": _public_model(tracker, identifier, content)}


def _change_version(tracker: Tracker, fields: Fields, change: Any) -> dict[str, Any]:
    with tracker.lock:
        identifier, content = _model(tracker, fields)
        number = _number(fields)
        card = _card(tracker, identifier, content, number)
        change(card)
        card["updated"] = now()
        tracker.record.cards.put(_VERSION, f"{identifier}.{number}", card)
        return {"model_version": _public_version(tracker, content, number, card)}


def _versions(tracker: Tracker, content: dict[str, Any]) -> Versions:
    return Versions(tracker.record.ledger, tracker.record.store, content["called"])


def _orders(fields: Fields) -> list[str]:
    return fields.texts("order_by", most=100)


def _latest(tracker: Tracker, identifier: str, content: dict[str, Any]) -> list[dict[str, Any]]:
    stages: dict[str, dict[str, Any]] = {}
    for number, card in _cards(tracker, identifier, content):
        stages.setdefault(card["stage"], _public_version(tracker, content, number, card))
    return list(stages.values())


def _public_model(tracker: Tracker, identifier: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": content["name"],
        "creation_timestamp": content["created"],
        "last_updated_timestamp": content["updated"],
        "latest_versions": _latest(tracker, identifier, content),
        "tags": listed(content["tags"]),
        "aliases": [{"alias": alias, "version": str(number)} for alias, number in content["aliases"].items()],
    } | ({"description": content["description"]} if content["description"] else {})


def _version(tracker: Tracker, identifier: str, content: dict[str, Any], number: int) -> dict[str, Any]:
    return _public_version(tracker, content, number, _card(tracker, identifier, content, number))


def _public_version(tracker: Tracker, content: dict[str, Any], number: int, card: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": content["name"],
        "version": str(number),
        "creation_timestamp": card["created"],
        "last_updated_timestamp": card["updated"],
        "current_stage": card["stage"],
        "source": card["source"],
        "status": "READY",
        "tags": listed(card["tags"]),
        "aliases": [alias for alias, of in content["aliases"].items() if of == number],
    } | {name: card[field] for name, field in _OPTIONAL.items() if card[field]}
