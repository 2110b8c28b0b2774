"""One command a stage (two are in ``collect`` and ``develop``): run the cycle as far as that stage and show what it
gave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from treadle.cli.collect import quarantined_lines, shown
from treadle.cli.cycle import run_turn
from treadle.cli.output import emit, here, json_option, say, set_option
from treadle.cycle import Turn
from treadle.project import open_project
from treadle.text.duplicates import NO_DUPLICATES
from treadle.text.evaluation_set import told
from treadle.text.examples import NO_GROUP

Shown = tuple[dict[str, Any], list[str]]


def _prepare(this: Turn) -> Shown:
    accounting = this.prepared.dataset.read_json("accounting.json")
    public, lines = shown(accounting)
    public |= {"duplicates": accounting.get("duplicates", NO_DUPLICATES), "evaluation_sets": told(accounting)}
    for name, found in public["evaluation_sets"].items():
        gone = sum(found["dropped"].values())
        unread = f", {len(found['quarantined']):,} quarantined" if found["quarantined"] else ""
        lines.append(
            f"{name}: {found['met']:,} of {found['items']:,} items met, {gone:,} documents dropped for it{unread}"
        )
        lines += quarantined_lines(found["quarantined"], f"{name}: ")
    public["ungrouped"] = accounting.get("notes", {}).get(NO_GROUP, 0)
    report = this.prepared.report.shown("explore.html")
    return {**public, "splits": this.prepared.dataset.counts(), "report": report}, lines


def _track(this: Turn) -> Shown:
    found = [version for version in (this.tracked.dataset, this.tracked.model) if version]
    public = {version.kind: {"ref": version.ref, "digest": version.digest} for version in found}
    return public, [f"{version.ref}  {version.digest[:11]}" for version in found]


def _deploy(this: Turn) -> Shown:
    return this.deployed.public(), []


def _monitor(this: Turn) -> Shown:
    return this.monitored.public(), []


def _govern(this: Turn) -> Shown:
    return this.governed.public(), []


def _improve(this: Turn) -> Shown:
    return this.improved.public(), []


def _command(stage: str, show: Callable[[Turn], Shown], summary: str) -> click.Command:
    paragraphs = (
        summary,
        "Runs the cycle as far as this stage; steps that are remembered cost nothing.",
        f"\b\nExample:\n  treadle {stage} --json",
    )

    @click.command(name=stage, help="\n\n".join(paragraphs))
    @set_option
    @json_option
    def command(overrides: tuple[str, ...], as_json: bool) -> int:
        with open_project(here(), overrides) as project:
            this = run_turn(project, stage, as_json=as_json)
            public, lines = show(this)
        if as_json:
            emit(public)
        else:
            for line in lines:
                say(f"{stage:<9} {line}")
        return 0 if this.ok else 1

    return command


prepare = _command("prepare", _prepare, "Clean, make examples, split; writes a report with pictures.")
track = _command("track", _track, "Register versions of dataset and model.")
deploy = _command("deploy", _deploy, "Optimize the model, build a release, and try it over HTTP.")
monitor = _command("monitor", _monitor, "Latency, errors and drift of what the release answered.")
govern = _command("govern", _govern, "Judge the candidate by the gates and promote it when they hold.")
improve = _command("improve", _improve, "Count feedback, and say whether the next turn is due.")
