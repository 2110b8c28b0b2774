"""How commands speak: one JSON document on stdout with ``--json``, plain lines otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """``--json``, on every command."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, nothing else.")(function)


def set_option(function: F) -> F:
    """``--set key.path=value``, on commands that run the cycle."""
    return click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting for this call."
    )(function)


def emit(value: Any) -> None:
    """The one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def say(line: str = "", **style: Any) -> None:
    """One line for a person."""
    click.echo(click.style(line, **style) if style else line)


def short(digest: str | None) -> str:
    """The first eight digits of a digest."""
    return digest[:11] if digest else "-"


def here() -> Path:
    """Where the command was started (``-C`` has been applied)."""
    return Path.cwd()


def table(rows: list[list[str]], right: tuple[int, ...] = ()) -> list[str]:
    """Rows with aligned columns; columns in ``right`` are aligned to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return [
        "  ".join(
            cell.rjust(widths[column]) if column in right else cell.ljust(widths[column])
            for column, cell in enumerate(row)
        ).rstrip()
        for row in rows
    ]


def say_who_is_waited_for(who: str) -> None:
    """Beside the output, for the commands that wait for their turn."""
    click.echo(f"waiting for {who}", err=True)
