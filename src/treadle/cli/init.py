"""``treadle init``."""

from __future__ import annotations

import csv
import json
import os
from importlib.resources import files
from pathlib import Path

import click

from treadle.cli.output import emit, json_option, say
from treadle.core.errors import UserError, nearest
from treadle.project import FILE

TEMPLATES = ("docs-assistant", "chat", "classifier", "tagger", "reader")
NEEDS_DATA = ("chat", "classifier", "tagger", "reader")
_TEXT = ("text", "review", "sentence", "content", "message", "question", "query", "utterance")
_LABEL = ("label", "labels", "sentiment", "category", "class", "intent", "target", "rating")
_HEAD = 1 << 20  # bytes of the data that are looked at for column names


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--template", default="docs-assistant", show_default=True, help="One of: " + ", ".join(TEMPLATES) + ".")
@click.option("--data", type=click.Path(path_type=Path), help="Your JSONL or CSV, for all but docs-assistant.")
@json_option
def init(folder: Path, template: str, data: Path | None, as_json: bool) -> None:
    """Make a working project in DIR: one commented treadle.yaml. Your data stays where it is.

    \b
    Example:
      treadle init docs --template docs-assistant
      treadle init mine --template chat --data chats.jsonl
    """
    if template not in TEMPLATES:
        raise UserError(f"there is no template {template!r};{nearest(template, TEMPLATES)}")
    target = folder / FILE
    if target.exists():
        raise UserError(f"{target} exists already; edit it, or choose another folder")
    text = _filled(template, folder, data)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{FILE}.{os.getpid()}"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
        ignore = folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text(".treadle/\n")
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}; choose a folder you may write to") from None
    if as_json:
        emit({"project": str(folder), "file": str(target), "template": template})
    else:
        say(f"{target}: the only file you edit")
        say(f"next: treadle -C {folder} plan, then treadle -C {folder} run")


def _filled(template: str, folder: Path, data: Path | None) -> str:
    text = (files("treadle.cli") / "templates" / f"{template}.yaml").read_text(encoding="utf-8")
    if template not in NEEDS_DATA:
        if data is not None:
            raise UserError(f"template {template} takes no --data; use --template " + " or ".join(NEEDS_DATA))
        return text
    if data is None:
        raise UserError(f"template {template} needs your rows: --data FILE.jsonl or FILE.csv")
    if not data.is_file():
        raise UserError(f"--data {data}: there is no such file; expected a JSONL or CSV file")
    values = {"data": json.dumps(os.path.relpath(data.resolve(), folder.resolve()))}
    if template == "classifier":
        columns = _columns(data)
        values |= {"text": _pick(columns, _TEXT, "text", data), "label": _pick(columns, _LABEL, "label", data)}
    return text.format(**values)


def _columns(data: Path) -> list[str]:
    with data.open("rb") as file:
        head = file.read(_HEAD).decode("utf-8", "replace").lstrip("\ufeff")
    first = head.partition("\n")[0]
    if data.suffix in (".csv", ".tsv"):
        return next(csv.reader([first], delimiter="\t" if data.suffix == ".tsv" else ","), [])
    try:
        row = json.loads(first)
    except ValueError:
        raise UserError(f"{data}:1: expected a JSON object a line, or a .csv with a header") from None
    if not isinstance(row, dict):
        raise UserError(f'{data}:1: expected a JSON object, such as {{"text": ..., "label": ...}}')
    return list(row)


def _pick(columns: list[str], usual: tuple[str, ...], role: str, data: Path) -> str:
    found = next((column for name in usual for column in columns if column.lower() == name), None)
    if found is None:
        raise UserError(
            f"{data}: no column looks like the {role}; there are {', '.join(columns)}: rename one to {role}"
        )
    return json.dumps(found)
