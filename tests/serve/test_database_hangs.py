"""A database that hangs: nothing is refused, nothing is answered. What waits for it ends, and all is counted later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from toy_engine import ToyEngine, ToyTokenizer
from toy_keys import Book, ask

from hanging_relay import Relay
from postgresql_server import Server
from treadle.core.database import Lost
from treadle.core.errors import TreadleError, UserError
from treadle.core.postgresql import PostgresqlDatabase
from treadle.record.api_key import Limit
from treadle.record.record import Record
from treadle.record.recording import Recording
from treadle.serve.gateway import ServedRelease, Serving
from treadle.serve.server import serving
from treadle.serve.table import Table
from treadle.stages.deploy.serving import new_gateway

pytestmark = pytest.mark.timeout(120)  # where nothing bounds it, it hangs
LONG = 40  # seconds; each of the few waits has a bound of one or two here


@pytest.fixture
def relay(postgresql: Server) -> Iterator[Relay]:
    made = Relay(postgresql)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds, shorter."""
    monkeypatch.setattr("treadle.stages.deploy.serving._ANSWER", 1.0)
    monkeypatch.setattr("treadle.serve.meter._LONGEST", 1.0)
    monkeypatch.setattr("treadle.serve.keyring._LAST", 2.0)


@contextmanager
def served(book: Book, degrade_seconds: float = 0.0) -> Iterator[str]:
    """A server with the real record, and its URL."""

    async def build() -> object:
        tokenizer = ToyTokenizer()
        release = ServedRelease("docs-assistant@v1", "b3:" + "ab" * 32)
        table = Table(Serving(release, ToyEngine(tokenizer), tokenizer))
        record = Record(book.workspace, "docs-assistant")
        return new_gateway(record, Recording(), table, keyed=True, degrade_seconds=degrade_seconds)

    with serving(build, drain_seconds=5) as url:  # type: ignore[arg-type]
        yield url


def code(answer: object) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]  # type: ignore[attr-defined]


def until(true: Callable[[], object]) -> None:
    ends = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.05)


def counted(book: Book, secret: str) -> int:
    """Requests of a key, once the next server of this folder has begun: this one's process is taken for dead."""
    book.workspace.state._write("UPDATE leases SET pid = 2147480000 WHERE substr(name, 1, 8) = ?", ("gateway:",))
    book.use().begin()
    assert not list((book.workspace.root / "uncounted").glob("*.json"))
    return sum(book.used(key).requests for key in book.keys.all() if key.name == secret)


@pytest.mark.parametrize("degrade", [0.0, 60.0], ids=["refuse", "degrade"])
def test_requests_and_the_end_of_a_server_do_not_wait_for_it(
    degrade: float, tmp_path: Path, postgresql: Server, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treadle.serve.keyring._STALE", 6.0)
    direct = postgresql.schema()
    book = Book(tmp_path / "store", relay.url(direct))
    known = book.create("known", Limit("tokens", 100_000))[1]
    unasked = book.create("unasked", Limit("tokens", 100_000))[1]
    answers = {"known": 0, "unasked": 0}
    with served(book, degrade) as url:
        assert ask(url, known).status_code == 200
        relay.hang()
        began = time.monotonic()
        assert ask(url, known).status_code == 200  # of what was taken ahead
        answers["known"] += 2
        if degrade:
            assert ask(url, unasked).status_code == 200
            assert ask(url, known).status_code == 200
            answers = {name: count + 1 for name, count in answers.items()}
        else:
            assert code(ask(url, unasked)) == (503, "budget_unavailable")
            until(lambda: code(ask(url, "tk-" + "A" * 43)) == (503, "keys_unavailable"))
            assert code(ask(url, known)) == (503, "keys_unavailable")
    with suppress(TreadleError):  # what was recorded is sealed later
        book.close()
    assert time.monotonic() - began < LONG
    relay.go_on()
    after = Book(tmp_path / "store", direct)
    assert {name: counted(after, name) for name in answers} == answers
    after.close()


def test_a_server_goes_on_when_it_is_back(tmp_path: Path, postgresql: Server, relay: Relay) -> None:
    book = Book(tmp_path / "store", relay.url(postgresql.schema()))
    with served(book) as url:
        secret = book.create("one", Limit("tokens", 100_000))[1]
        until(lambda: ask(url, secret).status_code == 200)
        relay.hang()
        other = ask(url, secret, text="w " * 150, n=8)  # more than was taken ahead
        assert other.status_code in (200, 503)
        relay.go_on()
        until(lambda: ask(url, secret, text="w " * 150, n=8).status_code == 200)
    book.close()


def test_a_connection_on_which_nothing_is_heard_is_lost(postgresql: Server, relay: Relay) -> None:
    database = PostgresqlDatabase(relay.url(postgresql.schema()))
    database.bound(1.0)
    database.script("CREATE TABLE IF NOT EXISTS kept (a INTEGER);")
    relay.hang()
    with pytest.raises(UserError, match="cannot connect"):  # lost, and there is no other to be had
        database.query("SELECT 1")
    relay.go_on()
    assert database.query("SELECT 1") == [(1,)]
    with pytest.raises(Lost, match="said nothing for 1 seconds"), database.transaction() as cursor:
        cursor.execute("INSERT INTO kept VALUES (1)")
        relay.hang()
        cursor.execute("SELECT 1").fetchall()
    relay.go_on()
    assert database.query("SELECT count(*) FROM kept") == [(0,)]
    assert len(database.query("SELECT generate_series(1, 300000)")) == 300_000
    database.close()


def test_who_waits_for_others_hears_of_it(postgresql: Server) -> None:
    """Before the server counts as gone: it is there, and says so."""
    url = postgresql.schema()
    one, other = PostgresqlDatabase(url), PostgresqlDatabase(url)
    other.bound(1.0)
    with one.transaction(), pytest.raises(UserError, match="held by another process"), other.transaction():
        pass
    one.close()
    other.close()
