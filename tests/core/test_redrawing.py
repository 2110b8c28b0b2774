"""Another process that draws the projections notices what this one notices, and its help is never needed."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from treadle.core import audit, redrawing
from treadle.core.digest import canonical_json
from treadle.core.fact import Fact, Projection
from treadle.core.redrawing import Beside, Doubtful, Redrawn
from treadle.core.workspace import TABLES, Workspace
from treadle.record.record import PROJECTIONS


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A record with rows of every projection, for which another process is asked however small it is."""
    monkeypatch.setattr(audit, "MANY", 0)
    monkeypatch.setattr(audit, "several_processors", lambda: True)
    with Workspace(tmp_path / "store", projections=PROJECTIONS) as workspace:
        for number in range(40):
            run, digest = f"run-{number:03}", f"b3:{number:064x}"
            started = {"run": run, "step": "s", "kind": "step", "version": 1, "key": "k", "seed": 1, "commit": None}
            given = {"parameters": {"a": 0.5}, "inputs": {"b": digest}, "environment": digest}
            done = {"run": run, "status": "done", "seconds": 1.5, "metrics": {"é": 1}, "outputs": {"c": digest}}
            workspace.ledger.append(
                Fact("run.started", started | given | {"actor": "k3:1", "machine": "k3:2"}),
                Fact("artifact", {"digest": digest, "kind": "model", "bytes": 1, "documents": 0, "run": run}),
                Fact("run.finished", done | {"error": None}),
                Fact("version", {"of": "model", "name": "n", "number": number + 1, "digest": digest, "run": run}),
                Fact("note", {"n": number}),
            )
        workspace.ledger.publish()
        yield workspace


def refuse(*_: object) -> None:
    raise AssertionError("this process drew the projections")


