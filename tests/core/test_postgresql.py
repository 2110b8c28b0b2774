"""What only a server does: it is away, it restarts, it refuses, it serves several machines."""

from __future__ import annotations

import logging
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from postgresql_server import Server
from treadle.core.errors import Corrupt, MissingExtra, UserError
from treadle.core.ledger import Fact
from treadle.core.ledger_url import check, shown
from treadle.core.postgresql import PostgresqlDatabase
from treadle.core.postgresql_server import statement
from treadle.core.secrets import resolve
from treadle.core.verify import verify
from treadle.core.workspace import Workspace

from .conftest import Place
from .cut_connection import CutConnection


@pytest.fixture
def place(tmp_path: Path, postgresql: Server) -> Place:
    """On the server alone."""
    return Place(tmp_path / "store", postgresql.schema(), postgresql)


def notes(workspace: Workspace) -> list[object]:
    return [row.body["number"] for row in workspace.ledger.rows("note")]


def schema_of(place: Place) -> str:
    return str(place.database).rpartition("%3D")[2]


# -- connections that break


@pytest.fixture
def cut(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CutConnection]:
    assert place.server is not None
    folder = place.server.folder / schema_of(place)
    folder.mkdir()
    made = CutConnection(folder, place.server.folder)
    yield made
    made.close()


@pytest.mark.parametrize("at", ["before", "after"])
def test_a_commit_whose_answer_is_lost_is_looked_for(
    place: Place, cut: CutConnection, at: Literal["before", "after"]
) -> None:
    """Kept once, whether the server had heard of it or not."""
    assert place.server is not None
    url = str(place.database).replace(str(place.server.folder), str(place.server.folder / schema_of(place)))
    with Workspace(place.root, url) as workspace:
        workspace.ledger.append(Fact("note", {"number": 1}))
        cut.at = at
        rows = workspace.ledger.append(Fact("note", {"number": 2}), Fact("note", {"number": 3}), sync=True)
        assert cut.at is None
        assert [row.seq for row in rows] == [3, 4]
        assert workspace.ledger.append(Fact("note", {"number": 4}))[0].seq == 5
        assert notes(workspace) == [1, 2, 3, 4]
        assert workspace.ledger.verify() == []


@pytest.mark.parametrize("at", ["before", "after"])
def test_what_may_be_done_twice_is_and_the_rest_says_that_it_does_not_know(
    place: Place, cut: CutConnection, at: Literal["before", "after"]
) -> None:
    assert place.server is not None
    url = str(place.database).replace(str(place.server.folder), str(place.server.folder / schema_of(place)))
    with Workspace(place.root, url) as workspace:
        cut.at = at
        workspace.state.set("a", 1)
        assert cut.at is None
        assert workspace.state.get("a") == 1
        cut.at = at
        with pytest.raises(UserError, match=r"lost while committing.*is not known"):
            workspace.state.swap("a", 2)
        assert workspace.state.get("a") == (2 if at == "after" else 1)


def end_connections(place: Place) -> None:
    with place.raw() as raw:
        raw.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND application_name LIKE 'treadle: %'"
        )


def test_an_idle_connection_that_was_ended_is_made_again(place: Place) -> None:
    with place.open() as workspace:
        for number in range(8):
            end_connections(place)
            workspace.ledger.append(Fact("note", {"number": number}), sync=number % 2 == 0)
            end_connections(place)
            assert notes(workspace) == list(range(number + 1))
        end_connections(place)
        assert workspace.ledger.verify() == []


def test_a_transaction_that_was_ended_in_the_middle_wrote_nothing(place: Place) -> None:
    with place.open() as workspace:
        with (
            pytest.raises(UserError, match=r"the connection to .* was lost.*try again") as caught,
            workspace.database.transaction() as cursor,
        ):
            cursor.execute("INSERT INTO cursors VALUES ('a', '1')")
            end_connections(place)
            cursor.execute("INSERT INTO cursors VALUES ('b', '1')")
        assert "\n" not in str(caught.value)
        assert workspace.state.get("a") is None
        workspace.state.set("a", 2)


def test_a_server_that_restarts_is_waited_for(place: Place) -> None:
    assert place.server is not None
    with place.open() as workspace:
        workspace.ledger.append(Fact("note", {"number": 1}), sync=True)
        place.server.stop()
        starting = threading.Timer(0.5, place.server.start)
        starting.start()
        workspace.ledger.append(Fact("note", {"number": 2}))
        starting.join()
        assert notes(workspace) == [1, 2]
        assert workspace.ledger.verify() == []


