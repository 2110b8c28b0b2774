"""The pages, their code, and the commands printed in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOT_SHELL = ("python", "json", "toml", "yaml")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
# Up to where the shell takes the output; a sign in quotes is an argument's.
_COMMAND = re.compile(r"""treadle (?:"[^"]*"|'[^']*'|[^"'])*?(?= [>|] |$)""")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    text: str

    def commands(self) -> list[str]:
        """Lines that call treadle, without the prompt and what the shell does with the output."""
        lines = [line.strip().removeprefix("$ ") for line in self.text.splitlines()]
        return [match[0] for line in lines if (match := _COMMAND.match(line))]


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page."""
    return [Block(page, match[1], match[2]) for match in _FENCE.finditer(page.read_text(encoding="utf-8"))]


def inline(page: Path) -> Iterator[str]:
    """Commands that stand in the text."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    yield from (code for code in _INLINE.findall(text) if code.startswith("treadle "))


def words(command: str) -> list[str]:
    """The arguments of a command line, without ``treadle`` and ``-C DIR``."""
    found = shlex.split(command)[1:]
    return found[2:] if found[:1] == ["-C"] else found


def section(page: Path, heading: str) -> str:
    """The text under a heading, up to the next one of any level."""
    text = page.read_text(encoding="utf-8")
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, f"{page.name} has no {heading!r}"
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]
