"""A release on Vertex AI: requests read by Google's own types, and the container's contract against the release."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import containers
import target_results
from importing.peers import peer
from small_project import Project

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "europe-west4-docker.pkg.dev/models-1/models/helper:1"
SETTINGS = (f"image={IMAGE}", "project=models-1", "region=europe-west4")
WITH = [part for each in SETTINGS for part in ("--with", each)]
ASKED = {"messages": [{"role": "user", "content": "What can you do?"}]}
CLIENT = ("google-cloud-aiplatform[prediction]==2.7.0",)


@contextmanager
def platform(folder: Path) -> Iterator[str]:
    """The stand-in, whose containers have the release in ``folder/release``; its address."""
    python = peer("vertex", *CLIENT) / "python"
    image = {"TREADLE_RELEASE_FOLDER": str(folder / "release"), "TREADLE_JOURNAL": str(folder / "journal")}
    process = subprocess.Popen(
        [python, ROOT / "tests" / "vertex_platform.py", sys.executable],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | image | {"TREADLE_RELEASE_NAME": "helper@v1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(120)
        process.stdout.close()


@pytest.mark.slow
def test_from_the_requests_to_an_answer_and_away(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, newer = str(tmp_path / "vertex"), str(tmp_path / "newer")
    release = project.json("render", "vertex", "--out", out, *WITH)["release"]
    project.call("export", "folder", release, "--out", str(tmp_path / "release"))
    expected = project.json("ask", "What can you do?")["answer"]
    place = "vertex:projects/models-1/locations/europe-west4/endpoints/helper"
    with platform(tmp_path) as url:
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM", url)
        for _ in range(2):  # again changes nothing
            said = project.json("apply", "vertex", out)
            assert (said["answer"], said["release"], said["endpoint"]) == (expected, release, place)
        project.json("render", "vertex", "--out", newer, *WITH[:2], *WITH[2:], "--with", f"image={IMAGE}2")
        assert project.json("apply", "vertex", newer)["answer"] == expected  # beside it, with all the traffic
        refused = project.call("apply", "vertex", newer, "--down", check=2)
        assert "apply the folder of another one first" in refused.stderr
        assert project.json("apply", "vertex", out)["answer"] == expected  # back, without a container started
        project.call("apply", "vertex", newer, "--down")
        assert project.json("apply", "vertex", out)["answer"] == expected
        for _ in range(2):
            project.call("apply", "vertex", out, "--down")
        # a container that would not start: it has another release
        spec = tmp_path / "release" / "release.json"
        spec.chmod(0o644)
        spec.write_bytes(spec.read_bytes().replace(b"You help.", b"You hurt."))
        refused = project.call("apply", "vertex", out, check=2)
        assert "Model server exited unexpectedly" in refused.stderr


def test_what_is_wrong_is_one_line(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = str(tmp_path / "vertex")
    assert "region is missing" in project.call("render", "vertex", "--out", out, *WITH[:4], check=2).stderr
    refused = project.call("render", "vertex", "--out", out, *WITH[:4], "--with", "region=a/../b", check=2)
    assert "expected lower-case letters" in refused.stderr
    project.call("render", "vertex", "--out", out, *WITH)
    planned = project.json("apply", "vertex", out, "--dry-run")["commands"]
    assert [each.split()[2].rstrip(",") for each in planned] == [
        "models.upload",
        "endpoints.create",
        "endpoints.deployModel",
    ]
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM", "http://127.0.0.1:9")
    assert "no answer (ConnectError)" in project.call("apply", "vertex", out, check=2).stderr
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM", "http://example.com")
    assert "expected an address such as https://host" in project.call("apply", "vertex", out, check=2).stderr
    monkeypatch.delenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    refused = project.call("apply", "vertex", out, check=2)
    assert "Vertex AI: File" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_the_image_as_googles_local_model_runs_it(project: Project, tmp_path: Path, image: str) -> None:
    out = tmp_path / "vertex"
    release = project.json("render", "vertex", "--out", str(out), *WITH)["release"]
    expected = project.json("ask", "What can you do?")["answer"]
    python = peer("vertex", *CLIENT) / "python"
    with containers.docker_api(tmp_path) as api:
        done = subprocess.run(
            [python, ROOT / "tests" / "vertex_local_model.py", out / "upload-model.json", image],
            env=os.environ | {"DOCKER_HOST": api},
            input=json.dumps({"instances": [ASKED], "parameters": {"temperature": 0, "maxOutputTokens": 16}}),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["predictions"], said["system_fingerprint"]) == ([expected], release)
    target_results.keep(
        "vertex",
        validated="google-cloud-aiplatform's request types",
        ran="podman: the image by the client's LocalModel",
        same_text=True,
        digest=True,
    )
