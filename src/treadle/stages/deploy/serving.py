"""Serving a release, or whatever the record says ought to answer, and knowing which servers there are."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.core.duration import seconds_of
from treadle.lm.own_model import PROJECT
from treadle.record.api_key_use import UNCOUNTED, ApiKeyUse
from treadle.record.deployment import Routing
from treadle.record.record import Record
from treadle.record.recording import Recording
from treadle.record.release import Release, ReleaseSpec
from treadle.record.slo import Slo
from treadle.record.version import ALIASES

if TYPE_CHECKING:
    from treadle.serve.following import View
    from treadle.serve.gateway import Gateway
    from treadle.serve.release import ServedRelease, Serving
    from treadle.serve.served_model import ServedModel
    from treadle.serve.table import Table

LEASE = "serve:"  # and the URL: held by a server for as long as it answers
_BEAT = 10.0  # seconds between two signs of life
_ANSWER = 10.0  # seconds for an answer of the database
FindRelease = Callable[[], str | None]


def serving_now(record: Record) -> list[str]:
    """URLs of the servers that are alive."""
    return [name.removeprefix(LEASE) for name in record.workspace.state.live_leases(LEASE)]


def opener(record: Record, release: Release, recording: Recording) -> Callable[[], Awaitable[Gateway]]:
    """What opens a gateway for one release, in the server's event loop."""

    async def open_gateway() -> Gateway:
        from treadle.serve.table import Table

        return new_gateway(record, recording, Table(await open_release(record, release)))

    return open_gateway


def new_gateway(
    record: Record,
    recording: Recording,
    table: Table,
    *,
    keyed: bool = False,
    max_in_flight: int = 256,
    seconds: float = 600.0,
    slo: Slo | None = None,
    hosts: Sequence[str] | None = (),
    degrade_seconds: float = 0.0,
    sticky: str = "user",
    keys: ApiKeyUse | None = None,
    others: Sequence[ServedModel] = (),
) -> Gateway:
    """A gateway that records by the project's rules, and holds no more requests than these allow, none for more than
    ``seconds``; ``keyed``: the
    project's API keys are good there, and needed, as ``keys`` of another record's database are; ``hosts``,
    ``degrade_seconds`` and ``sticky`` as in `GatewaySettings`; ``others``: models of other projects, which answer
    beside it."""
    from treadle.serve.gateway import Gateway, GatewaySettings
    from treadle.text.personal_data import redact

    settings = GatewaySettings(
        record=recording.mode,
        retention_seconds=recording.retention,
        purpose=recording.purpose,
        max_in_flight=max_in_flight,
        request_seconds=seconds,
        slo=slo,
        hosts=None if hosts is None else frozenset(map(str.lower, hosts)),
        degrade_seconds=degrade_seconds,
        sticky=sticky,
    )
    workspace = record.workspace
    folder = workspace.root / UNCOUNTED
    if keyed:
        bound_database(record)
        keys = ApiKeyUse(workspace.database, workspace.state, record.api_keys, folder)
    name = record.name if others else ""
    return Gateway(table, record.recorder, settings=settings, redact=redact, keys=keys, name=name, others=others)


def carried_gateway(
    record: Record,
    spec: ReleaseSpec,
    table: Table,
    *,
    hosts: Sequence[str] | None,
    degrade_seconds: float,
    keys: ApiKeyUse | None,
) -> Gateway:
    """A gateway where the project is not: it records, and holds requests, as the release says. The rest as
    `new_gateway`."""
    carried = spec.settings
    return new_gateway(
        record,
        Recording.carried(carried.get("recording")),
        table,
        max_in_flight=int(carried.get("max_in_flight", 256)),
        seconds=seconds_of(carried.get("timeout", "10m")),
        slo=Slo(**carried["slo"]) if carried.get("slo") else None,
        hosts=hosts,
        degrade_seconds=degrade_seconds,
        keys=keys,
    )


def bound_database(record: Record) -> None:
    """A database that hangs is one that is away."""
    record.workspace.database.bound(_ANSWER)


