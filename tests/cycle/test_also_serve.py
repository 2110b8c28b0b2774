"""``deploy.also_serve`` for real: one server process answers for two projects, and each has its own record."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from made_once import made_once
from small_project import Project, make_project
from treadle.project import open_project
from treadle.stages.deploy.serving import serving_now

ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "How do I store my tent?"}], "temperature": 0}


@pytest.fixture(scope="session")
def clerk_built(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """Another project after one turn, with another name."""

    def make(root: Path) -> None:
        project = make_project(root, base)
        project.edit("name: helper", "name: clerk")
        project.edit("tokens: 3000", "tokens: 500")
        project.edit("smoke_requests: 4", "smoke_requests: 0")
        project.edit("    - quality: {metric: log_likelihood, beats: base}\n", "")
        project.call("run")

    return made_once(tmp_path_factory, "built-clerk", make)


@pytest.fixture
def clerk(clerk_built: Path, project: Project, tmp_path: Path) -> Project:
    """The other one, for which the server of the first answers as well."""
    shutil.copytree(clerk_built, tmp_path / "clerk", symlinks=True)
    project.edit("deploy:\n", "deploy:\n  also_serve: [../../clerk/project]\n")
    return Project(tmp_path / "clerk" / "project")


@contextmanager
def served(project: Project) -> Iterator[dict[str, Any]]:
    """What ``treadle serve`` says when it answers; it has to end as asked."""
    process = project.start("serve", "--port", "0", "--json")
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("{"):
            break
    assert said, process.wait(10)
    try:
        yield json.loads(said[-1])
    finally:
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 0, "".join(said) + rest


def ask(url: str, model: str | None = None, key: str | None = None) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    body = ASKED | ({"model": model} if model else {})
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60)


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_one_server_for_two_projects(project: Project, clerk: Project) -> None:
    before = {each: each.json("status")["counts"]["interactions"] for each in (project, clerk)}
    with served(project) as said, served(clerk) as alone:  # which another server may stand beside
        url = said["url"]
        assert {name: each["model"] for name, each in said["models"].items()} == {
            "helper": "model/helper@v1", "clerk": "model/clerk@v1"
        }  # fmt: skip
        answers = {name: ask(url, name).json() for name in ("helper", "clerk")}
        for name, answer in answers.items():
            assert answer["system_fingerprint"] == said["models"][name]["release"]
        assert ask(url).json()["model"] == "helper@v1"
        same = ask(alone["url"]).json()
        assert same["choices"] == answers["clerk"]["choices"]
        listed = httpx.get(f"{url}/v1/models").json()["data"]
        assert {each["id"] for each in listed} == {"helper@v1", "clerk@v1"}
        assert all(time.time() - 3600 < each["created"] <= time.time() for each in listed)
        infer = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["How do I store my tent?"]}]}
        tensors = httpx.post(f"{url}/v2/models/clerk/infer", json=infer, timeout=60).json()
        assert tensors["parameters"]["release"] == said["models"]["clerk"]["release"]
        opinion = {"interaction": answers["clerk"]["id"], "correction": "Fold it."}
        assert httpx.post(f"{url}/v1/feedback", json=opinion).status_code == 201
        assert clerk.json("status")["deployment"]["release"] == said["models"]["clerk"]["release"]

        secret = project.json("keys", "create", "for-clerk", "--model", "clerk@champion")["key"]
        until(lambda: httpx.get(f"{url}/v1/models").status_code == 401)
        assert ask(url, "clerk").status_code == 401
        assert ask(url, key=secret).json()["model"] == "clerk@v1"
        assert ask(url, "helper", secret).status_code == 403
        assert ask(alone["url"]).status_code == 200  # whose keys are its own
    after = {each: each.json("status")["counts"]["interactions"] for each in (project, clerk)}
    assert after == {project: before[project] + 2, clerk: before[clerk] + 5}
    assert [row["kind"] for row in clerk.json("feedback")] == ["correction"]
    assert project.json("feedback") == []
    graph = clerk.json("lineage", answers["clerk"]["id"])
    assert "document" in {node["kind"] for node in graph["nodes"]}
    project.call("lineage", answers["clerk"]["id"], check=2)
    for each in (project, clerk):
        assert each.json("verify")["problems"] == []
        with open_project(each.folder) as opened:
            assert serving_now(opened.record) == []
            assert opened.record.deployments.all() == []


def test_a_project_that_cannot_be_opened_yet_and_one_that_wants_a_key(project: Project, clerk: Project) -> None:
    store, aside = clerk.folder / ".treadle", clerk.folder / "aside"
    store.rename(aside)
    store.write_text("a file where the store was")
    with served(project) as said:
        url = said["url"]
        assert said["models"]["clerk"] == {"release": None, "model": None}
        assert ask(url).status_code == 200
        assert ask(url, "clerk").status_code == 503
        assert httpx.get(f"{url}/health/ready").json() == {"status": "partial"}
        opinion = {"interaction": "int-" + "0" * 26, "thumbs": "up"}
        store.unlink()
        aside.rename(store)
        until(lambda: ask(url, "clerk").status_code == 200)
        assert httpx.get(f"{url}/health/ready").json() == {"status": "ok"}
        assert httpx.post(f"{url}/v1/feedback", json=opinion).status_code == 404

        answered = ask(url, "clerk").json()["id"]
        thumbs = {"interaction": answered, "thumbs": "up"}
        assert httpx.post(f"{url}/v1/feedback", json=thumbs).status_code == 201
        own = clerk.json("keys", "create", "its-own")["key"]  # from now on nobody is to ask it without one
        until(lambda: ask(url, "clerk").status_code == 503)
        correction = {"interaction": answered, "correction": "Something else."}
        assert httpx.post(f"{url}/v1/feedback", json=correction).status_code == 404  # nor to tell it anything
        assert ask(url, "helper").status_code == 200
        secret = project.json("keys", "create", "both")["key"]
        until(lambda: ask(url, "clerk", secret).status_code == 200)
        assert ask(url, "clerk", own).status_code == 401
        assert ask(url, "clerk").status_code == 401


@pytest.mark.parametrize(
    ("named", "change", "said"),
    [
        ("../nowhere", None, "there is no treadle.yaml in ../nowhere; expected the folder of another project"),
        (".", None, "the project in . is called helper, as the one in"),
        ("{other}", None, "requests tell models apart by these names, so leave one out"),
        ("{other}", ("name: helper", "name: clerk\nstore: {store}"), "has its record where the one in"),
        ("{other}", ("name: helper", "name: a b"), "treadle.yaml:1: name: expected letters, digits"),
        (
            "{other}",
            ("name: helper", "name: clerk"),
            "the prices of clerk are in EUR, those of helper in USD; one key pays for both",
        ),
    ],
)
def test_what_cannot_stand_side_by_side(
    fresh: Callable[[], Project], named: str, change: tuple[str, str] | None, said: str
) -> None:
    first, other = fresh(), fresh()
    price = "deploy:\n  price: {{currency: {}, prompt: 1, completion: 1}}\n"
    first.edit("deploy:\n", price.format("USD") + f"  also_serve: [{named.format(other=other.folder)}]\n")
    if change is not None:
        other.edit(change[0], change[1].format(store=first.folder / ".treadle"))
        other.edit("deploy:\n", price.format("EUR"))
    done = first.call("serve", "--port", "0", check=2)
    [line] = done.stderr.strip().splitlines()
    assert "deploy.also_serve: " in line
    assert said in line
