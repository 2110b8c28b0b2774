"""The one door for parts that come in by name: entry points, and ``module:attribute`` from the project's own folder.

Built-in parts come in through the same entry points as anybody else's. A plugin's settings are checked against its signature.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from treadle.core.digest import blake3_bytes
from treadle.core.errors import UserError, nearest

GROUPS = (
    "treadle.engines",
    "treadle.sources",
    "treadle.transforms",
    "treadle.examples",
    "treadle.metrics",
    "treadle.checks",
    "treadle.executors",
    "treadle.sinks",
    "treadle.targets",
)


@dataclass(frozen=True, slots=True)
class Plugin:
    """A part found by name. ``version`` changes when its code does, and enters step keys."""

    name: str
    value: Any
    version: str


def names(group: str) -> list[str]:
    """What is installed under a group."""
    return sorted({entry.name for entry in entry_points(group=group)})


def load(group: str, name: str, folder: Path | None = None) -> Plugin:
    """The part called ``name``: an entry point, or ``module:attribute`` found in ``folder``; ``UserError`` otherwise."""
    if ":" in name:
        return _from_project(group, name, folder)
    for entry in entry_points(group=group):
        if entry.name == name:
            return Plugin(name, _load(entry), _entry_version(entry))
    noun = group.rpartition(".")[2].removesuffix("s")
    raise UserError(f"there is no {noun} called {name!r};{nearest(name, names(group))}")


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except ImportError as error:
        raise UserError(f"{entry.name} ({entry.value}) cannot be loaded: {error}") from error


def _entry_version(entry: EntryPoint) -> str:
    distribution = entry.dist
    return (
        "" if distribution is None or distribution.name == "treadle" else f"{distribution.name} {distribution.version}"
    )


def _from_project(group: str, name: str, folder: Path | None) -> Plugin:
    module_name, _, attribute = name.partition(":")
    if folder is None:
        raise UserError(f"{name!r} names code of a project, and there is no project here")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise UserError(f"{name!r} is not module:function")
    path = folder.joinpath(*module_name.split(".")).with_suffix(".py")
    if not path.is_file():
        raise UserError(f"{name!r}: there is no {path}; it should define {attribute}")
    module = _import_file(module_name, path)
    try:
        value = getattr(module, attribute)
    except AttributeError:
        public = [key for key in vars(module) if not key.startswith("_")]
        raise UserError(f"{path} defines no {attribute!r};{nearest(attribute, public)}") from None
    return Plugin(name, value, _source_version(module, folder))


def _import_file(module_name: str, path: Path) -> Any:
    root = str(path.parents[module_name.count(".")])
    if root not in sys.path:
        sys.path.insert(0, root)
    known = sys.modules.get(module_name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(module_name, None)
        raise UserError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _source_version(module: Any, folder: Path) -> str:
    """A digest over the module's source and that of the project's modules it imports."""
    seen: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        current = waiting.pop()
        file = getattr(current, "__file__", None)
        if file is None or file in seen or not Path(file).is_relative_to(folder):
            continue
        seen[file] = Path(file).read_bytes()
        for value in vars(current).values():
            owner = value if inspect.ismodule(value) else sys.modules.get(getattr(value, "__module__", None) or "")
            if owner is not None:
                waiting.append(owner)
    return blake3_bytes(b"\0".join(seen[file] for file in sorted(seen)))


def check_settings(name: str, function: Any, settings: dict[str, Any]) -> None:
    """``UserError`` when ``settings`` are not keyword parameters of ``function``, or a required one is missing."""
    parameters = {
        key: parameter
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    for key in settings:
        if key not in parameters:
            raise UserError(f"{name} has no setting {key!r};{nearest(key, list(parameters))}")
