"""By what pods on Kubernetes become more: the autoscaler, what delivers its metric, and GPUs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import debian
from described_release import described
from toy_cluster import KUBECTL, cluster
from treadle.core.errors import UserError
from treadle.integrations.kubernetes_scale import QUEUE
from treadle.stages.deploy.targets import Rendering, carry_out, find_target, render

ON_CPU, VLLM = described(), described(engine="vllm")
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "treadle-api-key"}}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def queue(waiting: int) -> dict[str, Any]:
    target = {"type": "AverageValue", "averageValue": str(waiting)}
    return {"type": "Pods", "pods": {"metric": {"name": QUEUE}, "target": target}}


@pytest.mark.parametrize(
    ("release", "settings", "metrics"),
    [
        (ON_CPU, {}, [CPU]),
        (ON_CPU, {"scale_by": "queue", "waiting": 9}, [queue(9), CPU]),
        (VLLM, {}, [queue(4), CPU]),
        (VLLM, {"gpu": True}, [queue(4)]),
        (VLLM, {"gpu": True, "scale_by": "cpu"}, [CPU]),
    ],
    ids=["processor", "queue", "vllm", "gpu", "gpu by processor"],
)
def test_what_the_autoscaler_looks_at(
    release: Rendering, settings: dict[str, Any], metrics: list[Any], tmp_path: Path
) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    written, _ = render("kubernetes", release, tmp_path / "a", settings)
    made = read(tmp_path / "a" / "autoscaler.yaml")
    validate(made, "1.31", strict=True)
    assert made["spec"]["metrics"] == metrics
    by_queue = len(metrics) == 2 or metrics[0]["type"] == "Pods"
    assert {"monitor.yaml", "queue-metric.yaml"}.isdisjoint(written.files) is not by_queue
    resources = read(tmp_path / "a" / "kustomization.yaml")["resources"]
    assert ("monitor.yaml" in resources, "queue-metric.yaml" in resources) == (by_queue, False)
    assert ("prometheus-adapter" in (tmp_path / "a" / "kustomization.yaml").read_text()) is by_queue
    deployment = read(tmp_path / "a" / "deployment.yaml")
    validate(deployment, "1.31", strict=True)
    limits = deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits.get("nvidia.com/gpu") == (1 if settings.get("gpu") else None)
    render("kubernetes", release, tmp_path / "b", settings)
    for path in [*written.files, "treadle.json"]:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path


def test_the_pods_are_scraped_with_the_key_of_clients(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    render("kubernetes", VLLM, tmp_path, {"namespace": "models"})
    made = read(tmp_path / "monitor.yaml")
    schemas = [read(Path(__file__).with_name("podmonitor_schema.yaml"))]
    if definition := os.environ.get("TREADLE_PODMONITOR_CRD"):  # monitoring.coreos.com_podmonitors.yaml
        versions = read(Path(definition))["spec"]["versions"]
        schemas += [each["schema"]["openAPIV3Schema"] for each in versions if each["name"] == "v1"]
    for schema in schemas:
        check = jsonschema.Draft202012Validator(closed(schema))
        check.validate(made)
        for wrong in ({"podMetricsEndpoint": []}, {"podMetricsEndpoints": [{"interval": "15"}]}, {"selector": None}):
            assert list(check.iter_errors({**made, "spec": {**made["spec"], **wrong}}))
    template = read(tmp_path / "deployment.yaml")["spec"]["template"]
    (chosen,) = made["spec"]["selector"]["matchExpressions"]
    assert template["metadata"]["labels"][chosen["key"]] in chosen["values"]
    (endpoint,) = made["spec"]["podMetricsEndpoints"]
    (container,) = template["spec"]["containers"]
    assert endpoint["port"] in {port["name"] for port in container["ports"]}
    (key,) = [each["valueFrom"]["secretKeyRef"] for each in container["env"] if each["name"] == "TREADLE_API_KEY"]
    assert endpoint["authorization"] == {"type": "Bearer", "credentials": key}


def closed(schema: Any) -> Any:
    """A schema that knows no other fields; metadata has its own."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(each) for name, each in schema.items()}
    return made | {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else made


def test_the_rule_gives_the_autoscaler_its_metric(tmp_path: Path) -> None:
    render("kubernetes", VLLM, tmp_path, {})
    (rule,) = read(tmp_path / "queue-metric.yaml")["rules"]["custom"]
    metric = read(tmp_path / "autoscaler.yaml")["spec"]["metrics"][0]["pods"]["metric"]["name"]
    assert re.fullmatch(r'(\w+)\{namespace!="",pod!=""\}', rule["seriesQuery"])[1] == metric  # type: ignore[index]
    assert rule["resources"]["overrides"] == {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}
    # As the adapter fills it in, for https://github.com/kubernetes-sigs/prometheus-adapter/blob/master/docs/config.md
    filled = rule["metricsQuery"]
    for name, value in (("Series", metric), ("LabelMatchers", 'namespace="models",pod=~"a|b"'), ("GroupBy", "pod")):
        filled = filled.replace(f"<<.{name}>>", value)
    assert filled == f'sum by (pod) ({QUEUE}{{namespace="models",pod=~"a|b"}})'


def test_a_canary_changes_neither_monitor_nor_rule(tmp_path: Path) -> None:
    settings = {"gateway": "infra/web", "scale_by": "queue"}
    written, _ = render("kubernetes", ON_CPU, tmp_path, settings)
    before = {path: (tmp_path / path).read_bytes() for path in ("monitor.yaml", "queue-metric.yaml", "autoscaler.yaml")}
    tried = replace(ON_CPU, digest="b3:" + "cd" * 32, model="helper@v4")
    render("kubernetes", ON_CPU, tmp_path, {**settings, "canary": "model@v4"}, find=lambda _: tried)
    assert before == {path: (tmp_path / path).read_bytes() for path in before}
    (chosen,) = read(tmp_path / "monitor.yaml")["spec"]["selector"]["matchExpressions"]
    labels = read(tmp_path / "canary-deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    assert labels[chosen["key"]] in chosen["values"]
    assert written.files.keys() >= before.keys()


@pytest.mark.parametrize("settings", [{"scale_by": "memory"}, {"scale_by": "queue", "waiting": 0}], ids=str)
def test_settings_that_are_no_way_to_scale(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="target kubernetes: "):
        render("kubernetes", ON_CPU, tmp_path, settings)


def test_kubectl_applies_it_and_says_where_nobody_reads_the_monitor(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    debian.kubectl(KUBECTL)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KUBECONFIG", str(home / "config"))
    written, _ = render("kubernetes", VLLM, tmp_path, {"kube_context": "toy"})
    target = find_target("kubernetes", written.settings, None)
    with cluster(home) as there:
        there.put(("secrets", "default", "treadle-api-key"), SECRET)
        carry_out(target.apply(written), tmp_path)
        assert there.names("podmonitors") == ["helper"]
        carry_out(target.down(written), tmp_path)
        assert [kind for kind, _, _ in there.objects] == ["secrets"]
    shutil.rmtree(home / ".kube", ignore_errors=True)  # what it found out of the other cluster
    with cluster(home, without=("monitoring.coreos.com/v1",)) as there:
        there.put(("secrets", "default", "treadle-api-key"), SECRET)
        with pytest.raises(UserError, match=r"kubectl --context toy apply -k \."):
            carry_out(target.apply(written), tmp_path)
    done = subprocess.run(["kubectl", "kustomize", tmp_path], capture_output=True, text=True, check=True)
    made = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    assert made["PodMonitor"] == read(tmp_path / "monitor.yaml")
    assert json.dumps(made["HorizontalPodAutoscaler"]).count(QUEUE) == 1
