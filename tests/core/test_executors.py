"""The pool keeps its processes from one transform to the next, and says what happened when one is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from treadle.core.errors import MissingExtra, TreadleError, UserError
from treadle.core.executors import Pool
from treadle.stages.prepare.chain import executor_for


def _process(_: int) -> int:
    return os.getpid()


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(1)
    yield made
    made.close()


def test_processes_stay_until_it_is_closed(pool: Pool) -> None:
    first = set(pool.map(_process, range(3)))
    assert first == set(pool.map(_process, range(3)))
    assert len(first) == 1
    assert os.getpid() not in first
    pool.close()
    assert set(pool.map(_process, range(3))).isdisjoint(first)


def test_a_killed_worker_is_told_and_the_next_call_works(pool: Pool) -> None:
    with pytest.raises(TreadleError, match=r"a process of the pool was killed .* run the same command again"):
        list(pool.map(os._exit, [9]))
    assert list(pool.map(abs, [-1, -2])) == [1, 2]


def test_two_maps_feed_one_another_on_the_same_workers(pool: Pool) -> None:
    assert list(pool.map(abs, pool.map(int, (str(-n) for n in range(40))))) == list(range(40))


def test_fewer_workers_than_one() -> None:
    with pytest.raises(UserError, match="expected workers of 1 or more, not 0"):
        Pool(0)


def _lacks(_: int) -> int:
    raise MissingExtra("numba", extra="filters")


def test_an_error_is_the_one_that_was_raised(pool: Pool) -> None:
    with pytest.raises(MissingExtra, match=r"^numba is not installed"):
        list(pool.map(_lacks, [1]))
    assert list(pool.map(abs, [-1])) == [1]


def test_what_the_file_says_of_where_transforms_run() -> None:
    found = executor_for({"pool": {"workers": 3}})
    assert isinstance(found, Pool)
    assert found.workers == 3
    assert executor_for("process").name == "process"
    for on, message in (
        ("pol", "there is no executor called 'pol'; did you mean 'pool'"),
        ({"pool": {"worker": 2}}, r"prepare\.on \(pool\): no setting 'worker'; did you mean 'workers'"),
        ({"pool": {"workers": "two"}}, r"workers: input should be a valid integer"),
        ({"pool": {"workers": 0}}, "expected workers of 1 or more"),
        ({"pool": {}, "ray": {}}, "prepare.on: expected a name, or one name with its settings"),
    ):
        with pytest.raises(UserError, match=message):
            executor_for(on)
