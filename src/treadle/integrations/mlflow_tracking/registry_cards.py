"""Cards of registered models and of their versions, and their ways into the record.

A version is a Treadle version of the same number; an alias is an alias, with its history. What has the same files as
an earlier version is that version in the record, under its first number. What lies where this machine does not look
(another bucket) is known to MLflow's clients, and is no version of the record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from treadle.integrations.mlflow_tracking.fields import Fields
from treadle.integrations.mlflow_tracking.problem import absent, invalid
from treadle.integrations.mlflow_tracking.tracker import Tracker, listed, now
from treadle.record.version import Versions

MODEL, VERSION = "registered_model", "model_version"
VALUE_LENGTH = 100_000  # characters of a tag
TIMES = ("creation_timestamp", "last_updated_timestamp")
PROMPT = "mlflow.prompt.is_prompt"
_OPTIONAL = {"run_id": "run", "run_link": "run_link", "model_id": "model_id", "description": "description"}


def model_name(fields: Fields, field: str) -> str:
    """A name for a registered model."""
    name = fields.needed(field, most=256)
    if not name.strip() or "/" in name or ":" in name or name in (".", ".."):
        raise invalid(f"Invalid model name '{name[:100]}'. Names cannot contain '/' or ':'.")
    return name


def all_models(tracker: Tracker) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every registered model that was not deleted."""
    for identifier, content in tracker.record.cards.all(MODEL):
        if content and not content.get("deleted"):
            yield identifier, content


def find_model(tracker: Tracker, name: str) -> tuple[str, dict[str, Any]] | None:
    """A registered model by its name."""
    return next((each for each in all_models(tracker) if each[1]["name"] == name), None)


def model_of(tracker: Tracker, fields: Fields) -> tuple[str, dict[str, Any]]:
    """The registered model that a call names."""
    name = fields.needed("name", most=256)
    found = find_model(tracker, name)
    if found is None:
        raise absent(f"Registered Model with name={name[:100]} not found")
    return found


def number_of(fields: Fields) -> int:
    """The version that a call names."""
    return fields.whole("version", least=1)


def card_of(tracker: Tracker, identifier: str, content: dict[str, Any], number: int) -> dict[str, Any]:
    """The card of a version that was not deleted."""
    card = tracker.record.cards.get(VERSION, f"{identifier}.{number}")
    if not card or card.get("deleted"):
        raise absent(f"Model Version (name={content['name'][:100]}, version={number}) not found")
    return card


def cards_of(tracker: Tracker, identifier: str, content: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The versions of a model, the latest first."""
    for number in range(content["latest"], 0, -1):
        card = tracker.record.cards.get(VERSION, f"{identifier}.{number}")
        if card and not card.get("deleted"):
            yield number, card


def change_model(tracker: Tracker, fields: Fields, change: Any) -> dict[str, Any]:
    """Change the card of the model that a call names."""
    with tracker.lock:
        identifier, content = model_of(tracker, fields)
        change(content)
        content["updated"] = now()
        tracker.record.cards.put(MODEL, identifier, content)
        return {"registered_model": public_model(tracker, identifier, content)}


def change_version(tracker: Tracker, fields: Fields, change: Any) -> dict[str, Any]:
    """Change the card of the version that a call names."""
    with tracker.lock:
        identifier, content = model_of(tracker, fields)
        number = number_of(fields)
        card = card_of(tracker, identifier, content, number)
        change(card)
        card["updated"] = now()
        tracker.record.cards.put(VERSION, f"{identifier}.{number}", card)
        return {"model_version": public_version(tracker, content, number, card)}


def versions_of(tracker: Tracker, content: dict[str, Any]) -> Versions:
    """A model's versions in the record."""
    return Versions(tracker.record.ledger, tracker.record.store, content["called"])


def orders_of(fields: Fields) -> list[str]:
    """What a list is to be sorted by."""
    return fields.texts("order_by", most=100)


def latest_of(tracker: Tracker, identifier: str, content: dict[str, Any]) -> list[dict[str, Any]]:
    """The latest version in each stage."""
    stages: dict[str, dict[str, Any]] = {}
    for number, card in cards_of(tracker, identifier, content):
        stages.setdefault(card["stage"], public_version(tracker, content, number, card))
    return list(stages.values())


def public_model(tracker: Tracker, identifier: str, content: dict[str, Any]) -> dict[str, Any]:
    """A model as MLflow's JSON has it."""
    return {
        "name": content["name"],
        "creation_timestamp": content["created"],
        "last_updated_timestamp": content["updated"],
        "latest_versions": latest_of(tracker, identifier, content),
        "tags": listed(content["tags"]),
        "aliases": [{"alias": alias, "version": str(number)} for alias, number in content["aliases"].items()],
    } | ({"description": content["description"]} if content["description"] else {})


def version_of(tracker: Tracker, identifier: str, content: dict[str, Any], number: int) -> dict[str, Any]:
    """A version as MLflow's JSON has it."""
    return public_version(tracker, content, number, card_of(tracker, identifier, content, number))


def public_version(tracker: Tracker, content: dict[str, Any], number: int, card: dict[str, Any]) -> dict[str, Any]:
    """The same, of a card."""
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


def point(tracker: Tracker, content: dict[str, Any], alias: str, digest: str | None) -> None:
    """Move an alias in the record."""
    versions = versions_of(tracker, content)
    known = versions.find("model", digest) if digest else None
    tag = re.sub(r"[^a-z0-9_-]", "-", alias.lower())
    if versions.alias("model", tag) != known:
        versions.point(tag, known, reason="set by a client")
