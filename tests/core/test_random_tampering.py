"""Random tamperings with rows, heads, projections, the tree's nodes, objects and whole copies: each is found.

And honest records of many shapes, erasures among them, in which nothing is found.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from treadle.core import backup
from treadle.core.backup import Archive, Source
from treadle.core.driver import Driver
from treadle.core.errors import TreadleError
from treadle.core.head_target import head_target
from treadle.core.ledger import Fact, Problem
from treadle.core.publisher import Publisher
from treadle.core.restore import Target, restore
from treadle.core.verify import erased_objects, verify
from treadle.core.workspace import TABLES, Workspace
from treadle.record.record import PROJECTIONS, Record

from . import test_tampering as single
from .conftest import Raw

EVIDENCE = ("ledger", "ledger_head", "ledger_nodes", "runs", "artifacts", "versions", "aliases")
TARGETS = ("heads.jsonl", "heads/")


@dataclass
class Copy:
    """A copy of an honest record, its published heads beside it, and an older copy of both."""

    store: Path
    older: Path
    raw: sqlite3.Connection
    chance: random.Random

    def objects(self) -> list[Path]:
        return sorted(path for path in (self.store / "objects").rglob("*") if path.is_file())


def empty(folder: Path) -> None:
    """Delete the files; folders stay, which is quicker than making them again."""
    for path in folder.rglob("*"):
        if not path.is_dir():
            path.unlink()


def publisher(workspace: Workspace, beside: Path) -> Publisher:
    return Publisher(workspace.ledger, workspace.keys, [head_target(name, beside) for name in TARGETS])


def problems_of(store: Path) -> list[Problem]:
    try:
        with Workspace(store, projections=PROJECTIONS) as workspace:
            return list(verify(workspace, publisher(workspace, store.parent).outside()).problems)
    except TreadleError as error:
        return [Problem("open", "", str(error))]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a record of some seventy rows, its published heads, and both as they were at half of them."""
    folder = tmp_path_factory.mktemp("honest")
    for half in (range(6), range(6, 12)):
        with Workspace(folder / "now" / "store", projections=PROJECTIONS) as workspace:
            single.grow(workspace, half)
            workspace.ledger.append(Fact("approval", {"ref": "model/demo@v1", "decision": "approve", "actor": "k3:0"}))
            assert publisher(workspace, folder / "now").run() == []
        if half.start == 0:
            shutil.copytree(folder / "now", folder / "older")
    assert problems_of(folder / "now" / "store") == []
    return folder


# -- what is done to a copy


def edit_a_value(copy: Copy) -> None:
    """Any value of any row of any table that is evidence or follows from it."""
    chance = copy.chance
    while True:
        table = chance.choice(EVIDENCE)
        columns = [row[1] for row in copy.raw.execute(f"PRAGMA table_info({table})")]
        places = [row[0] for row in copy.raw.execute(f"SELECT rowid FROM {table}")]
        column, place = chance.choice(columns), chance.choice(places)
        before = copy.raw.execute(f"SELECT *, rowid FROM {table}").fetchall()
        (value,) = copy.raw.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (place,)).fetchone()
        try:
            copy.raw.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (_mutated(value, chance), place))
        except sqlite3.IntegrityError:
            continue
        after = copy.raw.execute(f"SELECT *, rowid FROM {table}").fetchall()
        if repr(before) != repr(after):  # a column's type may have turned it back
            return


def _mutated(value: object, chance: random.Random) -> object:
    others: list[object] = ["", "x", 0, -1, 1.5, b"x", 2**60, f"{value} ", str(value).encode()]
    if isinstance(value, str) and value:
        at = chance.randrange(len(value))
        others += [value[:at] + value[at + 1 :], value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]] * 4
    if isinstance(value, int):
        others += [value + 1, value - 1, -value - 1] * 3
    return chance.choice(others)


def delete_a_row(copy: Copy) -> None:
    table = copy.chance.choice(EVIDENCE)
    place = copy.chance.choice(copy.raw.execute(f"SELECT rowid FROM {table}").fetchall())[0]
    copy.raw.execute(f"DELETE FROM {table} WHERE rowid = ?", (place,))


def insert_a_row(copy: Copy) -> None:
    """Like another one, in a place of its own."""
    table, key = copy.chance.choice(
        [
            ("ledger", "seq"),
            ("runs", "id"),
            ("artifacts", "digest"),
            ("versions", "number"),
            ("ledger_nodes", "position"),
        ]
    )
    columns = [row[1] for row in copy.raw.execute(f"PRAGMA table_info({table})")]
    taken = [
        f"{column} + 1000" if column == key and key in ("seq", "number", "position") else column for column in columns
    ]
    taken = [f"{column} || 'f'" if column == key and key in ("id", "digest") else column for column in taken]
    place = copy.chance.choice(copy.raw.execute(f"SELECT rowid FROM {table}").fetchall())[0]
    copy.raw.execute(f"INSERT INTO {table} SELECT {', '.join(taken)} FROM {table} WHERE rowid = ?", (place,))


