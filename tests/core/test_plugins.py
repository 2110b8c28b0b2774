"""Parts come in by name, from installed packages or the project's own folder, each with the version of its code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from treadle.core import plugins
from treadle.core.errors import UserError
from treadle.core.plugins import load

GROUP = "treadle.transforms"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A project's folder; what was imported from it is forgotten afterwards."""
    path, hooks = list(sys.path), list(sys.path_hooks)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if plugins._is_of_projects(module):
            del sys.modules[name]
    sys.path[:], sys.path_hooks[:] = path, hooks
    plugins._loaded.clear()
    plugins._opened.clear()


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder.joinpath(*name.split("_in_")[::-1]).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_function_from_the_project(folder: Path) -> None:
    write(folder, shorten_plugin="def shorten(text, *, limit=3):\n    return text[:limit]\n")
    found = load(GROUP, "shorten_plugin:shorten", folder)
    assert found.value("abcdef") == "abc"
    assert found.version.startswith("b3:")
    assert load(GROUP, "shorten_plugin:shorten", folder) == found


def test_the_version_follows_the_source_of_everything_imported(folder: Path) -> None:
    write(
        folder,
        part_a="from part_b import LIMIT\n\ndef f():\n    from part_pkg.deep import late\n    return LIMIT, late()\n",
        part_b="LIMIT = 1\n",
        part_c="unused = True\n",
        __init___in_part_pkg="",
        deep_in_part_pkg="from . import sibling\n\ndef late():\n    return sibling.VALUE\n",
        sibling_in_part_pkg="VALUE = 'x'\n",
    )
    versions = [load(GROUP, "part_a:f", folder).version]
    assert load(GROUP, "part_a:f", folder).value() == (1, "x")
    for name, text, result in [
        ("part_b", "LIMIT = 2\n", (2, "x")),  # a constant, and of the same length
        ("sibling_in_part_pkg", "VALUE = 'y'\n", (2, "y")),
        ("__init___in_part_pkg", "# changed\n", (2, "y")),
        ("part_a", "from part_b import LIMIT\n\ndef f():\n    return LIMIT\n", 2),
    ]:
        write(folder, **{name: text})
        found = load(GROUP, "part_a:f", folder)
        assert found.version not in versions
        assert found.value() == result  # the code that runs is the code that was versioned
        versions.append(found.version)
    write(folder, part_c="unused = False\n")
    assert load(GROUP, "part_a:f", folder).version == versions[-1]
    assert not list(folder.rglob("__pycache__"))


def test_a_folder_without_init_is_read_anew_as_well(folder: Path) -> None:
    write(folder, part_e="def f():\n    from loose import leaf\n    return leaf.VALUE\n", leaf_in_loose="VALUE = 'x'\n")
    assert load(GROUP, "part_e:f", folder).value() == "x"
    write(folder, leaf_in_loose="VALUE = 'y'\n")
    assert load(GROUP, "part_e:f", folder).value() == "y"


def test_an_environment_inside_the_project_is_not_its_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = folder / ".venv" / "site-packages"
    write(folder, part_d="import installed_thing\n\ndef f():\n    return installed_thing.VALUE\n")
    write(installed, installed_thing="VALUE = 1\n")
    monkeypatch.syspath_prepend(installed)
    found = load(GROUP, "part_d:f", folder)
    assert found.value() == 1
    module = sys.modules["installed_thing"]
    write(folder, part_d="import installed_thing\n\ndef f():\n    return -installed_thing.VALUE\n")
    assert load(GROUP, "part_d:f", folder).value() == -1
    assert sys.modules.pop("installed_thing") is module


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("absent:f", "there is no .*absent.py; it should define f"),
        ("broken_plugin:f", "broken_plugin.py cannot be read"),
        ("failing_plugin:f", "failing_plugin.py cannot be imported: ZeroDivisionError"),
        ("fine_plugin:shortn", "defines no 'shortn'; did you mean 'shorten'"),
        ("../fine_plugin:f", "is not module:function"),
        ("fine_plugin:", "is not module:function"),
        (":f", "is not module:function"),
        ("fine_plugin:a.b", "is not module:function"),
        ("json:f", "has the name of an installed module"),
        ("pytest:f", "has the name of an installed module"),
    ],
)
def test_what_is_wrong_with_a_name_is_one_line(folder: Path, name: str, expected: str) -> None:
    write(
        folder,
        broken_plugin="def f(:\n",
        failing_plugin="1 / 0\n",
        fine_plugin="def shorten(): ...\n",
        json="def f(): ...\n",
        pytest="def f(): ...\n",
    )
    with pytest.raises(UserError, match=expected) as caught:
        load(GROUP, name, folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="there is no project here"):
        load(GROUP, "fine_plugin:shorten", None)


def test_an_unknown_name_suggests_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        def __init__(self, name: str, value: Any) -> None:
            self.name, self.value, self.dist = name, "some.module:attribute", None
            self._value = value

        def load(self) -> Any:
            if isinstance(self._value, Exception):
                raise self._value
            return self._value

    entries = [Entry("shorten", len), Entry("lower", ImportError("no such package"))]
    monkeypatch.setattr(plugins, "entries", lambda group: entries)
    assert load(GROUP, "shorten").value is len
    with pytest.raises(UserError, match="there is no transform called 'shortn'; did you mean 'shorten'"):
        load(GROUP, "shortn")
    with pytest.raises(UserError, match="there is no transform called 'zzz'; known: lower, shorten"):
        load(GROUP, "zzz")
    with pytest.raises(UserError, match="cannot be loaded: no such package"):
        load(GROUP, "lower")


def test_two_projects_with_modules_of_one_name_get_each_their_own(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / name).mkdir()
        write(
            folder / name,
            same_guard=f"from same_words import WORD\n\ndef f():\n    return WORD + ' of {name}'\n",
            same_words=f"WORD = 'word {name}'\n",
        )
    found = {name: load(GROUP, "same_guard:f", folder / name).value for name in ("one", "two", "one", "two")}
    again = {name: load(GROUP, "same_guard:f", folder / name).value for name in ("one", "two")}
    for values in (found, again):
        assert {name: value() for name, value in values.items()} == {
            "one": "word one of one", "two": "word two of two"
        }  # fmt: skip
