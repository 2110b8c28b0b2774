"""The JSON shapes that docs/json.md promises, against real output: the same keys, the same types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from docs.conftest import Treadle
from docs.pages import ROOT, blocks, section
from treadle.asking import Answer
from treadle.core.artifacts import Builder
from treadle.project import open_project
from treadle.record.interaction import Interaction, new_interaction_id
from treadle.record.record import Record
from treadle.record.release import Release, ReleaseSpec
from treadle.record.turn import TurnInputs
from treadle.stages.improve import give_feedback
from treadle.stages.track.walk import lineage
from treadle.standing import summary

PAGE = ROOT / "docs" / "json.md"
MAY_BE_NULL = {"champion", "challenger", "deployment", "run", "seconds", "release", "value", "correction"}
MAY_BE_NULL |= {"turn", "canary"}


def promised(name: str) -> Any:
    """The example under a command's heading."""
    text = section(PAGE, f"## {name}").partition("```json\n")[2].partition("```")[0]
    return json.loads(text)


def differences(example: Any, actual: Any, where: str = "$") -> list[str]:
    """Where the output is not of the example's shape."""
    key = where.rpartition(".")[2].partition("[")[0]
    if example is None or (actual is None and key in MAY_BE_NULL):
        return []
    if isinstance(example, dict):
        if not isinstance(actual, dict):
            return [f"{where} is {actual!r}"]
        if not example:
            return []
        if example.keys() != actual.keys():
            return [f"{where} has {sorted(actual)}, documented are {sorted(example)}"]
        return [each for name in example for each in differences(example[name], actual[name], f"{where}.{name}")]
    if isinstance(example, list):
        if not isinstance(actual, list):
            return [f"{where} is {actual!r}"]
        return [
            each
            for place, item in enumerate(actual)
            if example
            for each in differences(example[0], item, f"{where}[{place}]")
        ]
    wanted = (int, float) if isinstance(example, float) else type(example)
    same = isinstance(actual, wanted) and isinstance(actual, bool) is isinstance(example, bool)
    return [] if same else [f"{where} is {actual!r}, documented is {example!r}"]


def test_a_difference_is_seen() -> None:
    example = {"a": [{"b": 1, "c": 1.0}], "d": "text"}
    assert not differences(example, {"a": [{"b": 2, "c": 3}, {"b": 0, "c": 0.5}], "d": ""})
    assert differences(example, {"a": [{"b": 2}], "d": ""})
    assert differences(example, {"a": [{"b": True, "c": 1}], "d": ""})
    assert differences(example, {"a": [], "d": None})
    assert differences(example, {"a": {}, "d": ""})


def test_every_example_is_json() -> None:
    found = [block for block in blocks(PAGE) if block.language == "json"]
    assert len(found) >= 11
    for block in found:
        json.loads(block.text)