def reorder(copy: Copy) -> None:
    """Some rows of the ledger change places."""
    size = copy.raw.execute("SELECT count(*) FROM ledger").fetchone()[0]
    chosen = copy.chance.sample(range(1, size + 1), copy.chance.randint(2, 8))
    copy.raw.execute(f"UPDATE ledger SET seq = -seq WHERE seq IN ({', '.join(map(str, chosen))})")
    for before, after in zip(chosen, [*chosen[1:], chosen[0]], strict=True):
        copy.raw.execute("UPDATE ledger SET seq = ? WHERE seq = ?", (after, -before))


def truncate(copy: Copy) -> None:
    """The tail goes, sometimes with the head set back in the database and outside."""
    heads = copy.older / "store" / "head.json"
    size = copy.raw.execute("SELECT count(*) FROM ledger").fetchone()[0]
    if copy.chance.random() < 0.5:
        copy.raw.execute("DELETE FROM ledger WHERE seq > ?", (copy.chance.randrange(size),))
        return
    older = sqlite3.connect(copy.older / "store" / "treadle.db")
    head = older.execute("SELECT * FROM ledger_head").fetchone()
    older.close()
    copy.raw.execute("DELETE FROM ledger WHERE seq > ?", (head[1],))
    copy.raw.execute("UPDATE ledger_head SET size = ?, frontier = ?, root = ?, signature = ?", head[1:])
    shutil.copy(heads, copy.store / "head.json")


def roll_back_database(copy: Copy) -> None:
    copy.raw.close()
    shutil.copy(copy.older / "store" / "treadle.db", copy.store / "treadle.db")


def roll_back_both(copy: Copy) -> None:
    """Database and head.json of the same time: only what was published tells."""
    roll_back_database(copy)
    shutil.copy(copy.older / "store" / "head.json", copy.store / "head.json")


def roll_back_everything(copy: Copy) -> None:
    """The whole store, as from a backup."""
    copy.raw.close()
    empty(copy.store)
    shutil.copytree(copy.older / "store", copy.store, dirs_exist_ok=True)


def roll_back_and_go_on(copy: Copy) -> None:
    """A new history grows over the old size, with valid signatures."""
    roll_back_everything(copy)
    with Workspace(copy.store, projections=PROJECTIONS) as workspace:
        workspace.ledger.append(*(Fact("note", {"number": number}) for number in range(copy.chance.randint(1, 120))))


def begin_anew(copy: Copy) -> None:
    """Everything is gone but the keys; the project begins a new ledger."""
    copy.raw.close()
    for name in ("treadle.db", "head.json"):
        (copy.store / name).unlink()


def take_back_a_published_head(copy: Copy) -> None:
    copy.raw.close()
    if copy.chance.random() < 0.5:
        copy.chance.choice(sorted((copy.store.parent / "heads").iterdir())).unlink()
    else:
        lines = (copy.store.parent / "heads.jsonl").read_text().splitlines(keepends=True)
        lines.pop(copy.chance.randrange(len(lines)))
        (copy.store.parent / "heads.jsonl").write_text("".join(lines))


def change_an_object(copy: Copy) -> None:
    path = copy.chance.choice(copy.objects())
    data = bytearray(path.read_bytes())
    path.chmod(0o644)
    if data and copy.chance.random() < 0.7:
        data[copy.chance.randrange(len(data))] ^= 1 << copy.chance.randrange(8)
        path.write_bytes(data)
    else:
        path.write_bytes(data + b"x" if copy.chance.random() < 0.5 or not data else data[:-1])


def swap_objects(copy: Copy) -> None:
    one, other = copy.chance.sample(copy.objects(), 2)
    one.rename(one.with_suffix(".x"))
    other.rename(one)
    one.with_suffix(".x").rename(other)


def delete_an_object(copy: Copy) -> None:
    copy.chance.choice(copy.objects()).unlink()


def known(copy: Copy) -> None:
    """One of those that are tried one by one elsewhere."""
    tamper = copy.chance.choice(single.TAMPERINGS)
    honest = single.Honest(copy.store, copy.older / "store" / "treadle.db")
    tamper(single.Record(copy.store, Raw(copy.raw), copy.chance, honest))


WAYS: dict[Callable[[Copy], None], int] = {
    edit_a_value: 8,
    delete_a_row: 3,
    insert_a_row: 3,
    reorder: 3,
    truncate: 3,
    roll_back_database: 1,
    roll_back_both: 2,
    roll_back_everything: 2,
    roll_back_and_go_on: 2,
    begin_anew: 1,
    take_back_a_published_head: 1,
    change_an_object: 3,
    swap_objects: 2,
    delete_an_object: 2,
    known: 8,
}


def tamper_and_look(honest: Path, place: Path, seeds: range) -> Counter[str]:
    """How often each way was tried; fails at the first that is not found."""
    tried: Counter[str] = Counter()
    for seed in seeds:
        chance = random.Random(seed)
        (way,) = chance.choices(list(WAYS), list(WAYS.values()))
        folder = place / "copy"
        empty(folder)
        shutil.copytree(honest / "now", folder, dirs_exist_ok=True)
        raw = sqlite3.connect(folder / "store" / "treadle.db", isolation_level=None)
        way(Copy(folder / "store", honest / "older", raw, chance))
        raw.close()
        found = problems_of(folder / "store")
        assert found, f"seed {seed}: {way.__name__} was not noticed"
        tried[way.__name__] += 1
    return tried


