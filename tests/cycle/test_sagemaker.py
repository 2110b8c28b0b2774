"""A release on SageMaker: its own client against moto, and the container's contract against the release itself."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from moto.sagemaker.responses import SageMakerResponse

import command
import containers
import debian
import sagemaker_platform as platform
import target_results
from importing.peers import peer
from small_project import Project

ROOT = Path(__file__).resolve().parents[2]
LOCAL_MODE = ("sagemaker==2.257.7",)  # of its second version, whose local mode takes the requests themselves
ASKED = {"messages": [{"role": "user", "content": "What can you do?"}], "temperature": 0, "max_tokens": 16}
IMAGE = f"{platform.ACCOUNT}.dkr.ecr.{platform.REGION}.amazonaws.com/helper:1"
ROLE = f"arn:aws:iam::{platform.ACCOUNT}:role/serving"
WITH = [part for each in (f"image={IMAGE}", f"role={ROLE}", f"region={platform.REGION}") for part in ("--with", each)]


@pytest.fixture
def moto(s3: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty SageMaker, and an environment that leads to it."""
    url = f"http://127.0.0.1:{s3}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL_SAGEMAKER": url,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(SageMakerResponse, "update_endpoint", platform.update_endpoint, raising=False)
    yield url
    httpx.post(f"{url}/moto-api/reset").raise_for_status()


