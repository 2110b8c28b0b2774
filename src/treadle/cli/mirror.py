"""``treadle mirror``."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

import click

from treadle.cli.output import emit, here, json_option, say
from treadle.record.beside import VARIABLE
from treadle.record.mirrors import Mirror, Mirrors, switches
from treadle.tracking import open_record, record_folder

_LINES = 5  # of what the other side refused that a person is shown
_DUE_SECONDS = 600  # what runs beside other commands ends after this, wherever it is; the next one goes on


@click.command()
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="From the first row on; what is there is not doubled.")
@click.option("--due", is_flag=True, hidden=True)
@json_option
def mirror(name: str | None, everything: bool, due: bool, as_json: bool) -> int:
    """Bring other trackers up to date: runs, metrics over time, tags, datasets, versions.

    A mirror is on while the variable is set that the other tool's own client reads: MLFLOW_TRACKING_URI (a server);
    WANDB_API_KEY or WANDB_MODE=offline; COMET_API_KEY or COMET_OFFLINE=true; OPENLINEAGE_URL or OPENLINEAGE_CONFIG.
    Commands and runs of your own bring them up to date beside their work; this does it now and says what was delivered,
    what waits, and why. Each goes on where it stopped. Texts of more than one word leave as digests only.

    \b
    Example:
      treadle mirror
      treadle mirror mlflow --all
    """
    if due:
        signal.alarm(_DUE_SECONDS)
    # What other tools' clients print is not ours to say.
    with _by_itself(), open_record(here()) as record, contextlib.redirect_stdout(sys.stderr):
        told = Mirrors(record, record_folder(here())).deliver(name, due=due, everything=everything)
    if as_json:
        emit([each.public() for each in told])
    else:
        _tell(told)
    return 1 if any(each.error for each in told) else 0


@contextlib.contextmanager
def _by_itself() -> Iterator[None]:
    """What is opened here starts no other process that delivers."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def _tell(told: list[Mirror]) -> None:
    if not told:
        say("no mirror is switched on; each is by a variable of the environment:")
        for name, variables in switches().items():
            say(f"  {name:<12} {variables}")
    for each in told:
        waits = f", {each.waiting:,} wait" if each.waiting else ""
        say(f"{each.name:<12} {each.place}: {each.sent:,} rows delivered{waits}")
        lines = [*each.told[-_LINES:], *([each.error] if each.error else [])]
        for line in lines:
            say(f"  {line}")
        if len(each.told) > _LINES:
            say(f"  and {len(each.told) - _LINES} lines like these; --json has them")
