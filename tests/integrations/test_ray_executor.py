"""Ray, a real one: the bytes of the other executors, errors as they were raised, nothing open and nothing left."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from treadle.core.errors import MissingExtra, UserError
from treadle.core.executors import Executor, InProcess, Pool
from treadle.core.plugins import load
from treadle.text.accounting import Accounting
from treadle.text.corpus import write_corpus
from treadle.text.document import Document, document_id
from treadle.text.transform import load_transforms, run_transforms

psutil = pytest.importorskip("psutil")
if find_spec("ray") is None:  # not imported here: what it listens on is settled when it is
    pytest.skip("ray is not installed", allow_module_level=True)

STEPS: list[Any] = [
    "normalize",
    {"filter": {"min_chars": 20}},
    "deduplicate",
    {"redact": {"kinds": ["email"]}},
    {"deduplicate_near": {"threshold": 0.8}},
]


@pytest.fixture(scope="module")
def ray() -> Iterator[Executor]:
    made: Executor = load("treadle.executors", "ray").value(workers=2)
    yield made
    made.close()


def _written(folder: Path, executor: Executor) -> tuple[dict[str, bytes], dict[str, Any]]:
    words = [f"word{n * n % 97}" for n in range(400)]
    documents = [
        Document(document_id("t", str(n), text.encode()), "t", str(n), text)
        for n in range(2_500)
        for text in [f"{' '.join(words[n % 300 : n % 300 + n % 40])}  u{n % 50}@mail.test"]
    ]
    folder.mkdir()
    accounting = Accounting()
    write_corpus(folder, run_transforms([documents], load_transforms(STEPS, None), accounting, executor.map))
    accounting.write(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}, accounting.to_json()


def test_process_pool_and_ray_write_the_same_bytes(tmp_path: Path, ray: Executor) -> None:
    alone, accounting = _written(tmp_path / "process", InProcess())
    assert accounting["dropped"].keys() >= {"filter.min_chars", "deduplicate.exact"}
    pool = Pool(2)
    try:
        assert _written(tmp_path / "pool", pool) == (alone, accounting)
    finally:
        pool.close()
    assert _written(tmp_path / "ray", ray) == (alone, accounting)


def _of_ray() -> list[Any]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if any("ray" in word for word in child.cmdline())]


def test_an_error_is_the_one_that_was_raised(ray: Executor) -> None:
    def raises(number: int) -> int:
        if number == 3:
            raise MissingExtra("numba", extra="filters")
        return -number

    results = ray.map(raises, range(9))
    assert [next(results) for _ in range(3)] == [0, -1, -2]
    with pytest.raises(MissingExtra, match=r"^numba is not installed; run: pip install 'treadle\[filters\]'$"):
        next(results)


def test_nothing_listens_beyond_this_machine(ray: Executor) -> None:
    assert list(ray.map(abs, [-1])) == [1]
    open_at = {
        connection.laddr.ip
        for child in _of_ray()
        for connection in child.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert open_at <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert open_at


@pytest.mark.slow
def test_closing_ends_it_and_it_starts_again(ray: Executor) -> None:
    assert list(ray.map(abs, [-1])) == [1]
    before = _of_ray()
    assert before
    folder = Path(str(vars(ray)["_folder"]))
    assert folder.stat().st_mode & 0o077 == 0
    ray.close()
    _, left = psutil.wait_procs(before, timeout=20)
    assert not left
    assert not folder.exists()
    assert list(ray.map(abs, range(-5, 0))) == [5, 4, 3, 2, 1]


def test_settings_are_checked_before_anything_starts() -> None:
    with pytest.raises(UserError, match="expected workers of 1 or more, not 0"):
        load("treadle.executors", "ray").value(workers=0)
