"""Whatever is changed by hand in a record is found, and named; what nobody touched passes."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from postgresql_server import Server
from treadle.core.artifacts import Artifact
from treadle.core.digest import canonical_json
from treadle.core.driver import Driver
from treadle.core.errors import TreadleError
from treadle.core.fact import canonical_row
from treadle.core.ledger import Fact, Problem
from treadle.core.merkle import Frontier, leaf_hash
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.core.workspace import Workspace
from treadle.record.record import PROJECTIONS
from treadle.record.version import Versions

from .conftest import Place, Raw

SEEDS = 16  # of each kind of tampering


@dataclass
class Record:
    """A record with its files, open to the vandal. ``database`` is the URL of its schema when it is on a server."""

    folder: Path
    raw: Raw
    chance: random.Random
    honest: Honest
    database: str | None = None

    def one_of(self, *values: object) -> object:
        """One of the values; on a server, which knows types, of those of the first one's, without NUL."""
        if self.database:
            values = tuple(value for value in values if type(value) is type(values[0]) and value != "\0")
        return self.chance.choice(values)

    @property
    def size(self) -> int:
        return int(self.raw.execute("SELECT count(*) FROM ledger").fetchone()[0])

    def any_row(self) -> int:
        return self.chance.randint(1, self.size)

    def edit(self, table: str, column: str, value: object, where: str = "true") -> None:
        self.raw.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (value,))

    def head(self) -> dict[str, object]:
        return dict(json.loads((self.folder / "head.json").read_bytes()))


@dataclass(frozen=True)
class Honest:
    """A record of some seventy rows, and the database as it was at half of them: a file, or a schema's name."""

    folder: Path
    older: Path | str
    server: Server | None = None
    schema: str = ""


Refs = set[tuple[str, str]]  # kind and ref of problems of which at least one must be found
Tamper = Callable[[Record], Refs]


@step(version=1, name="tests.make")
def make(*, text: str, run: Run) -> Artifact:
    with run.create(Artifact) as made:
        (made.path / "text.txt").write_text(text)
        run.summary(length=len(text))
        return made.commit()


def grow(workspace: Workspace, rounds: range) -> None:
    driver = Driver(workspace.runs, workspace.root, seed=1)
    versions = Versions(workspace.ledger, workspace.store, "demo")
    for number in rounds:
        artifact = driver.run(make, text=f"text {number}")
        version = versions.register("model", artifact.digest, None)
        versions.point("champion", version, reason="better")
        workspace.ledger.append(Fact("note", {"number": number, "name": f"ünï\u2028 {number}"}))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def honest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Honest:
    """The record that the tests tamper with copies of."""
    folder = tmp_path_factory.mktemp("honest")
    server: Server | None = None if request.param == "sqlite" else request.getfixturevalue("postgresql")
    url = server.schema() if server else None
    schema = url.rpartition("%3D")[2] if url else ""
    with Workspace(folder / "store", url, PROJECTIONS) as workspace:
        grow(workspace, range(6))
    older: Path | str = folder / "older.db" if server is None else f"{schema}_older"
    if server is None:
        shutil.copy(folder / "store" / "treadle.db", older)
    else:
        server.execute(f"CREATE SCHEMA {older}")
        copy_tables(server, schema, str(older))
    with Workspace(folder / "store", url, PROJECTIONS) as workspace:
        grow(workspace, range(6, 12))
        assert workspace.ledger.verify() == []
    return Honest(folder / "store", older, server, schema)


def copy_tables(server: Server, source: str, target: str) -> None:
    """The tables of one schema in another one."""
    with server.connect() as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (source,)).fetchall()
        for (name,) in tables:
            connection.execute(f"CREATE TABLE {target}.{name} (LIKE {source}.{name} INCLUDING ALL)")
            connection.execute(f"INSERT INTO {target}.{name} SELECT * FROM {source}.{name}")


