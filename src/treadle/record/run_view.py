"""One run with everything that is recorded of it, texts put back in their places."""

from __future__ import annotations

import json
from typing import Any

from treadle.core.run import METRICS
from treadle.core.runs import RunRecord
from treadle.core.texts import read_texts
from treadle.record.note import read_note
from treadle.record.record import Record

_KEPT_APART = ("tags", "texts", "more_texts", "notes")
_AROUND = ("branch", "command", "threads", "memory_bytes", "diff_bytes", "diff")


def whole(record: Record, run: RunRecord) -> dict[str, Any]:
    """What ``treadle runs RUN --json`` promises."""
    return {
        **described(record, run),
        "points": [{"step": row["step"], **row["values"]} for row in points(record, run.id)],
    }


def described(record: Record, run: RunRecord) -> dict[str, Any]:
    """All of it but the points. A text that was erased stays the digest that stands for it."""
    facts = run.facts
    texts: dict[str, str] = {}
    for digest in (facts.get("texts"), *facts.get("more_texts", ())):
        texts |= read_texts(record.store, digest)
    around = _stored(record, facts.get("surroundings"))
    notes = [read_note(record.store, digest) for digest in facts.get("notes", ())]
    return {
        **run.public(),
        "parameters": _put_back("params", run.parameters, texts),
        **{name: value for name, value in facts.items() if name not in _KEPT_APART},
        "tags": _put_back("tags", facts.get("tags", {}), texts),
        "notes": [note for note in notes if note is not None],
        **{name: around.get(name) for name in _AROUND},
    }


def points(record: Record, run: str) -> list[dict[str, Any]]:
    """The journal's rows about a run's metrics, in the order they were logged."""
    return record.workspace.journal.find_all(METRICS, run)


def _stored(record: Record, digest: str | None) -> dict[str, Any]:
    if not digest or not record.store.has_object(digest):
        return {}
    found: dict[str, Any] = json.loads(record.store.read(digest))
    return found


def _put_back(place: str, value: Any, texts: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _put_back(f"{place}.{name}", item, texts) for name, item in value.items()}
    if isinstance(value, list):
        return [_put_back(f"{place}.{number}", item, texts) for number, item in enumerate(value)]
    return texts.get(place, value) if isinstance(value, str) and value.startswith("k3:") else value
