"""Fixtures that many tests share."""

from __future__ import annotations

import gc
import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from blake3 import blake3
from hypothesis import settings

import command
from postgresql_server import Server, programs
from stores import IN_A_BUCKET, KINDS, Kind

# Whichever test imports Ray first: a cluster of these processes stays on this machine.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("no clock", deadline=None)  # how long an example takes depends on what else runs
settings.load_profile("no clock")


# Tests that share a project or a model which takes long to make: one worker makes it once.
TOGETHER = (
    *("console/", "docs/", "core/test_tampering.py", "core/test_random_tampering.py", "record/test_presence.py"),
    *("cycle/test_follow.py", "cycle/test_second_turn.py", "cycle/test_lake.py", "cycle/test_pretrained.py"),
    *("cycle/test_worse_challengers.py", "cycle/test_from_nothing.py", "evals/test_runner.py"),
    *("importing/test_lock.py", "importing/test_mlflow.py", "importing/test_model.py", "importing/test_logs.py"),
    *("integrations/test_mlflow_tracking.py", "integrations/test_ray_executor.py", "serve/test_real_engine.py"),
    *("lm/test_engine_openvino.py", "lm/test_classification.py", "lm/test_pretraining.py", "text/test_python_docs.py"),
    ("text/test_english.py", "text/test_quality_filters.py"),  # what one of them compiles, all use
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep those together. (xdist's groups do nothing with pytest 9: it writes them where pytest no longer looks.)"""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.removeprefix("tests/")
            return next((str(names) for names in TOGETHER if path.startswith(names)), nodeid)

    return Together(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole cycles first, as they take longest: else one worker waits for the other's last. Real trainings may take
    their time, as the machine is."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/cycle/"))
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(3_600))


def pytest_collection_finish() -> None:
    """What all tests import is not looked through for garbage again, nor what some import (boto) so often: a third of
    the time of tests with buckets went into that."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)


def pytest_sessionfinish() -> None:
    """End the process from which commands were forked."""
    command.close()


@pytest.fixture(autouse=True)
def same_folder() -> Iterator[None]:
    """End where it began: `treadle -C DIR` within a test would leave the next one elsewhere."""
    folder = Path.cwd()
    yield
    os.chdir(folder)


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
def folder_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """How the objects of a store in a folder lie: the tests that ask for it pass for each way."""
    kind: Kind = KINDS[request.param]
    kind.use(monkeypatch)
    return kind


@pytest.fixture(params=[*KINDS, "bucket", pytest.param("bucket-encrypted", marks=pytest.mark.slow)])
def store_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """How the objects of a store lie, in a folder or in a bucket (S3): the tests that ask for it pass for each way."""
    return _kind(request, monkeypatch)


@pytest.fixture(params=[*KINDS, *(pytest.param(name, marks=pytest.mark.slow) for name in IN_A_BUCKET)])
def heavy_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """The same, for tests that put so much that a bucket takes long."""
    return _kind(request, monkeypatch)


def _kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    kind = KINDS.get(request.param)
    if kind is None:
        kind = replace(IN_A_BUCKET[request.param], bucket=request.getfixturevalue("bucket"))
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


@pytest.fixture(scope="session")
def s3() -> Iterator[int]:
    """A server that speaks S3; the number of its port."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield int(server.get_host_and_port()[1])
    server.stop()


@pytest.fixture
def bucket(s3: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place in an empty bucket; where it is and the keys to it are in the environment."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    name = "b" + blake3(os.fsencode(tmp_path)).hexdigest()[:20]
    httpx.put(f"http://127.0.0.1:{s3}/{name}").raise_for_status()
    return f"s3://{name}/team"
