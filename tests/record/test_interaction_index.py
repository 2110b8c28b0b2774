"""The index says what a plain scan of the journal says, whatever happened to either; and it never keeps a text."""

from __future__ import annotations

import itertools
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from treadle.core.errors import Corrupt, UserError
from treadle.core.segment import files_of
from treadle.core.workspace import Workspace
from treadle.record import index_feed
from treadle.record import interaction_index as index_module
from treadle.record.index_file import BUCKET_SECONDS, FORMAT
from treadle.record.interaction_index import InteractionFilter, InteractionIndex, InteractionRow
from treadle.record.record import PROJECTIONS, Record

from .traffic import PEOPLE, RELEASES, TEXTS, Traffic, in_force, listed, scanned

INDEXER = Path(__file__).with_name("indexer.py")


def index_path(record: Record) -> Path:
    return record.workspace.root / "cache" / "interactions.db"


def by_time(rows: list[InteractionRow]) -> list[InteractionRow]:
    return sorted(rows, key=lambda row: (row.time, row.id), reverse=True)


def assert_equal(record: Record, index: InteractionIndex | None = None) -> None:
    index = index or record.interactions
    assert index.catch_up()
    expected, found = scanned(record), listed(index, limit=37)
    assert by_time(found) == by_time(expected)
    assert [row.time for row in found] == [row.time for row in expected]
    assert index.count() == len(expected)
    assert index.waiting() == 0


