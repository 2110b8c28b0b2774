"""``collect.lake``: poured once for each corpus, again when the corpus changed, and without whoever was forgotten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from small_project import SUBJECT, Project


def rows(lake: Path) -> list[dict[str, object]]:
    import duckdb

    query = duckdb.sql(f"select * from read_parquet('{lake}/**/*.parquet', hive_partitioning = true)")
    return [dict(zip(query.columns, row, strict=True)) for row in query.fetchall()]


def ingested(project: Project) -> list[str]:
    steps = [step for stage in project.json("run", "--until", "collect")["stages"] for step in stage["steps"]]
    return [step["status"] for step in steps if step["step"] == "collect.ingest"]


def test_a_lake_follows_the_corpus(fresh: Callable[[], Project]) -> None:
    project = fresh()
    project.edit("collect:\n", "collect:\n  lake: ../lake\n")
    lake = project.folder.parent / "lake"
    assert ingested(project) == ["done"]
    assert ingested(project) == []
    assert len(rows(lake)) == 70
    assert {row["month"] for row in rows(lake)} == {"2026-01"}
    kept = project.data.read_text()
    project.data.write_text("\n".join(kept.splitlines()[:60]))
    assert ingested(project) == ["done"]
    assert len(rows(lake)) == 60
    project.data.write_text(kept)  # what was poured before, and is there no more
    assert ingested(project) == ["done"]
    before = rows(lake)
    assert len(before) == 70
    project.json("forget", SUBJECT, check=None)
    assert len(rows(lake)) == 63
    assert len({row["subject"] for row in before} - {row["subject"] for row in rows(lake)}) == 1
    assert project.json("verify")["ok"]
