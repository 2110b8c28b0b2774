"""Use of a key is counted once, whoever comes first: its gateway, or one elsewhere that took that for dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_database_away import PROGRAM
from toy_keys import Book, ask

from postgresql_server import Server
from treadle.record.api_key import ApiKey, Limit
from treadle.record.api_key_use import ApiKeyUse, Report, Used

HERE = Path(__file__).parent
TOKENS = ("tokens", "")


@dataclass
class Machine:
    """One of several on one database: a connection of its own, and a folder for notes."""

    book: Book
    folder: Path

    def gateway(self) -> ApiKeyUse:
        workspace = self.book.workspace
        return ApiKeyUse(workspace.database, workspace.state, self.book.keys, self.folder)

    def tokens(self, key: ApiKey) -> int:
        return self.book.used(key).tokens


@pytest.fixture
def machines(tmp_path: Path, postgresql: Server) -> Iterator[tuple[Machine, Machine]]:
    url = postgresql.schema()
    books = [Book(tmp_path / "store", url) for _ in range(2)]
    yield Machine(books[0], tmp_path / "here"), Machine(books[1], tmp_path / "there")
    for book in books:
        book.close()


def silence(machine: Machine, gateway: ApiKeyUse) -> None:
    """Nobody has heard of it for an hour, as far as others can tell."""
    sql = "UPDATE leases SET host = 'elsewhere', beat = beat - 3600 WHERE name = ?"
    machine.book.workspace.state._write(sql, ("gateway:" + gateway.holder,))


def begun(machine: Machine) -> tuple[ApiKey, ApiKeyUse]:
    """A gateway that took 125 of 1,000 tokens ahead."""
    key, _ = machine.book.create("one", Limit("tokens", 1000))
    gateway = machine.gateway()
    gateway.begin()
    [share] = gateway.exchange(key.id, Report(1), key.rules.limits, {"tokens": 100})
    assert share.granted == 125
    return key, gateway


@pytest.mark.parametrize(("noted", "counted"), [(60, 125), (200, 230)], ids=["of what it held", "and more"])
def test_what_one_machine_noted_and_another_folded(machines: tuple[Machine, Machine], noted: int, counted: int) -> None:
    here, there = machines
    key, dead = begun(here)
    # The first of these arrived, and nobody knew.
    dead.exchange(key.id, Report(2, {TOKENS: 30}, {TOKENS: 95}), key.rules.limits, {})
    dead.note(key.id, [Report(2, {TOKENS: 30}), Report(3, {TOKENS: noted})])
    silence(here, dead)
    for _ in range(2):
        there.gateway().begin()
        assert there.tokens(key) == 125  # what it held counts as spent
    for _ in range(2):
        here.gateway().begin()
        assert there.tokens(key) == counted
    assert not list(here.folder.glob("*.json"))
    [share] = there.gateway().exchange(key.id, Report(1), key.rules.limits, {})
    assert (share.spent, share.left) == (counted, 1000 - counted)


def test_one_that_was_taken_for_dead_goes_on(machines: tuple[Machine, Machine]) -> None:
    here, there = machines
    key, slow = begun(here)
    silence(here, slow)
    there.gateway().begin()
    assert there.tokens(key) == 125
    again = Report(2, {TOKENS: 30}, {TOKENS: 95})
    for _ in range(2):
        [share] = slow.exchange(key.id, again, key.rules.limits, {})
        assert (share.spent, share.left) == (30, 875)
    slow.beat()
    there.gateway().begin()
    assert there.tokens(key) == 30
    silence(here, slow)
    there.gateway().begin()  # and once more
    [share] = slow.exchange(key.id, Report(3, {TOKENS: 95}, {}), key.rules.limits, {"tokens": 10})
    assert (share.spent, share.left) == (125, 1000 - 125 - share.granted)
    slow.exchange(key.id, Report(4), key.rules.limits, {})
    slow.exchange(key.id, Report(5, {}, {TOKENS: 0}), key.rules.limits, {})
    slow.end()
    sql = "SELECT holder, spent, held FROM api_key_use WHERE what = 'tokens'"
    assert here.book.workspace.database.query(sql) == [("", 125, 0)]


def test_notes_of_several_keys_of_one_gateway(machines: tuple[Machine, Machine]) -> None:
    here, _ = machines
    first, dead = begun(here)
    second, _ = here.book.create("two", Limit("tokens", 1000))
    dead.exchange(second.id, Report(1), second.rules.limits, {"tokens": 100})
    for key in (first, second):
        dead.note(key.id, [Report(2, {TOKENS: 60})])
    silence(here, dead)
    here.gateway().begin()
    assert [here.tokens(key) for key in (first, second)] == [125, 125]


def test_what_is_remembered_goes_in_the_end(machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = machines
    key, dead = begun(here)
    silence(here, dead)
    there.gateway().begin()
    sql = "SELECT holder, spent, held FROM api_key_use WHERE what = 'tokens' ORDER BY holder"
    assert there.book.workspace.database.query(sql) == [("", 0, 0), (f"past:{dead.holder}", 125, 0)]
    monkeypatch.setattr("treadle.record.api_key_use._REMEMBERED", -60.0)
    there.gateway().begin()
    assert there.book.workspace.database.query(sql) == [("", 125, 0)]
    assert there.tokens(key) == 125


def requests_in(note: Path) -> int:
    uses = [use for _, report in json.loads(note.read_text())["reports"] for use in report]
    return sum(amount for what, period, amount in uses if (what, period) == ("requests", ""))


def test_a_killed_server_whose_use_another_machine_folds_first(tmp_path: Path, postgresql: Server) -> None:
    url, root = postgresql.schema(), tmp_path / "store"
    book = Book(root, url)
    key, secret = book.create("one", Limit("tokens", 100_000))
    program = PROGRAM.format(here=str(HERE), root=str(root), database=url)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        server = running.stdout.readline().strip()
        assert ask(server, secret).status_code == 200
        running.stdin.write("\n")
        running.stdin.flush()
        assert running.stdout.readline() == "away\n"
        answers = [ask(server, secret, text="w " * 30).json()["usage"]["total_tokens"] for _ in range(20)]
        sql = "SELECT coalesce(sum(spent), 0) FROM api_key_use WHERE what = 'requests'"
        ((reported,),) = book.workspace.database.query(sql)
        [note] = (root / "uncounted").glob("*.json")
        ends = time.monotonic() + 20
        while requests_in(note) + reported < 21:  # the last is noted once it was answered
            assert time.monotonic() < ends
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
    sql = "SELECT sum(spent + held) FROM api_key_use WHERE what = 'tokens' AND period = ''"
    ((known,),) = book.workspace.database.query(sql)
    assert known > sum(answers)
    elsewhere = Machine(book, tmp_path / "elsewhere")
    elsewhere.gateway().begin()
    assert elsewhere.tokens(key) == known
    Machine(book, root / "uncounted").gateway().begin()  # where it ran
    assert book.used(key) == Used(requests=21, tokens=int(known))
    book.close()
