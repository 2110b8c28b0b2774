"""Every row that was acknowledged is read back once, whatever happens to the process that wrote it."""

from __future__ import annotations

import fcntl
import json
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from treadle.core import journal as journal_module
from treadle.core.errors import Corrupt, TreadleError, UserError
from treadle.core.identifiers import new_id, time_of
from treadle.core.journal import Journal
from treadle.core.ledger import Fact
from treadle.core.segment import header, row_in, rows_in, spans, take, told
from treadle.core.verify import verify
from treadle.core.workspace import Workspace

from .conftest import Place

STREAM = "metrics"


def ids(journal: Journal) -> list[str]:
    return [row["id"] for row in journal.read(STREAM)]


def open_files(workspace: Workspace) -> list[Path]:
    return sorted((workspace.root / "journal" / STREAM).rglob("*.jsonl"))


def test_rows_come_back_in_order_sealed_or_not(workspace: Workspace) -> None:
    journal = workspace.journal
    for number in range(10):
        journal.append(STREAM, {"id": f"row-{number}", "text": "line\nbreak\r\u2028", "half": "\ud800"})
        if number in (2, 6):
            journal.seal()
    assert ids(journal) == [f"row-{number}" for number in range(10)]
    assert [row["id"] for row in journal.read(STREAM, newest_first=True)] == [f"row-{n}" for n in reversed(range(10))]
    assert next(journal.read(STREAM))["text"] == "line\nbreak\r\u2028"
    assert next(journal.read(STREAM))["half"] == "\ud800"
    assert len(journal.sealed(STREAM)) == 2
    assert list(journal.read("nothing")) == []
    assert verify(workspace).ok


def test_a_row_without_an_id_is_refused(workspace: Workspace) -> None:
    for row in ({}, {"id": 5}):
        with pytest.raises(TreadleError, match="needs an id"):
            workspace.journal.append(STREAM, row)


def test_a_torn_last_line_is_no_row(workspace: Workspace) -> None:
    for number in range(3):
        workspace.journal.append(STREAM, {"id": f"row-{number}"})
    (path,) = open_files(workspace)
    with path.open("ab") as file:
        file.write(b'{"id":"row-3"')
    assert ids(workspace.journal) == ["row-0", "row-1", "row-2"]
    workspace.journal.seal()
    assert ids(workspace.journal) == ["row-0", "row-1", "row-2"]
    assert [body["damaged"] for body in workspace.journal.sealed(STREAM).values()] == [0]


def test_what_a_loss_of_power_left_is_counted_and_the_rest_is_kept(workspace: Workspace) -> None:
    for number in range(4):
        workspace.journal.append(STREAM, {"id": f"row-{number}"})
    (path,) = open_files(workspace)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = b"\0" * (len(lines[2]) - 1) + b"\n"
    lines[3] = b"[1, 2]\n"
    path.write_bytes(b"".join(lines))
    assert ids(workspace.journal) == ["row-0", "row-3"]
    workspace.journal.seal()
    assert ids(workspace.journal) == ["row-0", "row-3"]
    (body,) = workspace.journal.sealed(STREAM).values()
    assert (body["rows"], body["damaged"]) == (2, 2)


def test_a_lost_header_costs_no_row() -> None:
    assert rows_in(b'{"id":"a"}\n{"id":"b"}\n') == ([{"id": "a"}, {"id": "b"}], 0)
    assert rows_in(b"") == ([], 0)
    with pytest.raises(Corrupt, match="format 7"):
        rows_in(b'{"format":7,"salt":"00"}\n{"id":"a"}\n')


def test_two_segments_with_the_same_rows_have_different_digests(workspace: Workspace) -> None:
    for _ in range(2):
        workspace.journal.append(STREAM, {"id": "row", "text": "the same"})
        workspace.journal.seal()
    assert len(workspace.journal.sealed(STREAM)) == 2


