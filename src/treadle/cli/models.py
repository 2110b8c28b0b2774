"""``treadle models``."""

from __future__ import annotations

import click

from treadle.beginnings import Beginnings, beginnings
from treadle.cli.output import emit, json_option, say, table


@click.command()
@json_option
def models(as_json: bool) -> None:
    """What training can begin from: known models, and families from nothing; what fits this machine's memory.

    A Hugging Face folder, a .gguf file or a hub id does as well. What a training of a project will take is said by
    `treadle develop --estimate`.

    \b
    Example:
      treadle models
    """
    found = beginnings()
    if as_json:
        emit(found.public())
        return
    for line in _lines(found):
        say(line)


def _lines(found: Beginnings) -> list[str]:
    rows = [["base_model", "family", "parameters", "tasks", "license", "here"]]
    for model in found.models:
        need = f"{'fits' if model.fits else 'does not fit'}: {_size(model.memory)} to train all of it"
        here = need if model.installed else model.install
        row = [model.name, model.family, f"{model.parameters / 1e6:.1f}M", ", ".join(model.tasks), model.license, here]
        rows.append(row)
    lines = [*table(rows, right=(2,)), "", *table(_families(found), right=(2,)), ""]
    return [*lines, f"{_size(found.available)} of memory on this machine's {found.device}, in {found.precision}"]


def _families(found: Beginnings) -> list[list[str]]:
    rows = [["init", "tasks", "at most"]]
    return rows + [[each.name, ", ".join(each.tasks), f"{each.largest / 1e6:,.0f}M"] for each in found.families]


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
