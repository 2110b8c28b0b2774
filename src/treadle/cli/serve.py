"""``treadle serve``."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from treadle.asking import find_release
from treadle.cli.number import Number
from treadle.cli.output import here, json_option, say, short
from treadle.core.digest import is_digest
from treadle.core.duration import seconds_of
from treadle.core.errors import UserError
from treadle.project import Project, open_project
from treadle.stages.deploy.carried import CarriedRelease, own_record, read_carried
from treadle.stages.deploy.carried_keys import DEGRADE, project_keys, read_degrade
from treadle.stages.deploy.fetched import fetched
from treadle.stages.deploy.serving import carried_gateway, new_gateway

if TYPE_CHECKING:
    from treadle.serve.following import Follower, Guide
    from treadle.serve.gateway import Gateway
    from treadle.serve.release import ServedRelease
    from treadle.serve.served_model import ServedModel
    from treadle.serve.table import Table
    from treadle.stages.deploy import DeploySettings

_CONSOLE = "/console"


@click.command()
@click.argument("release", required=False)
@click.option("--host", envvar="TREADLE_HOST", help="Address to listen on; anything but loopback needs an API key.")
@click.option(
    "--port", type=click.IntRange(0, 65535), envvar="TREADLE_PORT", help="Port to listen on; 0 takes a free one."
)
@click.option(
    "--keep",
    type=Number(0, 86400),
    default=600,
    show_default=True,
    help="Seconds that a replaced champion stays open, so that a rollback needs no loading. Until then it costs the"
    " memory of one more model; 0 closes it at once.",
)
@click.option(
    "--no-key",
    is_flag=True,
    envvar="TREADLE_NO_KEY",
    help="Listen beyond loopback without TREADLE_API_KEY: only where a platform in front asks who calls.",
)
@click.option(
    "--release-folder",
    type=click.Path(path_type=Path),
    envvar="TREADLE_RELEASE_FOLDER",
    help="Serve the release in this folder, without a project, as containers do.",
)
@click.option(
    "--journal",
    type=click.Path(path_type=Path),
    envvar="TREADLE_JOURNAL",
    help="With --release-folder: where interactions are recorded.",
)
@click.option(
    "--digest",
    envvar="TREADLE_RELEASE_DIGEST",
    help="With --release-folder: refuse to start when the folder is not this release.",
)
@click.option(
    "--remote",
    envvar="TREADLE_RELEASE_REMOTE",
    help="With --release-folder and --digest: where treadle push sent the release; it is fetched from there, checked,"
    " and put into the folder whole, unless it is there.",
)
@click.option("--name", envvar="TREADLE_RELEASE_NAME", help="With --release-folder: the model's name, NAME@v1.")
@click.option(
    "--degrade-for",
    metavar="TIME",
    envvar=DEGRADE,
    help="With --release-folder: how long API keys are taken for good while their database is away, such as 10m;"
    " without it none is.",
)
@json_option
def serve(
    release: str | None,
    host: str | None,
    port: int | None,
    keep: float,
    no_key: bool,
    release_folder: Path | None,
    journal: Path | None,
    digest: str | None,
    remote: str | None,
    name: str | None,
    degrade_for: str | None,
    as_json: bool,
) -> None:
    """Serve through an OpenAI-style API: the champion, and a canary beside it, as the record says at each moment.

    A promotion, a rollback, a canary's next step and an erasure are followed within seconds; no request is lost by it.
    While a canary is tried, deploy.sticky says whose requests stay with one release: those of a user, a key, or a
    header's value.
    With RELEASE (a version, an alias or a digest) it is that release and stays so; deploy.fallback and deploy.shadow
    stand beside it as they do beside the champion.
    deploy.also_serve names other projects for whose models this server answers as well.

    With TREADLE_API_KEY set, or a key made by treadle keys create, every request needs one. With the
    former, the console's pages are under /console and ask for it. /metrics is for Prometheus. With --release-folder
    the keys are those of the project whose PostgreSQL ledger TREADLE_KEYS_DATABASE names by its URL.
    Ends on Ctrl-C or SIGTERM after the requests in flight. The contracts of SageMaker, Vertex AI (its AIP_* variables
    say where), TensorFlow Serving and KServe are answered as well: docs/stages/deploy.md.

    \b
    Example:
      treadle serve
      treadle serve model@v1 --port 9000
      treadle serve --release-folder release --journal journal
      treadle serve --release-folder release --journal journal --digest b3:... --remote s3://bucket/team
    """
    from treadle.serve.contracts import asked_port

    port = asked_port() if port is None else port
    if release_folder is not None:
        _refuse_of_project()
        if journal is None:
            raise UserError("serve --release-folder: --journal DIR is missing; nothing is answered unrecorded")
        if journal.exists() and not journal.is_dir():
            raise UserError(f"serve --journal {journal}: is a file; expected a folder, made where it is missing")
        carried = _carried(release_folder, digest, remote, name)
        degraded = read_degrade(degrade_for)
        _serve_folder(carried, journal, host, port, no_key=no_key, degrade_seconds=degraded, as_json=as_json)
        return
    _refuse_of_folder()
    with open_project(here()) as project:
        _serve_project(project, release, host, port, keep=keep, no_key=no_key, as_json=as_json)


def _refuse_of_project() -> None:
    """``UserError`` for what --release-folder leaves without a meaning."""
    context = click.get_current_context()
    for name, said in (("release", "RELEASE"), ("keep", "--keep")):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UserError(
                f"serve --release-folder: {said} is of a project; leave it out, the folder holds one release"
            )


def _refuse_of_folder() -> None:
    """``UserError`` for an option that is of --release-folder alone."""
    context = click.get_current_context()
    for name in ("journal", "digest", "remote", "name", "degrade_for"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = f"--{name.replace('_', '-')}"
            settled = "; in a project, deploy.degrade_for says it" if name == "degrade_for" else ""
            raise UserError(f"serve {option}: it is of --release-folder DIR, which is missing{settled}")


def _serve_project(
    project: Project,
    release: str | None,
    host: str | None,
    port: int | None,
    *,
    keep: float,
    no_key: bool,
    as_json: bool,
) -> None:
    """What the record says, or the one release, and the models of other projects that the file names."""
    from treadle.hosting import guide_of, neighbors_of
    from treadle.serve.following import Follower, Followers
    from treadle.serve.gateway import API_KEY_VARIABLE
    from treadle.serve.server import run

    record, settings = project.record, project.file.deploy
    fixed = find_release(project, release) if release is not None or not settings.also_serve else None
    address = host or settings.host
    gateway: Gateway | None = None
    answering = False

    def keyed() -> bool:
        """Whether who asks now needs a key; before that, whether who asks first will."""
        if os.environ.get(API_KEY_VARIABLE):
            return True
        return gateway.keyring.required if gateway is not None and answering else bool(record.api_keys.all())

    def follower(guide: Guide, deploy: DeploySettings, model: ServedModel | None = None) -> Follower:
        said = None if as_json else partial(_tell, model.name if model is not None else project.file.name)
        return Follower(guide, keep_seconds=keep, on_switch=said, shadow=deploy.shadow, model=model)

    own = guide_of(project, _warn, fixed=fixed if release is not None else None)
    with neighbors_of(project, _warn, keyed) as neighbors, _console(address) as mounts:
        others = [follower(each.guide, each.file.deploy, each.model) for each in neighbors]
        followers = Followers([follower(own, settings), *others])

        async def open_gateway() -> Gateway:
            nonlocal gateway
            hosts = None if no_key else [*settings.hosts, address]
            gateway = _new_gateway(project, hosts, [each.model for each in neighbors])
            try:
                await followers.start(gateway)
            except BaseException:  # what was opened before the one that cannot be
                await gateway.close()
                raise
            return gateway

        def ready(url: str) -> None:
            nonlocal answering
            assert gateway is not None
            answering = True
            if as_json:
                click.echo(json.dumps({"url": url, **_described(gateway)}))
            else:
                lines = [_line(each.table) for each in gateway.models]
                say(f"{', '.join(filter(None, lines))} at {url}/v1; metrics at {url}/metrics; Ctrl-C ends it")

        run(
            open_gateway,
            host=address,
            port=settings.port if port is None else port,
            on_ready=ready,
            beside=followers.following,
            mounts=mounts,
            keyed=no_key or bool(record.api_keys.all()),
        )


def _new_gateway(project: Project, hosts: list[str] | None, others: list[ServedModel]) -> Gateway:
    """By the rules of the project's file; nothing answers yet."""
    from treadle.serve.table import Table

    settings = project.file.deploy
    return new_gateway(
        project.record,
        project.file.monitor.recording(project.file.govern.purpose),
        Table(),
        keyed=True,
        max_in_flight=settings.max_in_flight,
        seconds=seconds_of(settings.timeout),
        slo=settings.slo,
        hosts=hosts,
        degrade_seconds=settings.degrade_seconds,
        sticky=settings.sticky,
        others=others,
    )


