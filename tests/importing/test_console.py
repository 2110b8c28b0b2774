"""The console shows what was imported: rows of no known release among them, and runs of another tool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from starlette.testclient import TestClient

from importing.test_logs import chat, imported, write
from importing.test_mlflow import files
from small_project import Project
from treadle.console.app import create_console


def test_its_pages_open(fresh: Callable[[], Project], elsewhere: Path, tmp_path: Path) -> None:
    project = fresh()
    _, unknown = imported(project, write(tmp_path / "a.jsonl", chat(0)))
    project.json("import", "model", str(elsewhere))
    _, both = imported(project, write(tmp_path / "b.jsonl", chat(1)), model="model@v1")
    project.json("import", "mlflow", files(tmp_path / "mlruns", elsewhere))
    runs = [run["id"] for run in project.json("runs")]
    console = create_console(project.folder)
    try:
        http = TestClient(console, base_url="http://127.0.0.1:8010", follow_redirects=False)
        assert http.get(console.link("me")).status_code == 200
        console.project.record.interactions.catch_up()
        pages = ["/", "/interactions", "/runs", "/lineage?ref=model@v1", "/lineage?ref=reviewer@v3"]
        pages += [f"/interactions/{row.id}" for row in both] + [f"/runs/{run}" for run in runs]
        for page in pages:
            answer = http.get(page)
            assert answer.status_code == 200, (page, answer.text[:2000])
        known = next(row for row in both if row.id != unknown[0].id)
        assert "training data and base model" in http.get(f"/interactions/{known.id}").text
    finally:
        console.close()
