"""Disks that fill up, clocks that are put back, links in the place of objects, folders of a million files."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from treadle.core import backup
from treadle.core.backup import Archive, Source
from treadle.core.digest import PREFIX
from treadle.core.errors import TreadleError, UserError
from treadle.core.experiment import Experiment
from treadle.core.ledger import Fact
from treadle.core.restore import Target, restore
from treadle.core.store import Store
from treadle.core.verify import verify
from treadle.core.workspace import TABLES, Workspace
from treadle.record.exchange import pull, push
from treadle.record.record import PROJECTIONS, Record

ROOM = 4 << 20  # bytes of the small disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own: mount -t tmpfs -o size=4m."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting needs root: sudo python -m pytest tests/core/test_faults.py")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "none", str(place)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


class Ballast:
    """A file that takes what room there is, but for some."""

    def __init__(self, disk: Path) -> None:
        self._path = disk / "ballast"

    def fill(self, *, but: int = 0) -> None:
        status = os.statvfs(self._path.parent)
        with self._path.open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_bsize - but)

    def empty(self) -> None:
        self._path.unlink()


def test_a_full_disk_while_putting(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for number in range(30):
        (tmp_path / "mine" / str(number)).write_bytes(os.urandom(200_000))
    with Workspace(disk / "store", projections=PROJECTIONS) as workspace:
        run = Experiment(
            workspace.runs, "fit", tmp_path, params={}, tags={}, seed=1, resolve=lambda ref: (ref, "artifact")
        )
        for _ in range(2):  # six megabytes into four
            with pytest.raises(
                UserError, match=r"cannot be stored: No space left on device; free some space"
            ) as caught:
                run.artifact(tmp_path / "mine", kind="model")
            assert "\n" not in str(caught.value)
        run.log(1, loss=1.0)  # what it left was taken away again
        (tmp_path / "small").write_bytes(b"fits")
        made = run.artifact(tmp_path / "small")
        run.finish()
        assert verify(workspace).problems == ()
        with made.open("small") as file:
            assert file.read() == b"fits"
        with pytest.raises(OSError, match="No space"):
            workspace.store.add(tmp_path / "mine")
        assert verify(workspace).problems == ()


def test_a_full_disk_while_sealing_and_committing(disk: Path) -> None:
    ballast = Ballast(disk)
    with Workspace(disk / "store", projections=PROJECTIONS) as workspace:
        for number in range(500):
            workspace.journal.append("metrics", {"id": f"row-{number}", "text": "x" * 500})
        ballast.fill()
        for _ in range(2):
            with pytest.raises(UserError, match=r"cannot seal seg-.* of metrics: No space left on device; free"):
                workspace.journal.seal()
            assert workspace.journal.count("metrics") == 500
        with pytest.raises(UserError, match="free some space"):
            for number in range(5_000):
                workspace.ledger.append(Fact("note", {"number": number, "text": "x" * 500}), sync=number % 100 == 0)
        kept = {row.body["number"] for row in workspace.ledger.rows("note")}
        assert kept == set(range(len(kept)))  # each of those that were acknowledged, and no other
        ballast.empty()
        workspace.journal.seal()
        assert workspace.journal.count("metrics") == 500
        workspace.ledger.append(Fact("note", {"number": -1}))
        assert verify(workspace).problems == ()
    with Workspace(disk / "store", projections=PROJECTIONS) as workspace:
        assert verify(workspace).problems == ()


def test_a_full_disk_while_backing_up_and_restoring(disk: Path, tmp_path: Path) -> None:
    ballast, root = Ballast(disk), disk / "store"
    with Workspace(root, projections=PROJECTIONS) as workspace:
        workspace.ledger.append(*(Fact("note", {"text": os.urandom(500).hex()}) for _ in range(400)))
        source = Source(root, workspace.database, workspace.keys, workspace.store, 1)
        backup.write(source, tmp_path / "b.zip")
        ballast.fill(but=100_000)
        with pytest.raises(UserError, match=r"cannot write .*: No space left on device; name a place with room"):
            backup.write(source, disk / "b.zip")
        assert [path.name for path in disk.iterdir() if "b.zip" in path.name] == []
        size = workspace.ledger.size()
    with Archive(tmp_path / "b.zip") as archive:
        target = Target(root, root / "treadle.db", (*TABLES, *PROJECTIONS))
        with pytest.raises(UserError, match=r"free some space|make room|with room"):
            restore(archive, target)
        with Workspace(root, projections=PROJECTIONS) as workspace:
            assert workspace.ledger.size() == size
            assert verify(workspace).problems == ()
        ballast.empty()
        with pytest.raises(TreadleError) as caught:  # there is not room for both, and it says so
            ballast.fill(but=200_000)
            restore(archive, target)
        assert "\n" not in str(caught.value)
        ballast.empty()
        restore(archive, target)
    with Workspace(root, projections=PROJECTIONS) as workspace:
        assert workspace.ledger.size() == size + 1
        assert verify(workspace).problems == ()


class Earlier(datetime):
    """A clock that was put back by three hours."""

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return datetime.now(UTC) - timedelta(hours=3)


def test_a_clock_that_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, real, nanoseconds = tmp_path / "store", time.time, time.time_ns
    with Workspace(root, projections=PROJECTIONS) as workspace:
        record = Record(workspace, "demo")
        before = Experiment(
            workspace.runs, "before", tmp_path, params={}, tags={}, seed=1, resolve=lambda ref: (ref, "artifact")
        )
        before.log(1, loss=1.0)
        monkeypatch.setattr("treadle.core.fact.datetime", Earlier)
        monkeypatch.setattr(time, "time", lambda: real() - 10_800)
        monkeypatch.setattr(time, "time_ns", lambda: nanoseconds() - 10_800 * 10**9)
        before.log(2, loss=0.5)
        before.finish()
        after = Experiment(
            workspace.runs, "after", tmp_path, params={}, tags={}, seed=1, resolve=lambda ref: (ref, "artifact")
        )
        after.log(1, loss=1.0)
        assert workspace.state.live_leases() == [f"run:{after.id}"]
        assert workspace.state.dead_leases() == []
        after.finish()
        assert after.id > before.id
        found = {run.id: run for run in record.runs.find()}
        assert [run.id for run in record.runs.find()] == [after.id, before.id]  # by row, not by clock
        assert found[after.id].started < found[before.id].started
        assert all(run.status == "done" and (run.seconds or 0) >= 0 for run in found.values())
        workspace.journal.seal()
        points = [(row["id"], row["step"]) for row in workspace.journal.read("metrics")]
        assert points == [(before.id, 1), (before.id, 2), (after.id, 1)]
        assert len(workspace.journal.find_all("metrics", before.id)) == 2
        assert workspace.journal.find("metrics", after.id) is not None
        assert verify(workspace).problems == ()
        with workspace.exclusive():  # nothing of a living process is taken for dead
            pass
    with Workspace(root, projections=PROJECTIONS) as workspace:
        assert [row.seq for row in workspace.ledger.rows()] == list(range(1, workspace.ledger.size() + 1))
        assert verify(workspace).problems == ()


def test_a_link_at_a_remote_comes_as_the_bytes_it_leads_to_or_not_at_all(tmp_path: Path) -> None:
    with Workspace(tmp_path / "store", projections=PROJECTIONS) as workspace:
        record = Record(workspace, "demo")
        good = workspace.runs.keep_text("the first")
        bad = workspace.runs.keep_text("the second")
        workspace.ledger.append(Fact("approval", {"note": good}), Fact("approval", {"note": bad}))
        remote = tmp_path / "remote"
        assert push(record, str(remote), tmp_path).problems == {}
        (tmp_path / "secret").write_bytes(b"secret")
        for digest in (good, bad):
            name = digest.removeprefix(PREFIX)
            there = remote / "objects" / name[:2] / name[2:]
            there.rename(tmp_path / name)
            there.symlink_to(tmp_path / name if digest == good else tmp_path / "secret")
            (workspace.root / "objects" / name[:2] / name[2:]).unlink()
        assert set(pull(record, str(remote), tmp_path).problems) == {bad}
        name = good.removeprefix(PREFIX)
        assert not (workspace.root / "objects" / name[:2] / name[2:]).is_symlink()
        assert {problem.ref for problem in verify(workspace).problems} == {bad}


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_a_million_small_files(tmp_path: Path) -> None:
    """Under a thousand names of inodes each, so that the test needs no million of them; what is stored counts."""
    folder, store = tmp_path / "mine", Store(tmp_path / "store")
    for number in range(1_000):
        (folder / f"{number}").mkdir(parents=True)
        first = folder / f"{number}" / "0"
        first.write_bytes(b"%d" % number)
        for other in range(1, 1_000):
            os.link(first, folder / f"{number}" / f"{other}")
    digest = store.add(folder)
    entries = store.entries(digest)
    assert len(entries) == 1_000_000
    assert store.has(digest)
    with store.open(next(entry.digest for entry in entries if entry.path == "777/777")) as file:
        assert file.read() == b"777"
    assert store.add(folder) == digest
