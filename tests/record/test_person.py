"""A row of the journal is somebody's, or names them, however their name is set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from treadle.core.workspace import Workspace
from treadle.erasing import Person
from treadle.record.record import Record

MENTIONS: list[dict[str, Any]] = [
    {"metadata": {"Ophelia Brandybuck": "x"}},
    {"parameters": {"tools": [{"properties": {"ophelia_brandybuck": {}}}]}},
    {"answer": "**Ophelia Brandybuck**\u2019s card"},
    {"messages": [{"role": "user", "content": '{"who": "\\u004fphelia Brandybuck"}'}]},
    {"comment": "\u201cOphe\u00adlia Br\u00e1ndybuck\u201d"},
]


@pytest.mark.parametrize("row", MENTIONS)
def test_a_row_that_names_somebody(tmp_path: Path, row: dict[str, Any]) -> None:
    with Workspace(tmp_path) as workspace:
        record = Record(workspace, "docs")
        assert Person.named(record, "Ophelia Brandybuck").in_row(row)
        assert not Person.named(record, "Ophelia Brandy").in_row(row)


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("Jane.Roe@Example.org", " jane.roe@example.org"),
        ("jane.roe@example.org", "mailto:Jane.Roe@example.org"),
        ("Jane  Roe", "jane roe"),
        ("Customer-17", "Customer-17"),
    ],
)
def test_a_row_of_somebody(tmp_path: Path, written: str, asked: str) -> None:
    with Workspace(tmp_path) as workspace:
        record = Record(workspace, "docs")
        row = {"user": record.recorder.keyed(written)}
        assert record.runs.keyed_person(written) == row["user"]
        assert Person.named(record, asked).in_row(row)
        assert not Person.named(record, asked + "x").in_row(row)


def test_ids_of_one_word_stay_apart(tmp_path: Path) -> None:
    with Workspace(tmp_path) as workspace:
        recorder = Record(workspace, "docs").recorder
        assert recorder.keyed("aB3") != recorder.keyed("Ab3")
