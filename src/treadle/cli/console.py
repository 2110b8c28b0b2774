"""``treadle console``."""

from __future__ import annotations

import json
from contextlib import closing

import click

from treadle.cli.output import emit, here, json_option, say
from treadle.core.errors import MissingExtra, UserError


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), help="Port on loopback; 0 takes a free one.")
@click.option(
    "--as", "names", multiple=True, metavar="NAME", help="Whom a link is for, once for each person; by default you."
)
@click.option("--link", "only_link", is_flag=True, help="Only print a new link for the console that runs.")
@json_option
def console(port: int | None, names: tuple[str, ...], only_link: bool, as_json: bool) -> None:
    """A page to see the whole loop, read and correct answers, label, and approve; on this machine only.

    Prints a link for each person. A link works once, within ten minutes; what a person does is recorded under a keyed
    digest of their name. Ends on Ctrl-C. A server has the same pages under /console, where they ask for its API key.

    \b
    Example:
      treadle console
      treadle console --as ann --as ben
      treadle console --link --as ann
    """
    try:
        from treadle.console.app import create_console
        from treadle.console.running import address, listening, run
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "a package", extra="console") from None

    for name in names:
        if not name.strip() or len(name) > 100:
            raise UserError(f"--as {name[:40]!r}: expected a name of 1 to 100 characters")
    people: tuple[str | None, ...] = names or (None,)
    with closing(create_console(here())) as made:
        running = address(made.project.record.workspace.state)
        if only_link != bool(running):
            raise UserError(
                "no console of this project runs; start one with: treadle console"
                if only_link
                else f"the console of this project runs at {running}; get in with: treadle console --link"
            )

        def tell(url: str) -> None:
            links = {made.person(name).name: url + made.link(name) for name in people}
            if as_json and only_link:
                emit({"url": url, "links": links})
            elif as_json:
                click.echo(json.dumps({"url": url, "links": links}))
            else:
                for name, link in links.items():
                    say(f"{name}: {link}")
                ends = "" if only_link else "; Ctrl-C ends the console"
                say(f"each link opens once, within ten minutes{ends}")

        if running:
            tell(running)
        else:
            run(made, listening(port), tell)
