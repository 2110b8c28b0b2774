"""``treadle serve``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import click

from treadle.asking import find_release
from treadle.cli.output import here, json_option, say
from treadle.project import open_project
from treadle.stages.deploy.serving import RecordGuide, new_gateway

if TYPE_CHECKING:
    from treadle.serve.gateway import Gateway
    from treadle.serve.release import ServedRelease
    from treadle.serve.table import Table

_CONSOLE = "/console"


@click.command()
@click.argument("release", required=False)
@click.option("--host", help="Address to listen on; anything but loopback needs TREADLE_API_KEY.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.")
@click.option(
    "--keep",
    type=click.FloatRange(0, 86400),
    default=600,
    show_default=True,
    help="Seconds that a replaced champion stays open, so that a rollback needs no loading. Until then it costs the"
    " memory of one more model; 0 closes it at once.",
)
@json_option
def serve(release: str | None, host: str | None, port: int | None, keep: float, as_json: bool) -> None:
    """Serve through an OpenAI-style API: the champion, and a canary beside it, as the record says at each moment.

    A promotion, a rollback, a canary's next step and an erasure are followed within seconds; no request is lost by it.
    With RELEASE (a version, an alias or a digest) it is that release and stays so.

    With TREADLE_API_KEY set, the console's pages are under /console and ask for the key. /metrics is for Prometheus.
    Ends on Ctrl-C or SIGTERM after the requests in flight.

    \b
    Example:
      treadle serve
      treadle serve model@v1 --port 9000
    """
    from treadle.serve.following import Follower
    from treadle.serve.server import run
    from treadle.serve.table import Table

    with open_project(here()) as project:
        record, settings = project.record, project.file.deploy
        chosen = find_release(project, release)
        gateway = None
        recording = project.file.monitor.recording(project.file.govern.purpose)
        follower = Follower(
            RecordGuide(record, chosen if release is not None else None),
            keep_seconds=keep,
            on_switch=None if as_json else _tell,
        )

        async def open_gateway() -> Gateway:
            nonlocal gateway
            gateway = new_gateway(record, recording, Table(), max_in_flight=settings.max_in_flight, slo=settings.slo)
            await follower.start(gateway)
            return gateway

        def ready(url: str) -> None:
            assert gateway is not None
            served = gateway.serving.release
            if as_json:
                click.echo(json.dumps({"url": url, "release": served.digest, "model": _ref(served)}))
            else:
                say(f"{_line(gateway.table)} at {url}/v1; metrics at {url}/metrics; Ctrl-C ends it")

        address = host or settings.host
        with _console(address) as mounts:
            run(
                open_gateway,
                host=address,
                port=settings.port if port is None else port,
                on_ready=ready,
                beside=follower.following,
                mounts=mounts,
            )


@contextmanager
def _console(host: str) -> Iterator[Mapping[str, Any]]:
    """The console to mount, where there is a key for it and its packages are installed."""
    from treadle.serve.gateway import API_KEY_VARIABLE
    from treadle.serve.server import is_loopback

    key = os.environ.get(API_KEY_VARIABLE)
    if not key:
        yield {}
        return
    try:
        from treadle.console.app import create_console
    except ModuleNotFoundError:
        yield {}
        return
    with closing(create_console(here(), prefix=_CONSOLE, api_key=key, loopback=is_loopback(host))) as console:
        yield {_CONSOLE: console}


def _tell(table: Table) -> None:
    say(f"{_line(table)} from now on" if table.champion else "nothing answers: the champion was withdrawn")


def _line(table: Table) -> str:
    said = []
    for each in table.answering():
        share = table.share_of(each)
        part = f" {share:.0%} of the requests" if share < 1 else ""
        said.append(f"{_ref(each.release)} ({each.release.digest[:11]}) answers{part}")
    return ", ".join(said)


def _ref(release: ServedRelease) -> str:
    return f"model/{release.name}" if "@" in release.name else release.name