def problems_of(folder: Path, database: str | None = None) -> list[Problem]:
    try:
        with Workspace(folder, database, PROJECTIONS) as workspace:
            return workspace.ledger.verify()
    except TreadleError as error:  # it cannot even be opened: that is one line with the name of the file
        return [Problem("open", "", str(error))]


# -- rows


def text_of(row: int) -> Refs:
    return {("ledger", str(row))}


def edit_body(record: Record) -> Refs:
    row = record.any_row()
    (body,) = record.raw.execute("SELECT body FROM ledger WHERE seq = ?", (row,)).fetchone()
    at = record.chance.randrange(len(body))
    changed = body[:at] + chr(ord(body[at]) ^ 1) + body[at + 1 :]
    record.edit("ledger", "body", changed, f"seq = {row}")
    return text_of(row)


def respell_body(record: Record) -> Refs:
    row = record.any_row()
    (body,) = record.raw.execute("SELECT body FROM ledger WHERE seq = ?", (row,)).fetchone()
    spelled = record.chance.choice([body + " ", json.dumps(json.loads(body)), body.replace(":", ": ", 1)])
    record.edit("ledger", "body", spelled, f"seq = {row}")
    return text_of(row)


def retype_column(record: Record) -> Refs:
    row, column = record.any_row(), record.chance.choice(["kind", "time", "body", "mac"])
    (value,) = record.raw.execute(f"SELECT {column} FROM ledger WHERE seq = ?", (row,)).fetchone()
    record.edit("ledger", column, str(value).encode(), f"seq = {row}")
    return text_of(row)


def break_text(record: Record) -> Refs:
    row, column = record.any_row(), record.chance.choice(["kind", "time", "body", "mac"])
    record.raw.execute(f"UPDATE ledger SET {column} = CAST(x'62ff80' AS TEXT) WHERE seq = ?", (row,))
    return text_of(row)


def edit_kind(record: Record) -> Refs:
    row = record.any_row()
    record.edit("ledger", "kind", record.one_of("", "erasure", "note2", "\0", 'a"b'), f"seq = {row}")
    return text_of(row)


def edit_version(record: Record) -> Refs:
    row = record.any_row()
    record.edit("ledger", "version", record.one_of(0, 2, -1, "x", 1.5), f"seq = {row}")
    return text_of(row)


def edit_time(record: Record) -> Refs:
    row = record.any_row()
    record.edit("ledger", "time", "2020-01-01T00:00:00.000000Z", f"seq = {row}")
    return text_of(row)


def edit_code(record: Record) -> Refs:
    row = record.any_row()
    record.edit("ledger", "mac", record.chance.randbytes(32).hex(), f"seq = {row}")
    return text_of(row)


def edit_seq(record: Record) -> Refs:
    row = record.any_row()
    moved = record.chance.choice([0, -5, record.size + 1, 10**15, 2**63 - 1])
    record.edit("ledger", "seq", moved, f"seq = {row}")
    return text_of(row) | {("ledger", str(moved))}


def delete_row(record: Record) -> Refs:
    row = record.chance.randint(1, record.size - 1)
    record.raw.execute("DELETE FROM ledger WHERE seq = ?", (row,))
    return text_of(row)


def cut_tail(record: Record) -> Refs:
    record.raw.execute("DELETE FROM ledger WHERE seq > ?", (record.size - record.chance.randint(1, 20),))
    return {("head", "database")}


def delete_all(record: Record) -> Refs:
    record.raw.execute("DELETE FROM ledger")
    return {("head", "database"), ("head", "head.json")}


def close_the_gap(record: Record) -> Refs:
    row = record.chance.randint(1, record.size - 1)
    record.raw.execute("DELETE FROM ledger WHERE seq = ?", (row,))
    record.raw.execute("UPDATE ledger SET seq = -seq WHERE seq > ?", (row,))
    record.raw.execute("UPDATE ledger SET seq = -seq - 1 WHERE seq < 0")
    return text_of(row)


def insert_row(record: Record) -> Refs:
    at, like = record.size + record.chance.choice([1, 2, 1000]), record.any_row()
    record.raw.execute(
        "INSERT INTO ledger SELECT ?, kind, version, time, body, mac FROM ledger WHERE seq = ?", (at, like)
    )
    return text_of(at)


