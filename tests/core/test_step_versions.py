"""The source of a built-in step changes only together with its version.

``step_versions.json`` holds, by step, its version and a hash of its source as a syntax tree (without docstrings,
comments and layout), with the functions and constants of its module that it names. After raising a version:

    python tests/core/test_step_versions.py
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import sys
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from treadle.core.steps import Step

RECORD = Path(__file__).with_name("step_versions.json")
COMMAND = "python tests/core/test_step_versions.py"


def modules() -> list[ModuleType]:
    """Everything under treadle.stages."""
    import treadle.stages

    found = pkgutil.walk_packages(treadle.stages.__path__, "treadle.stages.", onerror=_raise)
    return [importlib.import_module(each.name) for each in found]


def _raise(name: str) -> None:
    raise ImportError(f"{name} cannot be imported")


def steps() -> dict[str, Step[Any]]:
    """Built-in steps by name; two of one name would share their keys."""
    found: dict[str, Step[Any]] = {}
    for module in modules():
        for value in vars(module).values():
            if isinstance(value, Step) and value.function.__module__ == module.__name__:
                assert found.setdefault(value.name, value) is value, f"two steps are called {value.name}"
    return found


def source_hash(function: Any) -> str:
    """A hash of what a function does, with the functions and constants of its own module that it names."""
    tree = ast.parse(inspect.getsource(sys.modules[function.__module__]))
    defined = {name: node for node in tree.body for name in _names(node)}
    waiting, seen = [function.__name__], dict[str, str]()
    while waiting:
        name = waiting.pop()
        node = defined.get(name)
        if node is None or name in seen:
            continue
        seen[name] = ast.dump(_bare(node))
        waiting.extend(each.id for each in ast.walk(node) if isinstance(each, ast.Name))
    return sha256("\n".join(seen[name] for name in sorted(seen)).encode()).hexdigest()[:16]


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _bare(node: ast.stmt) -> ast.stmt:
    """Without docstrings, and without the decorators of functions: they hold the version itself."""
    node = ast.parse(ast.unparse(node)).body[0]
    for each in ast.walk(node):
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if ast.get_docstring(each, clean=False) is not None:
                each.body = each.body[1:] or [ast.Pass()]
            if not isinstance(each, ast.ClassDef):
                each.decorator_list = []
    return node


def present() -> dict[str, dict[str, Any]]:
    return {
        name: {"version": each.version, "source": source_hash(each.function)} for name, each in sorted(steps().items())
    }


def test_a_step_that_changed_has_a_new_version() -> None:
    recorded, found = json.loads(RECORD.read_text()), present()
    assert found, "no step was found under treadle.stages"
    for name, now in found.items():
        before = recorded.get(name)
        assert before is not None, f"{name} is new: run {COMMAND}"
        if now["source"] != before["source"]:
            assert now["version"] > before["version"], (
                f"{name} changed: raise its version if its result can differ, then run {COMMAND}"
            )
            raise AssertionError(f"{name} has a new version: run {COMMAND}")
        assert now["version"] == before["version"], f"{name} has another version: run {COMMAND}"
    assert recorded.keys() == found.keys(), f"some steps are gone: run {COMMAND}"


def test_the_hash_ignores_layout_and_sees_meaning(tmp_path: Path) -> None:
    def hash_of(text: str) -> str:
        path = tmp_path / "hashed_module.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("hashed_module", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["hashed_module"] = module
        try:
            exec(compile(text, str(path), "exec"), module.__dict__)
            inspect.linecache.clearcache()  # type: ignore[attr-defined]
            return source_hash(module.f)
        finally:
            del sys.modules["hashed_module"]

    plain = "LIMIT = 3\n\ndef _help(x):\n    return x + LIMIT\n\ndef f(x):\n    return _help(x)\n"
    assert hash_of(plain) == hash_of(
        plain.replace("return _help(x)", '"""Words."""\n    # more\n    return _help( x )')
    )
    assert hash_of(plain) == hash_of(plain + "\ndef other():\n    return 9\n")
    assert hash_of(plain) != hash_of(plain.replace("x + LIMIT", "x - LIMIT"))
    assert hash_of(plain) != hash_of(plain.replace("LIMIT = 3", "LIMIT = 4"))
    assert hash_of(plain) != hash_of(plain.replace("return _help(x)", "return x"))


if __name__ == "__main__":
    RECORD.write_text(json.dumps(present(), indent=1, sort_keys=True) + "\n")