def test_many_random_tamperings_are_found(honest: Path, tmp_path: Path) -> None:
    tried = tamper_and_look(honest, tmp_path, range(120))
    assert set(tried) == {way.__name__ for way in WAYS}


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("thousand", range(1, 11))
def test_ten_thousand_random_tamperings_are_found(honest: Path, tmp_path: Path, thousand: int) -> None:
    """A thousand a test, so that several processes share them."""
    tried = tamper_and_look(honest, tmp_path, range(thousand * 1_000, thousand * 1_000 + 1_000))
    assert sum(tried.values()) == 1_000
    assert set(tried) == {way.__name__ for way in WAYS}


# -- honest ones


def live(store: Path, seed: int) -> None:
    """A record as it may become in an honest life."""
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 4)):
        with Workspace(store, projections=PROJECTIONS) as workspace:
            record = Record(workspace, "demo")
            announce = publisher(workspace, store.parent) if chance.random() < 0.7 else None
            for _ in range(chance.randint(1, 4)):
                deed(record, chance)
                if announce:
                    announce.run()
            kept = store.parent / "backup.zip"
            if chance.random() < 0.2 and not kept.exists():
                backup.write(Source(store, workspace.database, workspace.keys, workspace.store, 1), kept)
                continue
            heads = publisher(workspace, store.parent).outside().heads
        if kept.exists() and chance.random() < 0.3:
            with Archive(kept) as archive:
                restore(archive, Target(store, store / "treadle.db", (*TABLES, *PROJECTIONS), heads), older=True)
            kept.unlink()
            with Workspace(store, projections=PROJECTIONS) as workspace:  # made again since, which no row tells of now
                erased, under_way = erased_objects(workspace)
                workspace.store.delete({name for name in erased - under_way if workspace.store.has_object(name)})


def deed(record: Record, chance: random.Random) -> None:
    """Something that happens to a project."""
    workspace = record.workspace
    what = chance.random()
    if what < 0.4:
        bodies = [
            {"number": chance.random(), "text": "ü\u2028\U0001f600" * chance.randint(0, 5)}
            for _ in range(chance.randint(1, 70))
        ]
        workspace.ledger.append(*(Fact("note", body) for body in bodies), sync=chance.random() < 0.2)
    elif what < 0.7:
        artifact = Driver(workspace.runs, workspace.root, seed=1).run(single.make, text=f"text {chance.randrange(5)}")
        version = record.versions.register("model", artifact.digest, None)
        record.versions.point(chance.choice(["champion", "challenger"]), version, reason="better")
    elif what < 0.8:
        record.approvals.record("model/demo@v1", "approve", "k3:0", None)
    elif record.versions.all("model"):
        version = chance.choice(record.versions.all("model"))
        objects = {version.digest, *(entry.digest for entry in _entries(record, version.digest))}
        suppression, request = record.erasures.extend({}).digest, f"era-{chance.randrange(1000)}"
        facts = {"documents": 1, "interactions": 0, "feedback": 0}
        record.erasures.record(request, "k3:0", "requested", suppression, **facts)
        record.erasures.record(request, "k3:0", "deleting", suppression, objects=sorted(objects))
        workspace.store.delete(objects)
        record.erasures.record(request, "k3:0", "done", suppression, objects=sorted(objects))


def _entries(record: Record, digest: str) -> list[object]:
    return list(record.store.entries(digest)) if record.store.has_object(digest) else []


def honest_lives(place: Path, seeds: range) -> tuple[int, int, int]:
    """How many lives with erasures and with restores, and how many published heads there were; fails at the first
    false alarm."""
    erasures = restores = heads = 0
    for seed in seeds:
        store = place / "honest" / "store"
        live(store, seed)
        assert problems_of(store) == [], f"seed {seed}"
        with Workspace(store, projections=PROJECTIONS) as workspace:
            erasures += sum(1 for _ in workspace.ledger.rows("erasure")) > 0
            restores += workspace.ledger.last("restored") is not None
            heads += len(publisher(workspace, store.parent).outside().heads)
            head = workspace.ledger.head()
            workspace.ledger.inclusion(random.Random(seed).randint(1, head.size), head)
        empty(store.parent)
    return erasures, restores, heads


def test_honest_records_raise_no_alarm(tmp_path: Path) -> None:
    erasures, restores, heads = honest_lives(tmp_path, range(16))
    assert erasures > 2
    assert restores > 1
    assert heads > 10


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("hundred", range(10, 20))
def test_a_thousand_honest_records_raise_no_alarm(tmp_path: Path, hundred: int) -> None:
    erasures, restores, heads = honest_lives(tmp_path, range(hundred * 100, hundred * 100 + 100))
    assert restores > 3
    assert erasures > 10
    assert heads > 100
