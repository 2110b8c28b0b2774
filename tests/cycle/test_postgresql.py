"""A whole project whose ledger is on a PostgreSQL server: a turn, an answer, its lineage, an erasure."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from postgresql_server import Server
from small_project import NAME, SUBJECT, Project
from treadle.project import open_project


@pytest.mark.slow
def test_a_whole_turn_and_an_erasure(fresh: Callable[[], Project], postgresql: Server) -> None:
    project = fresh()
    url = postgresql.schema()
    project.edit("seed: 17\n", f"seed: 17\nledger: {url}\n")
    assert project.json("run")["ok"]
    assert not list(project.folder.rglob("treadle.db"))
    answer = project.json("ask", f"I am {NAME}: how do I clean my kettle?", "--user", SUBJECT)
    nodes = {node["kind"] for node in project.json("lineage", answer["id"])["nodes"]}
    assert {"document", "model", "dataset"} <= nodes
    assert project.json("status")["counts"]["runs"] > 0
    with open_project(project.folder) as opened:
        person = opened.record.workspace.database.query("SELECT key FROM people")
    found = project.json("forget", SUBJECT, check=None)
    assert found["done"]
    verified = project.json("verify")
    assert verified["ok"], verified
    assert verified["checked"]["erased"] == found["objects"] > 0
    postgresql.execute("CHECKPOINT")
    with open_project(project.folder) as opened:
        assert opened.record.workspace.database.query("SELECT key FROM people") == []
    data = b"".join(path.read_bytes() for path in (postgresql.data / "base").rglob("*") if path.is_file())
    assert SUBJECT.encode() not in data
    assert not any(key in data for (key,) in person)
    assert project.call("verify").stdout.startswith("ok: ")
