"""Bounds that hold at every look at once, are tightest at the margin, and say honestly how long it will take."""

from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.evals.sequential import ALPHA, MARGIN, Arm, Groups, compare, further_requests, half_width

counts = st.tuples(st.integers(1, 400), st.floats(0, 1)).map(lambda pair: (pair[0], round(pair[0] * pair[1])))


def arm(n: int, good: int) -> Arm:
    return Arm(n, float(good), float(good))


def share_of_decisions(base: float, difference: float, *, tenth: int, horizon: int = 3_000, canaries: int = 200):
    """How many of the canaries were ever called lower, and close enough; the first ``tenth`` requests at 10 %."""
    rng = np.random.default_rng(int(1000 * base) + tenth)
    lower = close = 0
    stops = []
    for _ in range(canaries):
        drawn = rng.random(horizon) < np.where(np.arange(horizon) < tenth, 0.1, 0.5)
        good = rng.random(horizon) < base + difference * drawn
        new, old = Arm(), Arm()
        was_lower = was_close = False
        for number, (which, value) in enumerate(zip(drawn.tolist(), good.tolist(), strict=True)):
            (new if which else old).add(value)
            found = compare(new, old)
            was_close = was_close or found.close_enough
            if found.lower and not was_lower:
                was_lower = True
                stops.append(number)
            if was_lower and was_close:
                break
        lower += was_lower
        close += was_close
    return lower / canaries, close / canaries, stops


@pytest.mark.parametrize(("base", "tenth"), [(0.8, 50), (0.95, 1_000), (0.05, 1_000)])
def test_no_difference_is_called_one_as_seldom_as_it_says_at_all_looks_together(base: float, tenth: int) -> None:
    lower, close, _ = share_of_decisions(base, 0.0, tenth=tenth)
    assert lower <= ALPHA
    assert close > 0.5


@pytest.mark.parametrize(("base", "tenth"), [(0.8, 50), (0.99, 1_000), (0.1, 1_000)])
def test_a_loss_of_the_margin_is_found_and_is_seldom_called_close_enough(base: float, tenth: int) -> None:
    lower, close, _ = share_of_decisions(base, -MARGIN, tenth=tenth)
    assert close <= ALPHA
    assert lower > 0.7


def test_a_larger_loss_is_found_sooner() -> None:
    medians = [
        statistics.median(share_of_decisions(0.8, loss, tenth=50, canaries=60)[2]) for loss in (-0.1, -0.2, -0.5)
    ]
    assert medians == sorted(medians, reverse=True)
    assert medians[-1] < medians[0] / 3


@given(new=counts, old=counts)
def test_swapping_the_arms_swaps_the_bounds(new: tuple[int, int], old: tuple[int, int]) -> None:
    one, other = compare(arm(*new), arm(*old)), compare(arm(*old), arm(*new))
    assert one.value is not None
    assert other.value == pytest.approx(-one.value)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))


@given(new=counts, old=counts)
def test_the_bounds_surround_the_difference_and_ten_times_the_values_bring_them_closer(
    new: tuple[int, int], old: tuple[int, int]
) -> None:
    found = compare(arm(*new), arm(*old))
    assert found.value is not None
    assert -1 <= found.low <= found.value <= found.high <= 1
    more = compare(arm(new[0] * 10, new[1] * 10), arm(old[0] * 10, old[1] * 10))
    assert more.high - more.low <= found.high - found.low


@given(information=st.floats(0.1, 1e8), alpha=st.floats(1e-6, 0.2), margin=st.floats(0.005, 0.5))
def test_the_bound_is_where_the_mixed_likelihood_ratio_says_two_over_alpha(
    information: float, alpha: float, margin: float
) -> None:
    score = half_width(information, margin, alpha) * information
    # The posterior of the effect is normal: integrate the likelihood ratio over the mixture numerically around it.
    spread = margin / 2
    precision = 1 / spread**2 + information
    center = (score + margin / spread**2) / precision
    effects = center + np.linspace(-9, 9, 4_001) / math.sqrt(precision)
    logs = effects * score - effects**2 * information / 2 - ((effects - margin) / spread) ** 2 / 2
    logs -= math.log(spread * math.sqrt(2 * math.pi))
    step = effects[1] - effects[0]
    total = logs.max() + math.log(float(np.exp(logs - logs.max()).sum()) * step)
    assert total == pytest.approx(math.log(2 / alpha), abs=1e-3 * max(1.0, abs(logs.max())))


@given(information=st.floats(1e-3, 1e9), margin=st.floats(0.01, 0.5))
def test_more_information_and_less_certainty_make_the_bounds_narrower(information: float, margin: float) -> None:
    assert half_width(2 * information, margin) < half_width(information, margin)
    assert half_width(information, margin, 0.1) < half_width(information, margin, 0.01)


def test_the_mixture_is_made_for_the_margin() -> None:
    def enough(tuned_for: float) -> float:
        """Information at which a difference of .05 is told from none."""
        low, high = 1.0, 1e7
        for _ in range(100):
            middle = math.sqrt(low * high)
            low, high = (low, middle) if half_width(middle, tuned_for) <= 0.05 else (middle, high)
        return high

    needed = {tuned: enough(tuned) for tuned in (0.005, 0.02, 0.05, 0.15, 0.5)}
    assert min(needed, key=lambda tuned: needed[tuned]) == 0.05
    # Wald: a test against one simple alternative needs 2 log(1 / error) at the least; a mixture costs a little more.
    least = 2 * math.log(2 / ALPHA) / 0.05**2
    assert least < needed[0.05] < 1.3 * least