def swap_rows(record: Record) -> Refs:
    one, other = record.chance.sample(range(1, record.size + 1), 2)
    for before, after in ((one, -1), (other, one), (-1, other)):
        record.edit("ledger", "seq", after, f"seq = {before}")
    return text_of(one)


def swap_bodies(record: Record) -> Refs:
    bodies = dict(record.raw.execute("SELECT seq, body FROM ledger"))
    one, other = record.chance.sample(range(1, record.size + 1), 2)
    record.edit("ledger", "body", bodies[other], f"seq = {one}")
    record.edit("ledger", "body", bodies[one], f"seq = {other}")
    return text_of(one)


def forge(record: Record) -> Refs:
    """Everything is computed anew, with other keys."""
    row, signing = record.any_row(), Ed25519PrivateKey.generate()
    record.edit("ledger", "body", canonical_json({"forged": True}).decode(), f"seq = {row}")
    frontier = Frontier()
    rows = record.raw.execute("SELECT seq, kind, version, time, body FROM ledger ORDER BY seq")
    for seq, kind, version, time, body in rows:
        frontier.append(leaf_hash(canonical_row(seq, kind, version, time, body)))
    root = frontier.root().hex()
    message = f"treadle ledger 1\n{frontier.size}\n{root}\n".encode()
    head = (frontier.encode(), root, signing.sign(message).hex())
    record.raw.execute("UPDATE ledger_head SET frontier = ?, root = ?, signature = ?", head)
    return text_of(row)


# -- heads


def edit_inner_head(record: Record) -> Refs:
    column = record.chance.choice(["size", "frontier", "root", "signature"])
    values: dict[str, list[object]] = {
        "size": [0, 1, record.size - 1, record.size + 1, 10**12, -1, "x", b"7"],
        "frontier": ["", "zz", "00" * 32, b"ab"],
        "root": ["", "zz", "00" * 32, b"ab"],
        "signature": ["", "zz", "00" * 64, b"ab"],
    }
    record.edit("ledger_head", column, record.one_of(*values[column]))
    return {("head", "database")}


def delete_inner_head(record: Record) -> Refs:
    record.raw.execute(record.chance.choice(["DELETE FROM ledger_head", "DROP TABLE ledger_head"]))
    return {("head", "database")}


def edit_outer_head(record: Record) -> Refs:
    head = record.head()
    key = record.chance.choice(list(head))
    others: list[object] = [None, 5, "5", [], "00" * 32, str(head[key])[:-1] + "0", f"{head[key]} "]
    head[key] = record.chance.choice([other for other in others if other != head[key]])
    (record.folder / "head.json").write_bytes(canonical_json(head))
    return {("head", "head.json")}


def respell_outer_head(record: Record) -> Refs:
    head, file = record.head(), record.folder / "head.json"
    spelled = [
        json.dumps(head),
        file.read_text() + "\n",
        json.dumps({**head, "note": 1}, sort_keys=True, separators=(",", ":")),
        "",
        "[]",
        "[" * 100_000,
        "\0" * 200,
    ]
    file.write_text(record.chance.choice(spelled))
    return {("head", "head.json")}


def delete_outer_head(record: Record) -> Refs:
    (record.folder / "head.json").unlink()
    return {("head", "head.json")}


def emptied(record: Record) -> str:
    """The name of the record's schema, in which nothing is left."""
    schema = str(record.database).rpartition("%3D")[2]
    record.raw.execute(f"DROP SCHEMA {schema} CASCADE")
    record.raw.execute(f"CREATE SCHEMA {schema}")
    return schema


def old_database(record: Record) -> Refs:
    if record.honest.server is None:
        record.raw.close()
        shutil.copy(record.honest.older, record.folder / "treadle.db")
    else:
        copy_tables(record.honest.server, str(record.honest.older), emptied(record))
    return {("head", "head.json")}


