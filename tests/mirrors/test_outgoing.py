"""What may leave the project for other tools, and what is taken back when it is erased here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import treadle
from small_project import Project
from treadle.core.fact import Row
from treadle.core.sink import Ref
from treadle.erasing import forget
from treadle.integrations.openlineage_mirror import run_uuid
from treadle.integrations.run_pieces import pieces
from treadle.project import open_project
from treadle.record import beside
from treadle.record.mirrors import Mirrors
from treadle.record.outgoing import Outgoing

SECRET = "ghp_" + "a1B2" * 9


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process delivers beside the tests."""
    monkeypatch.setenv(beside.VARIABLE, "1")


def log(project: Project) -> str:
    params = {
        "lr": 1e-4,
        "optimizer": "adamw",
        "prompt": "You are Jane Roe's helper.",
        "net": {"layers": [2, 3], "norm": "layer norm of Jane"},
        "api_key": "hunter2hunter2",
        "none": None,
    }
    tags = {"team": "search", "owner": "Jane Roe", "stage": 3, "login": SECRET}
    with treadle.start_run("fit", params=params, tags=tags, seed=3, folder=project.folder, system=None) as run:
        run.input(run.artifact(project.file, kind="dataset"))
        run.log(0, loss=2.0)
        run.log(1, loss=1.0)
        run.note("Jane Roe asked for this")
        run.summary(best=1.0)
    return run.id


def test_plain_words_leave_and_other_texts_do_not(project: Project) -> None:
    identifier = log(project)
    with open_project(project.folder) as opened:
        run = Outgoing(opened.record, project.folder).run(identifier)
    assert run is not None
    assert run.parameters["lr"] == 1e-4
    assert run.parameters["optimizer"] == "adamw"
    assert run.parameters["net.layers"] == "[2, 3]"
    assert run.parameters["none"] is None
    assert run.parameters["prompt"].startswith("k3:")
    assert run.parameters["net.norm"].startswith("k3:")
    assert run.parameters["api_key"] == "[secret]"
    assert (run.tags["team"], run.tags["stage"], run.tags["login"]) == ("search", 3, "[secret]")
    assert run.tags["owner"].startswith("k3:")
    assert (run.metrics, run.seed, run.status) == ({"loss": 1.0, "best": 1.0}, 3, "done")
    assert not any(text in str(run) for text in ("Jane", "hunter2", SECRET))


def test_a_step_of_the_cycle_sends_no_prompt(project: Project) -> None:
    """The settings of steps stand in the ledger as the file has them; a text among them leaves as a digest."""
    with open_project(project.folder) as opened:
        record = opened.record
        body = {"version": 1, "key": "", "inputs": {"parts": ["b3:" + "1" * 64, "b3:" + "2" * 64]}, "seed": 1}
        body |= {
            "kind": "step",
            "parameters": {"system_prompt": "You help Jane.", "path": "data/x.jsonl", "from": "b3:" + "3" * 64},
        }
        identifier = record.runs.begin("deploy.release", body, project.folder)
        run = Outgoing(record, project.folder).run(identifier)
        assert run is not None
        assert run.parameters["system_prompt"].startswith("k3:")
        assert run.parameters["path"] == "data/x.jsonl"
        assert run.parameters["from"] == "b3:" + "3" * 64
        assert list(run.inputs) == ["parts.0", "parts.1"]
        assert (run.status, run.ended, run.turn) == ("running", None, None)


def test_events_hold_no_text(project: Project, events: Path) -> None:
    log(project)
    with open_project(project.folder) as opened:
        Mirrors(opened.record, project.folder).deliver()
    written = events.read_text()
    assert "helper.experiment.fit" in written
    assert not any(text in written for text in ("Jane", "search", "hunter2", SECRET))


