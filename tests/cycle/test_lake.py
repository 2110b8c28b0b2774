"""``collect.lake``: poured once for each corpus, again when the corpus changed, and without whoever was forgotten."""

from __future__ import annotations

import shutil
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
    assert len(rows(lake)) == 70
    project.data.write_text("\n".join(kept.splitlines()[:60]))  # the same corpus in place of the same one
    assert ingested(project) == ["done"]
    assert len(rows(lake)) == 60
    (stale,) = lake.rglob("*.parquet")
    for _ in range(2):  # each is what a pour leaves that is killed before its end
        stale.with_name(f"{'0' * 32}.parquet").write_bytes(stale.read_bytes())
        assert ingested(project) == ["done"]
        assert len(rows(lake)) == 60
    before = rows(lake)
    project.json("forget", SUBJECT, check=None)
    (gone,) = {row["subject"] for row in before} - {row["subject"] for row in rows(lake)}
    assert [row["id"] for row in rows(lake)] == [row["id"] for row in before if row["subject"] != gone]
    assert project.json("verify")["ok"]


def test_forgetting_without_a_rebuild_takes_them_from_the_lake(fresh: Callable[[], Project], tmp_path: Path) -> None:
    project = fresh()
    project.edit("collect:\n", "collect:\n  lake: ../lake\n")
    lake = project.folder.parent / "lake"
    assert ingested(project) == ["done"]
    shutil.copytree(lake, tmp_path / "before")
    with_them = {row["id"] for row in rows(lake)}
    found = project.json("forget", SUBJECT, "--no-rebuild")
    assert (found["documents"], found["lake"]) == (7, 1)
    without = {row["id"] for row in rows(lake)}
    assert without < with_them
    assert len(without) == 63
    shutil.rmtree(lake)  # as it was left where only a later run poured it
    shutil.copytree(tmp_path / "before", lake)
    assert project.json("forget", SUBJECT, "--no-rebuild")["lake"] == 1
    assert list(lake.rglob("*.parquet")) == []
    assert ingested(project) == ["done"]
    assert {row["id"] for row in rows(lake)} == without
    assert project.json("forget", SUBJECT, "--no-rebuild")["lake"] == 0
    assert project.json("verify")["ok"]
