"""A database behind an SQLAlchemy URL, read only: nothing in it is changed, and no password stands in a file.

A URL may name variables of the environment, ``${env:NAME}``, whole or in part; one that holds a password is refused.
Rows stream, by a cursor in the server where the driver has one, within one transaction and a limit of time.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from treadle.core.errors import MissingExtra, UserError
from treadle.core.secrets import conceal, is_secret
from treadle.text.sql_statement import check_statement

_ENV = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
_PASSWORD = re.compile(r"^[A-Za-z0-9_+]+://[^:/]*:[^@]+@")  # as SQLAlchemy reads a URL
_PASSWORD_SETTING = re.compile(r"(?i)(?:pass(?:word|wd|phrase)?|pwd|token|secret|credentials?|_?key)\Z")
_NO_PASSWORD = re.compile(r"(?i)(?:ssl|cert|host|public)_?key\Z")  # a file's path
_AT_ONCE = 250  # rows fetched at a time
_STEPS = 100_000  # of SQLite's machine between two looks at the clock


class SqlDatabase:
    """One database; ``where`` begins the errors, ``seconds`` is what all reading within one transaction may take."""

    def __init__(self, url: str, *, where: str, seconds: float, folder: Path | None = None) -> None:
        if _holds_password(_ENV.sub("", url)):
            raise UserError(f"{where}: the URL holds a password; put it into a variable and write ${{env:NAME}}")
        self._url, self._where, self._seconds, self._folder = url, where, seconds, folder

    def name(self) -> str:
        """What the database is called, without its server: the name of a file, or of the database."""
        return Path(str(self._parsed().database or "memory").partition("?")[0]).name

    @contextmanager
    def reading(self) -> Iterator[SqlReading]:
        """One read-only transaction, which sees one moment wherever the database can do that.

        ``UserError`` for whatever goes wrong in it, in the database's own words without what is in a row.
        """
        exc, create_engine = _sqlalchemy()
        url = self._parsed()
        try:
            engine, connection = self._connected(create_engine, url)
            try:
                with connection:
                    yield SqlReading(connection, self._where, self._seconds)
            finally:
                engine.dispose()
        except (exc.SQLAlchemyError, ModuleNotFoundError) as error:
            raise UserError(f"{self._where}: {self._told(error, url.password)}") from None

    def _connected(self, create_engine: Any, url: Any) -> tuple[Any, Any]:
        try:
            engine = create_engine(url)
            return engine, engine.connect()
        except (TypeError, ValueError):  # the driver's own, of a setting that it was given
            told = f"the driver does not take {', '.join(sorted(url.query)) or 'this'}; check what stands after the ?"
            raise UserError(f"{self._where}: {told} in the URL") from None

    def _parsed(self) -> Any:
        _sqlalchemy()
        from sqlalchemy import exc, make_url

        try:
            url = make_url(_ENV.sub(self._environment, self._url))
        except (exc.ArgumentError, ValueError):
            raise UserError(f"{self._where}: that is no URL SQLAlchemy knows; write postgresql://host/db") from None
        if "@" in (url.host or "") or (url.host and "@" in (url.database or "")):
            told = "the URL has an @ too many; write one in a user or password as %40, and / as %2F"
            raise UserError(f"{self._where}: {told}")
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        if url.drivername.partition("+")[0] == "sqlite" and url.database and url.database != ":memory:":
            url = url.set(database=str(self._file(url.database)))
        return url

    def _file(self, name: str) -> Path:
        """SQLite would make an empty database of a path that is not there."""
        path = (self._folder or Path()) / name
        if not path.is_file():
            raise UserError(f"{self._where}: no file {path}; give the path of the database, as in sqlite:///ratings.db")
        return path

    def _environment(self, match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if not value:
            raise UserError(f"{self._where}: ${{env:{match[1]}}} is not set; export {match[1]}=...")
        return value

    def _told(self, error: Exception, password: str | None) -> str:
        """An error's words. One about a value would quote it; one about the time is told by the setting."""
        if isinstance(error, ModuleNotFoundError):
            extra = "; run: pip install 'treadle[postgres]'" if error.name == "psycopg" else ""
            return f"the driver {error.name} is not installed{extra}"
        cause = getattr(error, "orig", None) or error
        kind = type(cause).__name__
        if kind == "QueryCanceled" or str(cause) == "interrupted":
            return f"the database took over {self._seconds:g} s; raise seconds, or ask for fewer rows"
        if kind in ("DataError", "IntegrityError") or type(error).__name__ in ("DataError", "IntegrityError"):
            return f"the database could not read a value ({kind}); check the query"
        said = (str(cause).splitlines() or [kind])[0]
        said = conceal(said.replace(password, "[secret]") if password else said)[:200]
        return f"the database said: {said}; check the URL and the query"


