"""What a way of making a model smaller or faster is, and the door such ways come in by.

A way writes the form of the model that is served, and names the engine that serves it and how that is set. What it
costs is nobody's promise: it is measured on the release's own evaluation, and refused above the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from treadle.core import plugins
from treadle.core.errors import UserError

GROUP = "treadle.optimizations"
UNCHANGED = "unchanged"  # the way that all others are compared with

Task = Literal["chat", "classify"]


@dataclass(frozen=True)
class Material:
    """What a way may work with: the model's folder, a folder for what is only passing, and for a way that
    ``learns`` what the model was trained on: conversations whose last message is the answer, with the ``tools`` that
    each declares (as many as conversations, or none at all) and the prompt before it, or (text, label)."""

    model: Path
    scratch: Path
    conversations: Sequence[Sequence[Mapping[str, Any]]] = ()
    tools: Sequence[Sequence[Mapping[str, Any]]] = ()
    system_prompt: str | None = None
    labeled: Sequence[tuple[str, str]] = ()
    seed: int = 0
    progress: Callable[[int, int, str], None] = field(default=lambda _done, _total, _unit: None)


class Optimization(Protocol):
    """``version`` is raised when a way gives another result; ``packages`` are the distributions that can change it.

    ``learns``: it trains again after it has cut, so it is given what the model was trained on.
    """

    version: int
    tasks: tuple[Task, ...]
    packages: tuple[str, ...]
    engine: str
    settings: Mapping[str, Any]
    learns: bool

    def write(self, material: Material, out: Path) -> None:
        """Write to ``out`` what the engine opens; ``UserError`` where the model is not one it can work on."""
        ...


def names(task: str) -> list[str]:
    """The ways that are installed for a task, the unchanged model first. What cannot be loaded is among them, so that
    it is named when it is tried."""
    found = []
    for name in plugins.names(GROUP):
        try:
            if task in load(name).tasks:
                found.append(name)
        except UserError:
            found.append(name)
    return sorted(found, key=lambda name: (name != UNCHANGED, name))


def load(name: str, folder: Path | None = None) -> Optimization:
    """The way called ``name``, or ``module:Class`` of a project; ``UserError`` with the nearest name."""
    value = plugins.load(GROUP, name, folder).value
    way = value() if isinstance(value, type) else value
    missing = [
        part for part in ("version", "packages", "tasks", "engine", "settings", "write") if not hasattr(way, part)
    ]
    if missing:
        raise UserError(f"optimization {name}: {value!r} has no {missing[0]}; expected an Optimization")
    return cast("Optimization", way)


def code_version(name: str, folder: Path | None) -> str:
    """Changes with a way's code and with the packages it names, so that it is part of what is remembered."""
    way = load(name, folder)
    parts = [str(way.version), plugins.load(GROUP, name, folder).version]
    for package in way.packages:
        try:
            parts.append(f"{package} {version_of(package)}")
        except PackageNotFoundError:
            parts.append(f"{package} absent")
    return "; ".join(part for part in parts if part)