def test_of_an_honest_ledger_nothing_is_drawn_here(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(audit, "Redrawn", refuse)
        assert workspace.ledger.audit().problems == []
    monkeypatch.setattr(audit, "Beside", refuse)
    monkeypatch.setattr(audit, "several_processors", lambda: False)
    assert workspace.ledger.audit().problems == []


def life(chance: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """Runs that start, say something, end, go on and end again, in any mixture; some of them never end."""
    open_runs: list[str] = []
    over: list[str] = []
    for number in range(120):
        digest = f"b3:{chance.getrandbits(256):064x}"
        what = chance.choice(["start", "start", "artifact", "note", "end", "end", "go on"])
        if what == "artifact":
            body = {"digest": digest, "kind": "model", "bytes": 1, "documents": number, "run": chance.choice("abc")}
            yield "artifact", body
        elif what == "start":
            open_runs.append(f"run-{number:03}")
            given = {"parameters": {"a": {"b": number}, "c": None}, "inputs": {"b": digest}, "environment": digest}
            started = {"run": open_runs[-1], "step": "s", "kind": "step", "version": 1, "key": "k", "seed": 1}
            more = {"tags": {"t": number}} if number % 2 else {}
            yield "run.started", started | given | more | {"commit": None, "actor": "k3:1", "machine": "k3:2"}
        elif what == "note" and open_runs:
            said = {"parameters": {"d": number}, "inputs": {"e": digest}, "outputs": {}, "tags": {"t": "é"}}
            yield "run.noted", {"run": chance.choice(open_runs), "note": digest, "texts": None} | said
        elif what == "end" and open_runs:
            over.append(open_runs.pop(chance.randrange(len(open_runs))))
            done = {"run": over[-1], "status": "done", "seconds": 1.5, "metrics": {"m": number}, "error": None}
            yield "run.finished", done | {"outputs": {"c": digest}}
        elif what == "go on" and over:
            open_runs.append(over.pop(chance.randrange(len(over))))
            yield "run.resumed", {"run": open_runs[-1]}


@pytest.mark.parametrize("seed", range(20))
def test_rows_that_are_applied_together_leave_what_they_leave_one_by_one(seed: int) -> None:
    chance = random.Random(seed)
    rows = [
        (seq, kind, 1, f"2026-01-01T00:00:{seq:06}Z", canonical_json(body).decode(), "")
        for seq, (kind, body) in enumerate(life(chance), start=1)
    ]
    one_by_one, together = Redrawn(TABLES), Redrawn(TABLES)
    assert one_by_one.add_all(rows) == []
    while rows:
        size = chance.randrange(1, 60)
        together.add_together(rows[:size])
        del rows[:size]
    for table in TABLES:
        sql = f"SELECT * FROM {table.table} ORDER BY 1, 2"
        found = together._memory.execute(sql).fetchall()
        assert found == one_by_one._memory.execute(sql).fetchall()
        assert found


CHANGES = {
    "edited": "UPDATE runs SET status = 'failed' WHERE id = 'run-007'",
    "retyped": "UPDATE runs SET facts = CAST(facts AS BLOB) WHERE id = 'run-007'",
    "deleted": "DELETE FROM artifacts WHERE run = 'run-011'",
    "added": "INSERT INTO aliases (kind, name, alias, number, seq, time) VALUES ('model', 'n', 'best', 3, 9, '2026')",
    "swapped": "UPDATE versions SET digest = (SELECT digest FROM versions WHERE number = 2) WHERE number = 1",
    "not utf-8": "UPDATE runs SET step = CAST(x'ff' AS TEXT) WHERE id = 'run-003'",
    "row": "UPDATE ledger SET body = replace(body, '\"done\"', '\"lost\"') WHERE seq = 14",
    "row that no table is drawn from": "UPDATE ledger SET body = '{\"n\":41}' WHERE kind = 'note' AND seq > 50",
    "gap": "DELETE FROM ledger WHERE seq = 20",
    "node": "UPDATE ledger_nodes SET hash = replace(hash, 'a', 'b') WHERE level = 1 AND position = 1",
    "head": "UPDATE ledger_head SET size = size - 1",
    "trigger": "CREATE TRIGGER t AFTER INSERT ON ledger BEGIN DELETE FROM runs; END",
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_named_as_ever(workspace: Workspace, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlite3.connect(workspace.root / "treadle.db") as connection:
        assert connection.execute(CHANGES[change]).rowcount != 0
    connection.close()
    asked: list[Beside] = []

    class Counted(Beside):
        def __init__(self, *given: object) -> None:
            super().__init__(*given)  # type: ignore[arg-type]
            asked.append(self)

    monkeypatch.setattr(audit, "Beside", Counted)
    helped = workspace.ledger.audit().problems
    assert len(asked) == 1
    monkeypatch.setattr(audit, "several_processors", lambda: False)
    alone = workspace.ledger.audit().problems
    assert helped == alone
    assert alone


@pytest.mark.parametrize("table", ["runs", "artifacts", "versions", "aliases"])
def test_the_other_process_itself_sees_a_changed_table(workspace: Workspace, table: str) -> None:
    rows = workspace.database.query("SELECT seq, kind, version, time, body, mac FROM ledger ORDER BY seq")
    data = [workspace.ledger.bytes_of(row[0]) for row in rows]
    column = {"runs": "started", "artifacts": "time", "versions": "digest", "aliases": ""}[table]
    insert = CHANGES["added"]
    change = insert if table == "aliases" else f"UPDATE {table} SET {column} = 'x' WHERE rowid = 5"

    def ask() -> None:
        beside = Beside(workspace.root / "treadle.db", (*workspace.ledger._projections,))
        try:
            with sqlite3.connect(workspace.root / "treadle.db") as connection:
                beside.add_all(rows[:70], data[:70])
                beside.add_all(rows[70:], data[70:])
                beside.compare(connection)
        finally:
            beside.close()

    ask()
    with sqlite3.connect(workspace.root / "treadle.db") as connection:
        assert connection.execute(change).rowcount == 1
    with pytest.raises(Doubtful):
        ask()


def test_rows_other_than_those_found_genuine_are_not_believed(workspace: Workspace) -> None:
    rows = workspace.database.query("SELECT seq, kind, version, time, body, mac FROM ledger ORDER BY seq")
    data = [workspace.ledger.bytes_of(row[0]) for row in rows]
    wanted = next(place for place, row in enumerate(rows) if row[1] == "artifact")
    for other in ([*data[:wanted], data[wanted] + b" ", *data[wanted + 1 :]], None):
        beside = Beside(workspace.root / "treadle.db", (*workspace.ledger._projections,))
        with pytest.raises(Doubtful):
            beside.add_all(rows, other)
            beside.compare(sqlite3.connect(":memory:"))
        beside.close()


def _kill(beside: Beside) -> None:
    beside._process.kill()


@pytest.mark.parametrize("fault", ["killed", "silent", "no process", "not to be sent"])
def test_without_the_other_process_it_is_done_here(
    workspace: Workspace, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: dict[str, Callable[[], None]] = {
        "killed": lambda: monkeypatch.setattr(Beside, "add_all", lambda self, rows, data: _kill(self) or ()),
        "silent": lambda: monkeypatch.setattr(redrawing, "_COMMAND", "pass"),
        "no process": lambda: monkeypatch.setattr(redrawing.sys, "executable", "/nowhere/python"),
        "not to be sent": lambda: monkeypatch.setattr(
            workspace.ledger, "_projections", (*workspace.ledger._projections, _local())
        ),
    }
    faults[fault]()
    assert workspace.ledger.audit().problems == []
    with sqlite3.connect(workspace.root / "treadle.db") as connection:
        connection.execute(CHANGES["edited"])
    assert {problem.ref for problem in workspace.ledger.audit().problems} == {"runs:run-007"}


def _local() -> Projection:
    return Projection("runs", "", frozenset({"nothing"}), lambda cursor, row: None)


def test_others_may_append_meanwhile(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "Redrawn", refuse)
    ended = threading.Event()
    body = {"kind": "model", "bytes": 1, "documents": 0}

    def write() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            named = {"digest": f"b3:{number:064}", "run": f"run-{number}"}
            workspace.ledger.append(Fact("artifact", body | named))
            ended.wait(0.002)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(2):
            assert workspace.ledger.audit().problems == []
    finally:
        ended.set()
        writer.join()
