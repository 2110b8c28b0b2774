"""An MLflow store becomes runs and model versions: by hand where that is enough, and one that MLflow itself wrote."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from importing.peers import call, peer
from small_project import Project
from tiny_models import write_model
from treadle.core.errors import UserError
from treadle.integrations.mlflow_store import open_store
from treadle.project import open_project

Fresh = Callable[[], Project]


def files(root: Path, model: Path) -> str:
    """The folder ``mlruns`` as MLflow leaves it: one run, one registered model."""
    run = root / "1" / "abc"
    for name, text in {"params/lr": "0.1", "params/why": "asked by Jane Roe", "tags/team": "nlp"}.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text)
    (run / "metrics").mkdir()
    (run / "metrics" / "loss").write_text("1700000000000 2.0 0\n1700000001000 1.0 1\n1700000002000 nan 2\n")
    (root / "1" / "meta.yaml").write_text("experiment_id: '1'\nname: reviews\n")
    (run / "meta.yaml").write_text(
        "run_id: abc\nstatus: 3\nlifecycle_stage: active\nstart_time: 1700000000000\nend_time: 1700000003000\n"
        f"user_id: jane\nartifact_uri: {model.parent}\n"
    )
    version = root / "models" / "reviewer" / "version-3"
    version.mkdir(parents=True)
    (version.parent / "meta.yaml").write_text("name: reviewer\n")
    (version / "meta.yaml").write_text(f"name: reviewer\nversion: 3\nsource: runs:/abc/{model.name}\nrun_id: abc\n")
    (version.parent / "aliases").mkdir()
    (version.parent / "aliases" / "champion").write_text("3")
    return str(root)


def test_files_become_runs_and_versions(fresh: Fresh, elsewhere: Path, tmp_path: Path) -> None:
    project, place = fresh(), files(tmp_path / "mlruns", elsewhere)
    said = project.json("import", "mlflow", place)
    assert (said["in"], said["kept"], said["versions"]) == (2, 2, ["model/reviewer@v3"])
    (run,) = project.json("runs", "--step", "imported")
    assert (run["status"], run["seconds"], run["metrics"]) == ("done", 3.0, {"loss": 1.0})
    assert run["parameters"]["lr"] == "0.1"
    assert run["parameters"]["mlflow.start_time"] == "2023-11-14T22:13:20.000Z"
    assert "why" not in run["parameters"]
    shown = project.json("runs", run["id"])
    assert [point["loss"] for point in shown["points"]] == [2.0, 1.0]
    assert (shown["kind"], shown["commit"], shown["seed"]) == ("imported", None, None)
    graph = project.json("lineage", "reviewer@champion")
    assert [node["label"] for node in graph["nodes"]] == ["model/reviewer@v3", "training data and base model"]
    again = project.json("import", "mlflow", place)
    assert (again["kept"], again["dropped"]) == (0, {"mlflow.imported_before": 2})
    assert project.json("status")["champion"] is None
    assert project.json("verify")["ok"]


def test_what_is_said_of_a_run_is_forgotten_with_the_person(fresh: Fresh, elsewhere: Path, tmp_path: Path) -> None:
    project = fresh()
    project.json("import", "mlflow", files(tmp_path / "mlruns", elsewhere))
    store = project.folder / ".treadle"

    def bytes_of() -> bytes:
        return b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())

    assert b"asked by Jane Roe" in bytes_of()
    assert project.json("forget", "Jane Roe", "--no-rebuild")["done"]
    assert b"asked by Jane Roe" not in bytes_of()
    assert project.json("verify")["ok"]


def test_secrets_links_and_damage(fresh: Fresh, elsewhere: Path, tmp_path: Path) -> None:
    project, place = fresh(), files(tmp_path / "mlruns", elsewhere)
    run = tmp_path / "mlruns" / "1" / "abc"
    outside = tmp_path / "outside"
    outside.write_text("kept-elsewhere")
    (run / "params" / "linked").symlink_to(outside)
    for name, text in {"hf-token": "xyz12", "openai_key": "abcdef123", "name": "Jane_(Roe)", "betas": "-0.5"}.items():
        (run / "params" / name).write_text(text)
    (run / "tags" / "mlflow.source.git.commit").write_text("of Jane Roe")
    with (run / "metrics" / "loss").open("a") as lines:
        lines.write("17000 x 3\nnonsense\n9999999999999999999 1.0 4\n")
    assert project.json("import", "mlflow", place)["kept"] == 2
    (found,) = project.json("runs", "--step", "imported")
    assert (found["metrics"], found["parameters"]["betas"]) == ({"loss": 1.0}, "-0.5")
    assert project.json("runs", found["id"])["commit"] is None
    (stored,) = open_store(place).runs()
    assert (len(stored.points), stored.damaged) == (3, 3)
    everything = b"".join(path.read_bytes() for path in project.folder.rglob("*") if path.is_file())
    assert b"xyz12" not in everything
    assert b"abcdef123" not in everything
    assert b"kept-elsewhere" not in everything
    ledger = _rows(project)
    assert "Roe" not in ledger
    assert "of Jane" not in ledger


def test_a_damaged_point_of_a_database_is_counted(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.executescript(
            "CREATE TABLE experiments (experiment_id, name); CREATE TABLE params (run_uuid, key, value);"
            "CREATE TABLE tags (run_uuid, key, value);"
            "CREATE TABLE runs (run_uuid, experiment_id, name, status, start_time, end_time, user_id, artifact_uri,"
            " lifecycle_stage);"
            "CREATE TABLE metrics (run_uuid, timestamp, step, key, value, is_nan);"
            "INSERT INTO runs VALUES ('a', 1, 'n', 'FINISHED', 1, 2, '', '', 'active');"
            "INSERT INTO metrics VALUES ('a', 1, 0, 'loss', 2.0, 0), ('a', 2, 1, 'loss', NULL, 0),"
            " ('a', 'x', 2, 'loss', 1.0, 0);"
        )
    (run,) = open_store(f"sqlite:///{tmp_path}/mlflow.db").runs()
    assert (run.points, run.damaged) == (((1, 0, "loss", 2.0),), 2)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE runs (id)")
    (tmp_path / "text.db").write_text("no database at all, though long enough to be taken for one" * 50)
    (tmp_path / "empty").mkdir()
    for place in ("http://127.0.0.1:5000", "sqlite:///absent.db", *map(str, sorted(tmp_path.iterdir()))):
        with pytest.raises(UserError, match="import mlflow: "):
            list(open_store(place).runs())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "files"])
def test_a_store_that_mlflow_wrote(kind: str, fresh: Fresh, elsewhere: Path, tmp_path: Path) -> None:
    program = peer("mlflow", "mlflow-skinny==3.17.2", "sqlalchemy", "alembic") / "python"
    other = write_model(tmp_path / "other", seed=8)
    uri = f"sqlite:///{tmp_path}/mlflow.db" if kind == "sqlite" else f"file://{tmp_path}/mlruns"
    script = Path(__file__).with_name("write_mlflow.py")
    call(program, str(script), uri, str(elsewhere), str(other), str(tmp_path / "artifacts"), cwd=tmp_path)
    project = fresh()
    said = project.json("import", "mlflow", uri)
    assert (said["in"], said["kept"], said["dropped"]) == (7, 5, {"mlflow.still_running": 1})
    assert [piece["source"] for piece in said["quarantined"]] == ["helper version 2"]
    # The project is called helper too, and its own champion is moved by its gates alone.
    expected = ["model/Reviews-of-2026@v1", "model/Reviews-of-2026@v2", "model/helper-mlflow@v1"]
    assert said["versions"] == expected
    runs = {run["parameters"]["lr"]: run for run in project.json("runs", "--step", "imported")}
    assert {lr: run["status"] for lr, run in runs.items()} == {"1.0": "done", "0.1": "failed"}
    assert {lr: run["metrics"]["loss"] for lr, run in runs.items()} == {"1.0": 0.4, "0.1": 1.4}
    points = project.json("runs", runs["1.0"]["id"])["points"]
    assert [(point["step"], point["loss"]) for point in points] == [(n, 2.0 / (n + 1)) for n in range(5)]
    assert _digest(project, "Reviews-of-2026@prod") == _digest(project, "Reviews-of-2026@v2")
    assert _digest(project, "Reviews-of-2026@champion") == _digest(project, "Reviews-of-2026@v1")
    assert project.json("import", "mlflow", uri)["kept"] == 0
    assert project.json("status")["champion"] is None
    assert project.json("verify")["ok"]
    ledger = _rows(project)
    assert "Quillfeather" not in ledger
    assert "jane" not in ledger


def _digest(project: Project, ref: str) -> str:
    with open_project(project.folder) as opened:
        version = opened.record.versions.resolve(ref)
        assert version
        return version.digest


def _rows(project: Project) -> str:
    with open_project(project.folder) as opened:
        rows: list[Any] = opened.record.workspace.database.query("SELECT body FROM ledger")
        return str(rows)
