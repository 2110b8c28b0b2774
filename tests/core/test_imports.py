"""No module imports, however lazily, something that imports it; the rules between layers are import-linter's."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import treadle

ROOT = Path(treadle.__file__).parent


def graph(root: Path, package: str) -> dict[str, set[str]]:
    """Imports between modules of a package: at the top, inside functions, and under TYPE_CHECKING alike."""
    paths = {_name(path, root, package): path for path in root.rglob("*.py")}
    return {name: _imports(name, path, paths) for name, path in paths.items()}


def _name(path: Path, root: Path, package: str) -> str:
    parts = (package, *path.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(name: str, path: Path, paths: dict[str, Path]) -> set[str]:
    found: set[str] = set()
    parts = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name in paths)
        elif isinstance(node, ast.ImportFrom):
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            inner = {f"{base}.{alias.name}" for alias in node.names} & paths.keys()
            found.update(inner or {base} & paths.keys())
    return found - {name}


def cycle(imports: dict[str, set[str]]) -> list[str]:
    """The modules of one import cycle, or nothing."""
    done: set[str] = set()

    def walk(name: str, above: list[str]) -> list[str]:
        if name in above:
            return [*above[above.index(name) :], name]
        if name not in done:
            for other in sorted(imports[name]):
                if found := walk(other, [*above, name]):
                    return found
            done.add(name)
        return []

    return next((found for name in sorted(imports) if (found := walk(name, []))), [])


def test_there_is_no_import_cycle() -> None:
    imports = graph(ROOT, "treadle")
    assert len(imports) > 50
    found = cycle(imports)
    assert not found, "import cycle: " + " -> ".join(found)


def test_a_cycle_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "sub" / "__init__.py").write_text("from . import deep\n")
    (tmp_path / "sub" / "deep.py").write_text("def f():\n    from ..other import g\n")
    (tmp_path / "other.py").write_text("if TYPE_CHECKING:\n    from pack.sub.deep import f\n")
    assert cycle(graph(tmp_path, "pack")) == ["pack.other", "pack.sub.deep", "pack.other"]


def test_core_and_record_load_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "numpy", "pyarrow", "starlette", "uvicorn", "click", "rich"}
    modules = [name for name in graph(ROOT, "treadle") if name.startswith(("treadle.core", "treadle.record"))]
    code = f"import sys, importlib\nfor m in {modules}: importlib.import_module(m)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())
