"""By what pods become more or fewer: use of the processor, or requests that wait for an engine.

The processor any cluster with a metrics server knows. Requests that wait are a metric of our own, and an autoscaler
reads such by way of Prometheus: a PodMonitor has the Prometheus Operator scrape the pods, and a rule has
prometheus-adapter hand the series on as a metric of pods (custom.metrics.k8s.io).
"""

from __future__ import annotations

from typing import Any

from treadle.core.errors import UserError
from treadle.integrations.kubernetes_pod import NAME, SECRET
from treadle.stages.deploy.targets import trial_name

WAYS = ("cpu", "queue")
QUEUE = "treadle_queue_requests"  # as our own /metrics has it
_BUSY = 70  # percent of the processors asked for
_SECONDS = 15  # between two scrapes
_FEWER = 120  # seconds until one pod more goes: an empty queue does not say how busy the others are
RULE_SAID = """\
# Values for the Helm chart prometheus-community/prometheus-adapter; where it has rules already, add this one to them.
# kubectl get --raw '/apis/custom.metrics.k8s.io/v1beta1/namespaces/{namespace}/pods/*/{queue}'
# then says what the autoscaler sees.
"""


def check(target: str, scale_by: str, waiting: int) -> None:
    """``UserError`` where these are no way to scale."""
    if scale_by not in ("", *WAYS):
        raise UserError(f"target {target}: scale_by {scale_by!r}: expected {' or '.join(WAYS)}")
    if waiting < 1:
        raise UserError(f"target {target}: waiting {waiting}: expected 1 request or more")


def check_pods(target: str, replicas: int, most: int, cpus: int) -> None:
    """``UserError`` where these are no number of pods, or none of processors."""
    if not 1 <= replicas <= most:
        raise UserError(f"target {target}: replicas {replicas}, most {most}: expected 1 or more, and most no fewer")
    if cpus < 1:
        raise UserError(f"target {target}: cpus {cpus}: expected 1 or more")


def scaled(way: str, waiting: int, *, gpu: bool) -> dict[str, Any]:
    """The part of an autoscaler that says by what. With a queue, use of the processor counts as well where it is what
    computes: whichever asks for more pods."""
    cpu = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": _BUSY}},
    }
    if way == "cpu":
        return {"metrics": [cpu]}
    queue = {
        "type": "Pods",
        "pods": {"metric": {"name": QUEUE}, "target": {"type": "AverageValue", "averageValue": str(waiting)}},
    }
    slowly = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": _FEWER}]}
    return {"metrics": [queue] if gpu else [queue, cpu], "behavior": {"scaleDown": slowly}}


def monitor(slug: str, key: str) -> dict[str, Any]:
    """Of a PodMonitor: the pods of a release, and of one that is tried beside it, asked with a key of the secret."""
    named = {"key": NAME, "operator": "In", "values": [slug, trial_name(slug)]}
    endpoint = {
        "port": "http",
        "path": "/metrics",
        "interval": f"{_SECONDS}s",
        "authorization": {"type": "Bearer", "credentials": {"name": SECRET, "key": key}},
    }
    return {"selector": {"matchExpressions": [named]}, "podMetricsEndpoints": [endpoint]}


def rule() -> dict[str, Any]:
    """Of prometheus-adapter, as its chart takes it."""
    made = {
        "seriesQuery": f'{QUEUE}{{namespace!="",pod!=""}}',
        "resources": {"overrides": {each: {"resource": each} for each in ("namespace", "pod")}},
        "metricsQuery": "sum by (<<.GroupBy>>) (<<.Series>>{<<.LabelMatchers>>})",
    }
    return {"rules": {"custom": [made]}}