async def open_release(
    record: Record, release: Release, project: Path | None = None, threads: int | None = None
) -> Serving:
    """Open the engine; files are verified in a thread, so that others are answered meanwhile. ``project``: the folder
    with guardrails of one's own, that of the project that is open by default. ``threads`` of the engine; None: all."""
    import asyncio

    spec = await asyncio.to_thread(release.read)
    folder = (await asyncio.to_thread(release.path, "release.json")).parent / "model"
    version = next(iter(await asyncio.to_thread(record.versions.with_digest, spec.model)), None)
    name = f"{spec.name}@v{version.number}" if version else spec.name
    aliases = await asyncio.to_thread(_aliases, record, release.digest, spec.model)
    created = int(datetime.fromisoformat(version.time).timestamp()) if version else 0
    served = served_as(spec, release.digest, name, aliases, created)
    return await open_serving(served, spec, folder, project, threads)


def served_as(
    spec: ReleaseSpec, digest: str, name: str, aliases: tuple[str, ...] = (), created: int = 0
) -> ServedRelease:
    """What the API says of a release."""
    from treadle.serve.release import Price, ServedRelease

    return ServedRelease(
        name=name,
        digest=digest,
        aliases=aliases,
        created=created,
        task=spec.task,
        asking=spec.asking,
        system_prompt=spec.system_prompt,
        max_tokens=int(spec.settings.get("max_tokens", 256)),
        price=Price(**spec.settings["price"]) if spec.settings.get("price") else None,
    )


async def open_serving(
    served: ServedRelease, spec: ReleaseSpec, folder: Path, project: Path | None = None, threads: int | None = None
) -> Serving:
    """Open the engine of a release on its ``model`` folder, and its guardrails; ``project`` and ``threads`` as in
    `open_release`."""
    import asyncio

    from treadle.lm.engines import open_engine
    from treadle.lm.tokenizer import ChatTokenizer
    from treadle.lm.upstream import UpstreamEngine
    from treadle.lm.worker_engine import WorkerEngine
    from treadle.serve.guardrail_settings import open_guardrails
    from treadle.serve.release import Serving

    guardrails = open_guardrails(spec.settings.get("guardrails") or {}, project or _project())
    given = dict(spec.optimization.get("settings") or {})
    engine = await open_engine(spec.engine, folder, threads=threads, settings=given)
    if spec.asking not in ("chat", "extract"):
        return Serving(served, engine, guardrails=guardrails)
    if isinstance(engine, WorkerEngine | UpstreamEngine):  # it has one already, and loading takes time and memory
        return Serving(served, engine, engine.tokenizer, guardrails)
    try:
        return Serving(
            served,
            engine,
            await asyncio.to_thread(ChatTokenizer.load, folder, opening=served.system_prompt),
            guardrails,
        )
    except BaseException:
        await engine.close()
        raise


def _project() -> Path | None:
    """The folder of the project that is open, for guardrails of its own."""
    named = os.environ.get(PROJECT)
    return Path(named) if named else None


