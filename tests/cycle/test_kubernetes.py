"""A release's manifests at work: the Deployment played by podman, the Service asked through kubectl."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import command
import containers
import target_results
from small_project import Project
from treadle.project import open_project

# kubectl as far as `treadle apply` looks at it, noting what it was asked; what is forwarded is a release's real server.
KUBECTL = """\
#!{python}
import json, pathlib, sys, time
here, given = pathlib.Path(__file__).parent, sys.argv[1:]
with (here / "asked").open("a") as asked:
    asked.write(json.dumps(given) + "\\n")
said = json.loads((here / "says.json").read_text())
if "port-forward" in given:
    (service,) = [word.partition("/")[2] for word in given if word.startswith("service/")]
    if ports := said["ports"].get(service, "").split():
        said["ports"][service] = " ".join(ports[1:] or ports)
        (here / "says.json").write_text(json.dumps(said))
        print(f"Forwarding from 127.0.0.1:{{ports[0]}} -> 8000", flush=True)
        time.sleep(600)
    sys.exit(1)
if "get" in given:
    print(said.get(given[given.index("get") + 1], ""))
"""


@dataclass(frozen=True)
class Kubectl:
    """The program in the place of kubectl, and what it notes."""

    folder: Path

    def say(self, ports: Mapping[str, str], **found: str) -> None:
        """What there is: ports by service, one after the other, and what `get` prints by kind."""
        (self.folder / "asked").write_text("")
        (self.folder / "says.json").write_text(json.dumps({"ports": ports, **found}))

    def asked(self) -> list[str]:
        """Commands since, without what is only looked up."""
        lines = [json.loads(line) for line in (self.folder / "asked").read_text().splitlines()]
        return [" ".join(line) for line in lines if "get" not in line]


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    """In the place of the real one."""
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(KUBECTL.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return Kubectl(program.parent)


@contextmanager
def served(project: Project, folder: Path, release: str) -> Iterator[str]:
    """A server of a release as it runs in a pod; its port."""
    folder.mkdir()
    project.call("export", "folder", release, "--out", str(folder / "release"))
    arguments = ("--release-folder", "release", "--journal", "journal", "--port", "0", "--name", "helper@v1", "--json")
    server = command.start("serve", *arguments, folder=folder)
    assert server.stdout is not None
    try:
        yield json.loads(server.stdout.readline())["url"].rpartition(":")[2]
    finally:
        server.terminate()
        server.communicate(timeout=60)


def test_the_service_is_asked_through_a_forwarded_port(project: Project, tmp_path: Path, kubectl: Kubectl) -> None:
    out = str(tmp_path / "kubernetes")
    release = project.json("render", "kubernetes", "--out", out)["release"]
    expected = project.json("ask", "What can you do?")["answer"]
    with served(project, tmp_path / "pod", release) as port:
        kubectl.say({"helper": port}, secret="secret/treadle-api-key")
        said = project.json("apply", "kubernetes", out)
        assert (said["answer"], said["release"], said["endpoint"]) == (expected, release, "kubernetes:default/helper")
        kubectl.say({}, secret="secret/treadle-api-key")
        assert "no port was forwarded" in project.call("apply", "kubernetes", out, check=2).stderr
        kubectl.say({"helper": port})
        refused = project.call("apply", "kubernetes", out, check=2).stderr
        assert "namespace default has no secret treadle-api-key" in refused
        assert kubectl.asked() == []
    refused = project.call("render", "kubernetes", "--out", out, "--with", "tool=/tmp/other", check=2)
    assert "expected kubectl or podman" in refused.stderr


@pytest.mark.slow
def test_a_canary_gets_requests_once_both_releases_answered(project: Project, tmp_path: Path, kubectl: Kubectl) -> None:
    out = str(tmp_path / "kubernetes")
    old = project.json("render", "kserve", "--out", str(tmp_path / "alone"))["release"]
    project.edit("system_prompt: You help.", "system_prompt: You help a lot.")
    new = project.json("deploy")["release"]
    settings = ("--with", "gateway=infra/web", "--with", f"canary={new}", "--with", "share=0.25")
    rendered = project.json("render", "kubernetes", old, "--out", out, *settings)
    assert (rendered["release"], rendered["canary"]["release"], rendered["canary"]["share"]) == (old, new, 0.25)
    assert project.json("render", "kubernetes", old, "--out", out, *settings)["changed"] == []
    planned = project.json("apply", "kubernetes", out, "--dry-run")
    assert planned["done"] is False
    with served(project, tmp_path / "old", old) as first, served(project, tmp_path / "new", new) as second:
        found = {"secret": "secret/treadle-api-key", "deployment": "deployment.apps/helper-canary"}
        kubectl.say({"helper": first, "helper-canary": first}, **found)
        wrong = project.call("apply", "kubernetes", out, check=1).stderr
        assert f"answers with release {old}, not {new}" in wrong
        assert not any("route.yaml" in each for each in kubectl.asked())  # so nobody was sent there

        kubectl.say({"helper": first, "helper-canary": second}, **found)
        said = project.json("apply", "kubernetes", out)
        assert [said["release"], said["canary"]["release"]] == [old, new]
        assert all(isinstance(each["answer"], str) for each in (said, said["canary"]))
        words = [each.split() for each in kubectl.asked()]
        forwarded = [place for place, each in enumerate(words) if "port-forward" in each]
        routed = next(place for place, each in enumerate(words) if each[:3] == ["apply", "-f", "route.yaml"])
        assert len(forwarded) == 2
        assert words[0][:3] == ["apply", "-k", "."]
        assert 0 < min(forwarded) < max(forwarded) < routed
        assert not any("delete" in each for each in words)
        assert shares(project) == {old: 0.75, new: 0.25}

        # Promotion: the other release, alone. A pod of the first one still ends.
        project.call("render", "kubernetes", new, "--out", out, "--with", "gateway=infra/web")
        kubectl.say({"helper": f"{first} {second}"}, pods="2026-01-31T12:00:00Z", **found)
        project.call("apply", "kubernetes", out)
        words = [each.split() for each in kubectl.asked()]
        kinds = [each[3] for each in words if "delete" in each]
        assert kinds == ["httproute", "deployment,service,horizontalpodautoscaler,poddisruptionbudget,networkpolicy"]
        ends = [place for place, each in enumerate(words) if "delete" in each]
        assert next(place for place, each in enumerate(words) if each[:3] == ["apply", "-f", "route.yaml"]) < ends[0]
        assert all("treadle/canary-of=helper" in each for each in (words[place] for place in ends))
        assert shares(project) == {new: 1.0}
        project.call("apply", "kubernetes", out, "--down")
        assert shares(project) == {}


def shares(project: Project) -> dict[str, float]:
    """What the record says of the endpoint."""
    with open_project(project.folder) as opened:
        deployments = opened.record.deployments.all()
    return {each.release: each.share for each in deployments if each.endpoint == "kubernetes:default/helper"}


@pytest.mark.slow
def test_kserve_tries_a_canary_beside_what_runs_there(project: Project, tmp_path: Path, kubectl: Kubectl) -> None:
    out = str(tmp_path / "kserve")
    old = project.json("render", "kserve", "--out", str(tmp_path / "alone"))["release"]
    project.edit("system_prompt: You help.", "system_prompt: You help a lot.")
    new = project.json("deploy")["release"]
    project.call("render", "kserve", old, "--out", out, "--with", f"canary={new}")
    for marks, ready, said in (
        ({}, "True", "does not run helper@v1"),
        ({"treadle/release": new}, "True", "does not run helper@v1"),
        ({"treadle/release": old}, "False", "is not ready"),
        ({"treadle/release": old}, "True", ""),
        ({"treadle/release": new, "treadle/beside": old}, "True", ""),
    ):
        conditions = [{"type": "Ready", "status": ready}]
        there = {"metadata": {"annotations": marks}, "status": {"conditions": conditions}}
        kubectl.say({}, secret="secret/treadle-api-key", **{"inferenceservice/helper": json.dumps(there)})
        done = project.call("apply", "kserve", out, check=2 if said else 0)
        assert said in done.stderr
        assert bool(kubectl.asked()) is not bool(said)


@pytest.mark.slow
def test_podman_plays_the_deployment(
    project: Project, tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    containers.need_podman("catatonit")  # which holds a pod open; podman only recommends it
    out = str(tmp_path / "kubernetes")
    settings = ("--with", "tool=podman", "--with", f"port={containers.free_port()}")
    release = project.json("render", "kubernetes", "--out", out, *settings)["release"]
    assert image in (Path(out) / "deployment.yaml").read_text()
    expected = project.json("ask", "What can you do?")["answer"]
    monkeypatch.delenv("TREADLE_API_KEY", raising=False)
    assert "TREADLE_API_KEY: set it" in project.call("apply", "kubernetes", out, check=2).stderr
    monkeypatch.setenv("TREADLE_API_KEY", "a-key-for-a-test")
    try:
        for _ in range(2):  # again replaces the pods
            said = project.json("apply", "kubernetes", out)
            assert (said["answer"], said["release"]) == (expected, release)
    finally:
        project.call("apply", "kubernetes", out, "--down", check=None)
    target_results.keep(
        "kubernetes",
        validated="kubernetes-validate, kubectl kustomize; the HTTPRoute by the Gateway API's schema",
        ran="podman play kube: one pod of the Deployment, with its secret, user and volumes",
        same_text=True,
        digest=True,
    )
