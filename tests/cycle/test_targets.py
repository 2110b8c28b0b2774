"""A release that leaves its project: rendered, carried in a folder, and built and run as a container."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import command
import containers
import target_results
from small_project import Project
from treadle.integrations.kubernetes_scale import QUEUE
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
        "podman stop -t 45 treadle-helper  # and take it away"
    ]
    project.call("apply", "kubernetes", out, "--dry-run", check=2)
    pods = str(tmp_path / "pods")
    assert "API keys" not in project.call("render", "kubernetes", "--out", pods).stderr
    project.call("keys", "create", "limited", "--requests-per-minute", "5")
    try:
        for call in (("render", "kubernetes", "--out", pods), ("apply", "kubernetes", pods, "--dry-run")):
            assert "the API keys of this project (1)" in project.call(*call).stderr
        shared = ("render", "kubernetes", "--out", str(tmp_path / "shared"), "--with", "keys=postgresql")
        assert "API keys" not in project.call(*shared).stderr  # which know them
        hub = str(tmp_path / "hub")
        assert "API keys" not in project.call("render", "huggingface", "--out", hub, "--with", "license=mit").stderr
    finally:
        project.call("keys", "revoke", "limited")
    assert "API keys" not in project.call("apply", "kubernetes", pods, "--dry-run").stderr
    project.call("render", "docker", "model@v9", "--out", out, check=2)


KEY = {"Authorization": "Bearer a-key-for-a-test"}


def inspected(form: str, name: str = "treadle-helper") -> str:
    done = subprocess.run(["podman", "inspect", "--format", form, name], capture_output=True, text=True)
    return done.stdout.strip()


class Asking:
    """Asks an address again and again while it is entered: when, and which release answered, or what came instead."""

    def __init__(self, url: str) -> None:
        self.seen: list[tuple[float, str]] = []
        self._url, self._ended = url, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            try:
                answer = httpx.post(f"{self._url}/v1/chat/completions", json=ASKED, headers=KEY, timeout=60)
                said = answer.json()["system_fingerprint"] if answer.status_code == 200 else str(answer.status_code)
            except httpx.TransportError:
                said = "nobody"
            self.seen.append((time.monotonic(), said))


@pytest.mark.slow
def test_a_release_takes_the_place_of_another(
    project: Project, tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TREADLE_API_KEY", "a-key-for-a-test")
    out, port = tmp_path / "docker", containers.free_port()
    settings = ("--with", "tool=podman", "--with", f"port={port}", "--with", "wheels_only=true")
    old = project.json("render", "docker", "--out", str(out), *settings)["release"]
    containers.add_wheels(out)
    project.edit("system_prompt: You help.", "system_prompt: You help a lot.")
    new = project.json("deploy")["release"]
    try:
        assert project.json("apply", "docker", str(out))["release"] == old
        project.call("render", "docker", new, "--out", str(out), *settings)
        made = (out / "Dockerfile").read_text()
        began = inspected("{{.State.StartedAt}}")
        for wrong, code, said in (
            # One that does not start is not let to the port.
            (f"{made}ENV TREADLE_RELEASE_DIGEST=b3:{'00' * 32}\n", 2, "ended before it was ready"),
            # One that starts beside the old one, and not in its place, gives the place back.
            (f'{made}ENTRYPOINT ["sh", "-c", "! ls /journal/* && exec treadle serve --host 0.0.0.0"]\n', 2, "ended"),
        ):
            (out / "Dockerfile").write_text(wrong)
            assert said in project.call("apply", "docker", str(out), check=code).stderr
            assert (inspected("{{.State.StartedAt}}") == began) is ("DIGEST=b3:00" in wrong)
            assert (
                inspected("{{.Name}}", "treadle-helper-next") == inspected("{{.Name}}", "treadle-helper-before") == ""
            )
            with Asking(f"http://127.0.0.1:{port}") as asking:
                time.sleep(15)
            assert asking.seen[-1][1] == old
        (out / "Dockerfile").write_text(made)
        with Asking(f"http://127.0.0.1:{port}") as asking:
            assert project.json("apply", "docker", str(out))["release"] == new
            time.sleep(1)
        answered = [(when, who) for when, who in asking.seen if who.startswith("b3:")]
        order = [who for _, who in answered]
        assert order == sorted(order, key=[old, new].index)  # first the one, then the other
        assert {who for _, who in asking.seen} <= {old, new, "503", "nobody"}
        gap = min(when for when, who in answered if who == new) - max(when for when, who in answered if who == old)
        with capsys.disabled():
            print(f"\none release after the other at one port: {gap:.1f} s without an answer")  # noqa: T201 - to be seen
        assert gap < 60
    finally:
        project.call("apply", "docker", str(out), "--down", check=None)
        subprocess.run(["podman", "volume", "rm", "--force", "treadle-helper"], check=True)
        subprocess.run(["podman", "rmi", "--force", f"localhost/treadle-helper:{new.replace(':', '-')[:19]}"])


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
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=KEY).text
        assert f"\n{QUEUE} 0.0\n" in metrics  # what an autoscaler can look at
        subprocess.run(["podman", "stop", "-t", "45", "treadle-helper"], check=True, capture_output=True)
        assert inspected("{{.State.ExitCode}}") == "0"  # it ended by itself, and was not killed
    finally:
        project.call("apply", "docker", str(out), "--down", check=None)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health/live")
    target_results.keep("docker", validated="hadolint", ran="podman: image built and run", same_text=True, digest=True)
    subprocess.run(["podman", "volume", "rm", "--force", "treadle-helper"], check=True)


@pytest.fixture
def away(
    request: pytest.FixtureRequest, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """Settings for a release that is not in the image, and what has to be in the environment where it is applied. A
    remote is called ``team`` in the project."""
    if request.param == "mounted":
        yield {"model": "mounted"}
        return
    place, inside = "../remote", ""
    with ExitStack() as stack:
        if request.param == "bucket":
            server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="0.0.0.0", port=0, verbose=False)
            server.start()
            stack.callback(server.stop)
            port = server.get_host_and_port()[1]
            keys = {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": "us-east-1"}
            for name, value in {**keys, "ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
                monkeypatch.setenv(f"AWS_{name}", value)
            httpx.put(f"http://127.0.0.1:{port}/models").raise_for_status()
            shown = ["podman", "network", "inspect", "podman", "--format", "{{(index .Subnets 0).Gateway}}"]
            gateway = subprocess.run(shown, capture_output=True, text=True, check=True).stdout.strip()
            place, inside = "s3://models/team", f"http://{gateway}:{port}"  # by a name, moto would look for its bucket
        project.edit("seed: 17\n", f"seed: 17\nremotes: {{team: {place}}}\n")
        yield {"model": "pulled", "remote": "team", "endpoint": inside}


def answer_at(url: str) -> Any:
    """Once it is ready again."""
    until = time.monotonic() + 120
    while True:
        try:
            if httpx.get(f"{url}/health/ready", timeout=5).status_code == 200:
                break
        except httpx.HTTPError:
            pass
        assert time.monotonic() < until, fetched_lines()
        time.sleep(0.3)
    return httpx.post(f"{url}/v1/chat/completions", json=ASKED, headers=KEY, timeout=60).json()


def fetched_lines() -> list[str]:
    """What the container says of what it fetched, since it was made."""
    done = subprocess.run(["podman", "logs", "treadle-helper"], capture_output=True, text=True)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("fetched ")]


def releases_in_the_volume() -> Path:
    command = ["podman", "volume", "inspect", "--format", "{{.Mountpoint}}", "treadle-helper-releases"]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def change_a_byte(folder: Path) -> None:
    path = folder / "release.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"You help", b"You hurt"))


@pytest.mark.slow
@pytest.mark.parametrize("away", ["mounted", "folder", "bucket"], indirect=True)
def test_a_release_that_is_not_in_the_image(
    away: dict[str, str], project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    containers.make_base_image()
    monkeypatch.setenv("TREADLE_API_KEY", "a-key-for-a-test")
    out, port, endpoint = tmp_path / "docker", containers.free_port(), away.pop("endpoint", "")
    url, pulled = f"http://127.0.0.1:{port}", away["model"] == "pulled"
    given = {"tool": "podman", "port": str(port), "wheels_only": "true", **away}
    settings = [part for name, value in given.items() for part in ("--with", f"{name}={value}")]
    old = project.json("render", "docker", "--out", str(out), *settings)["release"]
    expected = project.json("ask", "What can you do?")["answer"]
    containers.add_wheels(out)

    def apply(check: int = 0) -> Any:
        with monkeypatch.context() as patch:
            if endpoint:
                patch.setenv("AWS_ENDPOINT_URL", endpoint)
            return project.json("apply", "docker", str(out), check=check)

    restart, images = ["podman", "restart", "-t", "45", "treadle-helper"], [old]
    try:
        if pulled:
            apply(check=2)  # nobody has sent it there
            project.call("push", "team", old)
        said = apply()
        assert (said["answer"], said["release"], len(fetched_lines())) == (expected, old, pulled)
        subprocess.run(restart, check=True)
        assert answer_at(url)["system_fingerprint"] == old
        assert len(fetched_lines()) == pulled  # it was there
        there = releases_in_the_volume() if pulled else out / "releases"
        (one,) = [path for path in there.iterdir() if path.name.startswith("b3-")]
        change_a_byte(one)
        subprocess.run(restart, check=True)
        if pulled:  # it fetches what is right
            assert answer_at(url)["system_fingerprint"] == old
            assert len(fetched_lines()) == 2
        else:  # it does not start, until it is put right
            until = time.monotonic() + 60
            while inspected("{{.State.Running}}") == "true":
                assert time.monotonic() < until
                time.sleep(0.3)
            assert inspected("{{.State.ExitCode}}") == "1"
            assert apply()["answer"] == expected
        project.edit("system_prompt: You help.", "system_prompt: You help a lot.")
        new = project.json("deploy")["release"]
        images.append(new)
        if pulled:
            project.call("push", "team", new)
        project.call("render", "docker", new, "--out", str(out), *settings)
        assert apply()["release"] == answer_at(url)["system_fingerprint"] == new
        assert fetched_lines() == []  # the one on trial did
        assert len([path for path in there.iterdir() if path.name.startswith("b3-")]) == 2
    finally:
        project.call("apply", "docker", str(out), "--down", check=None)
        for name in ("treadle-helper", "treadle-helper-releases"):
            subprocess.run(["podman", "volume", "rm", "--force", name], check=True)
        for digest in images:
            subprocess.run(["podman", "rmi", "--force", f"localhost/treadle-helper:{digest.replace(':', '-')[:19]}"])
