"""A whole project whose objects are in a bucket and whose ledger is on a server, on two machines."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from postgresql_server import Server
from small_project import NAME, SUBJECT, Project


@pytest.mark.slow
def test_a_turn_on_one_machine_and_answers_on_another(
    fresh: Callable[[], Project], bucket: str, postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TREADLE_KEY", "5a" * 32)
    here, there, ledger = fresh(), fresh(), postgresql.schema()
    for project in (here, there):
        more = f"seed: 17\nstore: {bucket}\nencryption: ${{env:TREADLE_KEY}}\nledger: {ledger}\n"
        project.edit("seed: 17\n", more)
    assert here.json("run")["ok"]
    shutil.copytree(here.folder / ".treadle" / "keys", there.folder / ".treadle" / "keys")
    shutil.copy(here.folder / ".treadle" / "head.json", there.folder / ".treadle")
    answer = there.json("ask", f"I am {NAME}: how do I clean my kettle?", "--user", SUBJECT)
    nodes = {node["kind"] for node in there.json("lineage", answer["id"])["nodes"]}
    assert {"document", "model", "dataset"} <= nodes
    assert there.json("verify")["ok"]
    plan = there.json("plan")
    assert plan
    found = here.json("forget", SUBJECT, check=None)
    assert found["done"]
    for project in (there, here):
        verified = project.json("verify")
        assert verified["ok"], verified
    assert verified["checked"]["erased"] == found["objects"] > 0
    assert there.json("ask", "How do I clean my kettle?")["id"].startswith("int-")
    assert not any(SUBJECT.encode() in path.read_bytes() for path in _files(there.folder / ".treadle"))


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
