"""``treadle serve``."""

from __future__ import annotations

import json

import click

from treadle.asking import find_release
from treadle.cli.output import here, json_option, say
from treadle.project import open_project
from treadle.stages.deploy import opener


@click.command()
@click.argument("release", required=False)
@click.option("--host", help="Address to listen on; anything but loopback needs TREADLE_API_KEY.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one.")
@json_option
def serve(release: str | None, host: str | None, port: int | None, as_json: bool) -> None:
    """Serve RELEASE (a version, an alias or a digest; @champion by default) through an OpenAI-style API.

    Ends on Ctrl-C or SIGTERM after the requests in flight. /metrics is for Prometheus.

    \b
    Example:
      treadle serve
      treadle serve model@v1 --port 9000
    """
    from treadle.serve.server import run

    with open_project(here()) as project:
        record, settings = project.record, project.file.deploy
        chosen = find_release(project, release)
        recording = project.file.monitor.recording(project.file.govern.purpose)
        spec = chosen.read()
        version = next(iter(record.versions.with_digest(spec.model)), None)
        name = version.ref if version else spec.name

        def ready(url: str) -> None:
            record.deployments.record(chosen.digest, name, url)
            if as_json:
                click.echo(json.dumps({"url": url, "release": chosen.digest, "model": name}))
            else:
                say(f"{name} ({chosen.digest[:11]}) answers at {url}/v1; metrics at {url}/metrics; Ctrl-C ends it")

        run(
            opener(record, chosen, recording),
            host=host or settings.host,
            port=settings.port if port is None else port,
            on_ready=ready,
        )
