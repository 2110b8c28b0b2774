"""A team that has MLflow, DVC, a proxy's log and a table of ratings moves in, and trains nothing again."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from importing.peers import call, peer
from small_project import Project
from tiny_models import write_model

ROWS = [{"text": f"The {thing} has two years of warranty.", "id": thing} for thing in ("kettle", "lamp", "tent")]


@pytest.mark.slow
def test_four_stores_become_one_record(fresh: Callable[[], Project], elsewhere: Path, tmp_path: Path) -> None:
    project = fresh()
    mlflow = peer("mlflow", "mlflow-skinny==3.17.2", "sqlalchemy", "alembic") / "python"
    script, uri = Path(__file__).with_name("write_mlflow.py"), f"sqlite:///{tmp_path}/mlflow.db"
    other = write_model(tmp_path / "other", seed=8)
    call(mlflow, str(script), uri, str(elsewhere), str(other), str(tmp_path / "artifacts"), cwd=tmp_path)
    assert project.json("import", "mlflow", uri)["kept"] == 5

    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    call(Path("git"), "init", "-q", cwd=repository)
    dvc = peer("dvc", "dvc") / "dvc"
    call(dvc, "init", "-q", cwd=repository)
    call(dvc, "add", "-q", "notes.jsonl", cwd=repository)
    assert project.json("import", "dvc", str(repository / "notes.jsonl.dvc"))["kept"] == len(ROWS)

    log = tmp_path / "proxy.jsonl"
    request = {"messages": [{"role": "user", "content": "How long is the warranty?"}]}
    said = {"message": {"role": "assistant", "content": "A year."}, "finish_reason": "stop"}
    response = {"id": "chatcmpl-1", "object": "chat.completion", "created": int(time.time()) - 60, "choices": [said]}
    log.write_text(json.dumps({"request": request, "response": response}) + "\n")
    assert project.json("import", "logs", str(log), "--model", "Reviews-of-2026@v2")["kept"] == 1

    with closing(sqlite3.connect(tmp_path / "app.db")) as database:
        database.execute("CREATE TABLE fixes (answer, fixed)")
        database.execute("INSERT INTO fixes VALUES ('chatcmpl-1', 'Two years.')")
        database.commit()
    asked = ("--url", f"sqlite:///{tmp_path}/app.db", "--query", "SELECT answer, fixed FROM fixes")
    assert project.json("import", "feedback", *asked, "--fields", "interaction=answer,correction=fixed")["kept"] == 1

    (correction,) = project.json("feedback")
    graph = project.json("lineage", correction["interaction"])
    assert graph["verified"]
    labels = [node["label"] for node in graph["nodes"]]
    assert "model/Reviews-of-2026@v2" in labels
    assert correction["interaction"] in {
        n["id"] for n in project.json("lineage", "Reviews-of-2026@v2", "--down")["nodes"]
    }
    corpus = project.json("lineage", "corpus@v1")
    documents = [node["id"] for node in corpus["nodes"] if node["kind"] == "document"]
    assert len(documents) == len(ROWS)
    down = project.json("lineage", documents[0], "--down")
    assert "corpus" in {node["kind"] for node in down["nodes"]}
    assert project.json("verify")["ok"]
    assert project.json("runs", "--step", "train") == []
