"""Backups: consistent while others write, checked, restored as a whole or not at all, and honest about what is lost."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from postgresql_server import Server
from treadle.core import backup
from treadle.core.audit import Problem, Published
from treadle.core.backup import Archive, Contents, Source
from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.errors import Corrupt, Refused, TreadleError, UserError
from treadle.core.head import Head
from treadle.core.head_target import head_target
from treadle.core.keys import Keys
from treadle.core.ledger import Fact
from treadle.core.publisher import Outside, Publisher
from treadle.core.restore import Restored, Target, put_beside, restore
from treadle.core.verify import verify
from treadle.core.workspace import FORMAT, TABLES, Workspace
from treadle.record.record import PROJECTIONS

from . import test_tampering as single
from .conftest import Place

BODY = {"version": 1, "key": "", "parameters": {}, "inputs": {}, "seed": 1, "kind": "step"}


def write(workspace: Workspace, path: Path, *, keys: bool = True, objects: bool = False) -> Contents:
    source = Source(workspace.root, workspace.database, workspace.keys, workspace.store, FORMAT)
    names = [digest for digest, _ in workspace.store.objects()]
    return backup.write(source, path, keys=keys, objects=(lambda: names) if objects else None)


def target(place: Place, published: tuple[Published, ...] = ()) -> Target:
    database = place.database or place.root / "treadle.db"
    return Target(place.root, database, (*TABLES, *PROJECTIONS), published, FORMAT)


def put_back(path: Path, place: Place, *, older: bool = False, published: tuple[Published, ...] = ()) -> Restored:
    with Archive(path) as archive:
        return restore(archive, target(place, published), older=older)


def elsewhere(place: Place, folder: Path) -> Place:
    """A place of the same kind where nothing is yet."""
    return Place(folder, place.server.schema() if place.server else None, place.server)


def problems(place: Place) -> list[Problem]:
    with place.open(PROJECTIONS) as workspace:
        return list(verify(workspace).problems)


def rows(place: Place) -> list[tuple[object, ...]]:
    with place.raw() as raw:
        return [tuple(row) for row in raw.execute("SELECT * FROM ledger ORDER BY seq").fetchall()]


# -- there and back


def test_a_lost_disk(place: Place, tmp_path: Path) -> None:
    with place.open(PROJECTIONS) as workspace:
        single.grow(workspace, range(4))
        workspace.state.set("cursor", {"at": 3})
        key = workspace.state.person_key("k3:somebody")
        workspace.journal.append("metrics", {"id": "row-1", "text": "ünï\u2028 \ud800"})
        run = workspace.runs.begin("tests.busy", BODY, tmp_path)
        contents = write(workspace, tmp_path / "all.zip", objects=True)
        workspace.journal.close()
    assert stat.S_IMODE((tmp_path / "all.zip").stat().st_mode) == 0o600
    assert contents.head.size == len(rows(place)) - 1  # the row of the segment that was sealed by closing
    new = elsewhere(place, tmp_path / "new")
    found = put_back(tmp_path / "all.zip", new)
    assert (found.rows, found.lost, found.replaced, found.kept) == (contents.head.size, 0, None, None)
    assert rows(new)[:-1] == rows(place)[:-1]
    with new.open(PROJECTIONS) as workspace:
        assert verify(workspace).problems == ()
        assert workspace.ledger.last("restored") is not None
        assert workspace.state.get("cursor") == {"at": 3}
        assert workspace.state.person_key("k3:somebody", create=False) == key
        assert [row["id"] for row in workspace.journal.read("metrics")][-1] == "row-1"
        with workspace.exclusive():  # who was at it when the backup was made is so no more
            assert [found.id for found in workspace.runs.find(status="crashed")] == [run]
        single.grow(workspace, range(4, 6))
        assert verify(workspace).problems == ()
    assert stat.S_IMODE((tmp_path / "new" / "keys" / "ledger.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new" / "keys").stat().st_mode) == 0o700


def test_while_others_write(place: Place, tmp_path: Path) -> None:
    with place.open() as workspace:
        writers = [place.writer("ledger", "l", 10**6), place.writer("journal", "j", 10**6), place.writer("seal", 60)]
        for writer in writers[:2]:
            writer.first()
        for number in range(3):
            before = [set(writer.lines()) for writer in writers[:2]]
            write(workspace, tmp_path / f"{number}.zip")
            with Archive(tmp_path / f"{number}.zip") as archive:
                kept = [row for batch in archive.lines("ledger.jsonl") for row in batch]
                loose = b"".join(archive.read(name) for name in archive.names("journal/")).decode()
            notes = [(row[0], json.loads(row[4])) for row in kept if row[1] == "note"]
            assert before[0] <= {f"{seq} {body['writer']} {body['number']}" for seq, body in notes}
            sealed = {json.loads(row[4])["segment"] for row in kept if row[1] == "seal"}
            segments = "".join((workspace.store.view(name) / "rows.jsonl").read_text() for name in sealed)
            assert before[1] <= set(re.findall(r'"id":"(row-\w+)"', loose + segments))
        for writer in writers:
            writer.kill()
    new = elsewhere(place, tmp_path / "new")
    put_back(tmp_path / "2.zip", new)
    with new.open() as workspace:
        assert workspace.ledger.verify() == []


def test_from_a_server_to_a_file_and_back(tmp_path: Path, postgresql: Server) -> None:
    place = Place(tmp_path / "store", postgresql.schema(), postgresql)
    with place.open(PROJECTIONS) as workspace:
        single.grow(workspace, range(4))
        write(workspace, tmp_path / "server.zip", objects=True)
    file = Place(tmp_path / "file")
    put_back(tmp_path / "server.zip", file)
    assert problems(file) == []
    assert rows(file)[:-1] == rows(place)
    with file.open(PROJECTIONS) as workspace:
        write(workspace, tmp_path / "file.zip", objects=True)
    back = elsewhere(place, tmp_path / "back")
    put_back(tmp_path / "file.zip", back)
    assert problems(back) == []
    assert rows(back)[:-1] == rows(file)


def test_keys_may_be_kept_elsewhere(place: Place, tmp_path: Path) -> None:
    with place.open(PROJECTIONS) as workspace:
        single.grow(workspace, range(2))
        write(workspace, tmp_path / "b.zip", keys=False, objects=True)
    assert not any("key" in name for name in zipfile.ZipFile(tmp_path / "b.zip").namelist())
    new = elsewhere(place, tmp_path / "new")
    with pytest.raises(UserError, match=r"was made without keys; put .*keys back first"):
        put_back(tmp_path / "b.zip", new)
    shutil.copytree(place.root / "keys", tmp_path / "new" / "keys")
    put_back(tmp_path / "b.zip", new)
    assert problems(new) == []


def test_only_the_keys_are_lost(place: Place, tmp_path: Path) -> None:
    with place.open(PROJECTIONS) as workspace:
        single.grow(workspace, range(2))
        write(workspace, tmp_path / "b.zip")
        single.grow(workspace, range(2, 4))
    before = rows(place)
    shutil.rmtree(place.root / "keys")
    with pytest.raises(Corrupt, match=r"project\.key is missing.*treadle restore FILE --keep-ledger"):
        place.open()
    if place.server:  # the whole folder is gone, the server is not
        shutil.move(place.root / "objects", tmp_path / "objects")
        shutil.rmtree(place.root)
    with Archive(tmp_path / "b.zip") as archive:
        put_beside(archive, target(place))
    if place.server:
        shutil.rmtree(place.root / "objects", ignore_errors=True)
        shutil.move(tmp_path / "objects", place.root / "objects")
    assert problems(place) == []
    assert rows(place) == before


def test_another_projects_backup_is_refused(place: Place, tmp_path: Path) -> None:
    with Workspace(tmp_path / "other") as workspace:
        write(workspace, tmp_path / "other.zip")
    with place.open(PROJECTIONS) as workspace:
        single.grow(workspace, range(2))
    with pytest.raises(UserError, match="is a backup of another project"):
        put_back(tmp_path / "other.zip", place, older=True)
    assert problems(place) == []


def test_nobody_may_have_it_open(place: Place, tmp_path: Path) -> None:
    with place.open(PROJECTIONS) as workspace:
        write(workspace, tmp_path / "b.zip")
        with pytest.raises(UserError, match="is open in another process; end the servers"):
            put_back(tmp_path / "b.zip", place, older=True)
    if place.server:
        # Another machine, with a copy of the folder.
        shutil.copytree(place.root, tmp_path / "copy")
        with place.open(), pytest.raises(UserError, match=r"is open in process \d+ on .*; end what uses it"):
            put_back(tmp_path / "b.zip", Place(tmp_path / "copy", place.database, place.server), older=True)
        assert not (tmp_path / "copy" / "restore").exists()  # not decided: whoever opens it there loses nothing
        with Place(tmp_path / "copy", place.database, place.server).open(PROJECTIONS) as workspace:
            assert workspace.ledger.last("restored") is None


# -- what is lost


def test_what_is_older_than_a_head_is_refused_and_otherwise_recorded(place: Place, tmp_path: Path) -> None:
    names = ("heads.jsonl", "heads/")

    def publisher(workspace: Workspace) -> Publisher:
        return Publisher(workspace.ledger, workspace.keys, [head_target(name, tmp_path) for name in names])

    def outside(workspace: Workspace) -> Outside:
        return publisher(workspace).outside()

    with place.open(PROJECTIONS) as workspace:
        single.grow(workspace, range(2))
        publisher(workspace).run()
        contents = write(workspace, tmp_path / "b.zip", objects=True)
        workspace.ledger.append(Fact("approval", {"ref": "model/demo@v1", "decision": "approve"}))  # the next size
        publisher(workspace).run()
        single.grow(workspace, range(2, 4))
        publisher(workspace).run()
        last, published = workspace.ledger.head(), tuple(outside(workspace).heads)
    before = rows(place)
    with pytest.raises(Refused, match=rf"b\.zip is older than a head over {last.size} rows") as caught:
        put_back(tmp_path / "b.zip", place, published=published)
    lost = last.size - contents.head.size
    assert f"{lost} rows after row {contents.head.size} would be lost" in str(caught.value)
    assert rows(place) == before
    found = put_back(tmp_path / "b.zip", place, older=True, published=published)
    assert (found.rows, found.lost, found.replaced) == (contents.head.size, lost, last)
    with place.open(PROJECTIONS) as workspace:
        assert verify(workspace, outside(workspace)).problems == ()
        row = workspace.ledger.last("restored")
        assert row is not None
        assert row.body["backup"] == {"size": contents.head.size, "root": contents.head.root}
        assert row.body["replaced"] == {"size": last.size, "root": last.root}
        shown = verify(workspace, outside(workspace)).public()["restores"]
        assert shown == [{"row": row.seq, "time": row.time, "after": contents.head.size, "lost": lost}]
        assert publisher(workspace).run() == []  # its size was published before: the next one
        workspace.ledger.append(Fact("note", {}))
        assert publisher(workspace).run() == []
        assert max(each.head.size for each in outside(workspace).heads if each.where == "heads/") == last.size
        assert workspace.ledger.head() in {each.head for each in outside(workspace).heads}
        assert verify(workspace, outside(workspace)).problems == ()
        stranger = Published("friend", Head.signed(contents.head.size + 3, "ab" * 32, workspace.keys))
        assert [problem.ref for problem in verify(workspace, Outside([stranger])).problems] == ["friend"]
    assert found.kept is not None  # and all of it can be had again
    again = put_back(found.kept, place, older=True)
    assert again.lost > 0
    assert rows(place)[: len(before)] == before


def test_a_restored_row_put_in_by_hand_excuses_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path / "store")
    with place.open(PROJECTIONS) as workspace:
        single.grow(workspace, range(2))
    shutil.copy(place.root / "treadle.db", tmp_path / "older.db")
    older = (place.root / "head.json").read_bytes()
    with place.open(PROJECTIONS) as workspace:
        single.grow(workspace, range(2, 4))
        head = workspace.ledger.head()
    (place.root / "head.json").write_bytes(older)
    with closing(sqlite3.connect(tmp_path / "older.db", isolation_level=None)) as raw:
        size = raw.execute("SELECT max(seq) FROM ledger").fetchone()[0]
        body = canonical_json({"abandoned": [[head.size, head.root]]}).decode()
        raw.execute("INSERT INTO ledger VALUES (?, 'restored', 1, ?, ?, ?)", (size + 1, "2026", body, "0" * 64))
    shutil.copy(tmp_path / "older.db", place.root / "treadle.db")
    with place.open(PROJECTIONS) as workspace:
        found = verify(workspace, Outside([Published("friend", head)])).problems
    assert "friend" in {problem.ref for problem in found}


def test_what_the_store_has_since_is_kept(place: Place, tmp_path: Path) -> None:
    with place.open(PROJECTIONS) as workspace:
        workspace.journal.append("metrics", {"id": "row-1"})
        write(workspace, tmp_path / "b.zip")
        workspace.journal.append("metrics", {"id": "row-2"})
        workspace.journal.seal()
        workspace.journal.append("metrics", {"id": "row-3"})
    put_back(tmp_path / "b.zip", place, older=True)
    with place.open(PROJECTIONS) as workspace:
        assert [row["id"] for row in workspace.journal.read("metrics")] == ["row-1", "row-2", "row-3"]
        workspace.journal.seal()
        assert [row["id"] for row in workspace.journal.read("metrics")] == ["row-1", "row-2", "row-3"]
        assert verify(workspace).problems == ()


# -- what is not as it was


def test_a_truncated_database_is_one_line_and_comes_back(tmp_path: Path) -> None:
    place = Place(tmp_path / "store")
    with place.open(PROJECTIONS) as workspace:
        single.grow(workspace, range(6))
        write(workspace, tmp_path / "b.zip")
    before, file = rows(place), place.root / "treadle.db"
    whole = file.read_bytes()
    for size in (100, 4096, len(whole) // 2):
        file.write_bytes(whole[:size])
        if size < len(whole) // 2:
            with pytest.raises(Corrupt, match=r"treadle\.db is damaged: .*; put back a backup: treadle restore FILE"):
                place.open(PROJECTIONS)
        found = put_back(tmp_path / "b.zip", place, older=True)
        assert found.kept is not None
        assert found.kept.read_bytes() == whole[:size]
        assert problems(place) == []
        assert rows(place)[: len(before)] == before


def test_whatever_is_changed_in_a_backup_is_found_and_nothing_replaced(tmp_path: Path) -> None:
    place, chance = Place(tmp_path / "store"), random.Random(8)
    with place.open(PROJECTIONS) as workspace:
        single.grow(workspace, range(3))
        workspace.journal.append("metrics", {"id": "row-1"})
        write(workspace, tmp_path / "b.zip", objects=True)
    before, whole = rows(place), (tmp_path / "b.zip").read_bytes()
    for number in range(24):
        data = bytearray(whole)
        at = chance.randrange(len(data))
        if number % 3 == 0:
            del data[at:]
        elif number % 3 == 1:
            data[at] ^= 1 << chance.randrange(8)
        else:
            data[at : at + chance.randrange(1, 50)] = b""
        (tmp_path / "changed.zip").write_bytes(data)
        try:
            found = put_back(tmp_path / "changed.zip", place, older=True)
        except TreadleError as error:
            assert "\n" not in str(error)
            assert rows(place) == before
        else:  # a bit that means nothing: a date, an attribute
            assert number % 3 == 1
            assert rows(place)[: found.backup.size] == before[: found.backup.size]
            before = rows(place)
    assert problems(place) == []


def test_a_backup_of_a_damaged_ledger_is_refused(place: Place, tmp_path: Path) -> None:
    with place.open(PROJECTIONS) as workspace:
        single.grow(workspace, range(3))
        with place.raw() as raw:
            raw.execute("UPDATE ledger SET kind = 'notes' WHERE seq = 7")
        with pytest.raises(Corrupt, match="rows after 0 of the ledger are not what was written; run treadle verify"):
            write(workspace, tmp_path / "b.zip")
        assert list(tmp_path.glob("*b.zip*")) == []


def signed_archive(path: Path, keys: Keys, members: dict[str, bytes], listed: dict[str, bytes] | None = None) -> None:
    """An archive by somebody who has the keys and means ill."""
    sizes = {name: (len(data), blake3_bytes(data)) for name, data in (listed or members).items()}
    contents = Contents("2026", Head.signed(0, "ab" * 32, keys), keys.public, 1, sizes)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            information = zipfile.ZipInfo(name)
            information.external_attr = (stat.S_IFLNK | 0o777) << 16  # a link, for whoever unpacks it
            archive.writestr(information, data)
        archive.writestr("backup.json", contents.encode(keys))


@pytest.mark.parametrize(
    "name",
    [
        "../out",
        "/tmp/out",
        "journal/../../out.jsonl",
        "journal/metrics/../seg-01M8DTG7GNP2Q1WAB29RCYR1H8.jsonl",
        "journal/metrics/seg-01M8DTG7GNP2Q1WAB29RCYR1H8.jsonl\n",
        "keys/../x",
        "objects/../x",
        "treadle.db",
        "C:\\out",
        "",
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    keys = Keys(tmp_path / "keys")
    signed_archive(tmp_path / "b.zip", keys, {"ledger.jsonl": b"", "state.jsonl": b"", name: b"x"})
    with pytest.raises(Corrupt, match="which no backup has"):
        Archive(tmp_path / "b.zip")


def test_a_link_in_an_archive_is_a_file_like_any_other(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    segment = "journal/metrics/seg-01M8DTG7GNP2Q1WAB29RCYR1H8.jsonl"
    signed_archive(tmp_path / "b.zip", keys, {"ledger.jsonl": b"", "state.jsonl": b"", segment: b"/etc/passwd"})
    with Archive(tmp_path / "b.zip") as archive:
        assert archive.read(segment) == b"/etc/passwd"
        with pytest.raises(UserError, match="without keys"):
            restore(archive, target(Place(tmp_path / "new")))
    members, listed = ({"ledger.jsonl": b"", "state.jsonl": each} for each in (bytes(1 << 20), b"x"))
    signed_archive(tmp_path / "c.zip", keys, members, listed)
    with Archive(tmp_path / "c.zip") as archive, pytest.raises(Corrupt, match=r"state\.jsonl was changed"):
        archive.read("state.jsonl")  # no more is unpacked than is said


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_backup_is_one_clear_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "b.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"b\.zip is no backup, or not all of it"):
        Archive(tmp_path / "b.zip")
    with pytest.raises(UserError, match="No such file"):
        Archive(tmp_path / "absent.zip")


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_text("mine")
    with Workspace(tmp_path / "store") as workspace, pytest.raises(UserError, match="is there already"):
        write(workspace, tmp_path / "b.zip")
    assert (tmp_path / "b.zip").read_text() == "mine"


# -- killed

KILLED = """
import os, sys
from pathlib import Path
from treadle.core.backup import Archive
from treadle.core.restore import Target, restore
from treadle.core.workspace import TABLES
from treadle.record.record import PROJECTIONS

