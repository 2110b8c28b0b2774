"""A release's manifests at work: the Deployment played by podman, the Service asked through kubectl."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

import command
import containers
import target_results
from small_project import Project

# kubectl as far as `treadle apply` looks at it; what is forwarded is a real server of the release.
KUBECTL = """\
#!{python}
import sys, time
if "port-forward" in sys.argv:
    print("Forwarding from 127.0.0.1:{port} -> 8000", flush=True)
    time.sleep(600)
"""


def test_the_service_is_asked_through_a_forwarded_port(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "kubernetes")
    release = project.json("render", "kubernetes", "--out", out)["release"]
    project.call("export", "folder", release, "--out", str(tmp_path / "release"))
    expected = project.json("ask", "What can you do?")["answer"]
    arguments = ("--release-folder", "release", "--journal", "journal", "--port", "0", "--name", "helper@v1", "--json")
    server = command.start("serve", *arguments, folder=tmp_path)
    assert server.stdout is not None
    try:
        port = json.loads(server.stdout.readline())["url"].rpartition(":")[2]
        program = tmp_path / "bin" / "kubectl"
        program.parent.mkdir()
        program.write_text(KUBECTL.format(python=sys.executable, port=port))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        said = project.json("apply", "kubernetes", out)
        assert (said["answer"], said["release"], said["endpoint"]) == (expected, release, "kubernetes:default/helper")
        program.write_text("#!/bin/sh\ncase $* in *forward*) exit 1;; esac\n")
        assert "no port was forwarded" in project.call("apply", "kubernetes", out, check=2).stderr
    finally:
        server.terminate()
        server.communicate(timeout=60)
    refused = project.call("render", "kubernetes", "--out", out, "--with", "tool=/tmp/other", check=2)
    assert "expected kubectl or podman" in refused.stderr


@pytest.mark.slow
def test_podman_plays_the_deployment(
    project: Project, tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "kubernetes")
    settings = ("--with", "tool=podman", "--with", f"port={containers.free_port()}")
    release = project.json("render", "kubernetes", "--out", out, *settings)["release"]
    assert image in (Path(out) / "deployment.yaml").read_text()
    expected = project.json("ask", "What can you do?")["answer"]
    monkeypatch.delenv("TREADLE_API_KEY", raising=False)
    assert "set the key that clients send" in project.call("apply", "kubernetes", out, check=2).stderr
    monkeypatch.setenv("TREADLE_API_KEY", "a-key-for-a-test")
    try:
        for _ in range(2):  # again replaces the pods
            said = project.json("apply", "kubernetes", out)
            assert (said["answer"], said["release"]) == (expected, release)
    finally:
        project.call("apply", "kubernetes", out, "--down", check=None)
    target_results.keep(
        "kubernetes",
        validated="kubernetes-validate, kubectl kustomize",
        ran="podman play kube: one pod of the Deployment, with its secret, user and volumes",
        same_text=True,
        digest=True,
    )
