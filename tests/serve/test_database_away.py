"""A server that goes on while the database with its keys is away: who is let in, how far, and that all is counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_prometheus import scrape
from toy_keys import Book, ask
from toy_server import Served, serve_toy

from postgresql_server import Server, programs
from treadle.core.errors import UserError
from treadle.record.api_key import Limit
from treadle.record.api_key_use import ApiKeyUse, Report, period_of

HERE = Path(__file__).parent
DEGRADE = {"degrade_seconds": 60.0}


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    made = Book(tmp_path / "store")
    yield made
    made.close()


def until(true: Callable[[], object], seconds: float = 20) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.02)


class Switched(ApiKeyUse):
    """One whose database can be taken away."""

    there = True

    def __init__(self, book: Book) -> None:
        super().__init__(book.workspace.database, book.workspace.state, book.keys, book.workspace.root / "uncounted")
        known, self.stamp = self.stamp, lambda: self._asked(known)

    def _asked(self, what: Callable[..., Any], *given: Any, **more: Any) -> Any:
        if not self.there:
            raise UserError("the database is away")
        return what(*given, **more)

    def clock(self) -> float:
        return float(self._asked(super().clock))

    def exchange(self, *given: Any, **more: Any) -> Any:
        return self._asked(super().exchange, *given, **more)

    def beat(self) -> None:
        self._asked(super().beat)

    def end(self) -> None:
        self._asked(super().end)


@contextmanager
def away(use: Switched, served: Served) -> Iterator[None]:
    outage = served.gateway.keyring.outage
    use.there = False
    until(lambda: outage.lending)
    yield
    looked, use.there = outage._looked, True
    until(lambda: outage._looked != looked)


def tokens(rows: list[dict[str, Any]]) -> int:
    return sum(row["tokens"]["prompt"] + row["tokens"]["completion"] for row in rows)


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_a_known_key_is_answered_up_to_what_was_left_and_all_of_it_is_counted(book: Book) -> None:
    key, secret = book.create("one", Limit("tokens", 1000))
    free, unlimited = book.create("two")
    use = Switched(book)
    with serve_toy(keys=use, key="simple", record="none", **DEGRADE) as served:
        assert ask(served.url, secret).status_code == 200
        assert ask(served.url, unlimited).status_code == 200
        with away(use, served):
            assert ask(served.url, unlimited).status_code == 200
            while (answer := ask(served.url, secret, text="w " * 40)).status_code == 200:
                pass
            assert code(answer) == (429, "insufficient_quota")
            assert code(ask(served.url, "tk-" + "A" * 43)) == (503, "keys_unavailable")
            assert ask(served.url, None).status_code == 401
            notes = sorted((book.workspace.root / "uncounted").glob("*.json"))
            assert [json.loads(path.read_text())["key"] for path in notes] == sorted([key.id, free.id])
            assert secret not in "".join(path.read_text() for path in notes)
            counted = scrape(served)["treadle_key_uncounted_requests_total", (("key", key.id),)]
        until(lambda: not list((book.workspace.root / "uncounted").glob("*.json")))
        mine = [row for row in served.rows if row["key"] == key.id]
        assert 1000 <= tokens(mine) < 1000 + max(tokens([row]) for row in mine)
        assert [row["uncounted"] for row in mine] == [False] + [True] * (len(mine) - 1)
        assert counted == len(mine) - 1 > 3
        assert book.used(key).tokens == tokens(mine)
        assert book.used(key).requests == len(mine)
        assert code(ask(served.url, secret)) == (429, "insufficient_quota")  # nothing is forgiven
    assert book.used(free).requests == 2


def test_a_budget_that_was_used_up_is_not_there_again(book: Book) -> None:
    _, secret = book.create("one", Limit("requests", 2))
    use = Switched(book)
    with serve_toy(keys=use, **DEGRADE) as served:
        assert [ask(served.url, secret).status_code for _ in range(3)] == [200, 200, 429]
        with away(use, served):
            assert code(ask(served.url, secret)) == (429, "insufficient_quota")


def test_a_rate_by_the_minute_holds(book: Book) -> None:
    _, secret = book.create("one", Limit("requests", 5, "minute"))
    use = Switched(book)
    with serve_toy(keys=use, **DEGRADE) as served:
        while period_of("minute", time.time())[1] < 10:  # type: ignore[operator] # not over a minute's end
            time.sleep(0.2)
        with away(use, served):
            assert [ask(served.url, secret).status_code for _ in range(7)] == [200] * 5 + [429] * 2
        assert code(ask(served.url, secret)) == (429, "rate_limit_exceeded")


def test_two_gateways_owe_at_most_what_was_left_to_each(book: Book) -> None:
    key, secret = book.create("one", Limit("requests", 40))
    first, second = Switched(book), Switched(book)
    with serve_toy(keys=first, **DEGRADE) as one, serve_toy(keys=second, **DEGRADE) as two:
        with away(first, one), away(second, two):
            for served in (one, two):
                assert sum(ask(served.url, secret).status_code == 200 for _ in range(45)) == 40
        until(lambda: book.used(key).requests == 80)
        for served in (one, two):
            assert code(ask(served.url, secret)) == (429, "insufficient_quota")


def test_a_key_that_was_revoked_is_good_for_no_longer_than_was_said(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treadle.serve.keyring._STALE", 1.0)
    _, secret = book.create("one")
    use = Switched(book)
    with serve_toy(keys=use, degrade_seconds=3.0) as served:
        assert ask(served.url, secret).status_code == 200
        with away(use, served):
            begun = time.monotonic()
            book.keys.revoke("one", actor="k3:me")
            assert ask(served.url, secret).status_code == 200
            until(lambda: ask(served.url, secret).status_code == 503)
            assert 1.5 < time.monotonic() - begun < 3.2
            assert code(ask(served.url, secret)) == (503, "keys_unavailable")
        assert code(ask(served.url, secret)) == (401, "invalid_api_key")


def test_an_expiry_holds_without_the_database(book: Book) -> None:
    _, secret = book.create("brief", seconds=1.5)
    use = Switched(book)
    with serve_toy(keys=use, **DEGRADE) as served, away(use, served):
        assert ask(served.url, secret).status_code == 200
        until(lambda: ask(served.url, secret).status_code == 401, 5)


def test_what_cannot_be_noted_is_not_answered(book: Book) -> None:
    key, secret = book.create("one", Limit("tokens", 1000))
    use = Switched(book)
    with serve_toy(keys=use, **DEGRADE) as served:
        (book.workspace.root / "uncounted").write_text("in the way")
        with away(use, served):
            assert ask(served.url, secret).status_code == 200  # whose use is known in memory
            assert code(ask(served.url, secret)) == (503, "budget_unavailable")
            (book.workspace.root / "uncounted").unlink()
            assert ask(served.url, secret).status_code == 200
    assert book.used(key).requests == 2


def test_feedback_says_that_the_record_is_away(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    about = served.chat().headers["treadle-interaction"]

    def gone(_: str) -> None:
        raise UserError("the database is away")

    monkeypatch.setattr(served.recorder, "find_interaction", gone)
    answer = served.http.post("/v1/feedback", json={"interaction": about, "thumbs": "up"})
    assert code(answer) == (503, "record_unavailable")


def test_what_was_noted_is_counted_once_whoever_comes_next(book: Book) -> None:
    key, _ = book.create("one", Limit("tokens", 1000))
    dead, account = book.use(), ("tokens", "")
    dead.begin()
    dead.exchange(key.id, Report(1), key.rules.limits, {"tokens": 100})  # takes 125
    # The first of these arrived, and nobody knew.
    dead.exchange(key.id, Report(2, {account: 30}, {account: 95}), key.rules.limits, {})
    dead.note(key.id, [Report(2, {account: 30}), Report(3, {account: 60})])
    living = book.use()
    living.begin()  # the other one lives yet
    assert book.used(key).tokens == 30
    book.workspace.state._write("UPDATE leases SET pid = 2147480000 WHERE name = ?", ("gateway:" + dead.holder,))
    for _ in range(2):
        book.use().begin()
        # 90 were used; what it still held of the 95 counts as spent, as without an outage.
        assert book.used(key).tokens == 125
    assert not list((book.workspace.root / "uncounted").glob("*.json"))
    [share] = living.exchange(key.id, Report(1), key.rules.limits, {})
    assert (share.spent, share.left) == (125, 875)


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b"\xff", b'{"holder": "a", "key": "b", "reports": [[1]]}'])
def test_a_note_that_cannot_be_read_is_left_and_told_of(
    book: Book, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder = book.workspace.root / "uncounted"
    folder.mkdir()
    (folder / "gw-1.key-1.json").write_bytes(damage)
    book.use().begin()
    assert (folder / "gw-1.key-1.json").read_bytes() == damage
    assert "cannot be read" in caplog.text


PROGRAM = """
import sys, time
sys.path.insert(0, {here!r})
from pathlib import Path
from test_database_away import Book, Switched, serve_toy
use = Switched(Book(Path({root!r}), {database!r}))
with serve_toy(keys=use, record="none", degrade_seconds=60.0) as served:
    print(served.url, flush=True)
    sys.stdin.readline()
    use.there = False
    while not served.gateway.keyring.outage.lending:
        time.sleep(0.01)
    print("away", flush=True)
    sys.stdin.read()
