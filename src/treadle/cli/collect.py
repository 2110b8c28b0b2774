"""``treadle collect``: the first stage, once, or again whenever something changed."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import FrameType
from typing import Any

import click

from treadle.cli.cycle import run_turn
from treadle.cli.output import emit, here, json_option, say, set_option
from treadle.core.driver import Silent
from treadle.core.duration import parse_seconds
from treadle.core.errors import TreadleError, UserError
from treadle.core.fact import now
from treadle.cycle import Turn
from treadle.project import Project, open_project
from treadle.stages.collect import gather
from treadle.stages.collect import refresh as refresh_sources
from treadle.text.takeover import last_counts
from treadle.text.unit_notes import Counts
from treadle.turning import turn

_SHOWN = 20  # quarantined pieces


@click.command()
@click.option("--refresh", is_flag=True, help="Crawl websites anew, due or not; they send only what changed.")
@click.option("--watch", is_flag=True, help="Stay, and collect again whenever a source changed; one line a round.")
@click.option("--every", metavar="TIME", default="1m", show_default=True, help="Between two rounds: 30s, 5m, 1h.")
@set_option
@json_option
def collect(refresh: bool, watch: bool, every: str, overrides: tuple[str, ...], as_json: bool) -> int:
    """Read what is new or changed in every source into the corpus: in = kept + dropped + quarantined.

    Runs the cycle as far as this stage; steps that are remembered cost nothing, and what did not change is taken over
    from the corpus before. With --watch, --json gives one line of JSON a round.

    \b
    Example:
      treadle collect --json
      treadle collect --refresh
      treadle collect --watch --every 5m
    """
    if watch:
        _watch(_seconds(every), overrides, refresh=refresh, as_json=as_json)
        return 0
    with open_project(here(), overrides) as project:
        this = _collected(project, refresh=refresh, quiet=as_json)
        public, lines = shown(this.corpus.read_json("accounting.json"))
        counts = _counts(project, this, public)
    if as_json:
        emit({**public, **asdict(counts)})
    else:
        for line in lines:
            say(f"collect   {line}")
    return 0 if this.ok else 1


def shown(found: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """An account, for a program and for a person."""
    public = {name: found[name] for name in ("in", "kept", "dropped", "quarantined")}
    lines = [f"dropped {count:>7,}  {rule}" for rule, count in sorted(public["dropped"].items())]
    return public, lines + quarantined_lines(public["quarantined"])


def quarantined_lines(pieces: Sequence[Mapping[str, Any]], of: str = "") -> list[str]:
    """The first pieces that could not be read, for a person; ``of`` begins each line."""
    lines = [f"{of}quarantined {piece['source']} at {piece['offset']}: {piece['reason']}" for piece in pieces[:_SHOWN]]
    more = len(pieces) - _SHOWN
    return [*lines, f"{of}... and {more:,} more quarantined; --json names all"] if more > 0 else lines


def _seconds(every: str) -> float:
    try:
        seconds = parse_seconds(every)
    except ValueError as error:
        raise UserError(f"--every: {error}") from None
    if seconds < 1:
        raise UserError(f"--every is {every}; expected at least 1s")
    return seconds


def _collected(project: Project, *, refresh: bool, quiet: bool) -> Turn:
    workspace = project.record.workspace
    with workspace.exclusive(lambda holder: None if quiet else say(f"waiting for {holder}, which has this project")):
        if refresh:
            tell = (lambda line: None) if quiet else (lambda line: say(f"collect   {line}"))
            refresh_sources(project.folder, workspace.runs.keyed_person, project.file.collect, tell)
        return run_turn(project, "collect", as_json=quiet)


def _counts(project: Project, this: Turn, public: dict[str, Any]) -> Counts:
    """What was read for this account and what not; where the step was remembered, nothing was."""
    ran = any(
        result.step == gather.name and result.status == "done" for _, found in this.driver.stages for result in found
    )
    counts = last_counts(project.record.store, this.corpus.digest) if ran else None
    return counts or Counts(0, public["in"], 0)


def _watch(seconds: float, overrides: tuple[str, ...], *, refresh: bool, as_json: bool) -> None:
    """Collect, again and again. ``treadle.yaml`` is read anew each time; what fails is told, and tried again."""
    with open_project(here(), overrides):  # a file that cannot be read is told at once; later on it is waited for
        pass
    ended = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    while not ended.is_set():
        found: dict[str, Any] = {"time": now()}
        try:
            with open_project(here(), overrides) as project:
                line = _round(project, found, refresh=refresh)
            refresh = False
        except TreadleError as error:
            found["error"] = str(error)
            line = f"failed: {error}"
        say(json.dumps(found, ensure_ascii=False) if as_json else f"collect   {found['time'][:19]} {line}")
        ended.wait(seconds)


def _round(project: Project, found: dict[str, Any], *, refresh: bool) -> str:
    """One round, told in ``found`` and as a line. Where no source changed this only asks them."""
    if not (refresh or _due(project)):
        found["changed"] = False
        return "nothing changed"
    this = _collected(project, refresh=refresh, quiet=True)
    accounting = this.corpus.accounting()
    public, _ = shown(accounting.to_json())
    counts = _counts(project, this, public)
    changed = counts.read > 0 or counts.gone > 0
    found |= {"changed": changed, "corpus": this.corpus.digest, **public, "quarantined": len(public["quarantined"])}
    found |= asdict(counts)
    return f"{accounting.line()}; {counts.line()}" if changed else "nothing changed"


class _Heard(Silent):
    """Keeps what a plan says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """A line of a stage."""
        self.lines.append(line)


def _due(project: Project) -> bool:
    """Whether collecting would do something: a step would run, or a website would be crawled."""
    heard = _Heard()
    results = turn(project, until="collect", listener=heard, planning=True).driver.stages
    return bool(heard.lines) or any(result.status == "skipped" for _, found in results for result in found)
