"""The ledger stays what it was: honest ones pass whatever happens to their writers."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treadle.core.digest import canonical_json
from treadle.core.errors import Corrupt, UserError
from treadle.core.fact import canonical_row
from treadle.core.head import Head
from treadle.core.ledger import Fact, Row
from treadle.core.workspace import Workspace

from .conftest import Place

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(
    st.integers(1, 2**53),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.dictionaries(st.text(), JSON, max_size=4),
)
def test_a_row_is_hashed_as_canonical_json_of_the_whole(seq: int, kind: str, at: str, body: dict[str, object]) -> None:
    whole = canonical_json({"seq": seq, "kind": kind, "version": 3, "time": at, "body": body})
    assert canonical_row(seq, kind, 3, at, canonical_json(body).decode()) == whole
    assert Row(seq, kind, 3, at, body).canonical() == whole


@given(st.dictionaries(st.text(st.characters()), st.text(st.characters()), max_size=3))
def test_canonical_json_carries_every_text(value: dict[str, str]) -> None:
    data = canonical_json(value)
    assert json.loads(data.decode()) == value
    assert canonical_json(json.loads(data)) == data


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(st.dictionaries(st.text(), JSON, max_size=3), min_size=1, max_size=3), max_size=5))
def test_what_goes_in_comes_out(place: Place, batches: list[list[dict[str, object]]]) -> None:
    with place.open() as workspace:  # each example goes on where the one before ended
        before = workspace.ledger.size()
        for batch in batches:
            workspace.ledger.append(*(Fact("note", body) for body in batch))
        rows = list(workspace.ledger.rows("note", after=before))
        assert [row.body for row in rows] == [body for batch in batches for body in batch]
        assert workspace.ledger.verify() == []


def test_a_body_that_is_not_json_is_refused_and_nothing_written(workspace: Workspace) -> None:
    size = workspace.ledger.size()
    with pytest.raises(ValueError, match="Out of range"):
        workspace.ledger.append(Fact("note", {}), Fact("note", {"x": float("nan")}))
    assert workspace.ledger.size() == size
    assert workspace.ledger.verify() == []


def test_threads_share_a_ledger(workspace: Workspace) -> None:
    def write(name: int) -> None:
        for number in range(40):
            workspace.ledger.append(Fact("note", {"writer": name, "number": number}))

    threads = [threading.Thread(target=write, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bodies = [(row.body["writer"], row.body["number"]) for row in workspace.ledger.rows("note")]
    assert sorted(bodies) == [(name, number) for name in range(6) for number in range(40)]
    assert workspace.ledger.verify() == []


def test_rows_are_read_in_pages(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.core.ledger._PAGE", 3)
    for number in range(11):
        workspace.ledger.append(Fact("a" if number % 3 else "b", {"number": number}))
    assert [row.body["number"] for row in workspace.ledger.rows("a", "b")] == list(range(11))
    assert [row.body["number"] for row in workspace.ledger.rows("b")] == [0, 3, 6, 9]
    seen = 0
    for _ in workspace.ledger.rows("a"):  # a reader that writes meanwhile comes to an end
        workspace.ledger.append(Fact("a", {"number": 0}))
        seen += 1
    assert seen == 7


def test_rows_are_read_back_from_the_latest(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.core.ledger._FIRST_BACK", 2)
    monkeypatch.setattr("treadle.core.ledger._PAGE", 3)
    for number in range(11):
        workspace.ledger.append(Fact("b" if number % 3 == 0 else "a", {"number": number}))
    assert [row.body["number"] for row in workspace.ledger.rows_back("a", "b")] == list(range(11))[::-1]
    assert [row.body["number"] for row in workspace.ledger.rows_back("b")] == [9, 6, 3, 0]
    assert next(workspace.ledger.rows_back()).body == {"number": 10}
    assert list(workspace.ledger.rows_back("c")) == []


def test_many_processes_append_while_others_verify(place: Place) -> None:
    writers = [place.writer("ledger", f"w{number}", 120) for number in range(4)]
    with place.open() as workspace:
        while any(writer.running for writer in writers):
            assert workspace.ledger.verify() == []
            time.sleep(0.02)
        acknowledged = [line for writer in writers for line in writer.finish()]
        stored = {f"{row.seq} {row.body['writer']} {row.body['number']}" for row in workspace.ledger.rows("note")}
        assert set(acknowledged) == stored
        assert len(acknowledged) == len(stored) >= 480
        assert workspace.ledger.verify() == []


def test_killed_writers_lose_nothing_that_was_acknowledged(place: Place) -> None:
    chance = random.Random(6)
    with place.open():
        pass
    acknowledged: set[str] = set()
    for attempt in range(4):
        writers = [place.writer("ledger", f"k{attempt}-{number}", 100_000) for number in range(2)]
        for writer in writers:
            writer.first()
        time.sleep(chance.random() * 0.05)
        for writer in writers:
            acknowledged.update(writer.kill())
        with place.open() as workspace:
            assert workspace.ledger.verify() == []
            rows = list(workspace.ledger.rows("note"))
            assert acknowledged <= {f"{row.seq} {row.body['writer']} {row.body['number']}" for row in rows}
        head = json.loads((place.root / "head.json").read_bytes())
        assert head["size"] == len(rows) + 1  # whoever opens it next publishes what the dead could not


def test_a_command_that_ended_normally_has_published_its_head(place: Place) -> None:
    with place.open() as workspace:
        for number in range(5):
            workspace.ledger.append(Fact("note", {"number": number}))
    assert json.loads((place.root / "head.json").read_bytes())["size"] == 6


def test_synced_rows_and_exclusive_blocks_publish_at_once(workspace: Workspace) -> None:
    def published() -> int:
        return int(json.loads((workspace.root / "head.json").read_bytes())["size"])

    workspace.ledger.append(Fact("note", {}), sync=True)
    assert published() == workspace.ledger.size()
    with workspace.exclusive():
        workspace.ledger.append(Fact("note", {}))
    assert published() == workspace.ledger.size()


def test_an_older_copy_is_never_built_upon(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with Workspace(root) as workspace:
        workspace.ledger.append(Fact("note", {"number": 1}))
    shutil.copy(root / "treadle.db", tmp_path / "older.db")
    with Workspace(root) as workspace:
        workspace.ledger.append(Fact("note", {"number": 2}))
    newest = (root / "treadle.db").read_bytes()
    shutil.copy(tmp_path / "older.db", root / "treadle.db")
    with Workspace(root) as workspace:
        for _ in range(2):  # no number of new rows hides it
            with pytest.raises(Corrupt, match="older copy was put back"):
                workspace.ledger.append(Fact("note", {"number": 3}))
        assert [problem.ref for problem in workspace.ledger.verify()] == ["head.json"]
        assert workspace.ledger.size() == 2
    (root / "treadle.db").write_bytes(newest)
    with Workspace(root) as workspace:
        workspace.ledger.append(Fact("note", {"number": 3}))
        assert workspace.ledger.verify() == []


def test_an_older_copy_put_in_under_a_running_process_is_noticed(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with Workspace(root) as workspace:
        workspace.ledger.append(Fact("note", {"number": 1}), sync=True)
        older = sqlite3.connect(":memory:")
        raw = sqlite3.connect(root / "treadle.db")
        raw.backup(older)
        workspace.ledger.append(Fact("note", {"number": 2}), sync=True)
        older.backup(raw)
        raw.close()
        older.close()
        with pytest.raises(Corrupt, match="older copy was put back"):
            workspace.ledger.append(Fact("note", {"number": 3}))


@pytest.mark.parametrize("column", ["frontier", "root", "size"])
def test_nothing_is_appended_to_a_changed_head(place: Place, workspace: Workspace, column: str) -> None:
    workspace.ledger.append(Fact("note", {}), sync=True)
    with place.raw() as raw:
        raw.execute(f"UPDATE ledger_head SET {column} = ?", (4 if column == "size" else "ab" * 32,))
    with pytest.raises(Corrupt):
        workspace.ledger.append(Fact("note", {}))
    assert workspace.ledger.size() == 2


def test_nothing_is_appended_after_a_row_that_was_put_in_by_hand(place: Place, workspace: Workspace) -> None:
    with place.raw() as raw:
        raw.execute("INSERT INTO ledger SELECT seq + 1, kind, version, time, body, mac FROM ledger")
    with pytest.raises(Corrupt, match="not what its head in the database says"):
        workspace.ledger.append(Fact("note", {}))


def test_a_head_is_replaced_by_a_later_one_only(workspace: Workspace) -> None:
    for _ in range(3):
        workspace.ledger.append(Fact("note", {}), sync=True)
    before = (workspace.root / "head.json").read_bytes()
    file = workspace.ledger._file
    file.publish(Head.signed(2, "00" * 32, workspace.keys))
    file.create(Head.signed(0, "00" * 32, workspace.keys))
    assert (workspace.root / "head.json").read_bytes() == before


def test_a_database_of_another_format_is_refused(place: Place) -> None:
    with place.open():
        pass
    with place.raw() as raw:
        raw.execute("UPDATE meta SET value = '99' WHERE name = 'format'")
    with pytest.raises(UserError, match="has format 99, this Treadle reads formats up to 2"):
        place.open()


def test_a_file_that_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    with Workspace(tmp_path / "store"):
        pass
    (tmp_path / "store" / "treadle.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(Corrupt, match=r"treadle\.db is damaged"):
        Workspace(tmp_path / "store")
