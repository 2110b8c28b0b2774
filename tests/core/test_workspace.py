"""One project, several processes, and disks that do not let themselves be written to."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from treadle.core.account import account_name
from treadle.core.errors import Corrupt, UserError
from treadle.core.identifiers import new_id, time_of
from treadle.core.keys import Keys, verify_signature
from treadle.core.ledger import Fact
from treadle.core.sqlite import SqliteDatabase
from treadle.core.state import State
from treadle.core.verify import verify
from treadle.core.workspace import Workspace

from .conftest import Place


def test_a_second_command_waits_and_says_for_whom(place: Place) -> None:
    holder = place.writer("hold")
    holder.first()
    said: list[str] = []
    entered = threading.Event()

    def wait() -> None:
        with place.open() as workspace, workspace.exclusive(said.append):
            entered.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    while not said:
        time.sleep(0.005)
    assert not entered.is_set()
    holder.kill()
    waiter.join(60)
    assert entered.is_set()
    assert said[0].startswith("process ")


def test_an_exclusive_block_inside_another_is_the_same(workspace: Workspace) -> None:
    with workspace.exclusive(), workspace.exclusive(lambda _: pytest.fail("waited for itself")):
        workspace.ledger.append(Fact("note", {}))
    with workspace.exclusive():
        pass


def test_many_processes_open_a_new_store_at_once(place: Place) -> None:
    code = (
        "import sys; from pathlib import Path; from treadle.core.workspace import Workspace\n"
        "with Workspace(Path(sys.argv[1]), sys.argv[2] or None): pass"
    )
    command = [sys.executable, "-c", code, str(place.root), place.database or ""]
    started = [subprocess.Popen(command) for _ in range(5)]
    assert [process.wait(60) for process in started] == [0] * 5
    with place.open() as workspace:
        assert verify(workspace).ok


def test_a_store_of_another_format_is_refused_in_one_line(tmp_path: Path) -> None:
    with Workspace(tmp_path / "store"):
        pass
    for text in ("3\n", "", "\0\xff"):
        (tmp_path / "store" / "format").write_text(text)
        with pytest.raises(UserError, match=r"is a store of format .* reads up to format 2; use") as caught:
            Workspace(tmp_path / "store")
        assert "\n" not in str(caught.value)


def test_a_ledger_that_was_written_with_other_keys_is_refused(place: Place, tmp_path: Path) -> None:
    with place.open() as workspace:
        workspace.ledger.append(Fact("note", {}))
    ledger = place.database or place.root / "treadle.db"
    for _ in range(2):
        with pytest.raises(UserError, match=r"was written with other keys than those under .*other/keys") as caught:
            Workspace(tmp_path / "other", ledger)
        assert "\n" not in str(caught.value)
    with place.open() as workspace:
        assert workspace.ledger.size() == 2
        assert verify(workspace).ok
    shutil.rmtree(tmp_path / "other" / "keys")
    shutil.copytree(place.root / "keys", tmp_path / "other" / "keys")
    with Workspace(tmp_path / "other", ledger) as workspace:  # the same project on another machine
        workspace.ledger.append(Fact("note", {}))
        assert workspace.ledger.size() == 3


def test_a_key_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    with Workspace(tmp_path / "store"):
        pass
    key = tmp_path / "store" / "keys" / "project.key"
    key.chmod(0o600)
    key.write_bytes(b"short")
    with pytest.raises(Corrupt, match="wrong length"):
        Workspace(tmp_path / "store")


def test_keys_are_for_the_owner_alone_and_made_once(tmp_path: Path) -> None:
    made: list[Keys] = []
    threads = [threading.Thread(target=lambda: made.append(Keys(tmp_path / "keys"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({keys.public for keys in made}) == 1
    assert len({keys.keyed("subject", "a") for keys in made}) == 1
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {
        "project.key": 0o600,
        "ledger.key": 0o600,
    }


def test_signatures_and_keyed_names(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    signature = keys.sign(b"message")
    assert keys.signed(b"message", signature)
    assert not keys.signed(b"massage", signature)
    for broken in ("", "zz", signature[:-2], signature + "00", signature + " ", signature.upper()):
        assert not verify_signature(keys.public, b"message", broken)
    assert not verify_signature("00", b"message", signature)
    assert keys.keyed("subject", "ab") != keys.keyed("subjecta", "b")
    assert keys.keyed("subject", "a") != Keys(tmp_path / "other").keyed("subject", "a")


def test_the_database_is_wiped_of_what_was_deleted(place: Place, workspace: Workspace) -> None:
    for number in range(300):
        workspace.state.set(f"cursor-{number}", "Kunigunde" * 50)
    with workspace.database.transaction() as cursor:
        cursor.execute("DELETE FROM cursors")
    assert place.holds(b"Kunigunde")
    workspace.database.scrub()
    assert not place.holds(b"Kunigunde")


def test_scrubbing_while_another_reads_is_not_silently_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treadle.core.sqlite._BUSY_SECONDS", 0.05)
    with Workspace(tmp_path / "store") as workspace:
        other = sqlite3.connect(workspace.root / "treadle.db", isolation_level=None)
        other.execute("BEGIN")
        other.execute("SELECT * FROM ledger").fetchall()
        workspace.state.set("note", "Kunigunde")
        with pytest.raises(UserError, match="another process"):
            workspace.database.scrub()
        other.execute("COMMIT")
        workspace.database.scrub()
        other.close()


def test_a_writer_that_does_not_let_go_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.core.sqlite._BUSY_SECONDS", 0.05)
    with Workspace(tmp_path / "store") as workspace:
        other = sqlite3.connect(tmp_path / "store" / "treadle.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match="is held by another process; wait until it is done"):
            workspace.ledger.append(Fact("note", {}))
        other.execute("ROLLBACK")
        other.close()
        workspace.ledger.append(Fact("note", {}))


def test_a_new_file_that_another_process_is_writing_is_waited_for(tmp_path: Path) -> None:
    """SQLite's own waiting does not cover the change to a write-ahead log."""
    other = sqlite3.connect(tmp_path / "treadle.db", isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE empty (value)")
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, other.execute, ["COMMIT"])
    release.start()
    SqliteDatabase(tmp_path / "treadle.db").close()
    release.join()
    other.close()


