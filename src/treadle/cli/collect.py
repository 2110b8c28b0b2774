"""``treadle collect``: the first stage, once, or again whenever something changed."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import click

from treadle.cli.cycle import run_turn
from treadle.cli.output import emit, here, json_option, say, set_option
from treadle.core.driver import Silent
from treadle.core.errors import TreadleError, UserError
from treadle.cycle import Turn
from treadle.project import Project, open_project
from treadle.stages.collect import refresh as refresh_sources
from treadle.turning import turn


@click.command()
@click.option("--refresh", is_flag=True, help="Crawl websites anew, due or not; they send only what changed.")
@click.option("--watch", is_flag=True, help="Stay, and collect again whenever a source changed.")
@click.option("--interval", type=click.FloatRange(1, 86400), default=60.0, show_default=True, help="Seconds between.")
@set_option
@json_option
def collect(refresh: bool, watch: bool, interval: float, overrides: tuple[str, ...], as_json: bool) -> int:
    """Read every source into the corpus: in = kept + dropped + quarantined.

    Runs the cycle as far as this stage; steps that are remembered cost nothing.

    \b
    Example:
      treadle collect --json
      treadle collect --refresh
      treadle collect --watch --interval 300
    """
    if watch and as_json:
        raise UserError("--watch goes on for ever and --json is one document; use one of them")
    if not watch:
        with open_project(here(), overrides) as project:
            this = _collected(project, refresh=refresh, as_json=as_json)
            public, lines = shown(this.corpus.read_json("accounting.json"))
        if as_json:
            emit(public)
        else:
            for line in lines:
                say(f"collect   {line}")
        return 0 if this.ok else 1
    _watch(interval, overrides, refresh=refresh)
    return 0


def shown(found: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """An account, for a program and for a person."""
    public = {name: found[name] for name in ("in", "kept", "dropped", "quarantined")}
    lines = [f"dropped {count:>7,}  {rule}" for rule, count in sorted(public["dropped"].items())]
    lines += [
        f"quarantined {piece['source']} at {piece['offset']}: {piece['reason']}" for piece in public["quarantined"][:20]
    ]
    return public, lines


def _collected(project: Project, *, refresh: bool, as_json: bool) -> Turn:
    workspace = project.record.workspace
    with workspace.exclusive(lambda holder: None if as_json else say(f"waiting for {holder}, which has this project")):
        if refresh:
            tell = (lambda line: None) if as_json else (lambda line: say(f"collect   {line}"))
            refresh_sources(project.folder, workspace.runs.keyed_person, project.file.collect, tell)
        return run_turn(project, "collect", as_json=as_json)


def _watch(interval: float, overrides: tuple[str, ...], *, refresh: bool) -> None:
    """Collect, again and again. ``treadle.yaml`` is read anew each time; what fails is told, and tried again."""
    with open_project(here(), overrides):  # a file that cannot be read is told at once; later on it is waited for
        pass
    ended = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    told = ""
    while not ended.is_set():
        try:
            with open_project(here(), overrides) as project:
                if refresh or _changed(project):
                    _collected(project, refresh=refresh, as_json=False)
            refresh, failed = False, ""
        except TreadleError as error:
            failed = f"collect   failed: {error}"
        if failed and failed != told:
            say(failed)
        told = failed
        ended.wait(interval)


class _Heard(Silent):
    """Keeps what a plan says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """A line of a stage."""
        self.lines.append(line)


def _changed(project: Project) -> bool:
    """Whether collecting would do something: a step would run, or a website would be crawled."""
    heard = _Heard()
    results = turn(project, until="collect", listener=heard, planning=True).driver.stages
    return bool(heard.lines) or any(result.status == "skipped" for _, found in results for result in found)
