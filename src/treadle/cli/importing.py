"""``treadle import``: one subcommand for each thing that can be brought in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import click

from treadle.cli.output import emit, here, json_option, say, short
from treadle.core.errors import UserError, nearest
from treadle.project import Project, open_project

if TYPE_CHECKING:
    from treadle.importing.logs import ImportedRows

_OWN = ("model", "logs", "feedback")


class _Imports(click.Group):
    """The built-in ones, and whatever is installed under ``treadle.imports``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, the built-in ones first."""
        from treadle.core.plugins import names

        return [*_OWN, *(name for name in names("treadle.imports") if name not in _OWN)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A built-in one, or one made from a plugin's signature."""
        found = super().get_command(ctx, cmd_name)
        return found or (_plugin(cmd_name) if cmd_name in self.list_commands(ctx) else None)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with the nearest one suggested."""
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            raise UserError(f"import: there is no {args[0]!r};{nearest(args[0], known)}")
        return super().resolve_command(ctx, args)


@click.group("import", cls=_Imports, invoke_without_command=True)
@json_option
@click.pass_context
def import_(context: click.Context, as_json: bool) -> None:
    """Bring in what you have: it becomes versions, runs, interactions and feedback, and nothing is trained again.

    What is not known of it says "not recorded". The same import twice is one.

    \b
    Example:
      treadle import model ../models/helper --license Apache-2.0
      treadle import logs proxy.jsonl --model model@v1
      treadle import feedback ratings.csv --fields interaction=request_id,thumbs=rating
    """
    if context.invoked_subcommand is not None:
        return
    known = import_.list_commands(context)
    if as_json:
        emit({"imports": known})
    else:
        say(f"treadle import {{{','.join(known)}}}; --help says more of each")


@contextmanager
def _changing(as_json: bool) -> Iterator[Project]:
    """The project, held for changing it."""

    def waiting(holder: str) -> None:
        if not as_json:
            say(f"waiting for {holder}, which has this project")

    with open_project(here()) as project, project.record.workspace.exclusive(waiting):
        yield project


@import_.command()
@click.argument("place", metavar="FOLDER|GGUF")
@click.option("--license", "license_name", help="Its license, such as Apache-2.0; from its model card by default.")
@click.option("--note", help="Anything worth knowing about it.")
@json_option
def model(place: str, license_name: str | None, note: str | None, as_json: bool) -> None:
    """A model folder (Hugging Face layout, safetensors) or GGUF file becomes a version; the next turn judges it.

    `treadle run` then tests it, makes a release of it and lets the gates decide, without training. Corrections of its
    answers start the next turn from it. Pickled weights are refused: loading them can run code.

    \b
    Example:
      treadle import model ../models/helper --license Apache-2.0
      treadle run
    """
    from treadle.importing.models import import_model

    with _changing(as_json) as project:
        found = import_model(project, place, license=license_name, note=note)
    if as_json:
        emit(found.public())
        return
    say(f"{found.version.ref}  {short(found.version.digest)}  license {found.license}; trained on: not recorded")
    say("it is champion already" if found.turn is None else f"turn {found.turn} judges it; treadle run")


def _moment(context: click.Context, parameter: click.Parameter, value: str | None) -> object:
    from treadle.importing.exchanges import moment_of

    found = moment_of(value) if value is not None else None
    if value is not None and found is None:
        raise UserError(f"--time {value}: expected ISO 8601, such as 2026-01-31 or 2026-01-31T12:00:00Z")
    return found


def _tell(found: ImportedRows, as_json: bool) -> None:
    if as_json:
        emit(found.public())
        return
    say(found.accounting.line())
    for rule, count in sorted(found.accounting.dropped.items()):
        say(f"dropped {count:>7,}  {rule}")
    for piece in found.accounting.quarantined[:20]:
        say(f"quarantined {piece.source}: {piece.reason}")
    if len(found.accounting.quarantined) > 20:
        say(f"... and {len(found.accounting.quarantined) - 20:,} more quarantined; --json names all")


@import_.command()
@click.argument("places", metavar="FILE|URL...", nargs=-1, required=True)
@click.option("--model", metavar="REF", help="The version that gave the answers, such as model@v1.")
@click.option("--time", callback=_moment, help="The time of lines that say none (ISO 8601).")
@click.option("--note", help="Anything worth knowing about it.")
@json_option
def logs(places: tuple[str, ...], model: str | None, time: datetime | None, note: str | None, as_json: bool) -> None:
    """Logs of an OpenAI-style endpoint become interactions: in = kept + dropped by rule + quarantined.

    One JSON object a line (also .gz): {"request": {...}, "response": {...}}; a proxy's flat row with messages and
    response; or output of a batch, whose input file is given before it. Times, tokens, users, errors and the chunks
    of streams are taken where they are written down. Texts are kept as monitor.record says; rows older than
    monitor.retention and those of erased people are dropped. A line that came before is dropped. A time more than a
    day ahead is quarantined.

    \b
    Example:
      treadle import logs proxy.jsonl --model model@v1
      treadle import logs batch_input.jsonl batch_output.jsonl
    """
    from treadle.importing.logs import import_logs

    with _changing(as_json) as project:
        found = import_logs(project, places, model=model, time=time, note=note)
    _tell(found, as_json)


@import_.command()
@click.argument("file", required=False)
@click.option("--url", help="A database, as in sqlite:///ratings.db; ${env:NAME} for one with a password.")
@click.option("--query", help="What to ask it; its columns are named in --fields.")
@click.option("--fields", required=True, metavar="FIELD=COLUMN,...", help="Which column is what.")
@click.option("--note", help="Anything worth knowing about it.")
@json_option
def feedback(
    file: str | None, url: str | None, query: str | None, fields: str, note: str | None, as_json: bool
) -> None:
    """A table of feedback (CSV, JSON lines or an SQL query) is joined to interactions.

    Fields: interaction (an id, or the request's id), thumbs, score, correction, preference, comment, user, time.
    Rows about unknown interactions, and from the future, are quarantined with their numbers. The same row twice is one
    piece of feedback.
    What is older than the latest turn is learned from by the next one, but does not start it: treadle run --next.

    \b
    Example:
      treadle import feedback ratings.csv --fields interaction=request_id,thumbs=rating,user=email
      treadle import feedback --url sqlite:///app.db --query "select id, fixed from fixes" \\
          --fields interaction=id,correction=fixed
    """
    from treadle.importing.feedback import import_feedback

    if (file is None) == (url is None):
        raise UserError("import feedback: give a FILE, or --url with --query")
    named = dict(part.partition("=")[::2] for part in fields.split(","))
    if not all(named.values()):
        raise UserError("--fields: expected FIELD=COLUMN pairs, as in interaction=id,thumbs=rating")
    with _changing(as_json) as project:
        found = import_feedback(
            project,
            file or url or "",
            {name.strip(): column.strip() for name, column in named.items()},
            query=query,
            note=note,
        )
    _tell(found, as_json)


def _plugin(name: str) -> click.Command:
    """A subcommand for what is installed under ``treadle.imports``: a place, and settings by ``--with``."""
    from treadle.core.plugins import load

    value = load("treadle.imports", name).value

    @click.command(name=name, help=value.__doc__)
    @click.argument("place")
    @click.option("--with", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of this import.")
    @json_option
    def command(place: str, settings: tuple[str, ...], as_json: bool) -> None:
        from treadle.importing.outside import bring

        with _changing(as_json) as project:
            found = bring(project, name, place, settings)
        if as_json:
            emit(found.public())
        else:
            for line in found.lines:
                say(line)

    return command
