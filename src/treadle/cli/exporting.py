"""``treadle export``."""

from __future__ import annotations

from pathlib import Path

import click

from treadle.cli.output import emit, here, json_option, say
from treadle.project import open_project


@click.command()
@click.argument("tool")
@click.argument("ref")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where to, such as a folder.")
@click.option("--remote", help="dvc: the remote (a folder) that the files go to.")
@json_option
def export(tool: str, ref: str, out: Path, remote: str | None, as_json: bool) -> None:
    """Give the version or artifact REF to another TOOL, such as dvc, or write it out as a folder.

    dvc: a .dvc pointer and the objects behind it, which dvc pull (or dvc checkout) then fetches. folder: its files as
    they are, in a new folder. onnx: a model as ONNX files, checked output by output. tensorrt: the job that builds
    TensorRT engines of them, with a Triton repository. Other tools come in by the entry-point group treadle.exports.

    \b
    Example:
      treadle export dvc dataset@v1 --out ../data-repo
      treadle export folder @champion --out ../champion
      treadle export onnx @champion --out ../onnx
    """
    from treadle.exporting import export as write

    with open_project(here()) as project:
        done = write(project, tool, ref, out, {"remote": remote} if remote else {})
    if as_json:
        emit(done.public())
    else:
        say(f"{done.path}: {done.files} files, {done.written:,} bytes written; then: {done.then}")