@pytest.mark.parametrize("moment", ["taken", "recorded"])
def test_a_sealer_that_dies_half_way_is_made_good_for(workspace: Workspace, moment: str) -> None:
    journal = workspace.journal
    for number in range(5):
        journal.append(STREAM, {"id": f"row-{number}"})
    (path,) = open_files(workspace)
    taken = take(path)
    assert taken is not None
    if moment == "recorded":
        data = taken.read_bytes()
        journal._record(STREAM, data, told(data), file=taken.stem)
    journal.append(STREAM, {"id": "row-5"})  # its writer goes on in a new file
    assert sorted(ids(journal)) == [f"row-{number}" for number in range(6)]
    assert journal.find(STREAM, "row-3") == {"id": "row-3"}
    journal.seal()
    assert sorted(ids(journal)) == [f"row-{number}" for number in range(6)]
    assert open_files(workspace) == []
    assert len(journal.sealed(STREAM)) == 2
    assert verify(workspace).ok


def test_several_processes_write_while_another_seals_and_one_reads(place: Place) -> None:
    with place.open() as workspace:
        sealer = place.writer("seal", 60)
        writers = [place.writer("journal", f"w{number}", 1500) for number in range(3)]
        while any(writer.running for writer in writers):
            before = {line for writer in writers for line in writer.lines()}
            seen = Counter(ids(workspace.journal))
            assert max(seen.values(), default=1) == 1
            assert before <= seen.keys()
        acknowledged = [line for writer in writers for line in writer.finish()]
        sealer.kill()
        workspace.journal.seal()
        assert Counter(ids(workspace.journal)) == Counter(acknowledged)
        assert len(acknowledged) == 4500
        for identifier in random.Random(1).sample(acknowledged, 50):
            row = workspace.journal.find(STREAM, identifier)
            assert row is not None
            assert row["id"] == identifier
        assert workspace.journal.find(STREAM, new_id("row")) is None
        assert verify(workspace).ok


def test_killed_writers_lose_nothing_that_was_acknowledged(place: Place) -> None:
    chance = random.Random(4)
    acknowledged: list[str] = []
    with place.open() as workspace:
        for attempt in range(4):
            pair = [place.writer("journal", f"k{attempt}", 10**6), place.writer("seal", 60)]
            pair[0].first()
            time.sleep(chance.random() * 0.2)
            for writer in pair:
                acknowledged.extend(writer.kill())
            seen = Counter(ids(workspace.journal))
            assert max(seen.values()) == 1
            assert set(acknowledged) <= seen.keys()
        workspace.journal.seal()
        seen = Counter(ids(workspace.journal))
        assert max(seen.values()) == 1
        assert set(acknowledged) <= seen.keys()
        assert len(seen) - len(acknowledged) <= 6  # at most one of each writer was on the disk and not yet told
        assert open_files(workspace) == []
        assert verify(workspace).ok