def _described(gateway: Gateway) -> dict[str, Any]:
    """The release of the first model, and of each where there are several; null for one that does not answer yet."""
    told = []
    for model in gateway.models:
        found = model.table.champion or model.table.fallback
        served = found.release if found is not None else None
        told.append({"release": served and served.digest, "model": _ref(served) if served is not None else None})
    if len(told) == 1:
        return told[0]
    return told[0] | {"models": {model.name: each for model, each in zip(gateway.models, told, strict=True)}}


def _warn(said: str) -> None:
    click.echo(said, err=True)


def _carried(folder: Path, digest: str | None, remote: str | None, name: str | None) -> CarriedRelease:
    """The release in a folder, from a remote where one is named."""
    if remote and digest is None:
        raise UserError(
            "serve --remote: --digest is missing: that of the release to fetch, b3: and 64 hexadecimal digits"
        )
    if digest is not None and not is_digest(digest):
        raise UserError(f"serve --digest {digest}: expected b3: and 64 hexadecimal digits")
    with _ended_by_sigterm():
        if not remote:
            return read_carried(folder, expected=digest, name=name)
        carried, moved = fetched(folder, remote, digest, name=name)
    if moved is not None:
        what = f"{moved.objects:,} objects, {moved.bytes / 1e6:,.1f} MB"
        click.echo(f"fetched {carried.name} ({short(carried.digest)}) from {remote}: {what}", err=True)
    return carried


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """End at once, as by Ctrl-C: nothing is answered yet, and the first process of a container is deaf to a signal
    that it does not ask for."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _serve_folder(
    carried: CarriedRelease,
    journal: Path,
    host: str | None,
    port: int | None,
    *,
    no_key: bool,
    degrade_seconds: float,
    as_json: bool,
) -> None:
    """The one release, until it is told to end."""
    from treadle.serve.server import run
    from treadle.serve.table import Table

    address = host or "127.0.0.1"
    with own_record(journal, carried.spec.name) as record, project_keys(record) as keys:

        async def open_gateway() -> Gateway:
            return carried_gateway(
                record,
                carried.spec,
                Table(await carried.open()),
                hosts=None if no_key else [address],
                degrade_seconds=degrade_seconds,
                keys=keys,
            )

        def ready(url: str) -> None:
            if as_json:
                click.echo(json.dumps({"url": url, "release": carried.digest, "model": carried.name}))
            else:
                say(f"{carried.name} ({carried.digest[:11]}) answers at {url}/v1; metrics at {url}/metrics")

        keyed = no_key or (keys is not None and bool(keys.all()))
        run(open_gateway, host=address, port=8000 if port is None else port, on_ready=ready, keyed=keyed)


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


def _tell(name: str, table: Table) -> None:
    said = _line(table)
    say(f"{said} from now on" if said else f"nothing answers for {name}: the champion was withdrawn")


def _line(table: Table) -> str:
    said = []
    for each in table.answering():
        share = table.share_of(each)
        part = f" {share:.0%} of the requests" if share < 1 else ""
        said.append(f"{_ref(each.release)} ({each.release.digest[:11]}) answers{part}")
    if table.fallback is not None:
        what = "what these cannot" if said else "in place of the champion, which cannot be opened"
        said.append(f"{_ref(table.fallback.release)} ({table.fallback.release.digest[:11]}) answers {what}")
    if table.shadow is not None and said:
        copied = table.shadow.serving.release
        said.append(f"{_ref(copied)} ({copied.digest[:11]}) gets copies of {table.shadow.share:.0%}")
    return ", ".join(said)


def _ref(release: ServedRelease) -> str:
    return f"model/{release.name}" if "@" in release.name else release.name
