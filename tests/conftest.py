"""Fixtures that many tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from postgresql_server import Server, programs
from stores import KINDS, Kind

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real test data; missing is a skip, and a failure where CI=true."""
    path = Path(os.environ.get("TREADLE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        reason = f"no test data at {path}; set TREADLE_TEST_DATA"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(params=list(KINDS))
def store_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """How the objects of a store lie: the tests that ask for it pass for each way."""
    kind: Kind = KINDS[request.param]
    kind.use(monkeypatch)
    return kind


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server; that there is none is a skip, and a failure where CI=true."""
    folder = programs()
    if folder is None:
        reason = "no PostgreSQL server; run: pip install 'treadle[dev]'"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    server = Server(folder)
    yield server
    server.close()
