"""The server's Prometheus metrics, in a registry of their own so that two gateways in one process do not mix."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.metrics import MetricWrapperBase

from treadle.lm.engine import EngineStats
from treadle.lm.upstream_address import upstreams_of
from treadle.serve.admission import Admission
from treadle.serve.release import Serving
from treadle.serve.served_model import ServedModel

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Seconds: from a cached prefix on a GPU to a long answer on a laptop.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
TOKENS_PER_SECOND = (1, 2, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 400)


class _AtHand(MetricWrapperBase):
    """A metric whose children are at hand: a request has a dozen, and looking one up takes a lock otherwise."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._children: dict[tuple[str, ...], Self] = {}

    def labels(self, *values: str) -> Self:  # type: ignore[override] # by place alone
        """The child with these values, which counts."""
        found = self._children.get(values)
        if found is None:
            found = self._children[values] = super().labels(*values)
        return found


class _Counter(_AtHand, Counter):
    pass


class _Histogram(_AtHand, Histogram):
    pass


class Observed(Protocol):
    """What the gauges are read off: the gateway."""

    @property
    def models(self) -> Sequence[ServedModel]:
        """What answers now."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests that hold a place."""
        ...

    @property
    def admission(self) -> Admission:
        """How many may hold one."""
        ...

    def in_flight_of(self, serving: Serving) -> int:
        """Those of them that a release answers."""
        ...

    def servings(self) -> list[Serving]:
        """Every release whose engine is open."""
        ...

    def engine_stats(self) -> EngineStats:
        """The open engines' own count, together."""
        ...


