"""Every command that is printed somewhere exists, with its options; those in console blocks are run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from docs.conftest import Treadle, write_reviews
from docs.pages import NOT_SHELL, PAGES, ROOT, Block, blocks, inline, words
from treadle.cli.main import COMMANDS
from treadle.cli.main import treadle as group

PARENT = click.Context(group, info_name="treadle")
BEGIN, END = "<!-- transcript:begin -->", "<!-- transcript:end -->"


def transcript() -> str:
    return (ROOT / "README.md").read_text().partition(BEGIN)[2].partition(END)[0]


def in_blocks() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in blocks(page):
            if block.language not in NOT_SHELL and block.text not in transcript():
                found += [(page.name, command) for command in block.commands()]
    return found


def options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts} | {"-h", "--help"}


def command(name: str) -> click.Command:
    found = group.get_command(PARENT, name)
    assert found is not None
    return found


@pytest.mark.parametrize(("page", "line"), sorted(set(in_blocks())))
def test_a_printed_command_parses(page: str, line: str) -> None:
    given = words(line)
    if given[:1] == ["--help"]:
        return
    name, *arguments = given
    assert name in COMMANDS, f"{page}: {line}"
    command(name).make_context(name, arguments, parent=PARENT)


@pytest.mark.parametrize(("page", "line"), sorted({(page.name, line) for page in PAGES for line in inline(page)}))
def test_a_command_in_the_text_exists_with_its_options(page: str, line: str) -> None:
    name, *arguments = words(line)
    if name.startswith("-"):
        assert name == "--help"
        return
    assert name in COMMANDS, f"{page}: {line}"
    for argument in arguments:
        assert not argument.startswith("-") or argument in options(command(name)), f"{page}: {line}"


def test_every_command_in_the_transcript_exists() -> None:
    for called in re.findall(r"\btreadle ((?:-C \S+ )?[a-z-]\S*[^\n]*)", transcript()):
        given = called.split("   ")[0].split()
        given = given[2:] if given[0] == "-C" else given
        name = given[0].rstrip(".,;:)")
        assert name in COMMANDS, called
        for argument in given[1:]:
            assert not re.match(r"--?[a-z]", argument) or argument.rstrip(")") in options(command(name)), called


def test_enough_is_checked() -> None:
    assert len(set(in_blocks())) > 40
    assert sum(1 for page in PAGES for _ in inline(page)) > 30


def consoles() -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language == "console"]


def test_console_blocks_run(tmp_path: Path, treadle: Treadle) -> None:
    """In order, in one folder: what an earlier block made is there for the next."""
    write_reviews(tmp_path / "reviews.jsonl")
    ran = 0
    for block in consoles():
        steps = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
        for step in steps:
            line, _, expected = step.partition("\n")
            done = treadle(tmp_path, *shlex.split(line)[1:])
            if expected.startswith("treadle: "):
                assert done.returncode in (1, 2), line
                assert done.stderr == expected, line
            else:
                assert done.returncode == 0, f"{line}: {done.stderr}"
                assert done.stdout, line
            ran += 1
    assert ran >= 10