def test_an_empty_arm_tells_nothing() -> None:
    for new, old in ((Arm(), Arm()), (arm(50, 0), Arm()), (Arm(), arm(50, 50))):
        found = compare(new, old)
        assert (found.value, found.low, found.high) == (None, -1.0, 1.0)
        assert not (found.lower or found.higher or found.close_enough)


@pytest.mark.parametrize("good", [0, 1])
def test_values_that_are_all_equal_do_not_make_it_sure(good: int) -> None:
    found = compare(arm(5, 5 * good), arm(45, 45 * good))
    assert found.value == 0
    assert found.low < -0.2
    assert found.high > 0.2
    assert compare(arm(5_000, 5_000 * good), arm(5_000, 5_000 * good)).close_enough


def test_one_value_in_each_arm_decides_nothing_however_different() -> None:
    found = compare(arm(1, 0), arm(1, 1))
    assert found.value == -1
    assert not found.lower


def test_scores_that_vary_little_are_told_apart_sooner_than_yes_and_no() -> None:
    new, old = Arm(), Arm()
    for number in range(60):
        new.add(0.6 + 0.02 * (number % 3))
        old.add(0.8 + 0.02 * (number % 3))
    assert compare(new, old).lower
    rates = compare(arm(60, 37), arm(60, 49))
    assert not rates.lower
    assert compare(new, old).high < rates.high


def test_groups_of_one_are_worth_what_they_are() -> None:
    groups, plain = Groups(), Arm()
    for number in range(40):
        groups.add(number % 3 == 0, number if number % 2 else None)
        plain.add(number % 3 == 0)
    worth = groups.worth()
    assert groups.count == 40
    assert (worth.n, worth.total, worth.squares) == pytest.approx((plain.n, plain.total, plain.squares))


def test_people_who_always_say_the_same_are_worth_one_value_each() -> None:
    groups = Groups()
    for person in range(12):
        for _ in range(10):
            groups.add(person % 2, person)
    worth = groups.worth()
    assert worth.n == pytest.approx(12)
    assert worth.mean == groups.values.mean == 0.5


def test_one_voice_repeated_without_end_is_one_voice() -> None:
    groups = Groups()
    for _ in range(5_000):
        groups.add(0.0, 1)
    assert groups.worth().n == pytest.approx(1)
    assert not compare(groups.worth(), arm(500, 450)).lower


def test_no_group_outweighs_the_others() -> None:
    groups = Groups()
    for number in range(5_000):
        groups.add(float(number % 2), 1)
    for number in range(90):
        groups.add(1.0, number + 2)
    assert groups.values.mean == pytest.approx((2_500 + 90) / 5_090)
    assert groups.worth().mean == pytest.approx((5 + 90) / 100)


def test_taste_that_differs_between_people_raises_no_false_alarm() -> None:
    """Thirty people with ten ratings each, half of them in each arm by lot, and no difference between the arms."""
    random_ = random.Random(5)
    alarms = {"people": 0, "ratings": 0}
    for _ in range(120):
        taste = [random_.betavariate(1.2, 0.6) for _ in range(60)]
        arms = [(Groups(), Groups()), (Groups(), Groups())]
        lower = {"people": False, "ratings": False}
        for _ in range(10):
            for person, liking in enumerate(taste):
                value = float(random_.random() < liking)
                arms[0][person % 2].add(value, person)
                arms[1][person % 2].add(value)
            for name, (new, old) in zip(lower, arms, strict=True):
                lower[name] = lower[name] or compare(new.worth(), old.worth()).lower
        for name, seen in lower.items():
            alarms[name] += seen
    assert alarms["people"] / 120 <= ALPHA / 2
    assert alarms["ratings"] > alarms["people"]


def test_the_projection_is_about_the_number_it_takes() -> None:
    _, _, stops = share_of_decisions(0.8, -MARGIN, tenth=50, horizon=6_000, canaries=100)
    projected = further_requests(arm(50, 40), arm(50, 40), share=0.5, per_request=1.0)
    assert projected is not None
    assert 0.6 < (100 + projected) / statistics.median(stops) < 1.6


def test_half_the_ratings_take_twice_the_requests() -> None:
    new, old = arm(40, 32), arm(60, 48)
    whole, half, fifth = (further_requests(new, old, share=0.5, per_request=each) for each in (1.0, 0.5, 0.2))
    assert whole is not None
    assert half == pytest.approx(2 * whole, abs=2)
    assert fifth == pytest.approx(5 * whole, abs=5)


def test_the_projection_knows_never_and_already() -> None:
    assert further_requests(Arm(), Arm(), share=0.5, per_request=0.0) is None
    assert further_requests(Arm(), arm(20, 10), share=0.5, per_request=0.3) is not None
    assert further_requests(arm(100, 10), arm(100, 90), share=0.5, per_request=1.0) == 0
    narrow = further_requests(arm(3_000, 2_325), arm(3_000, 2_400), share=0.5, per_request=1.0)
    wide = further_requests(arm(30, 24), arm(30, 24), share=0.5, per_request=1.0)
    assert narrow is not None
    assert wide is not None
    assert narrow > wide  # a loss of half the margin is the hardest to place