def test_an_error_inside_a_transaction_leaves_nothing(workspace: Workspace) -> None:
    with pytest.raises(KeyboardInterrupt), workspace.database.transaction() as cursor:
        cursor.execute("INSERT INTO cursors VALUES ('a', '1')")
        raise KeyboardInterrupt
    assert workspace.state.get("a") is None
    workspace.state.set("a", [1, {"b": None}])
    assert workspace.state.get("a") == [1, {"b": None}]


def test_interrupting_a_writer_leaves_a_ledger_that_goes_on(place: Place) -> None:
    """Ctrl-C at random moments: the process ends by itself, and closes what it had open."""
    for attempt in range(2):
        writer = place.writer("ledger", f"i{attempt}", 10**6)
        writer.first()
        time.sleep(0.01 * attempt)
        writer._process.send_signal(signal.SIGINT)
        writer._process.wait(60)
        acknowledged = writer._close()
        with place.open() as workspace:
            assert verify(workspace).ok
            rows = {f"{row.seq} {row.body['writer']} {row.body['number']}" for row in workspace.ledger.rows("note")}
            assert set(acknowledged) <= rows


# -- a disk that cannot be written to


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    """A store on a file system that is mounted read-only."""
    if os.geteuid() != 0:
        pytest.skip("mounting a read-only file system needs root")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.decode().strip()}")
    return place


def test_a_read_only_disk_is_one_clear_line(read_only: Path) -> None:
    try:
        with Workspace(read_only / "store") as workspace:
            workspace.ledger.append(Fact("note", {}))
        subprocess.run(["mount", "-o", "remount,ro", str(read_only)], check=True)
        for root in (read_only / "store", read_only / "new"):
            with pytest.raises(UserError, match=r"cannot write .*writable") as caught:
                Workspace(root)
            assert "\n" not in str(caught.value)
        subprocess.run(["mount", "-o", "remount,rw", str(read_only)], check=True)
        with Workspace(read_only / "store") as workspace:
            assert verify(workspace).ok
    finally:
        subprocess.run(["umount", str(read_only)], check=True)


