"""``treadle listen``."""

from __future__ import annotations

import json

import click

from treadle.cli.output import here, json_option, say
from treadle.core.duration import parse_seconds
from treadle.core.errors import MissingExtra, UserError
from treadle.core.plugins import load
from treadle.tracking import open_or_make_record


@click.command()
@click.argument("protocol")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; anything but loopback needs TREADLE_API_KEY.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=5000, show_default=True, help="Port; 0 takes a free one."
)
@click.option(
    "--silence",
    default="6h",
    show_default=True,
    help="How long a run may say nothing before it counts as crashed; a later word makes it go on.",
)
@json_option
def listen(protocol: str, host: str, port: int, silence: str, as_json: bool) -> None:
    """Let programs of another tool log here, unchanged: a server that speaks its PROTOCOL, such as mlflow.

    What they log becomes runs, artifacts and versions of the project around this folder, or of a .treadle folder where
    there is no treadle.yaml. With TREADLE_API_KEY set, clients send it as a bearer token or as a password. Ends on
    Ctrl-C or SIGTERM after the requests in flight.

    \b
    Example:
      treadle listen mlflow --port 5000
      MLFLOW_TRACKING_URI=http://127.0.0.1:5000 python train.py
    """
    try:
        from treadle.serve.listener import GROUP, run
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "a package", extra="serve") from None

    try:
        patience = parse_seconds(silence)
    except ValueError as error:
        raise UserError(f"--silence {silence[:40]!r}: {error}") from None
    spoken = load(GROUP, protocol, here()).value
    with open_or_make_record(here()) as record:

        def ready(url: str) -> None:
            if as_json:
                click.echo(json.dumps({"url": url, "protocol": protocol}))
            else:
                say(f"{protocol} clients log to {url}; Ctrl-C ends it")

        run(record, protocol, spoken(record, silence=patience), host=host, port=port, on_ready=ready)