"""


def test_a_server_that_is_killed_while_the_database_is_away_loses_no_count(book: Book) -> None:
    key, secret = book.create("one", Limit("tokens", 100_000))
    program = PROGRAM.format(here=str(HERE), root=str(book.workspace.root), database=None)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        url = running.stdout.readline().strip()
        assert ask(url, secret).status_code == 200
        running.stdin.write("\n")
        running.stdin.flush()
        assert running.stdout.readline() == "away\n"
        answers = [ask(url, secret, text="w " * 30).json()["usage"]["total_tokens"] for _ in range(20)]
        [note] = (book.workspace.root / "uncounted").glob("*.json")
        until(lambda: ["requests", "", 21] in json.loads(note.read_text())["reports"][-1][1])  # or it is under way yet
        running.send_signal(signal.SIGKILL)
    with serve_toy(keys=book.use(), record="none"):
        assert book.used(key).requests == 21
        # What it held when it was killed counts as spent as well (32 such requests), but what was used of that once.
        assert sum(answers) < book.used(key).tokens < 9000


def test_memory_does_not_grow_with_what_is_lent(book: Book) -> None:
    limits = (Limit("tokens", 10**9), Limit("requests", 10**9, "day"), Limit("requests", 10**9, "minute"))
    _, secret = book.create("one", *limits)
    use = Switched(book)
    with serve_toy(keys=use, record="none", **DEGRADE) as served, away(use, served):
        sizes = []
        for _ in range(2):
            for _ in range(150):
                assert ask(served.url, secret).status_code == 200
            [note] = (book.workspace.root / "uncounted").glob("*.json")
            sizes.append(note.stat().st_size)
        assert max(sizes) < 1000
        assert not served.gateway.first.unrecorded


@pytest.mark.skipif(programs() is None, reason="no PostgreSQL here")
def test_a_real_database_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    found = programs()
    assert found is not None
    server = Server(found)
    try:
        book = Book(tmp_path / "store", server.schema())
        key, secret = book.create("one", Limit("tokens", 100_000), Limit("requests", 1000, "minute"))
        with serve_toy(keys=book.use(), record="none", **DEGRADE) as served:
            assert ask(served.url, secret).status_code == 200
            server.stop()
            ends = time.monotonic() + 12  # longer than keys are good in a server that refuses
            while time.monotonic() < ends:
                assert ask(served.url, secret).status_code == 200
                time.sleep(0.05)
            server.start()
            until(lambda: not served.gateway.keyring.outage.lending, 40)
            assert ask(served.url, secret).status_code == 200
            rows = [row for row in served.rows if row["key"] == key.id]
            assert sum(row["uncounted"] for row in rows) > 10
        assert book.used(key).tokens == tokens(rows)
        assert book.used(key).requests == len(rows)
        book.close()
    finally:
        server.close()