def test_a_server_that_stays_away_is_one_clear_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.server is not None
    monkeypatch.setattr("treadle.core.postgresql._PATIENCE", 0.1)
    with place.open() as workspace:
        place.server.stop()
        try:
            with pytest.raises(UserError, match=r"cannot connect to postgresql:.*; see that the server runs") as caught:
                workspace.ledger.append(Fact("note", {}))
            assert "\n" not in str(caught.value)
        finally:
            place.server.start()
        workspace.ledger.append(Fact("note", {"number": 1}))
        assert notes(workspace) == [1]


def test_many_writers_some_killed_some_cut_off(place: Place) -> None:
    """No acknowledged row is lost, none is there twice, and there is no gap."""
    chance = random.Random(7)
    with place.open() as workspace:
        writers = [place.writer("ledger", f"w{number}", 250) for number in range(4)]
        victims = [place.writer("ledger", f"v{number}", 10**6) for number in range(3)]
        for writer in (*writers, *victims):
            writer.first()
        acknowledged: list[str] = []
        for victim in victims:
            time.sleep(chance.random() * 0.2)
            end_connections(place)
            acknowledged += victim.kill()
            assert workspace.ledger.verify() == []
        acknowledged += [line for writer in writers for line in writer.finish()]
        stored = [f"{row.seq} {row.body['writer']} {row.body['number']}" for row in workspace.ledger.rows("note")]
        assert set(acknowledged) <= set(stored)
        assert len({line.partition(" ")[2] for line in stored}) == len(stored)
        assert [row.seq for row in workspace.ledger.rows()] == list(range(1, workspace.ledger.size() + 1))
        assert workspace.ledger.verify() == []


# -- several machines


def test_another_machine_waits_and_is_told_for_whom(place: Place, tmp_path: Path) -> None:
    """Another machine has the keys, and a store's folder of its own."""
    with place.open() as workspace:
        workspace.ledger.append(Fact("note", {"number": 1}))
    shutil.copytree(place.root, tmp_path / "other")
    elsewhere = Place(tmp_path / "other", place.database, place.server)
    holder = elsewhere.writer("hold")
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
    with elsewhere.open() as other:  # what does not need the project for itself goes on
        other.ledger.append(Fact("note", {"number": 2}))
    holder.kill()
    waiter.join(60)
    assert entered.is_set()
    assert said == [f"process {holder._process.pid} on {subprocess.check_output(['hostname'], text=True).strip()}"]
    with place.open() as workspace:
        assert notes(workspace) == [1, 2]
        assert verify(workspace).ok