def test_a_disk_that_becomes_read_only_meanwhile(read_only: Path) -> None:
    try:
        workspace = Workspace(read_only / "store")
        try:
            workspace.journal.append("metrics", {"id": "a"})
            subprocess.run(["mount", "-o", "remount,ro,force", str(read_only)], check=False, capture_output=True)
            if os.statvfs(read_only).f_flag & os.ST_RDONLY:
                with pytest.raises(UserError):
                    workspace.ledger.append(Fact("note", {}))
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(read_only)], check=True)
            workspace.close()
    finally:
        subprocess.run(["umount", str(read_only)], check=True)


def test_a_full_disk_is_one_clear_line_and_the_store_goes_on(tmp_path: Path, read_only: Path) -> None:
    try:
        subprocess.run(["mount", "-o", "remount,size=1m", str(read_only)], check=True)
        with Workspace(read_only / "store") as workspace:
            (read_only / "ballast").write_bytes(b"")
            with (read_only / "ballast").open("ab", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(b"x" * 4096)
            with pytest.raises(UserError, match="free some space"):
                for _ in range(5000):
                    workspace.ledger.append(Fact("note", {"text": "x" * 500}))
            with pytest.raises(UserError, match="free some space"):
                for number in range(5000):
                    workspace.journal.append("metrics", {"id": f"{number}", "text": "x" * 500})
            (read_only / "ballast").unlink()
            workspace.ledger.append(Fact("note", {"after": True}))
            workspace.journal.append("metrics", {"id": "after"})
            assert workspace.journal.find("metrics", "after") == {"id": "after"}
            assert verify(workspace).ok
    finally:
        subprocess.run(["umount", str(read_only)], check=True)


# -- state and identifiers


def test_people_have_keys_of_their_own_until_they_are_destroyed(workspace: Workspace) -> None:
    state: State = workspace.state
    key = state.person_key("k3:a")
    assert key == state.person_key("k3:a", create=False)
    assert key != state.person_key("k3:b")
    state.destroy_person("k3:a")
    assert state.person_key("k3:a", create=False) is None
    assert state.person_key("k3:a") != key


def test_who_is_at_it_is_not_what_the_environment_says(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = workspace.runs.keyed_actor()
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "bob")
    assert account_name() != "bob"
    assert workspace.runs.keyed_actor() == actor


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody else")
def test_an_account_without_a_name_is_its_number() -> None:
    code = "import os; from treadle.core.account import account_name; os.setuid(54321); print(account_name())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "54321\n"


def test_leases_of_dead_and_reborn_processes(workspace: Workspace) -> None:
    workspace.state.take_lease("run:mine")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with workspace.database.transaction() as cursor:
        host = cursor.execute("SELECT host FROM leases").fetchone()[0]
        rows = [
            ("run:dead", host, ended.pid, 1.0, time.time()),
            ("run:reborn", host, os.getpid(), 1.0, time.time()),  # our number, another process's start
            ("run:away", "elsewhere", 1, 1.0, time.time()),
            ("run:silent", "elsewhere", 1, 1.0, time.time() - 3600),
        ]
        cursor.executemany("INSERT INTO leases VALUES (?, ?, ?, ?, ?)", rows)
    assert set(workspace.state.dead_leases("run:")) == {"run:dead", "run:reborn", "run:silent"}
    assert workspace.state.live_leases("run:") == ["run:away", "run:mine"]
    workspace.state.drop_lease("run:dead")
    workspace.state.drop_lease("run:mine")
    assert workspace.state.live_leases("run:") == ["run:away"]
    assert workspace.state.dead_leases("other:") == workspace.state.live_leases("r_n:") == []


def test_identifiers_sort_by_the_time_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [new_id("run") for _ in range(2000)]
    assert made == sorted(made)
    assert len(set(made)) == 2000
    moment = time_of(made[0])
    assert moment is not None
    assert abs(moment - time.time() * 1000) < 60_000
    monkeypatch.setattr(time, "time_ns", lambda: 5_000_000)  # the clock is put back
    assert new_id("run") > made[-1]


@pytest.mark.parametrize("text", ["", "run", "run-", "run-123", "run-" + "I" * 26, "run-" + "8" + "0" * 25, "a" * 40])
def test_what_is_no_identifier_has_no_time(text: str) -> None:
    assert time_of(text) is None
