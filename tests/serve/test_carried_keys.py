"""Servers that run without their project, and take keys, budgets and rates from its PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from test_keys import code, spend
from toy_keys import Book, ask
from toy_server import serve_toy
from toy_upstream import write_folder

import command
import containers
from postgresql_server import Server, programs
from treadle.core.digest import canonical_json
from treadle.core.errors import UserError
from treadle.integrations.ray_serve import Arguments, Replica
from treadle.record.api_key import Limit
from treadle.record.api_key_use import period_of
from treadle.record.release import ReleaseSpec
from treadle.stages.deploy.carried import own_record, read_carried
from treadle.stages.deploy.carried_keys import DEGRADE, NEEDS, VARIABLE, project_keys, read_degrade
from treadle.stages.deploy.targets import Rendering, render

DOCS = Path(__file__).resolve().parents[2] / "docs" / "stages" / "deploy.md"
PASSWORD = "Tr0ub4dor-and-3"  # of nobody; it shows whether URLs are told of


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TREADLE_API_KEY", VARIABLE, DEGRADE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def book(tmp_path: Path, postgresql: Server) -> Iterator[Book]:
    """The project's, on a server."""
    made = Book(tmp_path / "store", postgresql.schema())
    yield made
    made.close()


def schema_of(owner: str) -> str:
    return unquote(owner).rpartition("=")[2]


def guest(server: Server, owner: str, without: str = "nothing") -> str:
    """The URL of a role that was granted what the documentation says, without what has a word in it, and no more."""
    schema = schema_of(owner)
    role, names = f"pods_of_{schema}", {"SCHEMA public": f"SCHEMA {schema}", "DATABASE treadle": "DATABASE postgres"}
    [documented] = re.findall(r"```sql\n(.*?)```", DOCS.read_text(), re.DOTALL)
    for said, here in {"treadle_pods": role, **names}.items():
        assert said in documented
        documented = documented.replace(said, here)
    with server.connect(owner) as connection:
        for statement in documented.split(";"):
            if statement.strip() and without not in statement:
                connection.execute(statement)
    return server.url(schema, user=role) + f"&password={PASSWORD}"


def place(book: Book) -> str:
    """The URL that the project's own commands use."""
    return str(book.workspace.database._url)  # type: ignore[attr-defined]


def write_release(folder: Path, url: str) -> Path:
    """A release that a server at ``url`` runs."""
    write_folder(folder / "model")
    told = {"urls": [f"{url}/v1"], "model": "docs-assistant"}
    spec = ReleaseSpec(
        "helper", "chat", "b3:" + "0" * 64, "b3:" + "1" * 64, {}, "upstream", optimization={"settings": told}
    )
    (folder / "release.json").write_bytes(canonical_json(spec.to_json()))
    return folder


@dataclass
class Carried:
    """A server without a project."""

    url: str
    journal: Path
    said: str = ""

    def rows(self) -> list[dict[str, Any]]:
        """What it recorded, once it has ended."""
        with own_record(self.journal, "helper") as record:
            return [row.to_dict() for row in record.recorder.interactions()]


