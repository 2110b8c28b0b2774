"""``treadle rule``."""

from __future__ import annotations

import click

from treadle.cli.output import emit, here, json_option, say
from treadle.project import open_project
from treadle.stages.track.rule import RuleFacts, rule_facts

_SHOWN = 20


@click.command()
@click.argument("name")
@click.option(
    "--limit", type=click.IntRange(0), default=_SHOWN, show_default=True, help="Documents that are named (0: all)."
)
@json_option
def rule(name: str, limit: int, as_json: bool) -> int:
    """What the rule NAME looks for, who published it, and the documents it touched.

    NAME is as the report of prepare has it: redact.email, redact.drop_us_ssn, filter.min_chars. Of the latest
    preparation. treadle lineage --down follows a document on to the models and answers that came of it.

    \b
    Example:
      treadle rule redact.email
      treadle rule redact.email --limit 0 --json
    """
    with open_project(here()) as project:
        facts = rule_facts(project.record, name, limit)
    if as_json:
        emit(facts.public())
    else:
        _show(facts)
    return 0


def _show(facts: RuleFacts) -> None:
    if facts.source:
        say(f"{facts.name}: {facts.finds}")
        say(f"told by: {facts.check}")
        say(f"source: {facts.source}")
    if facts.dropped:
        say(f"dropped {facts.dropped:,} documents" + (", of which:" if facts.documents else ""))
    else:
        say(f"{facts.findings:,} findings in {facts.touched:,} documents" + (":" if facts.documents else ""))
    for document, count in facts.documents.items():
        say(f"  {document}" + (f"  {count:,}" if count > 1 else ""))
    rest = (facts.dropped or facts.touched) - len(facts.documents)
    if rest > 0:
        say(f"  and {rest:,} more" + ("" if facts.dropped else "; --limit 0 names all"))
