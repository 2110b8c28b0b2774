"""A disk that is full, a database that goes away and comes back, and clocks that differ: for real."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import toy_server
from toy_keys import Book, ask
from toy_server import serve_toy

from postgresql_server import Server, programs
from treadle.core.workspace import Workspace
from treadle.record.api_key import Limit
from treadle.record.record import PROJECTIONS, Record


def until(true: Callable[[], object], seconds: float = 20) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.02)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("no disk may be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_under_the_journal_lets_nothing_out_unrecorded(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Workspace(tmp_path / "store", None, PROJECTIONS) as workspace:
        (tmp_path / "store" / "journal").symlink_to(disk)
        recorder = Record(workspace, "docs").recorder
        monkeypatch.setattr(toy_server, "ListRecorder", lambda: recorder)
        ballast, long = disk / "ballast", "x" * 9000  # its row is larger than what is left of a page
        with serve_toy(pace=0.05, record="full") as served:
            answered = {served.chat().headers["treadle-interaction"]}
            body = {"messages": [{"role": "user", "content": f"a b c d e f {long}"}], "stream": True}
            with served.http.stream("POST", "/v1/chat/completions", json=body) as stream:
                lines = stream.iter_lines()
                assert next(lines).startswith("data: ")
                status = os.statvfs(disk)
                with ballast.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_bsize)
                assert "record_unavailable" in [line for line in lines if line][-1]
            begun = stream.headers["treadle-interaction"]
            asked = len(served.engine.requests)
            for streamed in (False, True):
                refused = served.chat(long, stream=streamed)
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "record_unavailable")
            assert len(served.engine.requests) == asked  # before the engine did anything for it
            ballast.unlink()
            answered.add(served.chat().headers["treadle-interaction"])
        rows = {row.id: row for row in recorder.interactions()}
        assert set(rows) == answered | {begun}
        assert (rows[begun].status, rows[begun].error) == ("failed", "record_unavailable")
        assert rows[begun].answer is not None
        assert rows[begun].answer.startswith("a b c d")


@pytest.mark.skipif(programs() is None, reason="no PostgreSQL here")
def test_a_database_that_goes_away_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.serve.keyring._STALE", 1.0)
    found = programs()
    assert found is not None
    server = Server(found)
    try:
        book = Book(tmp_path / "store", server.schema())
        key, secret = book.create("one", Limit("tokens", 100_000))
        with serve_toy(keys=book.use(), record="none") as served:
            assert ask(served.url, secret).status_code == 200
            server.stop()
            until(lambda: ask(served.url, secret).status_code == 503)
            for _ in range(20):
                assert ask(served.url, secret).status_code == 503
                assert ask(served.url, None).status_code in (401, 503)
            server.start()
            until(lambda: ask(served.url, secret).status_code == 200, 40)
            rows = [row for row in served.rows if row["key"] == key.id]
        tokens = sum(row["tokens"]["prompt"] + row["tokens"]["completion"] for row in rows)
        assert book.used(key).tokens == tokens
        assert book.used(key).requests == len(rows)
        book.close()
    finally:
        server.close()


@pytest.mark.parametrize("ahead", [-7200.0, 7200.0])
def test_a_gateway_whose_clock_is_wrong_goes_by_the_databases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    book = Book(tmp_path / "store")
    clock = book.workspace.database.clock
    wrong = SimpleNamespace(time=lambda: clock() + ahead, monotonic=time.monotonic)
    monkeypatch.setattr("treadle.serve.keyring.time", wrong)
    _, secret = book.create("brief", Limit("requests", 100, "minute"), seconds=1.5)
    with serve_toy(keys=book.use(), record="none") as served:
        assert ask(served.url, secret).status_code == 200
        until(lambda: ask(served.url, secret).status_code == 401, 5)
    book.close()
