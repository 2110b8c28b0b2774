"""``treadle feedback``."""

from __future__ import annotations

from collections.abc import Callable

import click

from treadle.cli.number import Number
from treadle.cli.output import emit, here, json_option, say, table
from treadle.core.errors import UserError
from treadle.project import open_project
from treadle.record.feedback import UNSEEN, Kind, can_be_seen
from treadle.stages.improve import give_feedback


@click.command()
@click.argument("interaction", required=False)
@click.option("--thumbs", type=click.Choice(["up", "down"]), help="Good or not.")
@click.option("--score", type=Number(0, 1), help="How good, from 0 to 1.")
@click.option("--correction", help="What the answer should have been.")
@click.option("--comment", help="Anything else.")
@click.option("--user", help="Who says so; only a keyed digest of it is kept.")
@json_option
def feedback(
    interaction: str | None,
    thumbs: str | None,
    score: float | None,
    correction: str | None,
    comment: str | None,
    user: str | None,
    as_json: bool,
) -> None:
    """Say what you think of an answer, or list all feedback when no INTERACTION is named.

    \b
    Example:
      treadle feedback int-01K9... --correction "Serialize obj to a JSON string."
      treadle feedback
    """
    with open_project(here()) as project:
        if interaction is None:
            rows = [row.to_dict() for row in project.record.recorder.all_feedback()]
            if as_json:
                emit(rows)
            else:
                lines = [["feedback", "interaction", "kind", "value", "text"]]
                lines += [
                    [row["id"], row["interaction"], row["kind"], str(row["value"]), (row["correction"] or "")[:60]]
                    for row in rows
                ]
                for line in table(lines):
                    say(line)
            return
        kind, value = _kind(thumbs, score, correction)
        clean = _cleaner(project.file.monitor.record)
        row = give_feedback(
            project.record,
            interaction,
            kind,
            value,
            clean(correction) if correction else None,
            clean(comment) if comment else None,
            user,
        )
    if as_json:
        emit(row.to_dict())
    else:
        say(f"{row.id} on {row.interaction}: {row.kind}")


def _kind(thumbs: str | None, score: float | None, correction: str | None) -> tuple[Kind, float | None]:
    given: list[tuple[Kind, float | None]] = []
    if thumbs:
        given.append(("thumbs", 1.0 if thumbs == "up" else 0.0))
    if score is not None:
        given.append(("score", score))
    if correction is not None:
        if not can_be_seen(correction):
            raise UserError(f"feedback: --correction: {UNSEEN}; say what the answer should have been")
        given.append(("correction", None))
    if len(given) != 1:
        raise UserError("feedback: give exactly one of --thumbs, --score and --correction")
    return given[0]


def _cleaner(mode: str) -> Callable[[str], str | None]:
    if mode == "full":
        return lambda text: text
    if mode == "none":
        return lambda text: None
    from treadle.text.personal_data import redact

    return redact
