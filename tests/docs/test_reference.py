"""The generated parts are up to date, and what is public says what it is."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import treadle
from docs.pages import PAGES, ROOT

SCRIPT = "presence_check.py"  # copied out to others, and no module
SOURCES = sorted(path for path in (ROOT / "src" / "treadle").rglob("*.py") if path.name != SCRIPT)
FORBIDDEN = {"utils", "util", "helpers", "helper", "common", "misc"}


def script(name: str) -> ModuleType:
    if str(ROOT / "scripts") not in sys.path:  # where one script finds another
        sys.path.append(str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date() -> None:
    command = [sys.executable, "scripts/reference.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_check_names_the_page_that_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = script("reference")
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("before\n<!-- generated: settings top -->\nold\n<!-- end -->\nafter\n")
    for name in ("README.md", "CONTRIBUTING.md"):
        (tmp_path / name).write_text("nothing generated\n")
    monkeypatch.setattr(reference, "ROOT", tmp_path)
    assert reference.main(["--check"]) == 1
    assert "docs/page.md is not up to date" in capsys.readouterr().err
    assert "\nold\n" in page.read_text()
    assert reference.main([]) == 0
    assert "| `seed` | whole number ≥ 0 | `17` |" in page.read_text()
    assert page.read_text().endswith("<!-- end -->\nafter\n")
    assert reference.main(["--check"]) == 0


def test_every_setting_says_what_it_is() -> None:
    """Those without a description are named by what they are, and nothing is added to them by chance."""
    table = (ROOT / "docs" / "reference" / "settings.md").read_text()
    silent = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `") and line.endswith("|  |")}
    assert silent <= {
        "prepare.split.train",
        "prepare.split.validation",
        "prepare.split.test",
        "develop.method",
        "develop.learning_rate",
        "deploy.quantize.format",
        "deploy.host",
        "deploy.port",
    }


def test_every_part_of_every_page_is_known() -> None:
    reference = script("reference")
    asked = [line for page in PAGES for line in page.read_text().splitlines() if line.startswith("<!-- generated:")]
    assert {line.split()[2] for line in asked} == set(reference.PARTS)


def test_exported_names_resolve() -> None:
    assert set(treadle.__all__) == set(dir(treadle))
    for name in treadle.__all__:
        assert getattr(treadle, name).__doc__
    with pytest.raises(AttributeError, match="nonsense"):
        treadle.nonsense  # noqa: B018


def _public(node: ast.AST, prefix: str = "") -> list[tuple[str, ast.AST]]:
    """Public classes, functions and methods, without what is inside functions or private classes."""
    found: list[tuple[str, ast.AST]] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            decorators = [ast.unparse(each) for each in child.decorator_list]
            stub = ast.unparse(child.body[-1]) == "..." and len(child.body) == 1  # its class says what it is
            if not stub and not any(each == "overload" or each.endswith(".setter") for each in decorators):
                found.append((prefix + child.name, child))
            if isinstance(child, ast.ClassDef):
                found += _public(child, f"{prefix}{child.name}.")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_what_is_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text())
    silent = [] if ast.get_docstring(tree) else ["the module"]
    silent += [name for name, node in _public(tree) if not ast.get_docstring(node)]  # type: ignore[arg-type]
    assert not silent


def test_no_module_is_called_by_what_it_is_not() -> None:
    everywhere = [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
    assert not [path for path in everywhere if FORBIDDEN & {path.stem, *path.relative_to(ROOT).parts}]
