"""When a breaker lets requests through, on a clock that the test moves."""

from __future__ import annotations

from treadle.lm.breaker import Breaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def made(clock: Clock, failures: int = 3) -> Breaker:
    return Breaker(failures, window=10, pause=5, clock=clock)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.begin()
        breaker.failed()


def test_failures_in_a_row_within_the_window_open_it() -> None:
    clock = Clock()
    breaker = made(clock)
    fail(breaker, 2)
    assert breaker.allows()
    fail(breaker, 1)
    assert (breaker.state, breaker.allows(), breaker.seconds) == ("open", False, 5.0)
    assert breaker.times_opened == 1


def test_failures_that_are_far_apart_or_broken_by_a_success_do_not() -> None:
    clock = Clock()
    breaker = made(clock)
    for _ in range(10):
        fail(breaker, 1)
        clock.now += 6
    assert breaker.state == "closed"
    breaker = made(clock)
    for _ in range(10):
        fail(breaker, 2)
        breaker.begin()
        breaker.succeeded()
    assert breaker.state == "closed"


def test_one_request_tries_it_after_the_pause() -> None:
    clock = Clock()
    breaker = made(clock, failures=1)
    fail(breaker, 1)
    clock.now += 5
    assert (breaker.state, breaker.allows()) == ("half_open", True)
    breaker.begin()
    assert not breaker.allows()
    breaker.failed()
    assert (breaker.state, breaker.seconds, breaker.times_opened) == ("open", 5.0, 2)
    clock.now += 5
    breaker.begin()
    breaker.undecided()
    assert breaker.allows()
    breaker.begin()
    breaker.succeeded()
    assert (breaker.state, breaker.allows()) == ("closed", True)


def test_what_was_sent_before_it_opened_does_not_decide() -> None:
    clock = Clock()
    breaker = made(clock, failures=1)
    breaker.begin()
    fail(breaker, 1)
    breaker.succeeded()
    assert breaker.state == "open"
    breaker.failed()
    assert (breaker.seconds, breaker.times_opened) == (5.0, 1)