def old_database_without_outer_head(record: Record) -> Refs:
    old_database(record)
    (record.folder / "head.json").unlink()
    return {("head", "head.json")}


def no_database(record: Record) -> Refs:
    if record.database:
        emptied(record)
    else:
        record.raw.close()
        (record.folder / "treadle.db").unlink()
    return {("head", "head.json")}


def exchanged_keys(record: Record) -> Refs:
    key = record.chance.choice(["project.key", "ledger.key"])
    (record.folder / "keys" / key).unlink()
    return {("open", "")}  # a missing key is named before anything is read


def damaged_page(record: Record) -> Refs:
    record.raw.close()
    file = record.folder / "treadle.db"
    data = bytearray(file.read_bytes())
    pages = len(data) // 4096
    at = 4096 * record.chance.randrange(1, pages)
    data[at : at + 4096] = record.chance.randbytes(4096)
    file.write_bytes(data)
    return {("database", "integrity"), ("database", "treadle.db"), ("open", "")}


def blind_index(record: Record) -> Refs:
    """A query by kind would no longer find the row."""
    row = record.any_row()
    record.raw.execute("PRAGMA writable_schema=ON")
    (ddl,) = record.raw.execute("SELECT sql FROM sqlite_master WHERE name = 'ledger_kind'").fetchone()
    record.raw.execute("UPDATE sqlite_master SET sql = sql || ? WHERE name = 'ledger_kind'", (f" WHERE seq <> {row}",))
    record.raw.execute("PRAGMA writable_schema=RESET")
    record.raw.execute("REINDEX ledger_kind")
    record.raw.execute("PRAGMA writable_schema=ON")
    record.raw.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'ledger_kind'", (ddl,))
    record.raw.execute("PRAGMA writable_schema=RESET")
    return {("database", "integrity")}


# -- projections


def edit_projection(record: Record) -> Refs:
    table = record.chance.choice(["runs", "artifacts", "versions", "aliases"])
    if record.database:
        sql = "SELECT attname FROM pg_attribute WHERE attrelid = ?::regclass AND atttypid = 'text'::regtype"
        names, ctid = record.raw.execute(sql, (table,)).fetchall(), "ctid"
    else:
        names, ctid = record.raw.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall(), "rowid"
    column = record.chance.choice([name for (name,) in names if name not in ("id", "digest")])
    (place,) = record.chance.choice(record.raw.execute(f"SELECT {ctid} FROM {table}").fetchall())
    record.edit(table, column, record.one_of("x", 17, b"x"), f"{ctid} = '{place}'")
    return {("projection", table)}


def thin_projection(record: Record) -> Refs:
    table = record.chance.choice(["runs", "artifacts", "versions", "aliases"])
    ctid = "ctid" if record.database else "rowid"
    record.raw.execute(f"DELETE FROM {table} WHERE {ctid} = (SELECT {ctid} FROM {table} ORDER BY seq DESC LIMIT 1)")
    return {("projection", table)}


def drop_projection(record: Record) -> Refs:
    table = record.chance.choice(["runs", "artifacts", "versions", "aliases"])
    record.raw.execute(f"DROP TABLE {table}")
    return {("projection", table)}


def repoint_alias(record: Record) -> Refs:
    record.edit("aliases", "number", record.chance.randint(1, 5), "alias = 'champion'")
    return {("projection", "aliases")}


def insert_version(record: Record) -> Refs:
    record.raw.execute("INSERT INTO versions VALUES ('model', 'demo', 99, 'b3:0', NULL, '2020', 1)")
    return {("projection", "versions")}


def plant_trigger(record: Record) -> Refs:
    if record.database:
        record.raw.execute("CREATE RULE quiet AS ON INSERT TO ledger DO ALSO DELETE FROM runs")
    else:
        record.raw.execute("CREATE TRIGGER quiet AFTER INSERT ON ledger BEGIN DELETE FROM runs; END")
    return {("database", "quiet")}