def test_what_was_erased_is_taken_back(project: Project, events: Path) -> None:
    identifier = log(project)
    with treadle.start_run("other", tags={"who": "Quillfeather"}, folder=project.folder, system=None) as other:
        pass
    with open_project(project.folder) as opened, opened.record.workspace.exclusive():
        view = Outgoing(opened.record, project.folder)
        assert view.run(other.id).tags == {"who": "Quillfeather"}  # type: ignore[union-attr]
        before = view.last()
        assert forget(opened, "Quillfeather", rebuild=False).done
        refs = [each for _, given in view.rows(before) for each in given if isinstance(each, Ref)]
        assert refs == [Ref(run=other.id, tags=("who",))]
        assert view.run(other.id).tags["who"].startswith("k3:")  # type: ignore[union-attr]
        assert view.run(identifier).tags["team"] == "search"  # type: ignore[union-attr]
        (told,) = Mirrors(opened.record, project.folder).deliver()
        assert (told.error, told.waiting) == (None, 0)


def test_an_artifact_that_was_erased_is_named(project: Project) -> None:
    identifier = log(project)
    with open_project(project.folder) as opened:
        record, view = opened.record, Outgoing(opened.record, project.folder)
        made = record.runs.get(identifier)
        assert made is not None
        (digest,) = made.outputs.values()
        version = record.versions.register("dataset", digest, identifier)
        known = view.artifact(digest)
        assert known is not None
        assert (known.kind, known.name, known.number) == ("dataset", "helper", version.number)
        before = view.last()
        suppression = record.erasures.extend({}).digest
        record.erasures.record("era-1", "k3:1", "deleting", suppression, objects=[digest, "b3:" + "0" * 64])
        refs = [each for _, given in view.rows(before) for each in given if isinstance(each, Ref)]
        assert refs == [Ref(artifact=digest)]
        kinds = {each.kind for _, given in view.rows(0) for each in given if isinstance(each, Row)}
        assert "artifact" in kinds
        assert "version" not in kinds  # nobody is told anew of what was erased


def test_pieces_count_points_over_seals(project: Project) -> None:
    with open_project(project.folder) as opened:
        record, view = opened.record, Outgoing(opened.record, project.folder)
        with treadle.start_run("fit", folder=project.folder, system=None) as run:
            run.log(0, loss=1.0)
            run.log(1, loss=0.5)
            record.workspace.journal.seal("metrics")
            middle = view.last()
            run.log(None, loss=0.25)
            run.summary(loss=0.2)
        record.workspace.journal.seal("metrics")
        rows = [row for _, given in view.rows(0) for row in given]
        (piece,) = pieces(view, rows)
        assert [(point.place, point.step, point.values["loss"]) for point in piece.points] == [
            (0, 0, 1.0),
            (1, 1, 0.5),
            (2, None, 0.25),
        ]
        assert (piece.finished, piece.final(view)) == (True, {"loss": 0.2})
        (rest,) = pieces(view, rows, [(run.id, 0, middle)])
        assert [point.place for point in rest.points] == [2]
        assert list(pieces(view, rows, [(run.id, 0, view.last())])) == []


def test_a_run_has_one_uuid() -> None:
    made = run_uuid("run-01M8DTQ3TE89V8G5EHBX3VQQSD")
    assert made == "01a21bab-8f4e-79da-8815-d15f47bbdf2d"
    assert run_uuid("run-01M8DTQ3TE89V8G5EHBX3VQQSE") != made
    with pytest.raises(ValueError, match="is no identifier"):
        run_uuid("run-1")


def test_parameters_are_json_where_they_are_lists(project: Project) -> None:
    with treadle.start_run("x", params={"a": ["b c", "d", [1]]}, folder=project.folder, system=None) as run:
        pass
    with open_project(project.folder) as opened:
        sent = Outgoing(opened.record, project.folder).run(run.id)
    assert sent is not None
    first, second, third = json.loads(sent.parameters["a"])
    assert first.startswith("k3:")
    assert (second, third) == ("d", [1])
