"""A release on Ray Serve: its file deployed to a real cluster of this machine by Ray's own command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

import target_results
from containers import free_port
from small_project import Project
from treadle.stages.deploy.carried import own_record

pytest.importorskip("ray.serve", reason="no ray[serve] here; pip install 'treadle[rayserve]'")
BIN = Path(sys.executable).parent
CRD = os.environ.get("TREADLE_RAYSERVICE_CRD")  # what `test_the_pods_of_the_ray_service` then validates by
QUESTION = {"messages": [{"role": "user", "content": "What can you do?"}], "temperature": 0, "max_tokens": 16}


@contextmanager
def cluster(environment: Mapping[str, str]) -> Iterator[str]:
    """A head of Ray's own on 127.0.0.1, in a session of processes of its own; the address of its dashboard."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: paths of sockets have at most 107 bytes
    ports = {name: free_port() for name in ("port", "dashboard-port", "dashboard-agent-listen-port")}
    command = [BIN / "ray", "start", "--head", "--block", "--num-cpus=2", "--num-gpus=0", f"--temp-dir={folder}"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--object-store-memory=134217728"]
    command += [f"--{name}={number}" for name, number in ports.items()]
    log = (folder / "said").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(environment))
    try:
        yield f"http://127.0.0.1:{ports['dashboard-port']}"
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_the_file_deployed_by_rays_own_command(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TREADLE_API_KEY", "a-key-for-a-test")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    out, port = str(tmp_path / "ray"), free_port()
    expected = project.json("ask", "What can you do?")["answer"]
    settings = ["--with", f"port={port}", "--with", f"home={tmp_path / 'home'}", "--with", "cpus=1"]
    with cluster(os.environ) as address:
        settings += ["--with", f"address={address}"]
        release = project.json("render", "rayserve", "--out", out, *settings)["release"]
        until_up(address)
        for _ in range(2):
            said = project.json("apply", "rayserve", out)
            assert (said["answer"], said["release"]) == (expected, release)
        url = f"http://127.0.0.1:{port}"
        assert httpx.post(f"{url}/v1/chat/completions", json=QUESTION).status_code == 401
        headers = {"authorization": "Bearer a-key-for-a-test"}
        with httpx.stream(
            "POST", f"{url}/v1/chat/completions", json=QUESTION | {"stream": True}, headers=headers
        ) as it:
            lines = [line for line in it.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        assert httpx.get(f"{url}/ping").status_code == 200
        with own_record(tmp_path / "home" / "journal-helper", "helper") as record:
            assert len(list(record.recorder.interactions(release))) >= 3
        project.call("apply", "rayserve", out, "--down")
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{url}/health/ready", timeout=2).raise_for_status()
    refused = project.call("apply", "rayserve", out, check=2)
    assert "start a cluster there with ray start --head" in refused.stderr
    target_results.keep(
        "rayserve",
        validated="ray.serve.schema" + ("; RayService by KubeRay's resource definition" if CRD else ""),
        ran="a Ray cluster of one node: `serve deploy`",
        same_text=True,
        digest=True,
    )


def until_up(address: str) -> None:
    """Until the dashboard answers."""
    told = {"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"}
    with httpx.Client(transport=httpx.HTTPTransport(retries=60), trust_env=False, headers=told) as client:
        for _ in range(120):
            with suppress(httpx.HTTPError):
                if client.get(f"{address}/api/serve/applications/", timeout=30).status_code == 200:
                    return
        raise AssertionError("no dashboard")
