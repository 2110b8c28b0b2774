"""``treadle doctor``."""

from __future__ import annotations

import click

from treadle.cli.output import emit, json_option, say
from treadle.doctor import examine

_MARKS = {"works": "ok   ", "missing": "--   ", "not exercised": "?    "}


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """What works on this machine, what is missing and how to get it, and what was never exercised here.

    \b
    Example:
      treadle doctor
    """
    findings = examine()
    if as_json:
        emit([finding.public() for finding in findings])
        return
    for finding in findings:
        say(f"{_MARKS[finding.state]} {finding.part:<22} {finding.detail}")