def test_run(tiny: tuple[Path, dict[str, Any]]) -> None:
    assert not differences(promised("run"), tiny[1])
    assert [stage["stage"] for stage in tiny[1]["stages"]] == ["collect", "prepare"]
    assert all(step["status"] == "done" for stage in tiny[1]["stages"] for step in stage["steps"])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("run", ("plan",)),
        ("runs", ("runs",)),
        ("status", ("status",)),
        ("verify", ("verify",)),
        ("head", ("head",)),
        ("push", ("push", "../remote")),
        ("gc", ("gc", "--dry-run", "--older-than", "30d")),
        ("collect", ("collect",)),
        ("prepare", ("prepare",)),
        ("doctor", ("doctor",)),
        ("forget", ("forget", "jane.roe@example.org", "--dry-run")),
    ],
)
def test_commands(name: str, arguments: tuple[str, ...], tiny: tuple[Path, dict[str, Any]], treadle: Treadle) -> None:
    done = treadle(tiny[0], *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    found = json.loads(done.stdout)
    assert found
    assert not differences(promised(name), found)


def test_pull(tiny: tuple[Path, dict[str, Any]], treadle: Treadle, tmp_path: Path) -> None:
    assert treadle(tiny[0], "push", str(tmp_path / "there")).returncode == 0
    found = json.loads(treadle(tiny[0], "pull", str(tmp_path / "there"), "--json").stdout)
    assert not differences(promised("push"), found)


def test_backup_and_restore(copied: Path, treadle: Treadle, tmp_path: Path) -> None:
    made = json.loads(treadle(copied, "backup", str(tmp_path / "b.zip"), "--json").stdout)
    assert not differences(promised("backup"), made)
    run = json.loads(treadle(copied, "runs", "--json").stdout)[0]["id"]
    assert treadle(copied, "runs", run, "--note", "said since").returncode == 0
    found = json.loads(treadle(copied, "restore", str(tmp_path / "b.zip"), "--older", "--json").stdout)
    assert not differences(promised("restore"), found)
    verified = json.loads(treadle(copied, "verify", "--json").stdout)
    assert verified["restores"]
    assert not differences(promised("verify"), verified)


def test_encrypt(copied: Path, treadle: Treadle, monkeypatch: pytest.MonkeyPatch) -> None:
    with (copied / "treadle.yaml").open("a") as file:
        file.write("encryption: ${env:COPY_KEY}\n")
    monkeypatch.setenv("COPY_KEY", "ab" * 32)
    found = json.loads(treadle(copied, "encrypt", "--json").stdout)
    assert found["ok"]
    assert found["objects"] > 10
    assert not differences(promised("encrypt"), found)


def test_prove(tiny: tuple[Path, dict[str, Any]], treadle: Treadle, tmp_path: Path) -> None:
    done = treadle(tiny[0], "prove", "1", "--out", str(tmp_path / "proof"), "--json")
    found = json.loads(done.stdout)
    assert not differences(promised("prove"), found)
    assert found["files"] == sorted(path.name for path in (tmp_path / "proof").iterdir())
    assert set(promised("prove")["files"]) - set(found["files"]) == {"manifest.json"}  # row 1 names no artifact


def test_the_account_adds_up(tiny: tuple[Path, dict[str, Any]], treadle: Treadle) -> None:
    found = json.loads(treadle(tiny[0], "collect", "--json").stdout)
    assert found["in"] == found["kept"] + sum(found["dropped"].values()) + len(found["quarantined"]) == 82
    assert len(found["quarantined"]) == 2


def test_lineage_and_diff(tiny: tuple[Path, dict[str, Any]], treadle: Treadle) -> None:
    steps = {step["step"]: step for stage in tiny[1]["stages"] for step in stage["steps"]}
    dataset = steps["prepare.assemble"]["outputs"]["dataset"]
    found = json.loads(treadle(tiny[0], "lineage", dataset[:15], "--limit", "5", "--json").stdout)
    assert not differences(promised("lineage"), found)
    assert found["root"] == dataset
    assert found["verified"] is True
    assert {node["kind"] for node in found["nodes"]} >= {"dataset", "document"}
    assert found["truncated"]["document"] > 0
    runs = [steps[name]["run"] for name in ("collect.gather", "prepare.clean")]
    assert not differences(promised("diff"), json.loads(treadle(tiny[0], "diff", *runs, "--json").stdout))


def test_an_error(tiny: tuple[Path, dict[str, Any]], treadle: Treadle) -> None:
    done = treadle(tiny[0], "lineage", "model@v9", "--json")
    assert done.returncode == 2
    (example,) = [block for block in blocks(ROOT / "docs" / "errors.md") if '"exit_code"' in block.text]
    assert not differences(json.loads(example.text), json.loads(done.stdout))
    assert len(done.stderr.splitlines()) == 1


def answered(record: Record) -> tuple[Release, Interaction]:
    """A release and an answer of it, as deploying and serving would leave them."""
    dataset = record.runs.find(step="prepare.assemble", status="done")[0].outputs["dataset"]
    base = {"name": "none", "license": "MIT"}
    spec = ReleaseSpec("reviews", "classify", dataset, dataset, base, "transformers", asking="classify")
    with Builder(Release, record.store) as bundle:
        (bundle.path / "release.json").write_text(json.dumps(spec.to_json()))
        release = bundle.commit()
    row = Interaction(
        id=new_interaction_id(),
        request="req-1",
        time="2026-01-31T12:00:00.000Z",
        release=release.digest,
        model="reviews@v1",
        endpoint="classify",
        status="ok",
        store=True,
        messages=({"role": "user", "content": "the lid does not close"},),
        answer="bad",
    )
    record.recorder.interaction(row)
    return release, row


def test_status_of_a_project_that_answers(copied: Path) -> None:
    with open_project(copied) as project:
        record = project.record
        release, row = answered(record)
        version = record.versions.register("model", release.read().model, None)
        record.versions.point("champion", version, reason="gates passed")
        record.deployments.record(release.digest, version.ref, "http://127.0.0.1:8000")
        record.alerts.raise_("drift", "questions differ", release.digest, {"n": 60})
        record.turns.begin(("asked for",), TurnInputs(release.digest, release.digest), "")
        record.canaries.begin("can-1", "b3:another", "b3:model", release.digest, 0.1)
        record.erasures.record("era-1", "k3:0", "requested", record.erasures.extend({"k3:1": 1}).digest)
        found = summary(project)
        assert not differences(promised("status"), found)
        assert found["champion"]["ref"] == version.ref
        assert len(found["alerts"]) == len(found["pending"]) == 1
        assert found["counts"]["interactions"] == 1
        said = give_feedback(record, row.id, "correction", None, "good", None, "jane")
        assert not differences(promised("feedback"), json.loads(json.dumps(said.to_dict())))
        answer = Answer("the lid does not close", "bad", row.id, release.digest, "reviews@v1", lineage(record, row.id))
        public = json.loads(json.dumps(answer.public()))
        assert not differences(promised("ask"), public)
        kinds = {node["kind"] for node in public["lineage"]["nodes"]}
        assert {"interaction", "release", "document"} <= kinds
