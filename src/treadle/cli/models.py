"""``treadle models``."""

from __future__ import annotations

from pathlib import Path

import click

from treadle.beginnings import Beginnings, beginnings
from treadle.cli.output import emit, json_option, say, table
from treadle.core.errors import UserError
from treadle.lm.unpickling import convert


@click.command()
@click.option("--unpickle", metavar="FOLDER", type=click.Path(path_type=Path), help="Convert this model's pickle.")
@click.option("--out", metavar="FOLDER", type=click.Path(path_type=Path), help="Where to, with safetensors.")
@json_option
def models(unpickle: Path | None, out: Path | None, as_json: bool) -> None:
    """What training can begin from: known models, and families from nothing; what fits this machine's memory.

    A Hugging Face folder, a .gguf file or a hub id does as well. What a training of a project will take is said by
    `treadle develop --estimate`.

    \b
    Example:
      treadle models
      treadle models --unpickle downloads/old-bert --out models/old-bert

    Weights in a pickle are never read, for that can run code. With --unpickle, which says that they are trusted, a
    process without network reads them, tensors only, and writes them as safetensors.
    """
    if (unpickle is None) != (out is None):
        raise UserError("models: --unpickle FOLDER and --out FOLDER belong together")
    if unpickle is not None and out is not None:
        convert(unpickle, out)
        emit({"model": str(out)}) if as_json else say(f"{out}: the weights of {unpickle}, as safetensors")
        return
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
