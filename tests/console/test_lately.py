"""Figures that take long: given as they were, worked out again one at a time, and never by a page that waits."""

from __future__ import annotations

import threading
import time

import pytest

from treadle.console.lately import Lately


def test_the_first_to_ask_waits_a_little_and_later_ones_not_at_all() -> None:
    gate, calls = threading.Event(), []

    def work() -> int:
        calls.append(1)
        gate.wait(10)
        return len(calls)

    figure = Lately(work, keep=60)
    assert figure.get(0.01) is None
    assert figure.get() is None
    gate.set()
    assert figure.get(10) == 1
    assert figure.get() == 1
    assert len(calls) == 1


def test_what_is_out_of_date_is_worked_out_again_also_while_it_is() -> None:
    gates = [threading.Event() for _ in range(3)]
    calls: list[int] = []

    def work() -> int:
        calls.append(len(calls))
        gates[calls[-1]].wait(10)
        return calls[-1]

    figure = Lately(work, keep=60)
    figure.get()
    figure.expire()  # what is being worked out may not know of it
    gates[0].set()
    gates[1].set()
    assert figure.get(10) == 1
    figure.expire()
    assert figure.get() == 1  # as it was, until the new one is there
    gates[2].set()
    assert figure.get(10) == 2
    figure.close()


def test_what_took_long_gets_a_rest() -> None:
    calls: list[int] = []

    def work() -> int:
        calls.append(1)
        time.sleep(0.11)
        return len(calls)

    rested, restless = Lately(work, keep=0.0, rest=1e6), Lately(work, keep=60)
    assert rested.get(10) == 1
    rested.expire()
    assert rested.get(1) == 1
    assert restless.get(10) == 2
    restless.expire()
    assert restless.get(10) == 3


def test_a_failure_leaves_what_was_known(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def work() -> int:
        calls.append(1)
        if len(calls) == 2:
            raise OSError("disk")
        return len(calls)

    figure = Lately(work, keep=60)
    assert figure.get(10) == 1
    figure.expire()
    assert figure.get(10) == 1
    assert "cannot work something out: OSError: disk" in caplog.text
    figure.expire()
    assert figure.get(10) == 3