@contextmanager
def process(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(INDEXER), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def filled(record: Record, count: int = 300, seed: int = 1) -> Traffic:
    traffic = Traffic(record, random.Random(seed))
    for number in range(count):
        traffic.interact()
        if number % 3 == 0:
            traffic.opine()
        if number % 20 == 0:
            traffic.keep()
        if number % 90 == 89:
            record.workspace.journal.seal()
    return traffic


# -- the same as a scan


@pytest.mark.parametrize("seed", range(6))
def test_any_history_gives_what_a_scan_gives(record: Record, seed: int) -> None:
    chance = random.Random(seed)
    traffic = Traffic(record, chance)
    root, journal = record.workspace.root, record.workspace.journal
    with Workspace(root, projections=PROJECTIONS) as other_workspace:
        other = InteractionIndex(other_workspace)

        def several(deed: Callable[[], object]) -> Callable[[], None]:
            return lambda: [deed() for _ in range(chance.randrange(1, 30))] and None

        deeds: list[Callable[[], object]] = [
            several(traffic.interact),
            several(traffic.interact),
            several(traffic.opine),
            traffic.keep,
            journal.seal,
            lambda: journal.seal("feedback"),
            lambda: journal.seal("interactions"),
            record.interactions.catch_up,
            lambda: record.interactions.catch_up(0.0),
            other.catch_up,
            lambda: traffic.erase(chance.choice([name for name in PEOPLE if name])),
            lambda: assert_equal(record),
        ]
        for _ in range(50):
            chance.choice(deeds)()
        assert_equal(record)
        assert_equal(record, other)
        other.close()
    index_path(record).unlink()
    assert_equal(record)


def test_rows_of_one_moment_are_all_listed_once(record: Record) -> None:
    traffic = Traffic(record, random.Random(3))
    moment = "2026-01-31T12:00:00.000Z"
    for _ in range(700):
        traffic.interact(time=moment)
    record.workspace.journal.seal()
    record.interactions.catch_up()
    rows = listed(record.interactions, limit=50)
    assert sorted(row.id for row in rows) == sorted(traffic.ids)
    assert {row.time for row in rows} == {moment}


def test_a_word_that_is_taken_back_does_not_count(record: Record) -> None:
    traffic = Traffic(record, random.Random(1))
    name = traffic.interact()

    def row() -> InteractionRow:
        record.interactions.catch_up()
        return record.interactions.page().rows[0]

    plain: dict[str, Any] = {"comment": None, "correction": None, "source": "api"}
    traffic.opine(name, kind="thumbs", value=1.0, user="k3:a", **plain)
    assert (row().thumbs, row().corrected) == (1.0, False)
    traffic.opine(name, kind="thumbs", value=0.0, user="k3:b", **plain)
    traffic.opine(name, kind="correction", value=None, user="k3:b", **{**plain, "correction": "so"})
    assert (row().thumbs, row().corrected) == (0.0, True)
    traffic.opine(name, kind="thumbs", value=None, user="k3:b", **plain)
    traffic.opine(name, kind="correction", value=None, user="k3:b", **plain)
    assert (row().thumbs, row().corrected) == (1.0, False)  # what the other one said stands


def test_feedback_that_comes_before_its_interaction_is_joined_to_it(record: Record) -> None:
    traffic = Traffic(record, random.Random(1))
    name = "int-01KZ0000000000000000000000"
    traffic.opine(name, kind="thumbs", value=0.0)
    traffic.keep(name)
    assert record.interactions.catch_up()
    traffic.interact(id=name)
    record.interactions.catch_up()
    (row,) = record.interactions.page().rows
    assert (row.id, row.thumbs, row.case) == (name, 0.0, True)


def test_rows_that_are_none_are_left_out_and_cost_nothing_else(record: Record) -> None:
    traffic = filled(record, 20)
    for strange in ({"id": "int-x"}, {"id": "int-y", "release": 5, "model": None, "endpoint": [], "tokens": "many"}):
        record.workspace.journal.append("interactions", strange)
    record.workspace.journal.append("feedback", {"id": "fb-x", "interaction": 7})
    record.workspace.journal.append("cases", {"id": "case-x"})
    record.workspace.journal.seal()
    record.interactions.catch_up()
    assert {row.id for row in listed(record.interactions)} == set(traffic.ids)


# -- filters


def brute(rows: list[InteractionRow], where: InteractionFilter, rated: set[str]) -> list[InteractionRow]:
    def holds(row: InteractionRow) -> bool:
        rating = {
            None: True,
            "up": row.thumbs == 1,
            "down": row.thumbs == 0,
            "corrected": row.corrected,
            "rated": row.id in rated,
            "unrated": row.id not in rated,
        }[where.rating]
        given = ("release", "model", "status", "user")
        same = all(getattr(where, name) in (None, getattr(row, name)) for name in given)
        origin = "shadow" if row.shadow else "smoke" if row.smoke else "traffic"
        return (
            rating
            and same
            and where.origin in (None, origin)
            and (where.since or "") <= row.time < (where.until or "9")
        )

    return [row for row in rows if holds(row)]


def test_every_filter_gives_what_looking_at_each_row_gives(record: Record) -> None:
    traffic = filled(record, 400, seed=5)
    traffic.erase("eve")
    record.interactions.catch_up()
    rows, chance = scanned(record), random.Random(2)
    by_interaction: dict[str, list[Any]] = {}
    for word in record.recorder.all_feedback():
        if not word.erased:
            by_interaction.setdefault(word.interaction, []).append(word)
    rated = {name for name, words in by_interaction.items() if in_force(words)}
    times = [row.time for row in rows]
    some = 0
    for _ in range(250):
        where = InteractionFilter(
            release=chance.choice((None, None, RELEASES[0], "b3:none")),
            model=chance.choice((None, None, "model/demo@v1")),
            status=chance.choice((None, None, "ok", "failed")),
            rating=chance.choice((None, None, "up", "down", "corrected", "rated", "unrated")),
            user=chance.choice((None, None, record.recorder.keyed("ann"), record.recorder.keyed("eve"))),
            since=chance.choice((None, chance.choice(times))),
            until=chance.choice((None, chance.choice(times))),
            origin=chance.choice((None, "traffic", "smoke", "shadow")),
        )
        expected = brute(rows, where, rated)
        assert by_time(listed(record.interactions, where, chance.randrange(1, 60))) == by_time(expected), where
        assert record.interactions.count(where) == len(expected), where
        some += bool(expected)
    assert some > 60


def test_a_list_can_be_walked_while_it_grows(record: Record) -> None:
    traffic = filled(record, 100)
    record.interactions.catch_up()
    before = {row.id for row in listed(record.interactions)}
    seen, cursor = [], None
    for _ in range(100):
        page = record.interactions.page(before=cursor, limit=7)
        seen += [row.id for row in page.rows]
        cursor = page.next
        if cursor is None:
            break
        traffic.interact(time=datetime.now(UTC).isoformat(timespec="milliseconds"))
        record.interactions.catch_up()
    assert len(seen) == len(set(seen))
    assert set(seen) == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"where": InteractionFilter(since="yesterday")}, "since 'yesterday': expected a time"),
        ({"where": InteractionFilter(until="2026-13-01")}, "until '2026-13-01': expected a time"),
        ({"where": InteractionFilter(rating="good")}, "rating 'good': expected one of up, down"),  # type: ignore[arg-type]
        ({"before": "x"}, "before 'x': expected what a page gave"),
        ({"before": "1" * 50}, "expected what a page gave"),
        ({"limit": 0}, "limit 0: expected 1 to 500"),
        ({"limit": 501}, "limit 501"),
    ],
)
def test_what_is_not_understood_is_one_line(record: Record, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        record.interactions.page(**given)


# -- texts


@pytest.mark.parametrize(
    "text",
    ["straSSE", "SÜDEN", 'a "QUOTED" \\ text', "text\nof", "half \ud800 A", "a TITLE", "doc:aaa", "B" * 60, "plain"],
)
def test_a_text_is_found_in_any_case_of_letters(record: Record, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_SEARCH_SECONDS", 60.0)
    filled(record, 150)
    record.interactions.catch_up()

    def holds(row: InteractionRow) -> bool:
        whole = record.recorder.find_interaction(row.id)
        assert whole is not None
        texts = [message["content"] for message in whole.messages or ()] + [whole.answer or "", *whole.alternatives]
        texts += [f"{piece.document} {piece.title} {piece.text}" for piece in whole.given]
        return row.stored and any(text.casefold() in each.casefold() for each in texts)

    where = InteractionFilter(text=text, status="ok")
    expected = [row for row in scanned(record) if row.status == "ok" and holds(row)]
    assert by_time(listed(record.interactions, where, limit=4)) == by_time(expected)
    assert bool(expected) == (text != "B" * 60)


def test_a_search_says_how_far_it_came_and_goes_on_there(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_SEARCH_SECONDS", 60.0)
    monkeypatch.setattr(index_module, "_SEARCHED_ROWS", 500)
    traffic = Traffic(record, random.Random(1))
    for number in range(1100):
        text = "a needle" if number == 3 else "hay"
        moment = (traffic.begun + timedelta(seconds=number)).isoformat(timespec="milliseconds")[:-6] + "Z"
        asked = ({"role": "user", "content": text},)
        traffic.interact(time=moment, messages=asked if number % 11 else None, answer=None, given=(), metadata=None)
    record.interactions.catch_up()
    where, searched, found, cursor = InteractionFilter(text="needle"), [], [], None
    while True:
        page = record.interactions.page(where, before=cursor)
        searched.append(page.searched)
        found += [row.id for row in page.rows]
        cursor = page.next
        if cursor is None:
            break
    assert found == [traffic.ids[3]]
    assert searched == [500, 500, 0]  # rows without a text are not looked at
    monkeypatch.setattr(index_module, "_SEARCH_SECONDS", 0.0)
    page = record.interactions.page(where)
    assert (page.rows, page.searched) == ((), 0)
    assert page.next is not None


# -- one of them


def test_an_interaction_is_read_from_its_place_sealed_or_not(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    traffic = filled(record, 200)
    record.interactions.catch_up()
    record.recorder._recent.clear()
    expected = {name: record.recorder.find_interaction(name) for name in traffic.ids}
    monkeypatch.setattr(record.workspace.journal, "find", _never)
    assert {name: record.interactions.get(name) for name in traffic.ids} == expected
    assert record.interactions.get("int-unknown") is None
    late = traffic.interact()
    assert record.interactions.get(late) == record.recorder.find_interaction(late)  # without being asked to catch up
    record.workspace.journal.seal()
    assert record.interactions.get(late) == record.recorder.find_interaction(late)


def _never(*_: object) -> None:
    raise AssertionError("the journal was searched")


def test_while_the_index_is_behind_the_journal_is_asked(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    traffic = filled(record, 50)
    name = traffic.ids[3]
    traffic.opine(name, kind="thumbs", value=1.0)
    monkeypatch.setattr(record.interactions._feed, "catch_up", lambda seconds: False)
    assert record.interactions.get(name) == record.recorder.find_interaction(name)
    assert tuple(record.interactions.feedback(name)) == record.recorder.feedback_on(name)
    assert record.interactions.get("int-unknown") is None


def test_feedback_is_given_oldest_first_with_its_texts(record: Record) -> None:
    traffic = filled(record, 120)
    record.interactions.catch_up()
    about = {word.interaction for word in record.recorder.all_feedback()}
    for name in about:
        assert tuple(record.interactions.feedback(name)) == record.recorder.feedback_on(name)
    assert record.interactions.feedback(traffic.ids[1]) == list(record.recorder.feedback_on(traffic.ids[1]))
    assert record.interactions.feedback("int-unknown") == []


def test_a_segment_damaged_later_is_passed_over_by_a_search(record: Record) -> None:
    traffic = Traffic(record, random.Random(1))
    texts = [({"role": "user", "content": f"a needle {number}"},) for number in range(10)]
    names = [traffic.interact(messages=text) for text in texts[:5]]
    record.workspace.journal.seal()
    others = [traffic.interact(messages=text) for text in texts[5:]]
    record.workspace.journal.seal()
    record.interactions.catch_up()
    path, data = _rows_of_first_segment(record)
    path.write_bytes(data[:-10] + b"tampered!\n")
    inode = index_path(record).stat().st_ino
    page = record.interactions.page(InteractionFilter(text="NEEDLE"))
    assert {row.id for row in page.rows} == set(others)
    assert page.searched == 10
    assert index_path(record).stat().st_ino == inode  # it is not the index that is damaged
    with pytest.raises(Corrupt, match="its bytes changed"):
        record.interactions.get(names[0])


def _rows_of_first_segment(record: Record) -> tuple[Path, bytes]:
    """The file with the rows, made writable, and what is in it."""
    digest = next(iter(record.workspace.journal.sealed("interactions")))
    entry = next(each for each in record.store.entries(digest) if each.path == "rows.jsonl")
    path = record.store._object(entry.digest)
    path.chmod(0o644)
    return path, path.read_bytes()


def test_a_damaged_segment_is_named_and_hides_nothing_else(record: Record, caplog: pytest.LogCaptureFixture) -> None:
    traffic = Traffic(record, random.Random(1))
    first = [traffic.interact() for _ in range(5)]
    record.workspace.journal.seal()
    second = [traffic.interact() for _ in range(5)]
    record.workspace.journal.seal()
    path, data = _rows_of_first_segment(record)
    path.write_bytes(data[:-10] + b"tampered!\n")
    assert record.interactions.catch_up()
    assert {row.id for row in listed(record.interactions)} == set(second)
    assert "its bytes changed" in caplog.text
    assert record.interactions.get(second[0]) is not None
    with pytest.raises(Corrupt, match="its bytes changed"):
        record.interactions.get(first[0])
    path.write_bytes(data)
    with Workspace(record.workspace.root, projections=PROJECTIONS) as workspace:  # as a later process
        index = InteractionIndex(workspace)
        index.catch_up()
        assert {row.id for row in listed(index)} == {*first, *second}
        index.close()


# -- erasure


def test_an_erased_person_leaves_the_index_to_the_last_byte(record: Record) -> None:
    traffic = filled(record, 300)
    ann = record.recorder.keyed("ann")
    record.interactions.catch_up()
    theirs = [row.id for row in listed(record.interactions, InteractionFilter(user=ann))]
    whole = record.interactions.get(theirs[0])
    assert whole is not None
    assert ann.encode() in _bytes_of_index(record)
    traffic.erase("ann")
    assert record.interactions.get(theirs[0]) is None  # before anybody caught up
    record.interactions.scrub()
    assert ann.encode() not in _bytes_of_index(record)
    left = _bytes_of_index(record)
    assert record.recorder.keyed("bob").encode() in left
    assert not any(text.encode("utf-8", "ignore")[:12] in left for text in TEXTS)
    assert all(record.interactions.get(name) is None for name in theirs)
    assert record.interactions.count(InteractionFilter(user=ann)) == 0
    assert not {row.id for row in listed(record.interactions)} & set(theirs)
    assert_equal(record)


def _bytes_of_index(record: Record) -> bytes:
    return b"".join(path.read_bytes() for path in index_path(record).parent.iterdir())


def test_scrubbing_what_nobody_made_makes_nothing(record: Record) -> None:
    filled(record, 10)
    record.interactions.scrub()
    assert not index_path(record).exists()


# -- the file


def test_opening_a_project_does_not_open_the_index(record: Record) -> None:
    filled(record, 10)
    assert not index_path(record).parent.exists()
    record.interactions.catch_up()
    assert index_path(record).exists()


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _garbage(path: Path) -> None:
    with path.open("r+b") as file:
        for place in range(2, path.stat().st_size // 4096, 3):
            file.seek(place * 4096)
            file.write(os.urandom(4096))


def _no_database(path: Path) -> None:
    path.write_bytes(b"this is no database, it is a text" * 500)


def _sql(statement: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        connection = sqlite3.connect(path)
        connection.execute(statement)
        connection.commit()
        connection.close()

    return change


DAMAGE = {
    "missing": Path.unlink,
    "truncated": _truncate,
    "empty": _empty,
    "garbage": _garbage,
    "no database": _no_database,
    "another format": _sql(f"PRAGMA user_version = {FORMAT + 1}"),
    "a table gone": _sql("DROP TABLE facets"),
    "another history": _sql("UPDATE progress SET segment = 'b3:0'"),
    "a later history": _sql("UPDATE progress SET seen = 100000"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_made_anew(record: Record, damage: str) -> None:
    traffic = filled(record, 250)
    index = InteractionIndex(record.workspace)
    index.catch_up()
    index.close()
    DAMAGE[damage](index_path(record))
    fresh = InteractionIndex(record.workspace)
    assert_equal(record, fresh)
    fresh.close()
    traffic.interact()
    assert_equal(record)


@pytest.mark.parametrize("damage", ["missing", "garbage", "no database", "a table gone"])
def test_a_file_that_is_damaged_while_it_is_open_is_made_anew(record: Record, damage: str) -> None:
    traffic = filled(record, 250)
    record.interactions.catch_up()
    _sql("PRAGMA wal_checkpoint(TRUNCATE)")(index_path(record))
    DAMAGE[damage](index_path(record))
    traffic.interact()
    record.workspace.journal.seal()
    record.interactions.catch_up()
    record.interactions.page(InteractionFilter(rating="down"))
    assert_equal(record)


def test_a_file_left_open_by_a_process_that_another_one_threw_away(record: Record) -> None:
    traffic = filled(record, 100)
    other = InteractionIndex(record.workspace)
    for index in (record.interactions, other):
        index.catch_up()
    other._file.discard()
    traffic.interact()
    assert_equal(record, other)
    assert_equal(record)
    other.close()


# -- several threads and processes


def test_a_file_that_is_seen_twice_on_its_way_is_read_once(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_feed, "files_of", lambda folder: files_of(folder) * 2)
    filled(record, 30)
    record.interactions.catch_up()
    inode = index_path(record).stat().st_ino
    record.workspace.journal.seal()
    assert_equal(record)
    assert index_path(record).stat().st_ino == inode


def test_threads_may_ask_whatever_another_one_does(record: Record) -> None:
    traffic = filled(record, 200)
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            for number in range(40):
                record.interactions.catch_up(0.01 if number % 3 else None)
                rows = listed(record.interactions, InteractionFilter(origin="traffic"))
                assert len({row.id for row in rows}) == len(rows) >= 100
                assert record.interactions.get(traffic.ids[number]) is not None
                record.interactions.feedback(traffic.ids[number])
                record.interactions.queue(10)
                record.interactions.figures(traffic.begun.isoformat(), 3600)
        except BaseException as error:
            failed.append(error)

    record.interactions.catch_up()
    inode = index_path(record).stat().st_ino
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        traffic.interact()
        traffic.opine()
        record.workspace.journal.seal()
    for thread in threads:
        thread.join()
    assert not failed, failed
    assert_equal(record)
    assert index_path(record).stat().st_ino == inode


def test_several_processes_share_the_work(record: Record) -> None:
    root = record.workspace.root
    filled(record, 300)
    record.interactions.catch_up()
    inode = index_path(record).stat().st_ino
    with process("catch_up", root), process("catch_up", root), process("write", root, 800) as writer:
        while writer.poll() is None:
            record.interactions.catch_up()
            found = [row.id for row in listed(record.interactions)]
            assert len(found) == len(set(found))
        out, error = writer.communicate()
        assert writer.returncode == 0, error
        assert len(out.split()) == 800
        assert set(out.split()) <= {row.id for row in scanned(record)}
        assert_equal(record)
    assert_equal(record)
    assert index_path(record).stat().st_ino == inode


def test_killed_at_any_moment_it_goes_on(record: Record) -> None:
    chance = random.Random(7)
    traffic = filled(record, 200)
    for attempt in range(6):
        if attempt % 3 == 0:
            index_path(record).unlink(missing_ok=True)
        with process("catch_up", record.workspace.root) as indexer:
            assert indexer.stdout is not None
            indexer.stdout.readline()
            for _ in range(20):
                traffic.interact()
                traffic.opine()
            record.workspace.journal.seal()
            if attempt == 4:
                traffic.erase("bob")
            time.sleep(chance.random() * 0.05)
            indexer.kill()
        assert_equal(record)


# -- figures


@pytest.mark.parametrize("seconds", [BUCKET_SECONDS, 4 * BUCKET_SECONDS, 3600, 7, 450])
def test_figures_over_time_are_those_of_the_rows(record: Record, seconds: int) -> None:
    traffic = filled(record, 400)
    traffic.erase("ann")
    record.interactions.catch_up()
    traffic.begun = datetime.now(UTC) - timedelta(minutes=20)
    if seconds == 7:
        for _ in range(50):
            traffic.interact(time=(traffic.begun + timedelta(seconds=40)).isoformat(timespec="milliseconds"))
        record.interactions.catch_up()
    since = (traffic.begun - timedelta(hours=0 if seconds == 7 else 8)).isoformat()
    found = record.interactions.figures(since, seconds)
    starts = [datetime.fromisoformat(each.time).timestamp() for each in found]
    assert [b - a for a, b in itertools.pairwise(starts)] == [seconds] * (len(starts) - 1)
    assert all(start % seconds == 0 for start in starts)
    assert starts[0] <= datetime.fromisoformat(since).timestamp() < starts[0] + seconds
    rows = [
        row
        for row in record.workspace.journal.read("interactions")
        if (row["metadata"] or {}).get("treadle") != "smoke" and row["origin"] != "shadow"
    ]
    thumbs = {row.id: row.thumbs for row in scanned(record)}
    checked = 0
    for figures, start in zip(found, starts, strict=True):
        these = [row for row in rows if start <= datetime.fromisoformat(row["time"]).timestamp() < start + seconds]
        assert figures.requests == len(these)
        assert figures.failed == sum(row["status"] == "failed" for row in these)
        assert figures.tokens == sum(row["tokens"]["prompt"] + row["tokens"]["completion"] for row in these)
        living = [thumbs.get(row["id"]) for row in these if not row.get("erased")]
        assert figures.up >= living.count(1.0)
        assert figures.down >= living.count(0.0)
        first = sorted(row["seconds"]["ttft"] for row in these if row["seconds"]["ttft"] is not None)
        if not first:
            assert (figures.ttft_p50, figures.ttft_p95) == (None, None)
            continue
        checked += 1
        for share, value in ((0.5, figures.ttft_p50), (0.95, figures.ttft_p95)):
            assert value == pytest.approx(first[-(-len(first) * int(share * 100) // 100) - 1], rel=0.06)
    assert checked


def test_figures_that_would_be_too_many_are_refused(record: Record) -> None:
    for since, seconds in (("2020-01-01", 60), ("2026-01-01", 0), ("2026-01-01", -5), ("never", 300)):
        with pytest.raises(UserError, match="expected"):
            record.interactions.figures(since, seconds)


# -- the queue


def test_the_queue_puts_forward_what_is_worth_a_look(record: Record) -> None:
    traffic = Traffic(record, random.Random(1))
    good: dict[str, Any] = {
        "status": "ok",
        "origin": "traffic",
        "metadata": None,
        "confidence": (),
        "answer": "so it is",
    }
    good["messages"] = ({"role": "user", "content": "how?"},)
    said: dict[str, Any] = {"source": "api", "comment": None, "correction": None}

    def made(number: int, **given: Any) -> str:
        moment = (traffic.begun + timedelta(seconds=number)).isoformat(timespec="milliseconds")[:-6] + "Z"
        return traffic.interact(time=moment, **{**good, **given})

    plain = [made(number) for number in range(30)]
    down = [made(40 + number) for number in range(3)]
    low, unsure, liked = made(50), made(51, confidence=(0.3,)), made(52)
    hidden = [made(60, status="failed"), made(61, messages=None, answer=None), made(62, metadata={"treadle": "smoke"})]
    corrected, kept, reviewed = made(63), made(64), made(65)
    for name in (*down, *hidden, corrected, kept):
        traffic.opine(name, kind="thumbs", value=0.0, **said)
    traffic.opine(low, kind="score", value=0.1, **said)
    traffic.opine(liked, kind="thumbs", value=1.0, **said)
    traffic.opine(corrected, kind="correction", value=None, **{**said, "correction": "like this"})
    traffic.opine(reviewed, kind="thumbs", value=0.0, **{**said, "source": "console"})
    traffic.keep(kept)
    record.interactions.catch_up()
    queue = record.interactions.queue(20)
    names = [row.id for row, _ in queue]
    assert names[:5] == [*down[::-1], low, unsure]
    assert [reason for _, reason in queue[:5]] == ["rated down"] * 3 + ["a low score", "the model was not sure"]
    assert set(names[5:]) < set(plain)
    assert len(names) == 20
    times = [row.time for row, _ in queue[5:]]
    assert times == sorted(times, reverse=True)
    assert [row.id for row, _ in record.interactions.queue(2)] == down[:0:-1]
    assert {row.id for row, _ in record.interactions.queue(100)} == {*plain, *down, low, unsure}
    row, _ = queue[0]
    assert row == replace(row, thumbs=0.0, stored=True, smoke=False)