class Metrics:
    """Counters and histograms that handlers write; gauges are read off the gateway when somebody asks."""

    def __init__(self, gateway: Observed) -> None:
        self.registry = CollectorRegistry()
        self.requests = _Counter(
            "treadle_requests", "Requests answered, by endpoint and HTTP status (499: the client left).",
            ("endpoint", "status"), registry=self.registry,
        )  # fmt: skip
        self.seconds = _Histogram(
            "treadle_request_seconds", "From a request's arrival to the last byte of its answer.",
            ("endpoint",), buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.ttft = _Histogram(
            "treadle_time_to_first_token_seconds", "From a request's arrival to its first token.",
            ("endpoint",), buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.tokens = _Counter(
            "treadle_tokens", "Tokens read (prompt), written (completion), taken from the prefix cache (cached).",
            ("kind",), registry=self.registry,
        )  # fmt: skip
        self.tokens_per_second = _Histogram(
            "treadle_tokens_per_second", "Per request: tokens after the first, over the time since the first.",
            buckets=TOKENS_PER_SECOND, registry=self.registry,
        )  # fmt: skip
        self.errors = _Counter(
            "treadle_errors", "Requests that ended in an error, by its code.", ("code",), registry=self.registry
        )
        self.answers = _Counter(
            "treadle_answers", "Requests that reached a release, by how they ended: ok, failed, cancelled.",
            ("release", "status"), registry=self.registry,
        )  # fmt: skip
        self.key_requests = _Counter(
            "treadle_key_requests", "Requests that reached a release, by the id of the API key and how they ended.",
            ("key", "status"), registry=self.registry,
        )  # fmt: skip
        self.key_tokens = _Counter(
            "treadle_key_tokens", "Tokens read (prompt) and written (completion), by the id of the API key.",
            ("key", "kind"), registry=self.registry,
        )  # fmt: skip
        self.key_cost = _Counter(
            "treadle_key_cost", "What the requests of an API key cost, by its id.", ("key", "currency"),
            registry=self.registry,
        )  # fmt: skip
        self.key_uncounted = _Counter(
            "treadle_key_uncounted_requests", "Requests of an API key, by its id, that were answered while the database"
            " with keys and budgets was away.", ("key",), registry=self.registry,
        )  # fmt: skip
        self.key_refusals = _Counter(
            "treadle_key_refusals", "Requests refused by an API key's rules or limits, by its id and the code.",
            ("key", "code"), registry=self.registry,
        )  # fmt: skip
        self.guardrails = _Counter(
            "treadle_guardrail_findings", "What guardrails found, by side (in, out) and what was done.",
            ("guardrail", "side", "action"), registry=self.registry,
        )  # fmt: skip
        self.fallbacks = _Counter(
            "treadle_fallbacks", "Requests that another release answered, for theirs could not.",
            ("release", "answered_by"), registry=self.registry,
        )  # fmt: skip
        self.shadow_requests = _Counter(
            "treadle_shadow_requests", "Copies for a release on trial: ok, failed, cancelled, or dropped.",
            ("release", "status"), registry=self.registry,
        )  # fmt: skip
        self.feedback = _Counter("treadle_feedback", "Feedback recorded, by kind.", ("kind",), registry=self.registry)
        for kind in ("prompt", "completion", "cached"):
            self.tokens.labels(kind)
        self.registry.register(_State(gateway))

    def answered(self, endpoint: str, status: int, seconds: float) -> None:
        """Count one request that is over; ``seconds`` from arrival to the end."""
        self.requests.labels(endpoint, str(status)).inc()
        self.seconds.labels(endpoint).observe(seconds)

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)


class _State:
    """Gauges that are true at the moment of asking."""

    def __init__(self, gateway: Observed) -> None:
        self._gateway = gateway

    def describe(self) -> Iterable[Metric]:
        """Nothing to check at registration; the names below are ours alone."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Read the gateway and its engines."""
        gateway, models = self._gateway, self._gateway.models
        stats = gateway.engine_stats()
        yield GaugeMetricFamily("treadle_queue_requests", "Requests waiting for an engine.", stats.queued)
        yield GaugeMetricFamily("treadle_running_requests", "Requests the engines are working on.", stats.running)
        yield GaugeMetricFamily("treadle_in_flight_requests", "Requests the gateway holds.", gateway.in_flight)
        limit = gateway.admission.limit
        yield GaugeMetricFamily("treadle_in_flight_limit", "Requests the gateway would hold at most now.", limit)
        memory = GaugeMetricFamily("treadle_memory_bytes", "Resident memory.", labels=("process",))
        memory.add_metric(("gateway",), resident_bytes())
        memory.add_metric(("engine",), stats.memory_bytes)
        yield memory
        shares = GaugeMetricFamily(
            "treadle_release_share", "Part of the requests that an open release gets.", labels=("digest", "release")
        )
        held = GaugeMetricFamily(
            "treadle_release_in_flight_requests", "Requests a release holds.", labels=("digest", "release")
        )
        for (digest, name), each in {(s.release.digest, s.release.name): s for s in gateway.servings()}.items():
            shares.add_metric((digest, name), sum(model.table.share_of(each) for model in models))
            held.add_metric((digest, name), gateway.in_flight_of(each))
        yield shares
        yield held
        yield from _upstreams(gateway.servings())
        releases = InfoMetricFamily("treadle_release", "A release that answers.")
        for each in (serving for model in models for serving in model.table.answering()):
            found = {"release": each.release.name, "digest": each.release.digest, "engine": each.engine.name}
            releases.add_metric((), found)
        yield releases
        if len(models) > 1:
            ready = GaugeMetricFamily("treadle_model_ready", "1 while a model of several answers.", labels=("model",))
            for model in models:
                ready.add_metric((model.name,), float(model.ready()))
            yield ready


def _upstreams(servings: Iterable[Serving]) -> Iterable[Metric]:
    """Of releases that servers elsewhere run, how each of those stands."""
    known = {(s.release.digest, s.release.name): s.engine for s in servings}
    labels = ("upstream", "digest", "release")
    running = GaugeMetricFamily("treadle_upstream_running_requests", "Requests a server behind us has.", labels=labels)
    shut = GaugeMetricFamily(
        "treadle_upstream_open", "1 while a server behind us is left alone because it failed.", labels=labels
    )
    ended = CounterMetricFamily(
        "treadle_upstream_requests",
        "Attempts at a server behind us: ok, refused (the request), busy, failed, left (nobody waited).",
        labels=(*labels, "outcome"),
    )
    for release, engine in known.items():
        for each in upstreams_of(engine):
            running.add_metric((each.place, *release), each.running)
            shut.add_metric((each.place, *release), float(each.breaker != "closed"))
            for outcome, count in each.outcomes.items():
                ended.add_metric((each.place, *release, outcome), count)
    yield running
    yield shut
    yield ended


def resident_bytes() -> int:
    """Resident memory of this process in bytes."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import psutil  # type: ignore[import-untyped]

        return int(psutil.Process().memory_info().rss)
