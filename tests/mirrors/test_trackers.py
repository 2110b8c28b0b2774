"""Weights & Biases and Comet by their real clients in their real offline modes, and OpenLineage's own classes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

import treadle
from importing.peers import call, peer
from small_project import Project
from treadle.core.sink import SentRun
from treadle.integrations.comet_mirror import key_of
from treadle.project import open_project
from treadle.record import beside
from treadle.record.outgoing import Outgoing
from treadle.record.turn import TurnInputs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def python(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of the clients, which commands of this one import from."""
    found = peer("trackers", "wandb", "comet_ml", "openlineage-python", "httpx") / "python"
    (packages,) = (found.parent.parent / "lib").glob("python*/site-packages")
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.setenv(beside.VARIABLE, "1")
    return found


def read(python: Path, script: str, *files: Path) -> list[Any]:
    said = call(python, str(Path(__file__).with_name(script)), *map(str, files), cwd=Path.cwd())
    return [json.loads(line) for line in said.splitlines()]


def log_with_interruptions(project: Project, mirror: str) -> str:
    """A run that is mirrored while it goes on, by processes of which some are killed."""
    params = {"lr": 1e-4, "optimizer": "adamw", "prompt": "You are Jane Roe."}
    tags = {"team": "search", "owner": "Jane Roe"}
    with treadle.start_run("fit", params=params, tags=tags, folder=project.folder, system=None) as run:
        for piece in range(3):
            run.log_many((step, {"loss": 1 / (step + 1)}) for step in range(piece * 400, piece * 400 + 400))
            killed = project.start("mirror", mirror)
            time.sleep(0.5 + piece)
            killed.kill()
            killed.communicate()
            if piece == 1:
                (told,) = project.json("mirror", mirror)
                assert (told["error"], told["waiting"]) == (None, 0)
        run.log(None, other=3.0)
        run.tag(late="yes")
        run.summary(best=0.5)
    (told,) = project.json("mirror", mirror)
    assert (told["error"], told["waiting"]) == (None, 0)
    project.json("mirror", mirror, "--all")
    return run.id


def sent(project: Project, run: str) -> SentRun:
    with open_project(project.folder) as opened:
        found = Outgoing(opened.record, project.folder).run(run)
    assert found is not None
    assert found.tags["team"] == "search"
    assert found.parameters["prompt"].startswith("k3:")
    return found


def nothing_told(folder: Path) -> None:
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"Jane" not in everything


def test_weights_and_biases(project: Project, python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = sent(project, log_with_interruptions(project, "wandb"))
    folders = sorted((project.folder / "wandb").iterdir(), key=lambda path: int(path.name.split("-")[-1]))
    assert len(folders) > 1
    said = [read(python, "read_wandb.py", *folder.glob("*.wandb"))[0] for folder in folders]
    assert {each["id"] for each in said} == {run.id}
    history = [row for each in said for row in each["history"]]
    assert [row["_step"] for row in history] == list(range(1201))
    assert [(row["treadle_step"], row["loss"]) for row in history[:-1]] == [(n, 1 / (n + 1)) for n in range(1200)]
    assert history[-1]["other"] == 3.0
    config = said[-1]["config"]
    assert {name: config[name] for name in run.parameters} == run.parameters
    assert {name: config[f"tags.{name}"] for name in run.tags} == run.tags
    assert set(said[-1]["tags"]) == {f"{name}={value}" for name, value in run.tags.items()}
    assert {name: said[-1]["summary"][name] for name in run.metrics} == run.metrics
    assert (said[-1]["exit"], said[-1]["host"]) == (0, "")
    nothing_told(project.folder / "wandb")
    assert not list(project.folder.glob(".wandb-treadle-*"))


def test_comet(project: Project, python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMET_OFFLINE", "true")
    run = sent(project, log_with_interruptions(project, "comet"))
    archives = sorted(
        (project.folder / ".cometml-runs").glob("*.zip"), key=lambda path: int(path.stem.rpartition("-")[2])
    )
    assert len(archives) > 1
    said = read(python, "read_comet.py", *archives)
    assert {each["key"] for each in said} == {key_of(run.id)}
    points = [(name, step, value) for each in said for name, step, value in each["metrics"]]
    losses = [(step, value) for name, step, value in points if name == "loss"]
    assert losses == [(n, 1 / (n + 1)) for n in range(1200)]
    assert {name: value for name, _, value in points if name in run.metrics} == run.metrics
    assert said[-1]["parameters"] == run.parameters
    assert {name: said[-1]["others"][f"tags.{name}"] for name in run.tags} == run.tags
    assert set(said[-1]["tags"]) == {f"{name}={value}" for name, value in run.tags.items()}
    nothing_told(project.folder / ".cometml-runs")


@pytest.mark.parametrize(("tool", "variable"), [("wandb", "WANDB_MODE"), ("comet", "COMET_OFFLINE")])
def test_erased_words_leave_the_files_that_are_here(
    tool: str, variable: str, project: Project, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "offline" if tool == "wandb" else "true")
    with treadle.start_run("fit", tags={"who": "Quillfeather"}, folder=project.folder, system=None) as run:
        run.log(0, loss=1.0)
    project.json("mirror")
    assert project.json("forget", "Quillfeather", "--no-rebuild")["done"]
    (told,) = project.json("mirror")
    assert [f"{run.id}: tags were erased" in line for line in told["told"]] == [True]
    project.json("mirror", tool, "--all")
    places = {"wandb": "wandb/offline-run-*", "comet": ".cometml-runs/*.zip"}
    assert len(list(project.folder.glob(places[tool]))) == 1
    everything = b"".join(path.read_bytes() for path in project.folder.rglob("*") if path.is_file())
    assert b"Quillfeather" not in everything


def test_events_are_openlineages(project: Project, python: Path, events: Path) -> None:
    with treadle.start_run("one", tags={"a": "b"}, folder=project.folder, system=None) as one:
        data = one.artifact(project.file, kind="dataset")
    with pytest.raises(ZeroDivisionError), treadle.start_run("two", folder=project.folder, system=None) as two:
        two.input(data)
        two.log(0, loss=1.0)
        raise ZeroDivisionError
    with open_project(project.folder) as opened:
        record = opened.record
        record.turns.begin(("a test",), TurnInputs(), "")
        body = {"version": 1, "key": "", "inputs": {"data": data.digest}, "seed": 1, "kind": "step", "parameters": {}}
        record.runs.begin("develop.train", body, project.folder)
        record.turns.end(1, "failed", "a test", None)
    project.json("mirror")
    (counts,) = read(python, "read_openlineage.py", events)
    assert counts["events"] == 7
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    states = [(line["job"]["name"].removeprefix("helper."), line["eventType"]) for line in lines]
    assert states == [
        ("experiment.one", "START"),
        ("experiment.one", "COMPLETE"),
        ("experiment.two", "START"),
        ("experiment.two", "FAIL"),
        ("turn", "START"),
        ("develop.train", "START"),
        ("turn", "FAIL"),
    ]
    (made,), (taken,) = lines[1]["outputs"], lines[3]["inputs"]
    assert made["facets"]["version"] == taken["facets"]["version"]
    assert made["facets"]["version"]["datasetVersion"] == data.digest
    assert lines[5]["run"]["facets"]["parent"]["run"]["runId"] == lines[4]["run"]["runId"]
