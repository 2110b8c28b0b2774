"""Pods that take clients' keys from the project's PostgreSQL: what is rendered for them, and what never is."""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import debian
from described_release import SPEC, described
from toy_cluster import KUBECTL, cluster
from treadle.core.errors import UserError
from treadle.integrations import kubernetes_access
from treadle.integrations.kubernetes_keys import ClientKeys
from treadle.stages.deploy.carried_keys import DEGRADE, VARIABLE
from treadle.stages.deploy.targets import carry_out, find_target, render, shown

RELEASE = described()
UPSTREAM = replace(SPEC, engine="upstream", optimization={"settings": {"urls": ["${env:SERVERS}"], "model": "helper"}})
SHARED = {"keys": "postgresql", "degrade_for": "10m"}
URL = "postgresql://pods:Tr0ub4dor&3=@db.example.org/treadle?sslmode=verify-full&sslrootcert=system"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an operator has in the environment while rendering."""
    monkeypatch.setenv(VARIABLE, URL)
    monkeypatch.setenv("TREADLE_API_KEY", "the-one-key")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def everything(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.rglob("*") if path.is_file())


def environment(container: dict[str, Any]) -> dict[str, Any]:
    return {each.pop("name"): each for each in container["env"]}


FROM_SECRET = {
    "TREADLE_API_KEY": {"valueFrom": {"secretKeyRef": {"name": "treadle-api-key", "key": "key", "optional": True}}},
    VARIABLE: {"valueFrom": {"secretKeyRef": {"name": "treadle-api-key", "key": VARIABLE}}},
    DEGRADE: {"value": "10m"},
}


def test_the_pods_find_the_database_in_the_secret_and_reach_it(tmp_path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    settings = {**SHARED, "database_port": 6432, "database_network": "10.0.5.0/24"}
    written, _ = render("kubernetes", RELEASE, tmp_path / "a", settings)
    deployment, network = read(tmp_path / "a" / "deployment.yaml"), read(tmp_path / "a" / "network.yaml")
    for each in (deployment, network):
        validate(each, "1.31", strict=True)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert environment(container) == FROM_SECRET
    names, database = network["spec"]["egress"]
    assert {(each["port"], each["protocol"]) for each in names["ports"]} == {(53, "UDP"), (53, "TCP")}
    assert database == {
        "ports": [{"port": 6432, "protocol": "TCP"}],
        "to": [{"ipBlock": {"cidr": str(ipaddress.ip_network("10.0.5.0/24"))}}],
    }
    assert not [word for word in (URL, "Tr0ub4dor", "the-one-key") if word in everything(tmp_path / "a")]
    render("kubernetes", RELEASE, tmp_path / "b", settings)
    for path in [*written.files, "treadle.json"]:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path


def test_without_it_pods_reach_nothing_and_know_the_one_key(tmp_path: Path) -> None:
    render("kubernetes", RELEASE, tmp_path, {})
    (container,) = read(tmp_path / "deployment.yaml")["spec"]["template"]["spec"]["containers"]
    assert environment(container) == {
        "TREADLE_API_KEY": {"valueFrom": {"secretKeyRef": {"name": "treadle-api-key", "key": "key"}}}
    }
    assert read(tmp_path / "network.yaml")["spec"]["egress"] == []
    assert VARIABLE not in everything(tmp_path)


def test_what_runs_elsewhere_is_reached_as_before(tmp_path: Path) -> None:
    render("kubernetes", replace(RELEASE, spec=UPSTREAM, engine="upstream"), tmp_path, dict(SHARED))
    assert read(tmp_path / "network.yaml")["spec"]["egress"] == [{}]
    assert f'"${VARIABLE}" "$SERVERS" | kubectl' in (tmp_path / "kustomization.yaml").read_text()


def test_prometheus_asks_with_a_key_for_the_metrics(tmp_path: Path) -> None:
    render("kubernetes", RELEASE, tmp_path, {**SHARED, "scale_by": "queue"})
    (endpoint,) = read(tmp_path / "monitor.yaml")["spec"]["podMetricsEndpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "treadle-api-key", "key": "metrics"}
    assert '"$TREADLE_METRICS_KEY"' in (tmp_path / "kustomization.yaml").read_text()


def test_a_canary_counts_with_the_others(tmp_path: Path) -> None:
    tried = replace(RELEASE, digest="b3:" + "cd" * 32, model="helper@v4")
    settings = {**SHARED, "gateway": "infra/web", "canary": "model@v4"}
    render("kubernetes", RELEASE, tmp_path, settings, find=lambda _: tried)
    for name in ("deployment", "canary-deployment"):
        (container,) = read(tmp_path / f"{name}.yaml")["spec"]["template"]["spec"]["containers"]
        assert environment(container) == FROM_SECRET
    assert len({str(read(tmp_path / f"{name}.yaml")["spec"]["egress"]) for name in ("network", "canary-network")}) == 1


def test_kserve_and_ray_have_it_too(tmp_path: Path) -> None:
    render("kserve", RELEASE, tmp_path / "kserve", dict(SHARED))
    (container,) = read(tmp_path / "kserve" / "inferenceservice.yaml")["spec"]["predictor"]["containers"]
    assert environment(container) == FROM_SECRET
    pytest.importorskip("ray")
    render("rayserve", RELEASE, tmp_path / "ray", dict(SHARED))
    pods = read(tmp_path / "ray" / "rayservice.yaml")["spec"]["rayClusterConfig"]
    for group in (pods["headGroupSpec"], *pods["workerGroupSpecs"]):
        assert environment(group["template"]["spec"]["containers"][0]) == FROM_SECRET
    assert URL not in everything(tmp_path)


def test_the_image_has_what_it_takes(tmp_path: Path) -> None:
    render("docker", RELEASE, tmp_path / "alone", {"tool": "podman"})
    written, _ = render("docker", RELEASE, tmp_path / "shared", {"tool": "podman", "keys": "postgresql"})
    alone, shared = ((tmp_path / name / "requirements.txt").read_text() for name in ("alone", "shared"))
    assert set(re.findall(r"^(psycopg\S*)==", shared, re.MULTILINE)) == {"psycopg", "psycopg-binary"}
    assert "psycopg" not in alone
    compose = read(tmp_path / "shared" / "compose.yaml")["services"]["helper"]["environment"]
    assert compose[VARIABLE] == f"${{{VARIABLE}:?set the URL of the project's database}}"
    assert compose["TREADLE_API_KEY"] == "${TREADLE_API_KEY:-}"
    alone_says = read(tmp_path / "alone" / "compose.yaml")["services"]["helper"]["environment"]
    assert alone_says == {"TREADLE_API_KEY": "${TREADLE_API_KEY:?set a key that clients send}"}
    scraped = [read(tmp_path / name / "compose.yaml")["configs"]["scrape"]["content"] for name in ("alone", "shared")]
    assert [re.findall(r'credentials: "\$\{(\w+)', each) for each in scraped] == [
        ["TREADLE_API_KEY"],
        ["TREADLE_METRICS_KEY"],
    ]
    said = " ".join(shown(find_target("docker", written.settings, None).apply(written)))
    assert f"--env {VARIABLE} --env {DEGRADE} " in said
    assert URL not in everything(tmp_path) + said


@pytest.mark.parametrize(
    ("target", "settings"),
    [
        ("kubernetes", {"keys": "redis"}),
        ("kubernetes", {"degrade_for": "10m"}),
        ("kubernetes", {"database_port": 6543}),
        ("kubernetes", {"database_network": "10.0.5.0/24"}),
        ("kubernetes", {**SHARED, "degrade_for": "soon"}),
        ("kubernetes", {**SHARED, "database_port": 0}),
        ("kubernetes", {**SHARED, "database_network": "10.0.5.1/24"}),
        ("kserve", {"keys": "redis"}),
        ("docker", {"keys": "redis"}),
        ("rayserve", {"degrade_for": "10m"}),
    ],
    ids=str,
)
def test_settings_that_nothing_can_be_made_of(target: str, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"^target {target}: ") as raised:
        find_target(target, settings, None)
    assert "\n" not in str(raised.value)


def test_the_command_that_makes_the_secret(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    debian.kubectl(KUBECTL)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KUBECONFIG", str(home / "config"))
    monkeypatch.setenv("SERVERS", "http://10.0.0.5:8000/v1")
    settings = {**SHARED, "kube_context": "toy"}
    written, _ = render("kubernetes", replace(RELEASE, spec=UPSTREAM, engine="upstream"), tmp_path, settings)
    [needed] = re.findall("^# Needs: (printf .*)$", (tmp_path / "kustomization.yaml").read_text(), re.MULTILINE)
    target = find_target("kubernetes", written.settings, None)
    with cluster(home) as there:
        made = subprocess.run(
            ["sh", "-c", f"{needed} --dry-run=client -o yaml"], capture_output=True, text=True, check=True
        )
        said = {name: base64.b64decode(value).decode() for name, value in yaml.safe_load(made.stdout)["data"].items()}
        assert said == {VARIABLE: URL, "SERVERS": "http://10.0.0.5:8000/v1"}
        whole = yaml.safe_load(made.stdout)
        for lacking in (None, {**whole, "data": {"key": "a2V5"}}):
            if lacking is not None:
                there.put(("secrets", "default", "treadle-api-key"), lacking)
            with pytest.raises(UserError, match=rf"has no secret treadle-api-key with {VARIABLE}, .*=%s") as raised:
                carry_out(target.apply(written), tmp_path)
            assert URL not in str(raised.value)
        there.put(("secrets", "default", "treadle-api-key"), whole)
        carry_out(target.apply(written), tmp_path)


def test_podman_gets_the_secret_through_no_file_and_no_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[tuple[str, ...], str | None]] = []

    def noted(command: tuple[str, ...], *, given: str | None = None, **_: object) -> str:
        asked.append((command, given))
        return ""

    monkeypatch.setattr(kubernetes_access, "output_of", noted)
    monkeypatch.delenv("TREADLE_API_KEY")
    written, _ = render("kubernetes", RELEASE, tmp_path, {**SHARED, "tool": "podman"})
    carry_out(find_target("kubernetes", written.settings, None).apply(written), tmp_path)
    [given] = [given for command, given in asked if "create" in command]
    assert yaml.safe_load(str(given)) == {VARIABLE: base64.b64encode(os.environ[VARIABLE].encode()).decode()}
    assert not [command for command, _ in asked if URL in " ".join(command)]
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(UserError, match=f"^{VARIABLE}: set it"):
        kubernetes_access.play(tmp_path, "treadle-api-key", ClientKeys("postgresql"))
