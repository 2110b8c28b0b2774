"""``treadle status``."""

from __future__ import annotations

import click

from treadle.cli.output import emit, here, json_option, say
from treadle.project import open_project
from treadle.standing import summary


@click.command()
@json_option
def status(as_json: bool) -> None:
    """Where everything stands: versions in force, deployment, alerts, counts, what is waiting.

    \b
    Example:
      treadle status --json
    """
    with open_project(here()) as project:
        shown = summary(project)
    if as_json:
        emit(shown)
        return
    say(f"project     {shown['project']}")
    for alias in ("champion", "challenger"):
        version = shown[alias]
        say(f"{alias:<11} {version['ref'] + '  ' + version['digest'][:11] if version else 'none'}")
    deployment = shown["deployment"]
    say(f"deployment  {deployment['model'] + ' at ' + deployment['endpoint'] if deployment else 'none: treadle serve'}")
    say("counts      " + ", ".join(f"{count:,} {name}" for name, count in shown["counts"].items()))
    for alert in shown["alerts"]:
        say(f"ALERT       {alert['kind']}: {alert['detail']}")
    for erasure in shown["pending"]:
        say(f"PENDING     {erasure}")
