"""The rows of a query become documents: in SQLite, and in a real PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from postgresql_server import Server
from treadle.core.errors import UserError
from treadle.text.accounting import Accounting, Quarantined
from treadle.text.document import Document
from treadle.text.row_mapping import Fields
from treadle.text.source import SourceContext
from treadle.text.sql_database import SqlDatabase
from treadle.text.sql_source import Sql
from treadle.text.sql_statement import check_statement

pytest.importorskip("sqlalchemy")

Collect = Callable[..., tuple[list[Document], Accounting]]
Keyed = Callable[[str], str]
Run = Callable[..., None]

TABLE = """CREATE TABLE reviews (id INTEGER PRIMARY KEY, body TEXT, stars NUMERIC(3,1), who TEXT, changed TIMESTAMP)"""
ROWS = (
    (1, "Good tea", 4.5, "Jane Doe", "2024-05-01 10:00:00"),
    (2, "Weak tea", 1.0, "John Roe", "2024-05-02 10:00:00"),
    (3, None, 3.0, "Jane Doe", "2024-05-02 10:00:00"),
    (4, "No date", 3.0, "Ann Poe", None),
)
QUERY = "SELECT id, body, stars, who, changed FROM reviews WHERE body IS NULL OR body <> 'a :word' -- end"
FIELDS = {"text": "body", "subject": "who", "time": "changed"}


def insert(run: Run, *rows: tuple[Any, ...]) -> None:
    for row in rows:
        values = ", ".join("NULL" if value is None else repr(value) for value in row)
        run(f"INSERT INTO reviews VALUES ({values})")


@pytest.fixture(params=["sqlite", "postgresql"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Run]:
    """The URL of a database with four reviews, and a way to run statements there."""
    run: Run
    if request.param == "sqlite":
        url = "sqlite:///shop.db"

        def run(statement: str) -> None:
            with closing(sqlite3.connect(tmp_path / "shop.db")) as connection, connection:
                connection.execute(statement)
    else:
        server: Server = request.getfixturevalue("postgresql")
        url = server.schema()

        def run(statement: str) -> None:
            with server.connect(url) as connection:
                connection.execute(statement)

    run(TABLE)
    insert(run, *ROWS)
    return url, run


def source(url: str, folder: Path, keyed: Keyed, **settings: Any) -> Sql:
    given: dict[str, Any] = {"query": QUERY, "key": "id", "watermark": "changed", "name": "reviews", **settings}
    return Sql(url=url, context=SourceContext(folder, keyed), **given)


def test_rows_become_documents(table: tuple[str, Run], collect: Collect, keyed: Keyed) -> None:
    settings = {"key": "id", "watermark": "changed", "fields": FIELDS, "license": "CC0-1.0", "name": "reviews"}
    documents, accounting = collect(type="sql", url=table[0], query=QUERY, **settings)
    assert (accounting.read, accounting.kept) == (4, 3)
    assert [piece.reason for piece in accounting.quarantined] == [
        "row 3: no text: column 'body' is missing or empty; there are body, changed, id, stars, who"
        if "sqlite" not in table[0]
        else "row 4: no text: column 'body' is missing or empty; there are body, changed, id, stars, who"
    ]
    found = {document.locator: document for document in documents}
    first = found["reviews#1"]
    assert (first.text, first.time, first.subject) == ("Good tea", "2024-05-01T10:00:00Z", keyed("Jane Doe"))
    assert (first.source, first.license, float(first.fields["stars"])) == ("sql", "CC0-1.0", 4.5)
    assert found["reviews#4"].time is None
    assert "Jane" not in repr(documents)


def test_only_what_is_beyond_the_cursor_is_read_again(table: tuple[str, Run], tmp_path: Path, keyed: Keyed) -> None:
    url, run = table
    opened = source(url, tmp_path, keyed, query="SELECT id, changed, body AS text FROM reviews")
    run("DELETE FROM reviews WHERE id = 4")  # NULLs sort last in one database, first in the other
    before = opened.fingerprint()
    assert len(list(opened.read())) == 3
    cursor = opened.cursor
    assert opened.fingerprint() == before
    insert(run, (5, "Same moment", 1.0, "x", "2024-05-02 10:00:00"), (6, "Later", 1.0, "x", "2024-05-03 10:00:00"))
    run("UPDATE reviews SET body = 'Better tea', changed = '2024-05-04 10:00:00' WHERE id = 1")
    assert opened.fingerprint() != before
    again = [piece.text for piece in opened.read(cursor) if isinstance(piece, Document)]
    assert again == ["Same moment", "Later", "Better tea"]
    after, last = opened.fingerprint(), opened.cursor
    assert list(opened.read(last)) == []
    run("DELETE FROM reviews WHERE id = 2")
    assert opened.fingerprint() != after


def test_without_a_watermark_the_rows_themselves_are_the_fingerprint(
    table: tuple[str, Run], tmp_path: Path, keyed: Keyed
) -> None:
    url, run = table
    opened = source(url, tmp_path, keyed, watermark=None)
    before = opened.fingerprint()
    assert before.startswith("4 rows ")
    run("UPDATE reviews SET body = 'Quietly changed' WHERE id = 1")
    assert opened.fingerprint() != before
    list(opened.read())
    assert json.loads(opened.cursor or "") == [None, 4]
    assert list(opened.read(opened.cursor)) == []


def test_nothing_can_be_written(table: tuple[str, Run], tmp_path: Path, keyed: Keyed) -> None:
    url, _ = table
    writes = ["DELETE FROM reviews RETURNING *", "WITH gone AS (DELETE FROM reviews RETURNING *) SELECT * FROM gone"]
    writes += ["SELECT 1 AS id) x; DELETE FROM reviews; --"]
    writes += ["SELECT 1 AS id) x; COMMIT; DELETE FROM reviews; SELECT * FROM (SELECT 1 AS id"]
    writes += ["SELECT 1 AS id) x, (SELECT 2 AS other", "SELECT 1 AS id /* open"]
    for query in writes:
        with pytest.raises(UserError, match="sql: "):
            list(source(url, tmp_path, keyed, query=query, watermark=None).read())
    assert len(list(source(url, tmp_path, keyed).read())) == 4


def test_a_query_that_takes_too_long_is_ended(table: tuple[str, Run], tmp_path: Path, keyed: Keyed) -> None:
    numbers = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 100000000) SELECT id FROM n"
    with pytest.raises(UserError, match=r"took over 0.2 s; raise seconds"):
        source(table[0], tmp_path, keyed, query=numbers, watermark=None, seconds=0.2).fingerprint()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"key": "idd"}, "no column 'idd'; did you mean 'id'"),
        ({"watermark": "change"}, "no column 'change'; did you mean 'changed'"),
        ({"fields": Fields(text="body", time="chnged")}, "no column 'chnged' of fields.time; did you mean 'changed'"),
        ({"key": "who"}, "who is no key: 4 rows have 3 values"),
        ({"query": "SELECT id, id, changed FROM reviews"}, "several columns called 'id'"),
        ({"query": "SELECT * FROM revues"}, "revues"),
    ],
)
def test_a_mistake_in_the_settings_is_told(
    table: tuple[str, Run], tmp_path: Path, keyed: Keyed, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match="sql: ") as caught:
        list(source(table[0], tmp_path, keyed, **settings).read())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_json_has_no_form_for(postgresql: Server, collect: Collect) -> None:
    query = """SELECT 1 AS id, 'a' AS text, 1.50::numeric AS price, '{"a": [1]}'::jsonb AS more, 'NaN'::float8 AS odd,
        '2024-01-02'::date AS day, ARRAY['x', 'y'] AS tags, '0-0-0-0-0'::text AS dashes
        UNION ALL SELECT 2, 'b', 0, NULL, 0, NULL, NULL, '' ORDER BY 1"""
    (first, _), _ = collect(type="sql", url=postgresql.url(), query=query, key="id")
    assert first.fields == {
        "price": "1.50", "more": {"a": [1]}, "odd": None, "day": "2024-01-02", "tags": ["x", "y"], "dashes": "0-0-0-0-0"
    }  # fmt: skip
    assert first.locator == "postgres#1"
    documents, accounting = collect(
        type="sql", url=postgresql.url(), query="SELECT 1 AS id, 'a' AS text, '\\x00'::bytea AS raw", key="id"
    )
    assert documents == []
    assert accounting.quarantined[0].reason == "row 1: holds a value that JSON has no form for"


def test_the_url_stays_in_the_environment(
    table: tuple[str, Run], tmp_path: Path, keyed: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP", table[0])
    monkeypatch.setenv("AT", "pa@secretword")
    monkeypatch.setenv("SLASH", "postgresql://a/b:secretword@h/x")
    (tmp_path / "here.db").touch()
    assert len(list(source("${env:SHOP}", tmp_path, keyed).read())) == 4
    SqlDatabase(
        "postgresql://me:${env:AT}@h/x?sslkey=a.key&odbc_connect=UID%3Dme%3BPWD%3D${env:AT}", where="sql", seconds=1
    )
    for url, words in [
        ("postgresql://me:secretword@h/x", "holds a password"),
        ("postgresql://h/x?password=secretword", "holds a password"),
        ("${env:NO_SUCH_URL}", "export NO_SUCH_URL"),
        ("sqlite:///absent.db", "no file"),
        ("postgresql://user@corp:secretword@h/x", "holds a password"),
        ("postgresql://h/x?token=secretword", "holds a password"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BUID%3Dme%3BPWD%3Dsecretword", "holds a password"),
        ("mssql+pyodbc:///?odbc_connect=UID=me%3B+pwd+%3D+secretword", "holds a password"),
        ("postgresql://me:${env:AT}@h/x", "as %40"),
        ("${env:SLASH}", "as %40"),
        ("sqlite:///here.db?timeout=abc", "does not take timeout"),
        ("postgresql://h:port/x", "no URL"),
        ("nowhere", "no URL"),
        ("nodb://x/y", "nodb"),
        ("postgresql://127.0.0.1:1/x", "refused"),
    ]:
        with pytest.raises(UserError, match="sql: ") as caught:
            source(url, tmp_path, keyed).fingerprint()
        assert words in str(caught.value)
        assert "secretword" not in str(caught.value)


def test_a_text_that_is_no_utf_8_is_put_aside_alone(tmp_path: Path, keyed: Keyed) -> None:
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection, connection:
        connection.execute("CREATE TABLE old (id, text)")
        connection.execute("INSERT INTO old VALUES ('a', 'Tea'), ('b', CAST(X'e9' AS TEXT)), ('c', 'Milk'), "
                           "(CAST(X'ff' AS TEXT), 'Cup')")  # fmt: skip
    opened = source("sqlite:///old.db", tmp_path, keyed, query="SELECT * FROM old", watermark=None)
    pieces = list(opened.read())
    assert [piece.text for piece in pieces if isinstance(piece, Document)] == ["Tea", "Milk"]
    assert [piece.reason for piece in pieces if isinstance(piece, Quarantined)] == [
        f"row {number}: a text that is not UTF-8, or half of a surrogate pair" for number in (2, 4)
    ]
    assert opened.cursor == '[null,"c"]'
    assert opened.fingerprint().startswith("4 rows")
    opened = source("sqlite:///old.db", tmp_path, keyed, query="SELECT * FROM old", watermark="id")
    assert opened.fingerprint().startswith("4 rows")


@pytest.mark.parametrize(
    ("dialect", "query"),
    [
        ("postgresql", "SELECT ')' AS \")\", $a$ ) ; $$ $a$, E'\\')' /* ) /* ; */ ' */ FROM t -- ) ;"),
        ("mysql", "SELECT ')\\')', \")\", `)` # ) ;\n, 1--(1) /* ) */ FROM t"),
        ("sqlite", "SELECT ')''x', [)], `)`, \")\" -- )\n FROM (SELECT 1) /* ; */"),
        ("mssql", "SELECT [a]])], ')' /* /* ) */ */ FROM t"),
        ("oracle", "SELECT (1), ')' FROM dual -- )"),
    ],
)
def test_brackets_of_strings_names_and_comments_do_not_count(dialect: str, query: str) -> None:
    check_statement(query, dialect)
    for more in (")", "(", ";", "'", "/*"):
        with pytest.raises(ValueError, match="give one SELECT"):
            check_statement(f"{query}\n{more}", dialect)


def test_code_in_a_comment_is_refused() -> None:
    with pytest.raises(ValueError, match="hides code"):
        check_statement("SELECT 1 /*! ) */", "mysql")


def test_a_mistake_in_fields_names_the_source(tmp_path: Path, keyed: Keyed) -> None:
    with pytest.raises(UserError, match=r"^sql: fields names only one of prompt and response"):
        source("sqlite:///x.db", tmp_path, keyed, fields=Fields(prompt="body"))


def test_a_value_is_not_quoted(postgresql: Server, tmp_path: Path, keyed: Keyed) -> None:
    query = "SELECT 1 AS id, ('Jane Doe' || now()::text)::int AS text"
    with pytest.raises(UserError, match="could not read a value") as caught:
        list(source(postgresql.url(), tmp_path, keyed, query=query, watermark=None).read())
    assert "Jane" not in str(caught.value)


def test_memory_does_not_hold_the_table(postgresql: Server, tmp_path: Path, keyed: Keyed) -> None:
    query = "SELECT g AS id, repeat('x', 20000) AS text FROM generate_series(1, 4000) g"  # 80 MB
    opened = source(postgresql.url(), tmp_path, keyed, query=query, watermark="id")
    tracemalloc.start()
    try:
        assert sum(1 for _ in opened.read()) == 4000
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
