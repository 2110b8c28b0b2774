"""A store that an earlier Treadle made opens: its query tables are brought up to date, its rows stay, and there is a
backup from before. ``formats/database-1.tar.gz`` was made by the last Treadle that kept no nodes of the tree."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from treadle.core.backup import Archive
from treadle.core.database import FORMAT
from treadle.core.errors import UserError
from treadle.core.ledger import Fact
from treadle.core.migrations import STEPS
from treadle.core.restore import Target, restore
from treadle.core.verify import verify
from treadle.core.workspace import TABLES, Workspace
from treadle.record.record import PROJECTIONS, Record

FORMATS = Path(__file__).with_name("formats")


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A store of 86 rows in format 1."""
    with tarfile.open(FORMATS / "database-1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "store"


def rows(root: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(root / "treadle.db")) as raw:
        return raw.execute("SELECT * FROM ledger ORDER BY seq").fetchall()


def format_of(root: Path) -> str:
    with closing(sqlite3.connect(root / "treadle.db")) as raw:
        return str(raw.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()[0])


def test_there_is_a_step_and_a_store_of_each_earlier_format() -> None:
    assert set(STEPS) == set(range(1, FORMAT))
    assert {path.name for path in FORMATS.iterdir()} == {f"database-{number}.tar.gz" for number in STEPS}


def test_a_store_of_the_first_format_opens_and_goes_on(earlier: Path) -> None:
    before = rows(earlier)
    assert format_of(earlier) == "1"
    with Workspace(earlier, projections=PROJECTIONS) as workspace:
        assert verify(workspace).problems == ()
        assert workspace.database.query("SELECT count(*) FROM ledger_nodes") == [(2,)]
        record = Record(workspace, "demo")
        champion = record.versions.alias("model", "champion")
        assert champion is not None
        assert champion.number == 12
        assert [run.step for run in record.runs.find(status="running")] == ["tests.killed"]
        with workspace.exclusive():  # whoever killed it has no process any more
            assert record.runs.find(status="running") == []
        workspace.ledger.append(*(Fact("note", {"number": number}) for number in range(40)))
        assert verify(workspace).problems == ()
    assert rows(earlier)[: len(before)] == before
    assert format_of(earlier) == str(FORMAT)
    (kept,) = (earlier / "backups").iterdir()
    with Archive(kept) as archive:
        assert archive.contents.head.size == 86
        again = earlier.parent / "again"
        restore(archive, Target(again, again / "treadle.db", (*TABLES, *PROJECTIONS)))
    with Workspace(earlier, projections=PROJECTIONS):
        assert len(list((earlier / "backups").iterdir())) == 1  # brought up to date once
    assert rows(again)[:86] == before


def test_several_processes_open_it_at_once(earlier: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from treadle.core.workspace import Workspace\n"
        "with Workspace(Path(sys.argv[1])) as workspace: assert workspace.database.format == 2"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, earlier]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert len(list((earlier / "backups").iterdir())) == 1


def test_a_damaged_store_of_an_earlier_format_stays_as_it_is_and_is_named(earlier: Path) -> None:
    with closing(sqlite3.connect(earlier / "treadle.db", isolation_level=None)) as raw:
        raw.execute("UPDATE ledger SET body = '{}' WHERE seq = 40")
    with Workspace(earlier, projections=PROJECTIONS) as workspace:
        assert ("ledger", "40") in {(problem.kind, problem.ref) for problem in verify(workspace).problems}
    assert format_of(earlier) == "1"
    assert list((earlier / "backups").iterdir()) == []


def test_without_room_for_a_backup_nothing_is_changed(earlier: Path) -> None:
    (earlier / "backups").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        Workspace(earlier)
    assert format_of(earlier) == "1"
    (earlier / "backups").unlink()
    with Workspace(earlier, projections=PROJECTIONS) as workspace:
        assert verify(workspace).problems == ()


@pytest.mark.parametrize("number", ["3", "99", "x", ""])
def test_a_newer_format_is_refused_in_one_line(earlier: Path, number: str) -> None:
    with closing(sqlite3.connect(earlier / "treadle.db", isolation_level=None)) as raw:
        raw.execute("UPDATE meta SET value = ? WHERE name = 'format'", (number,))
    shutil.rmtree(earlier / "objects")
    with pytest.raises(UserError, match=rf"treadle\.db has format {number}, this Treadle reads formats up to 2; use"):
        Workspace(earlier)
    assert len(rows(earlier)) == 86