@contextmanager
def carried(folder: Path, number: int, *more: str) -> Iterator[Carried]:
    """``treadle serve`` of the release in ``folder``, as a container runs it."""
    journal = folder.parent / f"journal-{number}"
    given = ("--release-folder", str(folder), "--journal", str(journal), "--name", "helper@v1")
    process = subprocess.Popen(  # not forked from one whose libraries have said where logs go
        [sys.executable, "-m", "treadle", "serve", *given, "--port", "0", "--json", *more],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("{"), line + process.communicate(timeout=60)[0]
    served = Carried(json.loads(line)["url"].replace("0.0.0.0", "127.0.0.1"), journal)
    try:
        yield served
    finally:
        process.terminate()
        served.said = process.communicate(timeout=60)[0]
        assert process.returncode == 0, served.said


def until(true: Callable[[], object], seconds: float = 20) -> float:
    """The seconds that it took."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() < begun + seconds
        time.sleep(0.02)
    return time.monotonic() - begun


def test_two_servers_share_budgets_rates_and_revocations(
    book: Book, postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 8_000
    key, secret = book.create("one", Limit("tokens", most))
    quick, often = book.create("quick", Limit("requests", 9, "minute"))
    brief, revoked = book.create("brief")
    _, vectors = book.create("vectors", scope=("embeddings",))
    monkeypatch.setenv(VARIABLE, guest(postgresql, place(book)))
    before = book.workspace.ledger.size()
    with serve_toy() as behind:
        release = write_release(tmp_path / "release", behind.url)
        with carried(release, 0) as one, carried(release, 1, "--host", "0.0.0.0") as two:
            urls = [one.url, two.url]
            assert [ask(url, None).status_code for url in urls] == [401, 401]
            assert [code(ask(url, vectors)) for url in urls] == [(403, "endpoint_not_allowed")] * 2
            spent = asyncio.run(spend(urls, secret))
            assert most <= sum(spent) < most + max(spent)
            while period_of("minute", book.workspace.database.clock())[1] < 10:  # type: ignore[operator]
                time.sleep(0.2)
            answers = [ask(urls[turn % 2], often).status_code for turn in range(14)]
            until(lambda: [ask(url, revoked).status_code for url in urls] == [200, 200])
            book.keys.revoke("brief", actor="k3:me")
            assert until(lambda: all(ask(url, revoked).status_code == 401 for url in urls)) < 3
            _, new = book.create("new")
            assert until(lambda: all(ask(url, new).status_code == 200 for url in urls)) < 3
    assert sorted(answers) == [200] * 9 + [429] * 5
    assert (book.used(key).tokens, book.used(quick).requests) == (sum(spent), 9)
    # The ledger has what the project itself did: a key that ended, and one that was made.
    assert book.workspace.ledger.size() == before + 2
    assert not book.workspace.state.live_leases("gateway:")
    rows = [row for served in (one, two) for row in served.rows()]
    assert len([row for row in rows if row["key"] == key.id]) == len(spent)
    assert {row["key"] for row in rows} >= {key.id, quick.id, brief.id}
    told = (
        one.said
        + two.said
        + "".join(path.read_text(errors="replace") for path in tmp_path.glob("journal-*/**/*") if path.is_file())
    )
    assert not [each for each in (PASSWORD, "pods_of_", secret) if each in told]


@pytest.mark.skipif(programs() is None, reason="no PostgreSQL here")
def test_a_database_that_goes_away_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = programs()
    assert found is not None
    server = Server(found)
    try:
        book = Book(tmp_path / "store", server.schema())
        key, secret = book.create("one", Limit("tokens", 1_000_000))
        monkeypatch.setenv(VARIABLE, guest(server, place(book)))
        good: list[str] = []

        def asked(url: str) -> tuple[int, str]:
            answer = ask(url, secret)
            if answer.status_code == 200:
                good.append(url)
                return 200, ""
            return code(answer)

        with serve_toy() as behind:
            release = write_release(tmp_path / "release", behind.url)
            with carried(release, 0) as refusing, carried(release, 1, "--degrade-for", "2m") as lending:
                assert asked(refusing.url) == asked(lending.url) == (200, "")
                server.stop()
                begun = time.monotonic()
                until(lambda: asked(refusing.url) == (503, "keys_unavailable"), 30)
                while time.monotonic() < begun + 13:  # longer than a server that restarts is waited for
                    assert asked(lending.url) == (200, "")
                    time.sleep(0.05)
                assert list((lending.journal / "uncounted").glob("*.json"))
                server.start()
                until(lambda: asked(refusing.url) == (200, ""), 40)
                until(lambda: not list((lending.journal / "uncounted").glob("*.json")), 40)
        assert book.used(key).requests == len(good)
        rows = lending.rows()
        assert len(rows) == good.count(lending.url)
        assert sum(row["uncounted"] for row in rows) >= 20
        assert "is back after" in lending.said
        assert PASSWORD not in lending.said + refusing.said
        book.close()
    finally:
        server.close()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def contained(image: str, socket: Path) -> Iterator[Carried]:
    """The image as a container, on this machine's own network, with the database's socket."""
    port = containers.free_port()
    given = ["--detach", "--network", "host", "--volume", f"{socket}:/database", "--env", VARIABLE]
    command = ["podman", "run", *given, image, "serve", "--host", "0.0.0.0", "--port", str(port)]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    served = Carried(f"http://127.0.0.1:{port}", Path())
    try:
        until(lambda: answers(served.url), 90)
        yield served
    finally:
        subprocess.run(["podman", "stop", "-t", "45", name], capture_output=True)
        logs = ["podman", "logs", name]
        served.said = subprocess.run(logs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
        subprocess.run(["podman", "rm", "--force", "--volumes", name], capture_output=True)


@pytest.mark.slow
@pytest.mark.skipif(programs() is None, reason="no PostgreSQL here")
def test_two_containers_of_the_image_share_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    containers.make_base_image()
    found, most, image = programs(), 8_000, "localhost/treadle-test-keys:1"
    assert found is not None
    server = Server(found)
    server.folder.chmod(0o755)  # the user in the container is nobody here
    try:
        book = Book(tmp_path / "store", server.schema())
        key, secret = book.create("one", Limit("tokens", most))
        there = guest(server, place(book)).replace(str(server.folder), "/database")
        monkeypatch.setenv(VARIABLE, there)
        with serve_toy() as behind:
            folder = write_release(tmp_path / "docker" / "release", behind.url)
            release = read_carried(folder)
            rendering = Rendering(release.digest, "helper@v1", release.spec, "upstream", 1000)
            render("docker", rendering, folder.parent, {"tool": "podman", "keys": "postgresql"})
            containers.add_wheels(folder.parent)
            build = ["podman", "build", "--build-arg", "PIP_NO_INDEX=1", "--tag", image, "."]
            subprocess.run(build, cwd=folder.parent, check=True, capture_output=True)
            with contained(image, server.folder) as one, contained(image, server.folder) as two:
                spent = asyncio.run(spend([one.url, two.url], secret))
                book.keys.revoke("one", actor="k3:me")
                assert until(lambda: all(ask(each.url, secret).status_code == 401 for each in (one, two))) < 3
        assert most <= sum(spent) < most + max(spent)
        assert book.used(key).tokens == sum(spent)
        assert not book.workspace.state.live_leases("gateway:")
        assert "helper@v1" in one.said
        assert PASSWORD not in one.said + two.said
        book.close()
    finally:
        subprocess.run(["podman", "rmi", "--force", image], capture_output=True)
        server.close()


# -- what is refused


def refused(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is said, in one line that tells no secret."""
    monkeypatch.setenv(VARIABLE, url)
    with own_record(folder, "helper") as record, pytest.raises(UserError) as raised, project_keys(record):
        pass
    said = str(raised.value)
    assert said.startswith((f"{VARIABLE} ", f"{VARIABLE}: "))
    assert "\n" not in said
    assert PASSWORD not in said
    return said


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "is empty; expected postgresql://"),
        ("sqlite:///treadle.db", "is no URL of a PostgreSQL"),
        (f"treadle:{PASSWORD}@host/db", "is no URL of a PostgreSQL"),
        (f"postgresql:{PASSWORD}", "is no URL of a PostgreSQL"),
        (f"postgresql://[{PASSWORD}/db", "is no URL of a PostgreSQL"),
        *((f"postgresql://me:1{sign}{PASSWORD}@host/db", "has an @ in the wrong place") for sign in "@/?#"),
        (f"postgresql://me:{PASSWORD}@127.0.0.1:1/db", "cannot connect to postgresql://127.0.0.1:1/db"),
        (f"postgresql://me:{PASSWORD}@127.0.0.1:1/db?sslmode=never", "sslmode"),
    ],
)
def test_what_is_no_database(url: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why in refused(url, tmp_path / "journal", monkeypatch)


def test_a_database_without_a_ledger_stays_as_it_is(
    postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = postgresql.schema()
    said = refused(f"{empty}&password={PASSWORD}", tmp_path / "journal", monkeypatch)
    assert f"keeps no Treadle ledger: its schema {schema_of(empty)} has no table ledger" in said
    with postgresql.connect(empty) as connection:
        sql = "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
        assert connection.execute(sql).fetchone() == (0,)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("UPDATE meta SET value = '1'", "has format 1, this Treadle takes format 2; run treadle status in the project"),
        ("UPDATE meta SET value = '99'", "has format 99, this Treadle reads formats up to"),
        ("UPDATE meta SET value = 'new'", "its table meta says no format"),
        ("DELETE FROM meta", "its table meta says no format"),
        ("DROP TABLE api_key_use", "has no table api_key_use yet; run treadle keys list in the project"),
        ("DROP TABLE meta", "keeps no Treadle ledger"),
    ],
)
def test_a_ledger_of_another_version(
    change: str, why: str, book: Book, postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = guest(postgresql, place(book))
    with postgresql.connect(place(book)) as connection:
        connection.execute(change)
    assert why in refused(url, tmp_path / "journal", monkeypatch)


@pytest.mark.parametrize(
    ("without", "why"),
    [
        ("USAGE", "no schema of its search_path exists for this role; make it with CREATE SCHEMA, or grant USAGE"),
        ("meta", "this role may not SELECT ON meta; its owner has to grant it: SELECT ON meta; SELECT ON api_keys"),
        ("leases", "this role may not SELECT ON api_key_use; its owner has to grant it: SELECT ON api_key_use; INSERT"),
    ],
)
def test_what_the_role_was_not_granted(
    without: str, why: str, book: Book, postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert why in refused(guest(postgresql, place(book), without), tmp_path / "journal", monkeypatch)


def test_the_role_can_do_no_more_than_it_has_to(book: Book, postgresql: Server) -> None:
    url = guest(postgresql, place(book))
    with postgresql.connect(url) as connection:
        can = connection.execute(
            "SELECT relname::text, privilege FROM pg_class, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE',"
            " 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege WHERE relkind IN ('r', 'v') AND relnamespace ="
            " current_schema()::regnamespace AND has_table_privilege(pg_class.oid, privilege)"
        ).fetchall()
    assert sorted(can) == sorted((name, each) for name, privileges in NEEDS.items() for each in privileges)


def test_a_server_that_others_reach_waits_for_the_first_key(
    book: Book, postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = write_release(tmp_path / "release", "http://127.0.0.1:1")
    given = ("serve", "--release-folder", str(release), "--journal", str(tmp_path / "journal"), "--port", "0")
    monkeypatch.setenv(VARIABLE, guest(postgresql, place(book)))
    open_to_all = command.run(*given, "--host", "0.0.0.0")
    assert (open_to_all.returncode, open_to_all.stderr.count("\n")) == (2, 1)
    assert "there is no API key; make one with treadle keys create" in open_to_all.stderr
    monkeypatch.setenv(VARIABLE, "postgresql://127.0.0.1:1/db")
    away = command.run(*given)
    assert (away.returncode, away.stderr.count("\n")) == (2, 1)
    assert f"{VARIABLE}: cannot connect to postgresql://127.0.0.1:1/db" in away.stderr
    monkeypatch.delenv(VARIABLE)
    assert f"{VARIABLE} is not set" in command.run(*given, "--degrade-for", "5m").stderr


@pytest.mark.parametrize(("text", "seconds"), [(None, 0.0), ("", 0.0), ("10m", 600.0)])
def test_how_long_it_degrades(text: str | None, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "postgresql://host/db")
    assert read_degrade(text) == seconds
    with pytest.raises(UserError, match=f"{DEGRADE} 'soon': expected a number and a unit"):
        read_degrade("soon")


# -- Ray Serve


async def through_replica(replica: Replica, secret: str | None) -> list[int]:
    """Statuses of answers with and without a key, between its start and its end."""
    said: list[dict[str, Any]] = []
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    happened = asyncio.Event()

    async def send(message: dict[str, Any]) -> None:
        said.append(message)
        happened.set()

    told.put_nowait({"type": "lifespan.startup"})
    living = asyncio.create_task(replica({"type": "lifespan"}, told.get, send))
    await happened.wait()
    if said[0]["type"] != "lifespan.startup.complete":
        await living
        raise UserError(said[0]["message"])
    headers = {"authorization": f"Bearer {secret}"}
    body = {"messages": [{"role": "user", "content": "one two three"}]}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(replica), base_url="http://127.0.0.1") as client:
        answers = [await client.post("/v1/chat/completions", json=body, headers=each) for each in (headers, {})]
    told.put_nowait({"type": "lifespan.shutdown"})
    await living
    return [answer.status_code for answer in answers]


def test_a_replica_of_ray_serve_takes_them_as_well(
    book: Book, postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, guest(postgresql, place(book)))
    with serve_toy() as behind:
        release = write_release(tmp_path / "release", behind.url)
        told = {"release_folder": str(release), "journal": str(tmp_path / "journal"), "name": "helper@v1"}
        arguments = Arguments(**told, digest=read_carried(release).digest, host="0.0.0.0")
        with pytest.raises(UserError, match=f"reachable from other machines.*{VARIABLE} where the project has a key"):
            asyncio.run(through_replica(Replica(arguments), None))
        key, secret = book.create("one", Limit("requests", 5))
        assert asyncio.run(through_replica(Replica(arguments), secret)) == [200, 401]
    assert book.used(key).requests == 1