TAMPERINGS: list[Tamper] = [
    edit_body,
    respell_body,
    retype_column,
    break_text,
    edit_kind,
    edit_version,
    edit_time,
    edit_code,
    edit_seq,
    delete_row,
    cut_tail,
    delete_all,
    close_the_gap,
    insert_row,
    swap_rows,
    swap_bodies,
    forge,
    edit_inner_head,
    delete_inner_head,
    edit_outer_head,
    respell_outer_head,
    delete_outer_head,
    old_database,
    old_database_without_outer_head,
    no_database,
    exchanged_keys,
    damaged_page,
    blind_index,
    edit_projection,
    thin_projection,
    drop_projection,
    repoint_alias,
    insert_version,
    plant_trigger,
]


FILES_ALONE = {retype_column, break_text, damaged_page, blind_index}  # a server knows types, and keeps its own files


@pytest.fixture
def copies(honest: Honest, tmp_path: Path) -> Iterator[Callable[[int], Record]]:
    """Fresh copies of the honest record, without its objects."""
    opened: list[Raw] = []

    def fresh(seed: int) -> Record:
        folder = tmp_path / f"copy-{seed}"
        folder.mkdir()
        names = ("treadle.db", "head.json", "format") if honest.server is None else ("head.json", "format")
        for name in names:
            shutil.copy(honest.folder / name, folder / name)
        shutil.copytree(honest.folder / "keys", folder / "keys")
        url = None
        if honest.server is not None:
            url = honest.server.schema()
            copy_tables(honest.server, honest.schema, url.rpartition("%3D")[2])
        opened.append(Place(folder, url).connect())
        return Record(folder, opened[-1], random.Random(seed), honest, url)

    yield fresh
    for connection in opened:
        connection.close()


@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda tamper: tamper.__name__)
def test_a_tampering_is_found_and_named(tamper: Tamper, copies: Callable[[int], Record], honest: Honest) -> None:
    if honest.server is not None and tamper in FILES_ALONE:
        return
    for seed in range(SEEDS if honest.server is None else SEEDS // 4):
        record = copies(seed)
        expected = tamper(record)
        record.raw.close()
        problems = problems_of(record.folder, record.database)
        found = {(problem.kind, problem.ref.partition(":")[0]) for problem in problems}
        assert problems, f"seed {seed} was not noticed"
        assert expected & found, f"seed {seed}: {problems[:3]}, expected {expected}"
        assert all("\n" not in problem.detail for problem in problems)


def test_there_are_hundreds_of_them() -> None:
    assert len(TAMPERINGS) * SEEDS >= 300


def test_an_untouched_copy_passes(copies: Callable[[int], Record]) -> None:
    record = copies(0)
    record.raw.close()
    assert problems_of(record.folder, record.database) == []


def test_what_was_noticed_stays_noticed(copies: Callable[[int], Record], honest: Honest) -> None:
    """Opening, and trying to go on working, does not cover up what was done."""
    tamperings = (edit_outer_head, delete_outer_head, old_database, cut_tail, edit_body, edit_inner_head, edit_seq)
    for seed in range(70 if honest.server is None else 14):
        tamper = tamperings[seed % len(tamperings)]
        record = copies(seed)
        tamper(record)
        record.raw.close()
        for _ in range(2):
            with Workspace(record.folder, record.database, PROJECTIONS) as workspace:
                try:
                    workspace.ledger.append(Fact("note", {}), sync=True)
                except TreadleError:
                    continue
        assert problems_of(record.folder, record.database), f"{tamper.__name__} {seed}"


def test_a_gap_of_any_size_is_one_problem(copies: Callable[[int], Record]) -> None:
    record = copies(0)
    record.edit("ledger", "seq", 2**62, "seq = 3")
    record.raw.close()
    assert len(problems_of(record.folder, record.database)) < 10


def test_a_database_that_others_have_open_is_read_at_one_moment(honest: Honest) -> None:
    url = honest.server.url(honest.schema) if honest.server else None
    with Place(honest.folder, url).raw() as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM ledger").fetchone()
        assert problems_of(honest.folder, url) == []
