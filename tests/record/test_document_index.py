"""The index of documents gives what looking into every list gives, however it came about and whatever befalls it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from pathlib import Path

import pytest

from treadle.core.artifacts import Artifact, Builder
from treadle.core.errors import Corrupt, UserError
from treadle.core.ledger import Fact
from treadle.core.workspace import Workspace
from treadle.record import document_feed, document_index, document_lists, document_records
from treadle.record.document_index import DocumentIndex
from treadle.record.document_records import found, merged, packed, records, unpacked
from treadle.record.record import PROJECTIONS, Record

KINDS = ("corpus", "dataset", "model", "release")


class Thing(Artifact):
    kind = "thing"


def drawn(seed: int, count: int) -> list[bytes]:
    chance = random.Random(seed)
    return [chance.randbytes(32) for _ in range(count)]


def put(record: Record, ids: list[bytes], kind: str = "dataset", mark: str = "") -> str:
    """An artifact of these documents, with its row in the ledger."""
    with Builder(Thing, record.store) as builder:
        (builder.path / "mark").write_text(kind + mark)
        builder.add_documents(f"doc:{each.hex()}" for each in ids)
        digest = builder.commit().digest
    body = {"digest": digest, "kind": kind, "bytes": 1, "documents": len(ids), "run": "run-x"}
    record.ledger.append(Fact("artifact", body))
    return digest


def scan(record: Record, document: bytes) -> dict[str, str]:
    """What holds a document, found the long way."""
    rows = [row.body for row in record.ledger.rows("artifact")]
    there = {body["digest"]: body["kind"] for body in rows if record.store.has_object(body["digest"])}
    name = f"doc:{document.hex()}"
    return {digest: kind for digest, kind in there.items() if Artifact(digest, record.store).has_document(name)}


def ask(record: Record, document: bytes, limit: int = 0, index: DocumentIndex | None = None) -> dict[str, str]:
    answer = (index or record.documents).holders(f"doc:{document.hex()}", KINDS, limit)
    assert answer.verified
    assert [each.seq for each in answer.found] == sorted((each.seq for each in answer.found), reverse=True)
    return {each.digest: each.kind for each in answer.found}


def agree(record: Record, documents: list[bytes]) -> None:
    for document in documents:
        assert ask(record, document) == scan(record, document)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks, batches and parts so small that a few hundred documents fill many."""
    monkeypatch.setattr(document_records, "_BLOCK", 16 * 10)
    monkeypatch.setattr(document_records, "_PART", 50)
    monkeypatch.setattr(document_feed, "_RECORDS", 40)
    monkeypatch.setattr(document_feed, "_MANY", 25)
    monkeypatch.setattr(document_lists, "_PART", 30)
    monkeypatch.setattr(document_lists, "_LARGE", 40 * 32)
    monkeypatch.setattr(document_lists, "_SAMPLE", 8)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(3))
def test_any_history_gives_what_looking_into_every_list_gives(record: Record, seed: int) -> None:
    chance = random.Random(seed)
    pool = [chance.randbytes(3) + bytes(26) + chance.randbytes(3) for _ in range(150)]
    pool += [each[:6] + chance.randbytes(26) for each in pool[:50]]  # the index cannot tell these from the others
    lists = [chance.sample(pool, 60)]
    for number in range(40):
        ids = set(chance.choice(lists))
        if chance.random() < 0.3:
            ids = set(chance.sample(pool, chance.choice([1, 3, 20, 90])))
        else:
            ids -= set(chance.sample(sorted(ids), min(len(ids) - 1, chance.randrange(4))))
            ids |= set(chance.sample(pool, chance.randrange(4)))
        lists.append(sorted(ids))
        put(record, lists[-1], chance.choice(KINDS), str(number % 5))
        if chance.random() < 0.3:
            agree(record, chance.sample(pool, 3))
    agree(record, pool)
    assert record.documents.holding(f"doc:{each.hex()}" for each in pool[:3]) == {
        digest for document in pool[:3] for digest in scan(record, document)
    }


def test_what_versions_share_is_kept_once(record: Record) -> None:
    chance = random.Random(1)
    held = [chance.randbytes(32) for _ in range(2_000)]
    record.documents.catch_up()
    sizes = []
    for number in range(30):
        held[number] = chance.randbytes(32)
        put(record, held)
        put(record, held, "model")
        record.documents.catch_up()
        ((count,),) = record.documents._file.reading.query("SELECT sum(records) FROM segments")
        sizes.append(count)
    assert sizes[0] == 2_000
    assert sizes[-1] == 2_000 + 2 * 29  # of 120,000 edges
    agree(record, [held[0], held[29], held[1_000]])
    assert len(ask(record, held[1_000])) == 60


