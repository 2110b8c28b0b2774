"""``treadle watch``."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType

import click

from treadle.cli.live import watching
from treadle.cli.number import Number
from treadle.cli.output import emit, here, json_option, say, set_option
from treadle.core.errors import TreadleError
from treadle.cycle import STAGES
from treadle.project import open_project
from treadle.turning import Pass, watch_once

_NICE = 19  # answers to users go first: what watch does takes the processor time that serving leaves


@click.command()
@click.option("--once", is_flag=True, help="One pass: what is due now, to its end.")
@click.option("--interval", type=Number(1, 86400), default=30.0, show_default=True, help="Seconds between.")
@set_option
@json_option
def watch(once: bool, interval: float, overrides: tuple[str, ...], as_json: bool) -> int:
    """The loop, unattended: measure what the champion answers, and run the next turn when improve.retrain_when says so.

    It works at the lowest priority, so that a server on the same machine answers first. Killed at any moment and
    started again, it goes on where it was. treadle.yaml is read anew in each pass.

    \b
    Example:
      treadle watch --once
      treadle watch --interval 60
    """
    with suppress(OSError):
        os.nice(_NICE)
    if once:
        done = _pass(overrides, as_json=as_json, patient=True)
        if as_json:
            emit(done.public())
        elif not done.did:
            say(f"watch     {done.improved.line()}")
        return 0 if done.ok else 1
    with open_project(here(), overrides):  # a file that cannot be read is told at once; later on it is waited for
        pass
    ended = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    told = ""
    while not ended.is_set():
        try:
            done = _pass(overrides, as_json=as_json, patient=False)
            line = "; ".join(done.did) or done.improved.line()
        except TreadleError as error:
            line = f"failed: {error}"
        if line != told and not as_json:
            say(f"watch     {line}")
            told = line
        ended.wait(interval)
    return 0


def _pass(overrides: tuple[str, ...], *, as_json: bool, patient: bool) -> Pass:
    with (
        open_project(here(), overrides) as project,
        project.record.workspace.exclusive(),
        watching(STAGES, quiet=as_json) as listener,
    ):
        return watch_once(project, listener, patient=patient)
