"""``treadle schema``."""

from __future__ import annotations

import click

from treadle.cli.output import emit, json_option
from treadle.project import File


@click.command()
@json_option
def schema(as_json: bool) -> None:
    """Print the JSON Schema of treadle.yaml.

    \b
    Example:
      treadle schema > treadle.schema.json
    """
    emit({"$schema": "https://json-schema.org/draft/2020-12/schema", **File.model_json_schema()})