def test_threads_share_a_segment(workspace: Workspace) -> None:
    def write(name: int) -> None:
        for number in range(200):
            workspace.journal.append(STREAM, {"id": f"{name}-{number}"})

    threads = [threading.Thread(target=write, args=(name,)) for name in range(5)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        workspace.journal.seal()
    for thread in threads:
        thread.join()
    assert Counter(ids(workspace.journal)) == Counter(f"{name}-{number}" for name in range(5) for number in range(200))


def test_the_ticker_seals_by_rows_and_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SYNC_SECONDS", 0.01)
    monkeypatch.setattr(journal_module, "SEAL_ROWS", 3)
    with Workspace(tmp_path / "store") as workspace:
        for number in range(3):
            workspace.journal.append(STREAM, {"id": f"row-{number}"})
        _wait_for(lambda: len(workspace.journal.sealed(STREAM)) == 1)
        monkeypatch.setattr(journal_module, "SEAL_SECONDS", 0.0)
        workspace.journal.append(STREAM, {"id": "row-3"})
        _wait_for(lambda: len(workspace.journal.sealed(STREAM)) == 2)
        assert ids(workspace.journal) == [f"row-{number}" for number in range(4)]


def _wait_for(condition: Any) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def test_closing_seals_and_a_late_row_is_kept(tmp_path: Path) -> None:
    with Workspace(tmp_path / "store") as workspace:
        workspace.journal.append(STREAM, {"id": "row-0"})
        workspace.journal.close()
        assert open_files(workspace) == []
        workspace.journal.append(STREAM, {"id": "row-1"})
        assert sorted(ids(workspace.journal)) == ["row-0", "row-1"]


def test_what_dead_writers_left_is_sealed_by_a_later_command(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = place.writer("journal", "dead", 10**6)
    writer.first()
    acknowledged = writer.kill()
    with place.open() as workspace:
        with workspace.exclusive():
            assert len(open_files(workspace)) == 1  # it could be alive: it is young
        monkeypatch.setattr("treadle.core.workspace.SEAL_SECONDS", 1e-6)
        with workspace.exclusive():
            assert open_files(workspace) == []
        assert set(acknowledged) <= set(ids(workspace.journal))


def test_a_full_disk_leaves_no_half_line(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.journal.append(STREAM, {"id": "row-0"})
    segment = workspace.journal._open[STREAM]
    whole = segment._file

    class Full:
        """A file on a disk that is full after three bytes."""

        def __getattr__(self, name: str) -> Any:
            return getattr(whole, name)

        def write(self, data: memoryview) -> int:
            if len(data) > 3:
                return whole.write(data[:3]) or 0
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(segment, "_file", Full())
    with pytest.raises(UserError, match="No space left on device; free some space"):
        workspace.journal.append(STREAM, {"id": "row-1"})
    monkeypatch.setattr(segment, "_file", whole)
    workspace.journal.append(STREAM, {"id": "row-2"})
    assert ids(workspace.journal) == ["row-0", "row-2"]
    workspace.journal.seal()
    assert [body["damaged"] for body in workspace.journal.sealed(STREAM).values()] == [0]


def test_rows_are_counted_and_read_from_a_time_on(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = workspace.journal
    assert journal.count(STREAM) == 0
    for number in range(7):
        journal.append(STREAM, {"id": f"row-{number}", "time": f"2026-01-0{number + 1}"})
        if number % 2:
            journal.seal()
    assert journal.count(STREAM) == 7
    read: list[str] = []
    original = journal._bytes
    monkeypatch.setattr(journal, "_bytes", lambda stream, digest: read.append(digest) or original(stream, digest))
    assert [row["id"] for row in journal.read(STREAM, since="2026-01-04")] == [f"row-{n}" for n in range(2, 7)]
    assert len(read) == 2  # the segment of the first two is not
    journal.rewrite(STREAM, lambda row: None if row["id"] < "row-2" else row)
    assert journal.count(STREAM) == 5


# -- finding


def test_find_reads_only_what_was_written_when_the_id_was_made(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, made = workspace.journal, []
    for _ in range(8):
        for _ in range(3):
            made.append(new_id("row"))
            journal.append(STREAM, {"id": made[-1], "n": len(made)})
            time.sleep(0.002)
        journal.seal()
    read: list[str] = []
    original = journal._bytes
    monkeypatch.setattr(journal, "_bytes", lambda stream, digest: read.append(digest) or original(stream, digest))
    for number, identifier in enumerate(made, 1):
        read.clear()
        assert journal.find(STREAM, identifier) == {"id": identifier, "n": number}
        assert len(read) == 1
    read.clear()
    assert journal.find(STREAM, new_id("row")) is None
    assert read == []
    assert journal.find(STREAM, "no such form") is None
    assert len(read) == 0 or len(read) == 8


def test_find_gives_the_latest_row_even_of_ids_without_a_time(workspace: Workspace) -> None:
    late = new_id("row")
    time.sleep(0.01)
    for number in range(3):
        workspace.journal.append(STREAM, {"id": "plain", "n": number})
        workspace.journal.append(STREAM, {"id": new_id("row")})
        workspace.journal.seal()
    workspace.journal.append(STREAM, {"id": late, "n": 9})  # written long after its id was made
    workspace.journal.seal()
    assert workspace.journal.find(STREAM, "plain") == {"id": "plain", "n": 2}
    assert workspace.journal.find(STREAM, late) == {"id": late, "n": 9}
    workspace.journal.append(STREAM, {"id": "plain", "n": 3})
    assert workspace.journal.find(STREAM, "plain") == {"id": "plain", "n": 3}


def test_an_id_in_a_text_is_not_the_row() -> None:
    data = b'{"salt":"0","format":1}\n{"id":"a","n":1}\n{"id":"b","text":"a","of":{"id":"a"}}\n'
    assert row_in(data, "a") == {"id": "a", "n": 1}
    assert row_in(data, "c") is None


def test_spans_say_when_ids_were_made() -> None:
    first, last = new_id("a"), new_id("b-c")
    assert spans([{"id": last, "time": "2"}, {"id": first, "time": "1"}]) == {
        "rows": 2,
        "first": "1",
        "last": "2",
        "ids": [time_of(first), time_of(last)],
    }
    assert spans([{"id": first}, {"id": "plain"}])["ids"] is None
    assert spans([])["rows"] == 0


def test_a_segment_told_in_parts_is_told_whole() -> None:
    lines = [header(STREAM)] + [b'{"id":"%s","time":"%d"}\n' % (new_id("row").encode(), n % 7) for n in range(950)]
    for place in (1, 333, 950):
        lines[place] = b'{"id":"broken\n'
    data = b"".join(lines) + b'{"id":"without its end"'
    rows, damaged = rows_in(data)
    assert (len(rows), damaged) == (947, 3)
    assert told(data) == spans(rows) | {"damaged": 3}
    assert told(b"") == spans([]) | {"damaged": 0}
    with pytest.raises(Corrupt, match="format 7"):
        told(b'{"format":7,"salt":"00"}\n{"id":"a"}\n')


def test_recording_does_not_read_all_seals_again(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    original = workspace.ledger.rows
    monkeypatch.setattr(
        workspace.ledger, "rows", lambda *kinds, after=0: asked.append(after) or original(*kinds, after=after)
    )
    for number in range(5):
        workspace.journal.append(STREAM, {"id": f"row-{number}"})
        workspace.journal.seal()
    assert asked == sorted(asked)
    assert asked[-1] > 3


# -- erasing

PERSON = "Margarethe Übelacker"


def raw_bytes(root: Path) -> bytes:
    files = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith("treadle.db")]
    return b"\0".join(path.read_bytes() for path in files)


def test_rewriting_leaves_no_byte_of_the_person(place: Place) -> None:
    root = place.root
    with place.open() as workspace:
        journal = workspace.journal
        for number in range(30):
            text = f"{PERSON} wrote {number}" if number % 7 == 0 else f"somebody wrote {number}"
            journal.append(STREAM, {"id": f"row-{number:02}", "text": text})
            if number % 10 == 9:
                journal.seal()
        journal.append("other", {"id": "x", "text": "stays as it is"})
        journal.seal()
        journal.append(STREAM, {"id": "row-30", "text": PERSON})
        workspace.state.set("note", PERSON)
        untouched = set(journal.sealed("other"))
        list(journal.read(STREAM))  # what readers made of it goes as well

        def without(row: dict[str, Any]) -> dict[str, Any] | None:
            if PERSON not in (row["text"] or ""):
                return row
            return None if row["id"] == "row-30" else {**row, "text": None}

        replaced = journal.rewrite(STREAM, without)
        assert replaced
        assert journal.rewrite(STREAM, without) == replaced  # as after a kill: what is still there is named again
        doomed = replaced | {entry.digest for name in replaced for entry in workspace.store.entries(name)}
        workspace.ledger.append(
            *(erasure("deleting", sorted(doomed), workspace), erasure("done", [], workspace)), sync=True
        )
        workspace.store.delete(doomed)
        workspace.state.set("note", None)
        workspace.database.scrub()
        assert ids(journal) == [f"row-{number:02}" for number in range(30)]
        assert next(journal.read(STREAM))["text"] is None
        assert set(journal.sealed("other")) == untouched
        found = verify(workspace)
        assert found.ok, found.problems
        assert found.erased == len(doomed)
    needles = (PERSON.encode(), json.dumps(PERSON)[1:-1].encode(), PERSON.split()[0].encode())
    everything = raw_bytes(root)
    assert not any(needle in everything for needle in needles)
    assert not place.holds(*needles)


def erasure(phase: str, objects: list[str], workspace: Workspace) -> Any:

    listed = workspace.store.put_bytes(b'{"files":[],"format":1}')
    return Fact(
        "erasure", {"request": "era-1", "phase": phase, "objects": objects, "suppression": listed, "subject": "k3:0"}
    )


def test_an_erased_object_that_is_back_is_a_problem_and_one_made_anew_is_not(workspace: Workspace) -> None:
    workspace.journal.append(STREAM, {"id": "row", "text": PERSON})
    replaced = workspace.journal.rewrite(STREAM, lambda row: {**row, "text": None})
    (digest,) = replaced
    entries = workspace.store.entries(digest)
    data = workspace.store.read(entries[0].digest)
    doomed = {digest, entries[0].digest}
    workspace.ledger.append(erasure("deleting", sorted(doomed), workspace))
    assert verify(workspace).ok  # under way: some may be gone, some not yet
    workspace.store.delete({digest})
    assert verify(workspace).ok
    workspace.store.delete(doomed)
    workspace.ledger.append(erasure("done", [], workspace))
    assert verify(workspace).ok
    workspace.store.put_bytes(data)
    assert [problem.detail for problem in verify(workspace).problems] == ["was erased, and is back"]


def test_a_reader_that_began_before_an_erasure_goes_on_with_what_replaced(workspace: Workspace) -> None:
    for number in range(4):
        workspace.journal.append(STREAM, {"id": f"row-{number}", "text": PERSON})
        workspace.journal.seal()
    reader = workspace.journal.read(STREAM)
    assert next(reader)["text"] == PERSON
    replaced = workspace.journal.rewrite(STREAM, lambda row: {**row, "text": None})
    workspace.store.delete(replaced | {e.digest for name in replaced for e in workspace.store.entries(name)})
    assert [(row["id"], row["text"]) for row in reader] == [(f"row-{number}", None) for number in (1, 2, 3)]


def test_lines_that_cannot_be_read_do_not_survive_a_rewrite(workspace: Workspace) -> None:
    workspace.journal.append(STREAM, {"id": "row"})
    (path,) = open_files(workspace)
    with path.open("ab") as file:
        file.write(b'{"id":"broken","text":"' + PERSON.encode() + b'\n{"id":"after"}\n')
    replaced = workspace.journal.rewrite(STREAM, lambda row: row)
    workspace.store.delete(replaced | {e.digest for name in replaced for e in workspace.store.entries(name)})
    assert ids(workspace.journal) == ["row", "after"]
    assert PERSON.encode() not in raw_bytes(workspace.root)


def test_nobody_waits_while_another_process_seals(workspace: Workspace) -> None:
    workspace.journal.append(STREAM, {"id": "row-0"})
    taken = take(workspace.journal._open[STREAM].path)
    assert taken is not None
    with taken.open("rb") as sealing:
        fcntl.flock(sealing, fcntl.LOCK_EX)  # as whoever seals it does, for as long as that takes
        writer = threading.Thread(
            target=workspace.journal.append, args=(STREAM, {"id": "row-1"}), name="writer", daemon=True
        )
        writer.start()
        writer.join(5)
        assert not writer.is_alive()
    workspace.journal.seal()
    assert sorted(ids(workspace.journal)) == ["row-0", "row-1"]


def test_a_large_segment_is_sealed_before_its_time(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SEAL_BYTES", 100_000)
    workspace.journal.append(STREAM, {"id": "row-0", "text": "x" * 200_000})
    ends = time.monotonic() + 20
    while not workspace.journal.sealed(STREAM):
        assert time.monotonic() < ends
        time.sleep(0.05)
    assert ids(workspace.journal) == ["row-0"]
