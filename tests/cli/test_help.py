"""Help answers without loading what is heavy, shows an example, and every command speaks JSON."""

from __future__ import annotations

import subprocess
import sys

import pytest

from treadle.cli.main import COMMANDS, SUMMARIES, treadle

HEAVY = ("torch", "transformers", "numpy", "pyarrow", "openvino_genai", "starlette", "pydantic", "rich")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from treadle.cli.main import main; main(['--help']);"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "treadle.yaml" in done.stdout


def test_importing_the_package_starts_nothing() -> None:
    code = (
        "import sys, threading, treadle;"
        "print(len(threading.enumerate()), [name for name in sys.modules if 'treadle.' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1 []"


def test_every_command_is_summarized_once() -> None:
    assert set(COMMANDS) == set(SUMMARIES)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_and_json(name: str) -> None:
    import click

    command = treadle.get_command(click.Context(treadle), name)
    assert command is not None
    text = command.get_help(click.Context(command, info_name=name))
    assert "Example:" in text
    assert f"treadle {name}" in text
    assert any("--json" in parameter.opts for parameter in command.params)


def test_public_names_resolve() -> None:
    import treadle as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(dir(package)) >= set(package.__all__)
