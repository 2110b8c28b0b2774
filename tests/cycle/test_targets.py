"""A release that leaves its project: rendered, carried in a folder, and built and run as a container."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import command
import containers
import target_results
from small_project import Project
from treadle.stages.deploy.carried import own_record
from treadle.text.accounting import Accounting
from treadle.text.source import SourceContext, open_source, read_sources

ASKED = {"messages": [{"role": "user", "content": "What can you do?"}], "temperature": 0, "max_tokens": 16}


@contextmanager
def carried(folder: Path, *more: str) -> Iterator[str]:
    """A server of the release in ``folder/release``, without a project; its address."""
    arguments = ("serve", "--release-folder", "release", "--journal", "journal", "--port", "0", "--json", *more)
    process = command.start(*arguments, folder=folder)
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        yield json.loads(line)["url"]
    finally:
        process.terminate()
        rest = process.communicate(timeout=60)[0]
        assert process.returncode == 0, line + rest


def test_a_release_without_its_project(project: Project, tmp_path: Path) -> None:
    release = project.json("render", "systemd", "--out", str(tmp_path / "unit"))["release"]
    project.call("export", "folder", release, "--out", str(tmp_path / "release"))
    with carried(tmp_path, "--digest", release, "--name", "helper@v1") as url:
        said = httpx.post(f"{url}/v1/chat/completions", json=ASKED, timeout=60).json()
    assert (said["system_fingerprint"], said["model"]) == (release, "helper@v1")
    with own_record(tmp_path / "journal", "helper") as record:
        assert [row.id for row in record.recorder.interactions(release)] == [said["id"]]
    # What it recorded can be learned from: a folder whose file names the journal as its store is a project like others.
    (tmp_path / "treadle.yaml").write_text(project.file.read_text() + "store: journal\n")
    source = open_source({"type": "deployment", "project": str(tmp_path)}, SourceContext(project.folder, str.upper))
    source.refresh(lambda line: None)
    (document,) = [each for batch in read_sources([source], Accounting()) for each in batch]
    assert (document.locator, document.fields["release"]) == (said["id"], release)
    spec = tmp_path / "release" / "release.json"
    spec.chmod(0o644)
    spec.write_bytes(spec.read_bytes().replace(b"You help.", b"You hurt."))
    arguments = ("serve", "--release-folder", "release", "--journal", "journal", "--digest", release)
    done = command.run(*arguments, folder=tmp_path)
    assert done.returncode == 1
    assert "files were changed" in done.stderr
    assert command.run("serve", "--release-folder", "nothing", "--journal", "j", folder=tmp_path).returncode == 2


def test_render_and_a_dry_run(project: Project, tmp_path: Path) -> None:
    out = str(tmp_path / "docker")
    said = project.json("render", "docker", "--out", out, "--with", "tool=podman")
    assert said["changed"] == sorted([*said["files"], "treadle.json"])
    assert project.json("render", "docker", "@champion", "--out", out, "--with", "tool=podman")["changed"] == []
    planned = project.json("apply", "docker", out, "--dry-run")
    assert planned["done"] is False
    assert [each.split()[:2] for each in planned["commands"]] == [["podman", "build"], ["podman", "run"]]
    assert project.json("apply", "docker", out, "--dry-run", "--down")["commands"] == [
        "podman rm --force treadle-helper"
    ]
    project.call("apply", "kubernetes", out, "--dry-run", check=2)
    pods = str(tmp_path / "pods")
    assert "API keys" not in project.call("render", "kubernetes", "--out", pods).stderr
    project.call("keys", "create", "limited", "--requests-per-minute", "5")
    try:
        for call in (("render", "kubernetes", "--out", pods), ("apply", "kubernetes", pods, "--dry-run")):
            assert "the API keys of this project (1)" in project.call(*call).stderr
        hub = str(tmp_path / "hub")
        assert "API keys" not in project.call("render", "huggingface", "--out", hub, "--with", "license=mit").stderr
    finally:
        project.call("keys", "revoke", "limited")
    assert "API keys" not in project.call("apply", "kubernetes", pods, "--dry-run").stderr
    project.call("render", "docker", "model@v9", "--out", out, check=2)


@pytest.mark.slow
def test_the_image_is_built_and_answers_as_the_project_does(
    project: Project, tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TREADLE_API_KEY", "a-key-for-a-test")
    port = containers.free_port()
    out = tmp_path / "docker"
    settings = ("--with", "tool=podman", "--with", f"port={port}", "--with", "wheels_only=true")
    project.call("render", "docker", "--out", str(out), *settings)
    containers.add_wheels(out)
    expected = project.json("ask", "What can you do?")["answer"]
    try:
        said: dict[str, Any] = project.json("apply", "docker", str(out))
        assert said["answer"] == expected
        assert said["release"] == project.json("status")["deployment"]["release"]
        assert f"http://127.0.0.1:{port}" in project.call("status", "--json").stdout
    finally:
        project.call("apply", "docker", str(out), "--down", check=None)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health/live")
    target_results.keep("docker", validated="hadolint", ran="podman: image built and run", same_text=True, digest=True)
    subprocess.run(["podman", "volume", "rm", "--force", "treadle-helper"], check=True)
