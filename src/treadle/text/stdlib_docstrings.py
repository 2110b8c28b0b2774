"""Run as a script in a fresh interpreter: the documentation in the standard library's own objects, as JSON
lines.

It imports nothing of Treadle and little else, since everything imported here could change what is found. One
line a piece, in an order that depends on this Python alone: {"name", "kind", "module", "signature", "doc",
"inherited"} or {"name", "error"}. Arguments are modules to skip.
"""

import importlib
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

# Windows, demonstrations, tests, or effects on import.
SKIPPED = frozenset(
    {"antigravity", "distutils", "ensurepip", "idlelib", "lib2to3", "msilib", "pydoc_data", "test", "tests", "this"}
    | {"tkinter", "turtle", "turtledemo", "venv"}
)
# What everybody calls it comes first, since an object is told under the first name it is met by.
FIRST = ("builtins", "os", "os.path", "collections", "collections.abc")
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")
_LIBRARY = os.path.dirname(os.__file__)  # noqa: PTH120 (nothing is imported that need not be)
_DEEPEST = 2  # classes in classes
_NOT_DOCUMENTATION = frozenset({"__doc__", "__module__", "__dict__", "__weakref__", "__annotations__"})

Piece = dict[str, Any]


def pieces(skip: frozenset[str]) -> Iterator[Piece]:
    """Every documented object of every public module, once, and the chapters that ``help()`` shows by
    topic.
    """
    modules: dict[str, ModuleType] = {}
    for name in (*FIRST, *sorted(sys.stdlib_module_names)):
        top = name.partition(".")[0]
        if not top.startswith("_") and top not in skip and name not in modules:
            yield from _import(name, modules, skip)
    seen: set[int] = set()
    rank = {name: place for place, name in enumerate(FIRST)}
    for name in sorted(modules, key=lambda name: (rank.get(name, len(FIRST)), name.count("."), name)):
        module = modules[name]
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield from _piece("module", name, name, module)
        yield from _members(name, module, seen)
    from pydoc_data.topics import topics

    for label, text in sorted(topics.items()):
        yield {
            "name": label,
            "kind": "topic",
            "module": "pydoc_data.topics",
            "signature": None,
            "doc": text,
            "inherited": False,
        }


def _import(name: str, modules: dict[str, ModuleType], skip: frozenset[str]) -> Iterator[Piece]:
    """Import a module and those below it; one that is not for this system, or broken, is an error of its
    own.
    """
    try:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            return
        module = importlib.import_module(name)
    except BaseException as error:  # a module may even call sys.exit when imported
        yield {"name": name, "error": f"cannot be imported: {type(error).__name__}"}
        return
    modules[name] = module
    for found in sorted(pkgutil.iter_modules(getattr(module, "__path__", ())), key=lambda found: found.name):
        if not found.name.startswith("_") and found.name not in skip:
            yield from _import(f"{name}.{found.name}", modules, skip)


def _members(name: str, module: ModuleType, seen: set[int]) -> Iterator[Piece]:
    exported = set(getattr(module, "__all__", ()))
    for key in sorted(exported | set(vars(module))):
        if key.startswith("_") and key not in exported:
            continue
        value = getattr(module, key, None)
        own = key in exported or getattr(value, "__module__", None) == name
        if not own or id(value) in seen or isinstance(value, ModuleType):
            continue
        if inspect.isclass(value):
            seen.add(id(value))
            yield from _class(f"{name}.{key}", name, value, seen, 0)
        elif inspect.isroutine(value):
            seen.add(id(value))
            yield from _piece("function", f"{name}.{key}", name, value)


def _class(name: str, module: str, value: type, seen: set[int], depth: int) -> Iterator[Piece]:
    yield from _piece("class", name, module, value)
    for key, raw in sorted(vars(value).items()):
        special = key.startswith("__") and key.endswith("__")
        if key in _NOT_DOCUMENTATION or (key.startswith("_") and not special):
            continue
        member = raw.__func__ if isinstance(raw, staticmethod | classmethod) else raw
        if inspect.isclass(member):
            if id(member) not in seen and member.__module__ == value.__module__ and depth < _DEEPEST:
                seen.add(id(member))
                yield from _class(f"{name}.{key}", module, member, seen, depth + 1)
        elif inspect.isroutine(member):
            yield from _piece("method", f"{name}.{key}", module, member, owner=value)
        elif isinstance(member, property) or inspect.isdatadescriptor(member):
            yield from _piece("property", f"{name}.{key}", module, member, owner=value)


def _piece(kind: str, name: str, module: str, value: Any, owner: type | None = None) -> Iterator[Piece]:
    doc = getattr(value, "__doc__", None)
    if isinstance(doc, str) and doc.strip():
        inherited = owner is not None and _inherited(owner, name.rpartition(".")[2], doc)
        signature = _signature(value) if kind in ("class", "function", "method") else None
        yield {"name": name, "kind": kind, "module": module, "signature": signature, "doc": doc, "inherited": inherited}


def _inherited(owner: type, key: str, doc: str) -> bool:
    return any(getattr(vars(base).get(key), "__doc__", None) == doc for base in owner.__mro__[1:])


def _signature(value: Any) -> str | None:
    """As text, without what differs from one run or machine to the next: addresses, the environment, where
    Python lies.
    """
    try:
        text = _ADDRESS.sub("", str(inspect.signature(value)))
    except (ValueError, TypeError, AttributeError, NameError):
        return None
    for place, name in (
        (repr(sys.executable), "sys.executable"),
        (repr(_LIBRARY), "stdlib"),
        (repr(os.environ), "os.environ"),
    ):
        text = text.replace(place, name)
    return text


def main() -> None:
    """Write to the descriptor that was standard output; what imported modules print goes nowhere."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    warnings.simplefilter("ignore")
    for piece in pieces(SKIPPED | frozenset(sys.argv[1:])):
        out.write(json.dumps(piece) + "\n")
    out.write('{"end": true}\n')
    out.close()
    os._exit(0)  # a module's thread or exit handler does not get to hold us up


if __name__ == "__main__":
    main()
