"""The server's Prometheus metrics, in a registry of their own so that two gateways in one process do not mix."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric

from treadle.lm.engine import Engine, EngineStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Seconds: from a cached prefix on a GPU to a long answer on a laptop.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
TOKENS_PER_SECOND = (1, 2, 5, 10, 20, 30, 40, 60, 80, 100, 150, 200, 400)


class Named(Protocol):
    """A release, as far as a label needs it."""

    @property
    def name(self) -> str:
        """The name it is served under."""
        ...

    @property
    def digest(self) -> str:
        """What it is."""
        ...


class Answering(Protocol):
    """A release and the engine that runs it."""

    @property
    def release(self) -> Named:
        """What answers."""
        ...

    @property
    def engine(self) -> Engine:
        """What computes the answers."""
        ...


class Observed(Protocol):
    """What the gauges are read off: the gateway."""

    @property
    def serving(self) -> Answering:
        """What answers now."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests that hold a place."""
        ...

    def engine_stats(self) -> EngineStats:
        """The engine's own count."""
        ...


class Metrics:
    """Counters and histograms that handlers write; gauges are read off the gateway when somebody asks."""

    def __init__(self, gateway: Observed) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "treadle_requests", "Requests answered, by endpoint and HTTP status (499: the client left).",
            ("endpoint", "status"), registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "treadle_request_seconds", "From a request's arrival to the last byte of its answer.",
            ("endpoint",), buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.ttft = Histogram(
            "treadle_time_to_first_token_seconds", "From a request's arrival to its first token.",
            ("endpoint",), buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.tokens = Counter(
            "treadle_tokens", "Tokens read (prompt), written (completion), taken from the prefix cache (cached).",
            ("kind",), registry=self.registry,
        )  # fmt: skip
        self.tokens_per_second = Histogram(
            "treadle_tokens_per_second", "Per request: tokens after the first, over the time since the first.",
            buckets=TOKENS_PER_SECOND, registry=self.registry,
        )  # fmt: skip
        self.errors = Counter(
            "treadle_errors", "Requests that ended in an error, by its code.", ("code",), registry=self.registry
        )
        self.feedback = Counter("treadle_feedback", "Feedback recorded, by kind.", ("kind",), registry=self.registry)
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
        """Read the gateway and its engine."""
        gateway = self._gateway
        release, engine = gateway.serving.release, gateway.serving.engine
        stats = gateway.engine_stats()
        yield GaugeMetricFamily("treadle_queue_requests", "Requests waiting for the engine.", stats.queued)
        yield GaugeMetricFamily("treadle_running_requests", "Requests the engine is working on.", stats.running)
        yield GaugeMetricFamily("treadle_in_flight_requests", "Requests the gateway holds.", gateway.in_flight)
        memory = GaugeMetricFamily("treadle_memory_bytes", "Resident memory.", labels=("process",))
        memory.add_metric(("gateway",), resident_bytes())
        memory.add_metric(("engine",), stats.memory_bytes)
        yield memory
        yield InfoMetricFamily(
            "treadle_release", "The release that answers.",
            {"release": release.name, "digest": release.digest, "engine": engine.name},
        )  # fmt: skip


def resident_bytes() -> int:
    """Resident memory of this process in bytes."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import psutil  # type: ignore[import-untyped]

        return int(psutil.Process().memory_info().rss)