def test_a_lock_whose_connection_broke_is_told(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    with place.open() as workspace, workspace.exclusive():
        end_connections(place)
    assert "the connection that held the project broke" in caplog.text


def test_the_server_says_what_time_it_is(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose clock is wrong does not take the others' runs for dead."""
    with place.open() as workspace, place.open() as other:
        monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
        other.state.take_lease("run:a")
        monkeypatch.undo()
        monkeypatch.setattr("time.time", lambda: 5e9)
        assert workspace.state.live_leases("run:") == ["run:a"]
        other.state.beat("run:a")
        assert workspace.state.dead_leases("run:") == []


# -- a server that refuses


@pytest.mark.parametrize(
    ("user", "database", "line"),
    [
        ("treadle", "nowhere", r"cannot connect to postgresql:///nowhere: .* does not exist; make it with: createdb"),
        ("nobody_known", "postgres", r"role .* does not exist; give the user by PGUSER"),
    ],
)
def test_what_does_not_exist_is_one_clear_line(
    tmp_path: Path, postgresql: Server, user: str, database: str, line: str
) -> None:
    with pytest.raises(UserError, match=line) as caught:
        Workspace(tmp_path, postgresql.url(user=user, database=database))
    assert "\n" not in str(caught.value)


def test_a_password_comes_from_the_environment_and_goes_nowhere(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert place.server is not None
    schema = schema_of(place)
    place.server.execute("CREATE ROLE with_password", "CREATE ROLE somebody LOGIN PASSWORD 'hush-hush'")
    place.server.execute("GRANT with_password TO somebody", f"GRANT ALL ON SCHEMA {schema} TO somebody")
    url = place.server.url(schema, user="somebody")
    with pytest.raises(UserError, match=r"no password supplied; give it by PGPASSWORD"):
        Workspace(place.root, url)
    monkeypatch.setenv("PGPASSWORD", "wrong-one")
    with pytest.raises(UserError, match=r"password authentication failed .*; give it by PGPASSWORD") as caught:
        Workspace(place.root, url)
    assert "wrong-one" not in str(caught.value)
    monkeypatch.setenv("PGPASSWORD", "hush-hush")
    with Workspace(place.root, url) as workspace:
        workspace.ledger.append(Fact("note", {"number": 1}))
        assert "hush" not in workspace.database.place
    monkeypatch.delenv("PGPASSWORD")
    with Workspace(place.root, url + "&password=hush-hush") as workspace:  # as from ${env:LEDGER_URL}
        assert notes(workspace) == [1]
        assert "hush" not in workspace.database.place


def test_without_the_driver_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("postgresql", "postgresql_cursor", "postgresql_server"):
        monkeypatch.delitem(sys.modules, f"treadle.core.{name}")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"psycopg is not installed; run: pip install 'treadle\[postgres\]'"):
        Workspace(tmp_path / "store", "postgresql:///db")


def test_nobody_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot connect to postgresql:///db: .*; see that the server runs") as caught:
        Workspace(tmp_path / "store", f"postgresql:///db?host={tmp_path}")
    assert "\n" not in str(caught.value)


def test_a_url_that_is_none_does_not_show_its_password(tmp_path: Path) -> None:
    for url in ("postgresql://u:pass:word@h:99/db", "postgresql://u:pa/ss@h/db", "postgresql://h/db?pass=word"):
        with pytest.raises(UserError) as caught:
            Workspace(tmp_path / "store", url)
        assert "pa" not in str(caught.value).replace(str(tmp_path), "").replace("libpq", "")


def test_a_schema_that_is_not_there_is_one_clear_line(tmp_path: Path, postgresql: Server) -> None:
    with pytest.raises(UserError, match=r"\(schema never\): no schema of its search_path exists"):
        Workspace(tmp_path / "store", postgresql.url("never"))


def test_a_database_that_is_not_unicode_is_refused(tmp_path: Path, postgresql: Server) -> None:
    postgresql.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(UserError, match="keeps text as LATIN1; make the database with ENCODING 'UTF8'"):
        Workspace(tmp_path / "store", postgresql.url(database="latin"))


def test_a_role_needs_no_more_than_it_uses(place: Place) -> None:
    """One that may not make tables works on those there are; one that may not write is told in one line."""
    assert place.server is not None
    with place.open() as workspace:
        workspace.ledger.append(Fact("note", {"number": 1}))
    schema = schema_of(place)
    place.server.execute(f"CREATE ROLE w_{schema} LOGIN", f"CREATE ROLE r_{schema} LOGIN")
    place.server.execute(f"GRANT USAGE ON SCHEMA {schema} TO w_{schema}, r_{schema}")
    place.server.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO w_{schema}, r_{schema}")
    place.server.execute(f"GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO w_{schema}")
    with Workspace(place.root, place.server.url(schema, user=f"w_{schema}")) as workspace:
        workspace.ledger.append(Fact("note", {"number": 2}))
        assert notes(workspace) == [1, 2]
        assert workspace.ledger.verify() == []
    with Workspace(place.root, place.server.url(schema, user=f"r_{schema}")) as workspace:
        with pytest.raises(UserError, match=r"permission denied for table ledger; grant this role") as caught:
            workspace.ledger.append(Fact("note", {"number": 3}))
        assert "\n" not in str(caught.value)
        assert notes(workspace) == [1, 2]


def test_a_role_that_may_not_make_tables_is_told(tmp_path: Path, place: Place) -> None:
    assert place.server is not None
    schema = schema_of(place)
    place.server.execute(f"CREATE ROLE n_{schema} LOGIN", f"GRANT USAGE ON SCHEMA {schema} TO n_{schema}")
    with pytest.raises(UserError, match=rf"permission denied for schema {schema}; grant this role"):
        Workspace(tmp_path / "store", place.server.url(schema, user=f"n_{schema}"))


def test_a_writer_that_does_not_let_go_is_one_clear_line(place: Place) -> None:
    with place.open() as workspace, place.open() as other:
        assert isinstance(workspace.database, PostgresqlDatabase)
        workspace.database._connection.execute("SET lock_timeout = '50ms'")
        with (
            other.database.transaction(),
            pytest.raises(UserError, match="is held by another process; wait until it is done"),
        ):
            workspace.ledger.append(Fact("note", {}))
        workspace.database._connection.execute("SET lock_timeout = 0; SET statement_timeout = '50ms'")
        with (
            other.database.transaction(),
            pytest.raises(UserError, match="statement timeout; raise statement_timeout for this role"),
        ):
            workspace.ledger.append(Fact("note", {}))
        workspace.ledger.append(Fact("note", {"number": 1}))
        assert notes(workspace) == [1]


def test_a_replica_is_refused(place: Place, tmp_path: Path) -> None:
    assert place.server is not None
    with place.open() as workspace:
        workspace.ledger.append(Fact("note", {"number": 1}), sync=True)
    replica = place.server.replica()
    try:
        with pytest.raises(UserError, match=r"is a read-only replica; name the primary"):
            Workspace(place.root, replica.url(schema_of(place)))
    finally:
        replica.close()


# -- what was put in by hand, and what was deleted


@pytest.mark.parametrize(
    ("planted", "name", "detail"),
    [
        ("CREATE RULE quiet AS ON INSERT TO ledger DO INSTEAD NOTHING", "quiet", "is a rule"),
        ("ALTER TABLE runs ENABLE ROW LEVEL SECURITY", "runs", "hides rows by a policy"),
        (
            "CREATE TRIGGER hush BEFORE UPDATE ON runs EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "hush",
            "is a trigger",
        ),
        ("ALTER TABLE runs RENAME TO runs2; CREATE VIEW runs AS SELECT * FROM runs2", "runs", "is a view"),
    ],
)
def test_what_was_planted_is_found(place: Place, planted: str, name: str, detail: str) -> None:
    with place.open() as workspace:
        with place.raw() as raw:
            raw.execute(planted)
        problems = workspace.ledger.verify()
    assert [(problem.kind, problem.ref) for problem in problems][:1] == [("database", name)]
    assert detail in problems[0].detail


def test_a_table_that_was_dropped_is_damage(place: Place) -> None:
    with place.open() as workspace:
        with place.raw() as raw:
            raw.execute("DROP TABLE ledger")
        with pytest.raises(Corrupt, match=r"is damaged: relation .* does not exist"):
            workspace.ledger.size()
        assert workspace.ledger.verify() != []


def test_scrubbing_while_another_reads_is_not_silently_half_done(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.core.postgresql._BUSY_SECONDS", 0.1)
    with place.open() as workspace:
        key = workspace.state.person_key("k3:a")
        assert key is not None
        with workspace.database.snapshot() as reader:
            reader.execute("SELECT count(*) FROM people").fetchone()
            workspace.state.destroy_person("k3:a")
            with pytest.raises(UserError, match=r"is being read by process \d+ on .*cannot be wiped"):
                workspace.state.scrub()
        workspace.state.scrub()
        assert not place.holds(key)


def test_who_does_not_own_a_table_is_told_that_bytes_stay(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    assert place.server is not None
    schema = schema_of(place)
    with place.open():
        pass
    place.server.execute(f"CREATE ROLE e_{schema} LOGIN", f"GRANT USAGE ON SCHEMA {schema} TO e_{schema}")
    place.server.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO e_{schema}")
    with (
        Workspace(place.root, place.server.url(schema, user=f"e_{schema}")) as workspace,
        caplog.at_level(logging.WARNING),
    ):
        workspace.state.scrub()
    assert "its owner has to run VACUUM (FULL)" in caplog.text


# -- the URL


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://me@host:5433/db?sslmode=require", "postgresql://host:5433/db"),
        ("postgres://a,b:2/db?target_session_attrs=read-write", "postgresql://a,b:2/db"),
        ("postgresql://[::1]:5432/db", "postgresql://[::1]:5432/db"),
        ("postgresql:///db?host=/run/postgresql", "postgresql:///db"),
        ("postgresql://?service=record", "postgresql:/// (service record)"),
        ("postgresql://host/db?options=-csearch_path%3Dteam", "postgresql://host/db (schema team)"),
    ],
)
def test_a_url_is_shown_without_user_and_parameters(url: str, said: str) -> None:
    assert check(url) == url
    assert shown(url) == said


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:hush@host/db", "postgresql://host/db?password=hush", "postgresql://host/db?sslPassword=hush"],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="a password does not stand in the URL; give it by PGPASSWORD") as caught:
        check(url)
    assert "hush" not in str(caught.value)


def test_another_kind_of_server_is_refused() -> None:
    with pytest.raises(ValueError, match="such as postgresql://host/db, got mysql://"):
        check("mysql://host/db")


def test_a_setting_may_name_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER_URL", "postgresql://me:hush@host/db")
    assert resolve("${env:LEDGER_URL}") == "postgresql://me:hush@host/db"
    assert resolve("ledger.db") == "ledger.db"
    monkeypatch.delenv("LEDGER_URL")
    with pytest.raises(UserError, match=r"the variable LEDGER_URL of the environment is not set"):
        resolve("${env:LEDGER_URL}")


def test_placeholders_are_translated_outside_of_quotes() -> None:
    assert statement("SELECT '?', 'it''s ?%' FROM a WHERE b = ? AND c LIKE '%x'") == (
        "SELECT '?', 'it''s ?%%' FROM a WHERE b = %s AND c LIKE '%%x'"
    )