root, database, file = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
for line in sys.stdin:
    count = int(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    def counted(event, arguments):
        global count
        if event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.link", "sqlite3.connect"):
            count -= 1
            if count < 0:
                os.kill(os.getpid(), 9)
    sys.addaudithook(counted)
    with Archive(file) as archive:
        restore(archive, Target(root, database or root / "treadle.db", (*TABLES, *PROJECTIONS)), older=True)
    os._exit(0)
"""


def test_killed_anywhere_it_is_the_old_record_or_the_new_one(place: Place, tmp_path: Path) -> None:
    with place.open(PROJECTIONS) as workspace:
        single.grow(workspace, range(2))
        write(workspace, tmp_path / "b.zip")
        size = workspace.ledger.size()
        single.grow(workspace, range(2, 4))
    command = [sys.executable, "-c", KILLED, place.root, place.database or "", tmp_path / "b.zip"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as restorer:
        assert restorer.stdin is not None
        assert restorer.stdout is not None
        seen = set()
        for count in range(0, 1000, 5 if place.server else 2):
            before = rows(place)
            print(count, file=restorer.stdin, flush=True)
            done = int(restorer.stdout.readline())
            assert done in (0, -signal.SIGKILL)
            seen.add(settled(place, before, size))
            if done == 0:
                break
        restorer.stdin.close()
    assert seen == {"old", "new"}
    assert count > 20


def settled(place: Place, before: list[tuple[object, ...]], size: int) -> str:
    """Which of the two a record is after whoever restored a backup of ``size`` rows was killed; opening goes on where
    that was decided."""
    assert problems(place) == []
    now = rows(place)
    new = now[: len(before)] != before
    if new:
        assert now[:size] == before[:size]
        assert [row[1] for row in now[size:]] == ["restored"]
    assert not (place.root / "restore").exists()
    with place.open() as workspace, workspace.exclusive():
        workspace.ledger.append(Fact("note", {}))
    assert [path for path in (place.root / "tmp").iterdir() if path.name.startswith("restore")] == []
    return "new" if new else "old"