class SqlReading:
    """Queries within one transaction."""

    def __init__(self, connection: Any, where: str, seconds: float) -> None:
        self._connection, self._where, self._seconds = connection, where, seconds
        self._deadline = time.monotonic() + seconds
        self.dialect = str(connection.dialect.name)
        prepare = {"postgresql": self._postgresql, "sqlite": self._sqlite, "mysql": self._mysql}.get(self.dialect)
        if prepare:
            prepare()

    def columns(self, query: str) -> list[str]:
        """What the columns of a query are called; ``UserError`` where two are called the same, or it is no query."""
        from sqlalchemy import text

        try:
            check_statement(query, self.dialect)
        except ValueError as error:
            raise UserError(f"{self._where}: {error}") from None
        result = self._connection.execute(text(_escaped(f"SELECT * FROM ({query}\n) treadle_rows WHERE 1 = 0", ())))
        names = list(result.keys())
        # SQLite calls the second of two columns `id:1`.
        plain = [re.sub(r":\d+\Z", "", name) if self.dialect == "sqlite" else name for name in names]
        repeated = sorted({name for name in plain if plain.count(name) > 1})
        if repeated:
            raise UserError(f"{self._where}: the query has several columns called {repeated[0]!r}; rename them with AS")
        return names

    def rows(self, query: str, values: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """The rows of a query as they come, by the names of their columns; memory holds a few hundred of them.

        A colon before a word in ``query`` is a parameter only where ``values`` has it.
        """
        from sqlalchemy import text

        given = dict(values or {})
        options = {"stream_results": True, "max_row_buffer": _AT_ONCE}
        result = self._connection.execute(text(_escaped(query, given)), given, execution_options=options)
        names = list(result.keys())
        for block in result.partitions(_AT_ONCE):
            if time.monotonic() > self._deadline:
                raise UserError(f"{self._where}: reading took over {self._seconds:g} s; raise seconds")
            for row in block:
                yield dict(zip(names, row, strict=True))

    def quoted(self, column: str) -> str:
        """A column's name as SQL has it."""
        return str(self._connection.dialect.identifier_preparer.quote_identifier(column))

    def _postgresql(self) -> None:
        self._connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        # Each fetch is a statement of its own, so this alone would not bound the whole.
        self._connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, int(self._seconds * 1000))}")

    def _sqlite(self) -> None:
        driver = self._connection.connection.driver_connection
        # One text that is no UTF-8 would end the reading of all.
        driver.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        driver.execute("PRAGMA query_only = ON")
        driver.set_progress_handler(lambda: time.monotonic() > self._deadline, _STEPS)
        driver.execute("BEGIN")  # Python's own begins no transaction for a SELECT

    def _mysql(self) -> None:
        self._connection.exec_driver_sql(f"SET SESSION max_execution_time = {max(1, int(self._seconds * 1000))}")
        self._connection.rollback()
        self._connection.exec_driver_sql("START TRANSACTION READ ONLY, WITH CONSISTENT SNAPSHOT")


def _holds_password(url: str) -> bool:
    """Whether a URL without its references has a password, among its settings or those of ODBC within them, too."""
    if _PASSWORD.search(url):
        return True
    settings = parse_qsl(url.partition("?")[2])
    for name, value in list(settings):
        if name.lower() == "odbc_connect":
            settings += [(key.strip(), given.strip()) for key, _, given in (e.partition("=") for e in value.split(";"))]
    return any(
        bool(value) and (is_secret(name, value) or _PASSWORD_SETTING.search(name) is not None)
        for name, value in settings
        if not _NO_PASSWORD.search(name)
    )


def _escaped(query: str, parameters: Iterable[str]) -> str:
    """A query in which SQLAlchemy sees no parameters but these: 'a :word' is text, and ``x::date`` a cast."""
    known = "|".join(re.escape(name) for name in parameters)
    return re.sub(r"(?<![:\w\\]):(?=\w)" + (rf"(?!(?:{known})\b)" if known else ""), r"\:", query)


def _sqlalchemy() -> tuple[Any, Any]:
    try:
        from sqlalchemy import create_engine, exc
    except ModuleNotFoundError:
        raise MissingExtra("sqlalchemy", extra="sql") from None
    return exc, create_engine
