"""The one door for parts that come in by name: entry points, and ``module:attribute`` from the project's own folder.

Built-in parts come in through the same entry points as anybody else's. A plugin's settings are checked against its
signature.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from importlib.metadata import EntryPoint
from itertools import accumulate
from pathlib import Path
from types import CodeType
from typing import Any

from treadle.core.digest import blake3_bytes
from treadle.core.errors import TreadleError, UserError, nearest
from treadle.core.installed import entries, name_and_version

GROUPS = (
    "treadle.engines",
    "treadle.optimizations",
    "treadle.sources",
    "treadle.transforms",
    "treadle.examples",
    "treadle.metrics",
    "treadle.tasks",
    "treadle.fits",
    "treadle.models",
    "treadle.evaluations",
    "treadle.task_forms",
    "treadle.programs",
    "treadle.checks",
    "treadle.executors",
    "treadle.trainers",
    "treadle.strategies",
    "treadle.remotes",
    "treadle.samplers",
    "treadle.imports",
    "treadle.exports",
    "treadle.protocols",
    "treadle.sinks",
    "treadle.targets",
    "treadle.guardrails",
)

_opened: set[str] = set()  # projects whose folder is open to imports
_loaded: dict[Path, str] = {}  # the version of the project's code that each imported file belongs to


@dataclass(frozen=True, slots=True)
class Plugin:
    """A part found by name. ``version`` changes when its code does, and enters step keys."""

    name: str
    value: Any
    version: str


def names(group: str) -> list[str]:
    """What is installed under a group."""
    return sorted({entry.name for entry in entries(group)})


def load(group: str, name: str, folder: Path | None = None) -> Plugin:
    """The part called ``name``: an entry point, or ``module:attribute`` in ``folder``; ``UserError`` otherwise."""
    if ":" in name:
        return _from_project(name, folder)
    for entry in entries(group):
        if entry.name == name:
            return Plugin(name, _load(entry), _entry_version(entry))
    noun = group.rpartition(".")[2].removesuffix("s")
    raise UserError(f"there is no {noun} called {name!r};{nearest(name, names(group))}")


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        raise UserError(f"{entry.name} ({entry.value}) cannot be loaded: {error}") from error


def _entry_version(entry: EntryPoint) -> str:
    name, version = ("treadle", "") if entry.dist is None else name_and_version(entry.dist)
    return "" if name == "treadle" else f"{name} {version}"


def _from_project(name: str, folder: Path | None) -> Plugin:
    module_name, _, attribute = name.partition(":")
    if folder is None:
        raise UserError(f"{name!r} names code of a project, and there is no project here")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise UserError(f"{name!r} is not module:function")
    path = _file_of(module_name, folder)
    if path is None:
        expected = folder.joinpath(*module_name.split(".")).with_suffix(".py")
        raise UserError(f"{name!r}: there is no {expected}; it should define {attribute}")
    version = _source_version(module_name, folder)
    module = _import(module_name, path, folder, version)
    try:
        value = getattr(module, attribute)
    except AttributeError:
        public = [key for key in vars(module) if not key.startswith("_")]
        raise UserError(f"{path} defines no {attribute!r};{nearest(attribute, public)}") from None
    return Plugin(name, value, version)


def _import(module_name: str, path: Path, folder: Path, version: str) -> Any:
    known = sys.modules.get(module_name)
    if known is not None and _loaded.get(path) == version and _is_at(known, path):
        return known
    if module_name in sys.stdlib_module_names or (known is not None and not _is_of_projects(known)):
        raise UserError(f"{path} has the name of an installed module, {module_name}; give it another one")
    _forget_imports()  # the code on the disk counts, also that of what it imports
    _open_to_imports(folder)
    try:
        module = importlib.import_module(module_name)
    except TreadleError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    if not _is_at(module, path):
        raise UserError(f"{path} has the name of a module of another project that is open here, {module.__file__}")
    _loaded[path] = version
    return module


def _is_at(module: Any, path: Path) -> bool:
    found = getattr(module, "__file__", None)
    return found is not None and Path(found).resolve() == path.resolve()


class _FromSource(SourceFileLoader):
    """Reads the source each time: bytecode, kept by the second, would outlive a quick edit."""

    def get_code(self, fullname: str) -> CodeType:
        """Compiled from what is on the disk now."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _open_to_imports(folder: Path) -> None:
    """Let the project's modules import each other, after everything that is installed and before the modules of other
    projects that are open."""
    if str(folder) in _opened:
        _place_before(folder, _opened)
        return
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        _place_before(folder, _opened)
    _opened.add(str(folder))

    def finder(path: str) -> FileFinder:
        if not _is_of_project(Path(path), folder):
            raise ImportError
        return FileFinder(path, (_FromSource, SOURCE_SUFFIXES))

    sys.path_hooks.insert(0, finder)
    for path in list(sys.path_importer_cache):
        if _is_of_project(Path(path), folder):
            del sys.path_importer_cache[path]


def _place_before(folder: Path, others: Collection[str]) -> None:
    """In the path where modules are looked for."""
    places = [place for place, entry in enumerate(sys.path) if entry in others and entry != str(folder)]
    if str(folder) in sys.path and places and places[0] < (now := sys.path.index(str(folder))):
        sys.path.insert(places[0], sys.path.pop(now))


def _is_of_project(path: Path, folder: Path) -> bool:
    """Under the project's folder, and not under an environment or a source tree that lies in it."""
    others = (Path(entry) for entry in sys.path if Path(entry).is_relative_to(folder) and Path(entry) != folder)
    return path.is_relative_to(folder) and not any(path.is_relative_to(other) for other in others)


def _forget_imports() -> None:
    """Let every module of a project be read anew, with the packages without ``__init__`` that hold them."""
    for name, module in list(sys.modules.items()):
        if _is_of_projects(module):
            del sys.modules[name]
            for parent in accumulate(name.split(".")[:-1], "{}.{}".format):
                if getattr(sys.modules.get(parent), "__file__", None) is None:
                    sys.modules.pop(parent, None)


def _is_of_projects(module: Any) -> bool:
    return isinstance(getattr(getattr(module, "__spec__", None), "loader", None), _FromSource)


def _source_version(module_name: str, folder: Path) -> str:
    """A digest over the source of a module and of every module of the project that it imports, anywhere in its code."""
    seen: dict[str, bytes] = {}
    waiting = [module_name]
    while waiting:
        name = waiting.pop()
        path = _file_of(name, folder)
        if path is None or name in seen:
            continue
        seen[name] = path.read_bytes()
        waiting.extend(_imported(name, path, seen[name]))
    return blake3_bytes(b"\0".join(part for name in sorted(seen) for part in (name.encode(), seen[name])))


def _imported(name: str, path: Path, source: bytes) -> Iterator[str]:
    """Names that may be modules; a package's parents count, for importing it runs them."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    parts = name.split(".")
    package = parts if path.name == "__init__.py" else parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for each in found:
            yield from accumulate(each.split("."), "{}.{}".format)
    yield from accumulate(package, "{}.{}".format)


def _file_of(module_name: str, folder: Path) -> Path | None:
    base = folder.joinpath(*module_name.split("."))
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)