class RecordGuide:
    """What a server follows: the record's routing, or one release for as long as it is there.

    Reports to the record: a lease with a heartbeat while the server lives, deployments as they change, an alert when a
    release that is wanted cannot be opened.
    """

    def __init__(
        self,
        record: Record,
        fixed: Release | None = None,
        *,
        fallback: FindRelease | None = None,
        shadow: FindRelease | None = None,
        project: Path | None = None,
        threads: int | None = None,
    ) -> None:
        """``fallback`` and ``shadow`` find the releases that go by these names now; ``project`` and ``threads`` as in
        `open_release`."""
        self._record, self._threads = record, threads
        self._project = project
        self._fixed = fixed
        self._beside = (fallback, shadow)
        self._endpoint: str | None = None
        self._beaten = 0.0
        self._seen: tuple[int, frozenset[str]] | None = None
        self._view: View | None = None
        self._models: dict[str, str] = {}
        self._lock = threading.Lock()

    def look(self, held: frozenset[str]) -> View:
        """As `Guide.look`; costs one small query when nothing was written since the last time."""
        self._beat()
        rows = self._record.ledger.database.query("SELECT coalesce(max(seq), 0) FROM ledger")
        seen = (int(rows[0][0]), held)
        if self._view is None or seen != self._seen:
            self._view = self._looked(held)
            self._seen = seen
        return self._view

    def _looked(self, held: frozenset[str]) -> View:
        from treadle.serve.following import View

        record = self._record
        record.recorder.let_go()
        routing = self._routing()
        wanted = routing.all() if routing else set()
        gone = frozenset(each for each in held - wanted if not record.store.has(each))
        there = (held | wanted) - gone
        return View(routing, gone, {each: _aliases(record, each, self._model(each)) for each in there})

    def _routing(self) -> Routing | None:
        """Who ought to answer, less what was erased."""
        store = self._record.store
        found = Routing(self._fixed.digest) if self._fixed else self._record.deployments.wanted()
        if found is None or not store.has(found.champion):
            return None
        if found.canary is not None and not store.has(found.canary):
            found = Routing(found.champion)
        fallback, shadow = (self._named(find, found.champion) for find in self._beside)
        return replace(found, fallback=fallback, shadow=shadow)

    def _named(self, find: FindRelease | None, champion: str) -> str | None:
        """The release that a name stands for; None where it is the champion, or not there yet, or no more."""
        release = find() if find is not None else None
        return release if release is not None and release != champion and self._record.store.has(release) else None

    def _model(self, release: str) -> str:
        if release not in self._models:
            self._models[release] = Release(release, self._record.store).read().model
        return self._models[release]

    def _ref(self, release: str) -> str:
        """The version that a release is of."""
        version = self._record.versions.find("model", self._model(release))
        return version.ref if version else self._record.name

    async def open(self, release: str) -> Serving:
        """As `Guide.open`."""
        return await open_release(self._record, Release(release, self._record.store), self._project, self._threads)

    def begin(self, endpoint: str) -> None:
        """Take the lease; what died without dropping one leaves none behind."""
        with self._lock:
            state = self._record.workspace.state
            for name in state.dead_leases(LEASE):
                state.drop_lease(name)
            state.take_lease(LEASE + endpoint)
            self._endpoint, self._beaten = endpoint, time.monotonic()

    def report(self, shares: Mapping[str, float]) -> None:
        """Write deployments down; what is not among them gets a share of nothing, an earlier server's included."""
        with self._lock:
            if self._endpoint is not None:
                self._deploy(self._endpoint, shares)

    def _deploy(self, endpoint: str, shares: Mapping[str, float]) -> None:
        deployments = self._record.deployments
        for release, share in shares.items():
            deployments.record(release, self._ref(release), endpoint, share)
        for each in deployments.all():
            if each.endpoint == endpoint and each.release not in shares:
                deployments.record(each.release, each.model, endpoint, 0.0)

    def cannot(self, release: str, reason: str) -> None:
        """Raise an alert; what answers goes on answering."""
        detail = f"{self._ref(release)} cannot be opened ({reason}); what answers goes on, the server's log says more"
        self._record.alerts.raise_("deploy", detail, release, {})

    def failing(self, release: str, place: str) -> None:
        """Raise an alert."""
        detail = f"{place}, which runs {self._ref(release)}, fails and is left alone until a request tries it again"
        self._record.alerts.raise_("deploy", detail, release, {})

    def end(self) -> None:
        """Nothing answers here any more."""
        with self._lock:
            endpoint, self._endpoint = self._endpoint, None
            if endpoint is not None:
                self._deploy(endpoint, {})
                self._record.workspace.state.drop_lease(LEASE + endpoint)

    def _beat(self) -> None:
        with self._lock:
            if self._endpoint is not None and time.monotonic() - self._beaten > _BEAT:
                self._record.workspace.state.beat(LEASE + self._endpoint)
                self._beaten = time.monotonic()


def _aliases(record: Record, release: str, model: str) -> tuple[str, ...]:
    """Aliases of the version; of several releases of one, champion is that which was promoted, challenger that which
    is on trial."""
    found = [alias for alias in ALIASES if _points_at(record, alias, model)]
    canary = record.canaries.open() if "challenger" in found else None
    others = set()
    if record.versions.served() != release:
        others.add("champion")
    if canary is not None and canary.model == model and canary.release != release:
        others.add("challenger")
    return tuple(alias for alias in found if alias not in others)


def _points_at(record: Record, alias: str, model: str) -> bool:
    version = record.versions.alias("model", alias)
    return version is not None and version.digest == model
