"""The guardrails that the file names, as a release keeps them and as a server opens them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from treadle.core import plugins, settings
from treadle.core.errors import UserError
from treadle.core.place import about
from treadle.serve.guardrail import Guardrails, Named

GROUP = "treadle.guardrails"


def described(
    given: Mapping[Literal["in", "out"], Sequence[str | dict[str, Any]]], folder: Path | None
) -> dict[str, Any]:
    """The settings as a release has them, checked: sides, each with names, settings and versions of code."""
    return {
        side: [_described(each, f"deploy.guardrails.{side}", place, folder) for place, each in enumerate(given[side])]
        for side in ("in", "out")
        if given.get(side)
    }


def open_guardrails(description: Mapping[str, Any], folder: Path | None) -> Guardrails:
    """The reverse. ``UserError`` where the project's code is no longer the one of the release."""
    return Guardrails(*(tuple(_open(each, folder) for each in description.get(side, ())) for side in ("in", "out")))


def _described(given: str | dict[str, Any], where: str, place: int, folder: Path | None) -> dict[str, Any]:
    if isinstance(given, str):
        name, values = given, dict[str, Any]()
    elif len(given) == 1 and isinstance(next(iter(given.values())), dict | None):
        ((name, said),) = given.items()
        values = said or {}
    else:
        raise UserError(f"{where}: expected a guardrail's name, or its name with its settings")
    with about(f"{where}[{place}]", name):
        part = plugins.load(GROUP, name, folder)
        settings.bind(part.value, values, where=f"{where}: {name}", provided={})
    return {"name": name, "settings": values, **({"version": part.version} if part.version else {})}


def _open(description: Mapping[str, Any], folder: Path | None) -> Named:
    name = description["name"]
    part = plugins.load(GROUP, name, folder)
    if part.version != description.get("version", ""):
        raise UserError(f"guardrail {name}: its code is not the one that the release was made with; run treadle deploy")
    guard = settings.bind(part.value, description["settings"], where=name, provided={})
    if getattr(guard, "action", None) not in ("refuse", "redact") or not hasattr(guard, "reach"):
        raise UserError(f"guardrail {name}: expected action (refuse or redact), reach and find")
    return Named(name, guard)
