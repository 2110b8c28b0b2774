"""``treadle status``."""

from __future__ import annotations

import click

from treadle.cli.output import emit, here, json_option, say
from treadle.project import open_project
from treadle.standing import summary
from treadle.timeline import timeline


@click.command()
@click.option(
    "--events", type=click.IntRange(0, 500), default=8, show_default=True, help="Of the timeline, the latest."
)
@json_option
def status(events: int, as_json: bool) -> None:
    """Where everything stands: versions in force, deployment, alerts, counts, what is due or waits, what happened.

    \b
    Example:
      treadle status --json
    """
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
    for alert in shown["alerts"]:
        say(f"ALERT       {alert['kind']}: {alert['detail']}")
    for erasure in shown["pending"]:
        say(f"PENDING     {erasure}")
    for event in reversed(told):
        say(f"{event.time[:19].replace('T', ' ')}  {event.text}")
