"""``treadle status``."""

from __future__ import annotations

from typing import Any

import click

from treadle.cli.output import emit, here, json_option, say
from treadle.looking_back import moment, standing_at
from treadle.project import open_project
from treadle.standing import summary
from treadle.timeline import timeline


@click.command()
@click.option(
    "--events", type=click.IntRange(0, 500), default=8, show_default=True, help="Of the timeline, the latest."
)
@click.option("--at", "time", metavar="TIME", help="How it stood then: 2026-01-31 or 2026-01-31T12:00:00Z (UTC).")
@json_option
def status(events: int, time: str | None, as_json: bool) -> None:
    """Where everything stands: versions in force, deployment, alerts, counts, what is due or waits, what happened.

    With --at, which version answered at that time, with which settings, and who had approved it.

    \b
    Example:
      treadle status --json
      treadle status --at 2026-01-31T12:00:00Z
    """
    if time is not None:
        _then(moment(time), as_json=as_json)
        return
    with open_project(here()) as project:
        shown = summary(project)
        told = timeline(project.record, events) if events else []
    if as_json:
        emit(shown)
        return
    say(f"project     {shown['project']}")
    for alias in ("champion", "challenger"):
        version = shown[alias]
        say(f"{alias:<11} {version['ref'] + '  ' + version['digest'][:11] if version else 'none'}")
    deployment = shown["deployment"]
    say(f"deployment  {deployment['model'] + ' at ' + deployment['endpoint'] if deployment else 'none: treadle serve'}")
    canary = shown["canary"]
    if canary:
        what = f"release {canary['release'][:11]}, {canary['share']:.0%} of the traffic"
        say(f"canary      {what} since {canary['since']}")
    if shown["due"]:
        waits = f" (held back: {shown['held_back']})" if shown["held_back"] else ": treadle watch begins it"
        say("due         the next turn, by " + ", ".join(shown["due"]) + waits)
    say("counts      " + ", ".join(f"{count:,} {name}" for name, count in shown["counts"].items()))
    for mirror in shown["mirrors"]:
        waits = f"{mirror['waiting']:,} rows wait" if mirror["waiting"] else "up to date"
        say(
            f"mirror      {mirror['name']} at {mirror['place']}: {waits}"
            + (f"; {mirror['error']}" * bool(mirror["error"]))
        )
    for alert in shown["alerts"]:
        say(f"ALERT       {alert['kind']}: {alert['detail']}")
    for erasure in shown["pending"]:
        say(f"PENDING     {erasure}")
    for event in reversed(told):
        say(f"{event.time[:19].replace('T', ' ')}  {event.text}")


def _then(time: str, *, as_json: bool) -> None:
    with open_project(here()) as project:
        shown = standing_at(project, time)
    if as_json:
        emit(shown)
        return
    say(f"project     {shown['project']} at {shown['at']}")
    champion, release, training = shown["champion"], shown["release"], shown["training"]
    if champion is None:
        say("champion    none")
    else:
        say(f"champion    {champion['ref']}  {champion['digest'][:11]} since {champion['since']}: {champion['reason']}")
    for each in shown["deployments"]:
        say(f"answered    {each['model']} at {each['endpoint']}, {each['share']:.0%}, since {each['time']}")
    if shown["canary"]:
        say(f"canary      release {shown['canary']['release'][:11]}, {shown['canary']['share']:.0%} of the traffic")
    if release:
        say(f"release     engine {release['engine']}, " + _pairs(release["settings"]))
        if release["system_prompt"]:
            say(f"prompt      {release['system_prompt']}")
    if training:
        say(f"training    {training['step']} {training['run']}: " + _pairs(training["parameters"]))
    if shown["gates"]:
        gates = shown["gates"]["gates"].items()
        say("gates       " + ", ".join(f"{name} {'held' if held else 'did not hold'}" for name, held in gates))
    for word in shown["approvals"]:
        note = f": {word['note']}" if word["note"] else ""
        say(f"{word['decision']:<11} {word['actor']} at {word['time']}{note}")
    if champion and not shown["approvals"]:
        say("approvals   none were recorded")


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