def test_a_limit_keeps_the_latest_and_counts_all(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_index, "_MANY", 10)
    chance = random.Random(2)
    held = [chance.randbytes(32) for _ in range(20)]
    made = [put(record, [*held, chance.randbytes(32)], KINDS[number % 3]) for number in range(60)]
    other = put(record, [chance.randbytes(32)])
    record.documents.catch_up()
    late = put(record, held)
    for behind in (False, True):
        if behind:
            monkeypatch.setattr(record.documents._feed, "catch_up", lambda seconds: False)
        answer = record.documents.holders(f"doc:{held[0].hex()}", ("dataset", "model"), 4, "corpus")
        assert answer.counts == {"dataset": 21, "model": 20}
        assert answer.whole == set(made[::3])
        assert [each.digest for each in answer.found if each.kind == "model"] == made[:-13:-1][::3]
        assert next(each.digest for each in answer.found if each.kind == "dataset") == late
        assert Counter(each.kind for each in answer.found) == {"dataset": 4, "model": 4}
    assert other not in ask(record, held[0])


def test_what_is_not_taken_in_yet_is_found_all_the_same(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = drawn(3, 3)
    put(record, documents[:2])
    record.documents.catch_up()
    put(record, documents[1:], "model")

    def full(seconds: float | None) -> bool:
        raise UserError("no space left on the disk")

    monkeypatch.setattr(record.documents._feed, "catch_up", full)
    agree(record, documents)
    assert len(ask(record, documents[1])) == 2


def test_only_new_artifacts_are_read(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = drawn(4, 20)
    for document in documents:
        put(record, [document])
    record.documents.catch_up()
    read: list[str] = []
    real = record.store.read
    monkeypatch.setattr(record.store, "read", lambda digest: (read.append(digest), real(digest))[1])
    new = put(record, documents[:2])
    record.documents.catch_up()
    assert set(read) == {new, *(entry.digest for entry in Artifact(new, record.store).entries()[:1])}
    assert record.documents.catch_up()


def erase(record: Record, documents: list[bytes]) -> None:
    """Delete every artifact that holds one of the documents, with its list, as an erasure does."""
    doomed = {digest for document in documents for digest in scan(record, document)}
    doomed |= {
        entry.digest for digest in doomed for entry in record.store.entries(digest) if entry.path == "documents.ids"
    }
    record.store.delete(doomed)
    record.erasures.record("era-1", "k3:x", "done", record.erasures.extend({}).digest)


def told(record: Record) -> set[bytes]:
    """The first bytes of every document that the file knows of."""
    rows = record.documents._file.reading.query("SELECT data FROM blocks")
    data = [unpacked(block) for (block,) in rows]
    return {block[place : place + 6] for block in data for place in range(0, len(block), 10)}


def test_what_was_erased_holds_nothing_and_is_forgotten(record: Record) -> None:
    chance = random.Random(5)
    kept, gone = ([chance.randbytes(32) for _ in range(40)] for _ in range(2))
    put(record, kept)
    release = put(record, [*kept, gone[0]], "release")
    put(record, [*kept, *gone[:5]], "model")
    assert set(ask(record, gone[0]).values()) == {"release", "model"}
    record.store.delete({release})  # before there is a row about it
    assert set(ask(record, gone[0]).values()) == {"model"}
    erase(record, gone)
    record.documents.scrub()
    for _ in range(2):
        assert ask(record, gone[0]) == {}
        assert set(ask(record, kept[0]).values()) == {"dataset"}
        assert told(record) == {each[:6] for each in kept}
        record.documents.scrub()


def test_another_process_hears_of_an_erasure(record: Record) -> None:
    documents = drawn(6, 3)
    put(record, documents)
    put(record, documents[:1], "model")
    other = DocumentIndex(record.workspace)
    assert len(ask(record, documents[0], index=other)) == 2
    erase(record, documents[1:])
    assert ask(record, documents[0], index=other) == scan(record, documents[0])
    assert told(record) == {documents[0][:6]}
    other.close()


def test_what_was_collected_still_holds_its_documents(record: Record) -> None:
    documents = drawn(7, 3)
    digest = put(record, documents)
    mark = next(entry.digest for entry in record.store.entries(digest) if entry.path == "mark")
    record.store.delete({mark})
    assert ask(record, documents[0]) == {digest: "dataset"}


def test_what_is_pulled_later_is_found(record: Record, tmp_path: Path) -> None:
    """After a restore the ledger is there before the objects are."""
    documents = drawn(9, 3)
    digest = put(record, documents)
    here = record.store.root / "objects"
    here.rename(tmp_path / "elsewhere")
    assert not record.documents.holders(f"doc:{documents[0].hex()}", KINDS, 0).found
    (tmp_path / "elsewhere").rename(here)
    assert ask(record, documents[0]) == {digest: "dataset"}


def test_a_list_in_a_pack_is_searched(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.core.taking.MANY", 2)
    documents = drawn(10, 40)
    digest = put(record, documents)
    (listed,) = [entry.digest for entry in record.store.entries(digest) if entry.path.endswith(".ids")]
    assert any(stored.start is not None for name, stored in record.store.objects() if name == listed)
    assert ask(record, documents[7]) == {digest: "dataset"}
    assert document_lists.ListReader(record.store).holds(listed, f"doc:{documents[7].hex()}")


def test_an_artifact_that_is_made_again_is_back(record: Record) -> None:
    documents = drawn(8, 3)
    put(record, documents)
    record.documents.catch_up()
    erase(record, documents)
    assert ask(record, documents[0]) == {}
    digest = put(record, documents)
    assert ask(record, documents[0]) == {digest: "dataset"}


def _lie(record: Record, sql: str) -> None:
    with record.documents._file.writing.transaction() as cursor:
        cursor.execute(sql)
        assert cursor.rowcount


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM blocks WHERE id = (SELECT min(id) FROM blocks)",
        "UPDATE blocks SET data = x'789c030000000001' WHERE id = (SELECT min(id) FROM blocks)",  # a block of nothing
        "DELETE FROM segments WHERE id = (SELECT min(id) FROM segments)",
        "DELETE FROM lists WHERE number = 2",
        "UPDATE lists SET base = 0 WHERE base = 1",
        "DELETE FROM holdings WHERE kind = 'model'",
        "UPDATE holdings SET list = 1 WHERE kind = 'model'",
    ],
)
def test_an_erasure_believes_no_index_that_was_changed(
    record: Record, sql: str, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(9)
    held = [chance.randbytes(32) for _ in range(100)]
    for number in range(4):
        held[number] = chance.randbytes(32)
        put(record, held)
        record.documents.catch_up()
    put(record, held[:50], "model")
    put(record, [*held, chance.randbytes(32)], "model")
    names = [f"doc:{each.hex()}" for each in held]
    expected = {digest for document in held for digest in scan(record, document)}
    assert record.documents.holding(names) == expected
    assert not caplog.messages
    _lie(record, sql)
    assert record.documents.holding(names) == expected
    assert "made anew" in caplog.text


def test_an_answer_that_the_list_denies_is_not_given(record: Record, caplog: pytest.LogCaptureFixture) -> None:
    documents = drawn(10, 12)
    put(record, documents)
    put(record, documents[1:])
    record.documents.catch_up()
    _lie(record, "DELETE FROM segments")
    block = next(packed([records(documents[0], 1)]))
    _lie(record, "UPDATE lists SET base = 1")
    with record.documents._file.writing.transaction() as cursor:
        cursor.execute("DELETE FROM blocks")
        cursor.execute("INSERT INTO segments VALUES (1, 1, 1, 2, '')")
        cursor.execute("INSERT INTO blocks (segment, first, data) VALUES (1, ?, ?)", block)
    agree(record, documents[:1])
    assert "made anew" in caplog.text


@pytest.mark.parametrize("damage", ["missing", "empty", "noise", "half"])
def test_a_damaged_file_is_made_anew(record: Record, damage: str) -> None:
    documents = drawn(11, 2_000)
    put(record, documents)
    record.documents.catch_up()
    record.documents.close()
    path = record.documents._file.path
    data = path.read_bytes()
    changed = {"empty": b"", "noise": random.Random(1).randbytes(len(data)), "half": data[: len(data) // 2]}
    path.unlink() if damage == "missing" else path.write_bytes(changed[damage])
    agree(record, documents[:5])
    assert record.documents.holding([f"doc:{documents[0].hex()}"]) == set(scan(record, documents[0]))


def test_an_index_of_another_history_is_made_anew(record: Record, tmp_path: Path) -> None:
    documents = drawn(12, 3)
    with Workspace(tmp_path / "other", projections=PROJECTIONS) as workspace:
        other = Record(workspace, "other")
        put(other, documents)
        put(other, documents[1:])
        other.documents.catch_up()
        path = other.documents._file.path
    put(record, documents[:1], "model")
    record.documents._file.path.parent.mkdir(exist_ok=True)
    path.rename(record.documents._file.path)
    agree(record, documents)


def test_a_damaged_list_is_said_and_hides_nothing_else(record: Record) -> None:
    documents = drawn(13, 3)
    put(record, documents)
    good = put(record, documents[:1], "model")
    record.documents.catch_up()
    ((name,),) = record.documents._file.reading.query("SELECT object FROM lists WHERE number = 1")
    path = record.store._object(name)
    data = path.read_bytes()
    path.chmod(0o644)
    for fresh in (False, True):
        path.write_bytes(bytes(len(data)))
        if fresh:
            record.documents._file.discard()
        answer = record.documents.holders(f"doc:{documents[0].hex()}", KINDS)
        assert not answer.verified
        assert [each.digest for each in answer.found] == [good]
        path.write_bytes(data)
        agree(record, documents)


def test_a_large_list_is_checked_when_it_changes(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_lists, "_LARGE", 32)
    documents = sorted(drawn(14, 50))
    digest = put(record, documents)
    reader = document_lists.ListReader(record.store)
    name = reader.of_artifact(digest)
    checked: list[str] = []
    real = record.store.check
    monkeypatch.setattr(record.store, "check", lambda each: (checked.append(each), real(each))[1])
    for document in (documents[0], documents[-1], documents[20]):
        assert reader.holds(name, f"doc:{document.hex()}")
    for document in (bytes(32), b"\xff" * 32, documents[3][:-1] + b"\0"):
        assert not reader.holds(name, f"doc:{document.hex()}")
    assert checked == [name]
    path = record.store._object(name)
    path.chmod(0o644)
    path.write_bytes(b"".join([bytes(32), *documents[1:]]))
    with pytest.raises(Corrupt):
        reader.holds(name, f"doc:{documents[1].hex()}")


def test_segments_stay_few(record: Record) -> None:
    chance = random.Random(15)
    for _ in range(60):
        put(record, [chance.randbytes(32) for _ in range(chance.randrange(1, 30))])
        record.documents.catch_up()
    sizes = [count for (count,) in record.documents._file.reading.query("SELECT records FROM segments ORDER BY last")]
    assert len(sizes) <= 6
    assert sum(sizes) == sum(
        Artifact(row.body["digest"], record.store).document_count() for row in record.ledger.rows("artifact")
    )


def test_threads_may_ask_while_it_grows(record: Record) -> None:
    chance = random.Random(16)
    held = [chance.randbytes(32) for _ in range(30)]
    made: list[str] = []
    failed: list[str] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            before = set(made)
            if not before <= ask(record, held[0]).keys():
                failed.append("missed")

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(25):
        digest = put(record, [*held, chance.randbytes(32)], KINDS[number % 4])
        made.append(digest)
    ended.set()
    for thread in threads:
        thread.join()
    assert not failed
    agree(record, held[:2])


def _other(record: Record) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(Path(__file__).with_name("document_indexer.py")), str(record.workspace.root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_killed_at_any_moment_it_goes_on(record: Record) -> None:
    chance = random.Random(17)
    held = [chance.randbytes(32) for _ in range(3_000)]
    others = [_other(record), _other(record)]
    for number in range(12):
        held[number] = chance.randbytes(32)
        put(record, held if number % 2 else chance.sample(held, 2_000))
        if number % 3 == 2:
            time.sleep(0.05 + chance.random() / 10)
            others[0].kill()
            others[0].communicate()
            others = [others[1], _other(record)]
    assert ask(record, held[0]) == scan(record, held[0])
    for other in others:
        os.kill(other.pid, signal.SIGKILL)
        assert not other.communicate()[0]
    agree(record, [held[0], held[11], held[2_999]])
    names = [f"doc:{held[number].hex()}" for number in range(2)]
    assert record.documents.holding(names) == scan(record, held[0]).keys() | scan(record, held[1]).keys()


def test_blocks_give_back_what_went_in() -> None:
    chance = random.Random(18)
    ids = sorted(chance.randbytes(32) for _ in range(10_000))
    rows = sorted(records(b"".join(ids), 7) + records(b"".join(ids[::3]), 9, lost=True))
    blocks = [unpacked(data) for _, data in packed([rows])]
    assert b"".join(blocks) == b"".join(rows)
    assert [row for part in merged([iter(blocks[:1]), iter(blocks[1:]), iter([])], len(rows)) for row in part] == rows
    holding = next(block for block in blocks if block[:6] <= ids[300][:6] <= block[-10:-4])
    assert found(holding, ids[300][:6]) == ([7], [9])
    assert found(holding, ids[301][:6]) == ([7], [])
    assert found(holding, bytes(6)) == ([], [])


@pytest.mark.parametrize("block", [b"", b"no", zlib.compress(b"123"), zlib.compress(bytes(1 << 26))])
def test_what_is_no_block_is_refused(block: bytes) -> None:
    with pytest.raises(Corrupt, match="damaged"):
        unpacked(block)