@contextmanager
def process(folder: Path, image: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The release as the container runs it: ``IMAGE serve`` with what the image and the model's environment say."""
    environment = dict(image["Environment"])
    assert (environment.pop("TREADLE_PORT"), environment.pop("TREADLE_HOST")) == ("8080", "0.0.0.0")
    environment |= {"TREADLE_PORT": "0", "TREADLE_HOST": "127.0.0.1", "TREADLE_RELEASE_NAME": "helper@v1"}
    with monkeypatch.context() as changed:
        for name, value in environment.items():
            changed.setenv(name, value)
        changed.setenv("TREADLE_RELEASE_FOLDER", str(folder / "release"))
        changed.setenv("TREADLE_JOURNAL", str(folder / "journal"))
        started = command.start("serve", "--json", folder=folder)
    assert started.stdout is not None
    line = started.stdout.readline()
    try:
        yield json.loads(line)["url"]
    finally:
        started.terminate()
        rest = started.communicate(timeout=60)[0]
        assert started.returncode == 0, line + rest


@pytest.mark.slow
def test_from_the_requests_to_an_answer_and_away(
    project: Project, tmp_path: Path, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "sagemaker")
    release = project.json("render", "sagemaker", "--out", out, *WITH)["release"]
    project.call("export", "folder", release, "--out", str(tmp_path / "release"))
    expected = project.json("ask", "What can you do?")["answer"]
    planned = project.json("apply", "sagemaker", out, "--dry-run")
    assert [each.split()[1].rstrip(",") for each in planned["commands"]] == [
        "CreateModel",
        "CreateEndpointConfig",
        "CreateEndpoint",
    ]
    client = boto3.client("sagemaker", region_name=platform.REGION)
    assert client.list_models()["Models"] == []
    with platform.runtime(moto, lambda image: process(tmp_path, image, monkeypatch)) as runtime:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", runtime)
        for _ in range(2):  # again changes nothing
            said = project.json("apply", "sagemaker", out)
            assert (said["answer"], said["release"], said["endpoint"]) == (
                expected,
                release,
                f"sagemaker://{platform.REGION}/helper",
            )
            assert len(client.list_models()["Models"]) == 1
        (container,) = [client.describe_model(ModelName=m["ModelName"]) for m in client.list_models()["Models"]]
        assert container["PrimaryContainer"]["Image"] == IMAGE
        newer = str(tmp_path / "newer")
        project.json("render", "sagemaker", "--out", newer, *WITH, "--with", "instance=ml.m5.2xlarge")
        assert project.json("apply", "sagemaker", newer)["answer"] == expected  # the endpoint was led to another one
        refused = project.call("apply", "sagemaker", out, "--down", check=2)
        assert "use the folder that was applied last" in refused.stderr
        assert project.json("apply", "sagemaker", out)["answer"] == expected  # and back
    for _ in range(2):
        project.call("apply", "sagemaker", out, "--down")
        assert client.list_endpoints()["Endpoints"] == []
    project.call("apply", "sagemaker", newer, "--down")
    assert (client.list_models()["Models"], client.list_endpoint_configs()["EndpointConfigs"]) == ([], [])


def test_what_is_wrong_is_one_line(
    project: Project, tmp_path: Path, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "sagemaker")
    assert "image is missing" in project.call("render", "sagemaker", "--out", out, check=2).stderr
    refused = project.call("render", "sagemaker", "--out", out, "--with", "image=a", "--with", "role=me", check=2)
    assert "expected an ARN such as" in refused.stderr
    project.call("render", "sagemaker", "--out", out, *WITH)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", moto)  # it answers what no release of ours would
    assert "no JSON" in project.call("apply", "sagemaker", out, check=2).stderr
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    refused = project.call("apply", "sagemaker", out, check=2)
    assert "SageMaker DescribeModel: " in refused.stderr
    assert "Traceback" not in refused.stderr
    (Path(out) / "create-model.json").write_text("[]")
    assert "expected a JSON object" in project.call("apply", "sagemaker", out, check=2).stderr


@pytest.mark.slow
def test_the_image_as_the_platform_runs_it(
    project: Project, tmp_path: Path, image: str, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "sagemaker")
    release = project.json("render", "sagemaker", "--out", out, *WITH)["release"]
    expected = project.json("ask", "What can you do?")["answer"]

    def start(asked: dict[str, Any]) -> AbstractContextManager[str]:
        return containers.container(image, "serve", environment=asked["Environment"], inside=8080)

    with platform.runtime(moto, start) as runtime:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", runtime)
        said = project.json("apply", "sagemaker", out)
    assert (said["answer"], said["release"]) == (expected, release)


@pytest.mark.slow
def test_the_image_as_local_mode_runs_it(project: Project, tmp_path: Path, image: str) -> None:
    out = tmp_path / "sagemaker"
    release = project.json("render", "sagemaker", "--out", str(out), *WITH)["release"]
    expected = project.json("ask", "What can you do?")["answer"]
    python, compose = peer("sagemaker", *LOCAL_MODE) / "python", debian.program("docker-compose")
    programs, said = tmp_path / "bin", tmp_path / "said.json"
    programs.mkdir()
    # It is asked whether it has `compose` and where it is: podman itself would say that no context is there.
    (programs / "docker").write_text("#!/bin/sh\necho no docker here >&2\nexit 1\n")
    (programs / "docker").chmod(0o755)
    (programs / "docker-compose").symlink_to(compose)
    with containers.docker_api(tmp_path) as api:
        done = subprocess.run(
            [python, ROOT / "tests" / "sagemaker_local_mode.py", out, image, str(containers.free_port()), said],
            env=os.environ | {"DOCKER_HOST": api, "PATH": f"{programs}:{os.environ['PATH']}"},
            input=json.dumps(ASKED),
            capture_output=True,
            text=True,
        )
    # Local mode leaves it, and the stopped container.
    subprocess.run(["podman", "network", "rm", "--force", "sagemaker-local"], capture_output=True)
    assert done.returncode == 0, done.stderr
    answered = json.loads(said.read_text())
    assert answered["choices"][0]["message"]["content"] == expected
    assert answered["system_fingerprint"] == release
    target_results.keep(
        "sagemaker",
        validated="boto3, moto",
        ran="podman: the image by the SDK's local mode, and as `docker run IMAGE serve`, asked through boto3",
        same_text=True,
        digest=True,
    )
