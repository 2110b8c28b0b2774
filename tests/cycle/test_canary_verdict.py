"""Every decision about a canary, from the interactions and the feedback that the server records."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from treadle.core.digest import canonical_json
from treadle.evals.sequential import ALPHA, Arm, compare
from treadle.record.canary import Canary, CanarySettings
from treadle.record.feedback import Feedback, Kind, new_feedback_id
from treadle.record.interaction import Interaction, Seconds, Tokens, new_interaction_id
from treadle.stages.govern.arms import RATED_OF_ONE, SLACK
from treadle.stages.govern.canary import Verdict, look

NEW, CHAMPION = "b3:" + "1" * 64, "b3:" + "2" * 64
BEGUN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WIDENED = BEGUN + timedelta(minutes=2)
SETTINGS = CanarySettings()


def iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def canary(share: float = 0.5) -> Canary:
    step = WIDENED if share == 0.5 else BEGUN
    return Canary("can-1", NEW, "b3:" + "3" * 64, CHAMPION, share, iso(BEGUN), iso(step))


@dataclass
class Traffic:
    """Requests one after the other, ten a second unless told otherwise."""

    share: float = 0.5
    time: datetime = WIDENED
    rows: list[Interaction] = field(default_factory=list)
    said: list[Feedback] = field(default_factory=list)
    pause: timedelta = timedelta(milliseconds=100)

    def ask(self, new: bool, *, seconds: float = 1.0, ttft: float | None = 0.1, **fields: Any) -> Interaction:
        self.time += self.pause
        row = Interaction(
            id=new_interaction_id(),
            request="req",
            time=iso(self.time),
            release=NEW if new else CHAMPION,
            model="m@v2" if new else "m@v1",
            endpoint="/v1/chat/completions",
            status="ok",
            store=True,
            answer="It opens a file.",
            tokens=Tokens(12, 31),
            seconds=Seconds(0.0, ttft, seconds),
            share=self.share if new else 1 - self.share,
        )
        self.rows.append(replace(row, **fields))
        return self.rows[-1]

    def say(self, row: Interaction, value: float | None, kind: Kind = "thumbs", user: str | None = None) -> Feedback:
        self.time += timedelta(milliseconds=1)
        text = "Better." if kind == "correction" else None
        self.said.append(Feedback(new_feedback_id(), row.id, iso(self.time), kind, value, text, user=user))
        return self.said[-1]

    def rate(self, new: bool, value: float) -> None:
        """One more answer, rated by the person who asked."""
        row = self.ask(new)
        self.say(row, value, user=f"person-{len(self.rows)}")

    def many(self, count: int, *, good: tuple[float, float] | None = None) -> Traffic:
        """Alternating; ``good``: rated so in exactly these shares, new and champion."""
        owed = [0.0, 0.0]
        for number in range(count):
            side = number % 2
            if good is None:
                self.ask(new=side == 0)
                continue
            owed[side] += good[side]
            self.rate(side == 0, float(owed[side] >= 0.999999))
            owed[side] -= owed[side] >= 0.999999
        return self

    def look(self, settings: CanarySettings = SETTINGS, *, share: float | None = None, **at: Any) -> Verdict:
        now = at.get("now", self.time + timedelta(seconds=1))
        return look(settings, canary(self.share if share is None else share), self.rows, self.said, now)


def first_step() -> Traffic:
    return Traffic(0.1, BEGUN)


def test_it_waits_until_a_step_has_its_requests_and_then_widens() -> None:
    traffic = first_step()
    for number in range(49):
        traffic.ask(new=number % 10 == 0)
    waiting = traffic.look()
    assert (waiting.action, waiting.reason) == ("wait", "49 of 50 requests at 10%")
    traffic.ask(new=False)
    widened = traffic.look()
    assert widened.action == "widen"
    assert "errors 0/0" in widened.reason
    assert widened.figures["n"] == {"new": 5, "champion": 45, "step": 50}


def test_requests_of_an_earlier_step_do_not_count_for_this_one() -> None:
    traffic = Traffic(0.5, BEGUN, pause=timedelta(seconds=1)).many(100)
    assert traffic.look().action == "wait"
    traffic.pause = timedelta(seconds=60)
    assert traffic.many(50).look().figures["n"]["step"] == 50


def test_without_ratings_it_ends_undecided_and_tells_what_it_saw() -> None:
    verdict = Traffic().many(104).look()
    assert verdict.action == "undecided"
    expected = "quality not decidable at n=104 (no rated answer): errors 0/0, time to first token 100/100 ms"
    assert verdict.reason == expected
    assert verdict.figures["quality"] == {
        "n": {"new": 0, "champion": 0},
        "new": None,
        "champion": None,
        "difference": None,
        "low": -1.0,
        "high": 1.0,
    }


def test_with_a_few_ratings_it_says_how_many_requests_deciding_would_need() -> None:
    traffic = Traffic().many(104)
    for number, row in enumerate(traffic.rows[:7]):
        traffic.say(row, float(number != 3), user=f"u{number}")
    verdict = traffic.look()
    assert verdict.action == "undecided"
    assert verdict.reason.startswith("quality not decidable at n=104 (7 rated answers; deciding needs about ")
    assert verdict.figures["needed"] > SETTINGS.max_requests
    digits = verdict.reason.split("about ")[1].split(" ")[0].replace(",", "")
    assert int(digits) == pytest.approx(verdict.figures["needed"], rel=0.1)


def test_it_waits_for_a_decision_that_is_within_reach_and_not_for_one_that_comes_too_late() -> None:
    traffic = Traffic().many(200, good=(0.8, 0.8))
    waiting = traffic.look()
    assert waiting.action == "wait"
    assert "more requests" in waiting.reason
    assert SETTINGS.max_requests > waiting.figures["needed"] > 200
    late = traffic.look(SETTINGS.model_copy(update={"patience": "4m"}))
    assert late.action == "undecided"
    assert "more than come within 4m" in late.reason
    few = traffic.look(SETTINGS.model_copy(update={"max_requests": 1_000}))
    assert few.action == "undecided"
    assert "within" not in few.reason


def test_as_good_as_the_champion_is_promoted_but_only_in_the_last_step() -> None:
    traffic = Traffic().many(6_000, good=(0.9, 0.9))
    verdict = traffic.look()
    assert verdict.action == "promote"
    assert verdict.reason.startswith("quality is not worse by 0.05: 0.900 against 0.900, +0.000 [")
    assert verdict.figures["quality"]["low"] > -SETTINGS.margin
    assert traffic.look(share=0.1).action == "widen"


def test_worse_by_more_than_chance_is_taken_back_in_any_step() -> None:
    traffic = Traffic().many(600, good=(0.5, 0.9))
    for share in (0.1, 0.5):
        verdict = traffic.look(share=share)
        assert verdict.action == "take_back"
        assert verdict.reason.startswith("quality is worse: 0.500 against 0.900, -0.400 [")
        assert verdict.figures["quality"]["high"] < 0


def test_it_is_promoted_only_after_the_requests_of_the_step_however_good() -> None:
    traffic = Traffic(time=BEGUN, pause=timedelta(milliseconds=10)).many(6_000, good=(0.95, 0.9))
    assert traffic.time < WIDENED
    assert traffic.look().action == "wait"
    traffic.time = WIDENED
    assert traffic.many(50, good=(0.95, 0.9)).look().action == "promote"


def test_the_first_five_failing_take_it_back_at_once() -> None:
    traffic = first_step()
    for _ in range(45):
        traffic.ask(new=False)
    for number in range(5):
        assert traffic.look().action in ("wait", "widen")
        traffic.ask(new=True, status="failed", error="engine_unavailable", answer=None, user=f"u{number}")
    verdict = traffic.look()
    assert verdict.action == "take_back"
    assert verdict.reason == "errors 5 of 5, the champion's 0 of 45"


def test_what_fails_for_everybody_is_not_the_new_releases_fault() -> None:
    traffic = Traffic()
    for number in range(120):
        traffic.ask(new=number % 2 == 0, status="failed", error="engine_unavailable", answer=None)
    verdict = traffic.look()
    assert verdict.action == "undecided"
    assert "errors 60 of 60, the champion's 60 of 60" in verdict.reason


def test_one_person_whose_requests_all_fail_does_not_end_it() -> None:
    traffic = Traffic().many(60)
    for _ in range(400):
        traffic.ask(new=True, status="failed", error="engine_failed", answer=None, user="unlucky")
    for number in range(60):
        traffic.ask(new=number % 2 == 0, user=f"u{number}")
    assert traffic.look().action == "undecided"
    traffic.rows = [replace(row, user=None) for row in traffic.rows]
    assert traffic.look().action == "take_back"


def test_errors_that_are_more_than_chance_take_it_back() -> None:
    traffic = Traffic()
    for number in range(400):
        bad = number % 2 == 0 and number % 10 == 0
        traffic.ask(new=number % 2 == 0, status="failed" if bad else "ok", answer=None if bad else "Yes.")
    verdict = traffic.look()
    assert verdict.action == "take_back"
    assert verdict.reason.startswith("errors 40 of 200, the champion's 0 of 200: +0.200 [")
    assert verdict.figures["errors"]["low"] > 0


def test_as_many_errors_as_the_champion_are_no_reason() -> None:
    traffic = Traffic()
    for number in range(400):
        bad = number % 20 in (0, 1)
        traffic.ask(new=number % 2 == 0, status="failed" if bad else "ok", answer=None if bad else "Yes.")
    verdict = traffic.look()
    assert verdict.action == "undecided"
    assert verdict.figures["errors"]["new"] == verdict.figures["errors"]["champion"] == 0.1


def test_a_client_that_left_is_no_error() -> None:
    traffic = Traffic()
    for number in range(120):
        left = number % 2 == 0
        traffic.ask(new=left, status="cancelled" if left else "ok", error="client_left" if left else None, answer=None)
    verdict = traffic.look()
    assert verdict.action == "undecided"
    assert verdict.figures["errors"]["n"] == {"new": 0, "champion": 60}
    assert verdict.figures["n"]["new"] == 60


@pytest.mark.parametrize("answer", ["", "  \n\t "])
def test_empty_answers_take_it_back(answer: str) -> None:
    traffic = Traffic()
    for number in range(10):
        traffic.ask(new=False)
        traffic.ask(new=True, answer=answer, user=f"u{number}")
    verdict = traffic.look()
    assert verdict.action == "take_back"
    assert verdict.reason == "empty answers 10 of 10, the champion's 0 of 10"


def test_answers_whose_text_is_not_kept_are_not_taken_for_empty() -> None:
    traffic = Traffic()
    for number in range(120):
        traffic.ask(new=number % 2 == 0, answer=None)
    verdict = traffic.look()
    assert verdict.action == "undecided"
    assert verdict.figures["empty"]["n"] == {"new": 0, "champion": 0}


@pytest.mark.parametrize(("which", "slow"), [("slow", {"seconds": 4.0}), ("first_token", {"ttft": 0.8})])
def test_slow_answers_take_it_back(which: str, slow: dict[str, float]) -> None:
    traffic, jitter = Traffic(), random.Random(2)
    for number in range(200):
        about = jitter.uniform(0.9, 1.1)
        usual = {"seconds": 1.0 * about, "ttft": 0.1 * about}
        traffic.ask(new=number % 2 == 0, **(usual | (slow if number % 4 == 0 else {})))
    verdict = traffic.look()
    assert verdict.action == "take_back"
    assert verdict.reason.startswith({"slow": "slow answers (over", "first_token": "slow first tokens (over"}[which])
    assert verdict.figures[which]["low"] > 0
    assert verdict.figures[which]["limit_seconds"] > 0


def test_a_release_that_is_slow_all_the_time_is_taken_back_soon() -> None:
    traffic = Traffic()
    for number in range(80):
        traffic.ask(new=number % 2 == 0, seconds=5.0 if number % 2 == 0 else 1.0, user=f"u{number % 8}")
        if traffic.look().action == "take_back":
            break
    assert len(traffic.rows) <= 50
    assert traffic.look().action == "take_back"


def test_a_little_slower_is_no_reason() -> None:
    traffic, jitter = Traffic(), random.Random(3)
    for number in range(2_000):
        factor = (1 + (SLACK - 1) / 3) if number % 2 == 0 else 1.0
        about = factor * jitter.uniform(0.9, 1.1)
        traffic.ask(new=number % 2 == 0, seconds=about, ttft=0.1 * about)
    assert traffic.look().action == "undecided"


def test_short_answers_are_not_taken_for_slow_ones() -> None:
    """Three tokens and the wait for the first of them, against thirty."""
    traffic = Traffic()
    for number in range(300):
        short = number % 2 == 0
        tokens = 3 if short else 31
        traffic.ask(new=short, tokens=Tokens(12, tokens), ttft=0.4, seconds=0.4 + 0.02 * (tokens - 1))
    verdict = traffic.look()
    assert verdict.action == "undecided"
    assert verdict.figures["slow"]["new"] == 0


def test_a_classifier_without_first_tokens_is_timed_as_a_whole() -> None:
    traffic = Traffic()
    for number in range(200):
        seconds = 0.05 if number % 2 else 0.2
        traffic.ask(new=number % 2 == 0, ttft=None, tokens=Tokens(12, 0), seconds=seconds)
    verdict = traffic.look()
    assert verdict.action == "take_back"
    assert verdict.reason.startswith("slow answers")
    assert verdict.figures["first_token"]["limit_seconds"] is None


def test_only_what_was_drawn_by_lot_since_it_began_counts() -> None:
    traffic = Traffic().many(10)
    traffic.ask(new=True, share=None, status="failed", answer=None)
    traffic.ask(new=True, metadata={"treadle": "smoke"}, status="failed", answer=None)
    traffic.ask(new=False, share=1.0)  # before the server had the new release ready
    traffic.ask(new=True, release="b3:" + "9" * 64)
    traffic.rows.append(replace(traffic.rows[0], id=new_interaction_id(), time=iso(BEGUN - timedelta(seconds=1))))
    assert traffic.look().figures["n"] == {"new": 5, "champion": 5, "step": 10}
    assert traffic.look().figures["errors"]["new"] == 0


def test_with_no_traffic_it_waits_and_then_says_so() -> None:
    traffic = first_step()
    assert traffic.look().action == "wait"
    verdict = traffic.look(now=BEGUN + timedelta(hours=1))
    assert verdict.action == "undecided"
    expected = "quality not decidable at n=0 (0 rated answers; stopped after 1h): the new release answered nobody"
    assert verdict.reason == expected


def test_one_arm_empty_is_nothing_known() -> None:
    traffic = Traffic()
    for _ in range(60):
        traffic.rate(False, 1.0)
    verdict = traffic.look()
    assert verdict.action in ("wait", "undecided")
    assert verdict.figures["quality"]["difference"] is None
    only_new = Traffic()
    for _ in range(60):
        only_new.rate(True, 0.0)
    assert only_new.look().action in ("wait", "undecided")


def test_it_stops_at_the_horizon() -> None:
    settings = SETTINGS.model_copy(update={"max_requests": 300})
    traffic = Traffic().many(299, good=(0.8, 0.8))
    assert "stopped" not in traffic.look(settings).reason
    traffic.ask(new=True)
    verdict = traffic.look(settings)
    assert verdict.action == "undecided"
    assert "(299 rated answers; stopped at 300 requests)" in verdict.reason


def test_a_decision_at_the_horizon_is_a_decision() -> None:
    traffic = Traffic().many(600, good=(0.5, 0.9))
    assert traffic.look(SETTINGS.model_copy(update={"max_requests": 500})).action == "take_back"
    assert traffic.look(now=BEGUN + timedelta(days=3)).action == "take_back"


def test_the_latest_word_on_an_answer_counts_and_a_correction_says_bad() -> None:
    traffic = Traffic().many(8)
    changed, corrected, praised, scored, preferred, strange, twice, unrated = traffic.rows
    traffic.say(changed, 1.0, user="a")
    traffic.say(changed, 0.0, user="a")
    traffic.say(corrected, None, "correction", user="a")
    traffic.say(praised, 1.0, user="a")
    traffic.say(praised, None, "correction", user="a")
    traffic.say(scored, 0.3, "score", user="a")
    traffic.say(preferred, 1.0, "preference", user="a")
    traffic.say(strange, 7.0, "score", user="a")
    traffic.say(strange, float("nan"), "score", user="a")
    traffic.say(twice, 1.0, user="a")
    traffic.say(twice, 0.0, user="b")
    quality = traffic.look().figures["quality"]
    assert quality["n"] == {"new": 3, "champion": 2}  # changed, praised, twice; corrected, scored
    assert quality["new"] == pytest.approx((0 + 1 + 0.5) / 3, abs=1e-6)
    assert quality["champion"] == pytest.approx((0 + 0.3) / 2)
    assert unrated.id not in {each.interaction for each in traffic.said}


def test_thousands_of_votes_of_one_person_are_ten_at_the_most() -> None:
    traffic = Traffic().many(400, good=(0.9, 0.9))
    before = traffic.look()
    for row in [traffic.ask(new=True) for _ in range(1_000)]:
        for _ in range(5):
            traffic.say(row, 0.0, user="angry")
    verdict = traffic.look()
    assert verdict.figures["quality"]["n"]["new"] == before.figures["quality"]["n"]["new"] + RATED_OF_ONE
    assert verdict.action == before.action == "wait"
    traffic.said = [replace(each, user=None) for each in traffic.said]
    traffic.rows = [replace(row, key="key-1") for row in traffic.rows]
    assert traffic.look().figures["quality"]["n"] == {"new": RATED_OF_ONE, "champion": RATED_OF_ONE}
    traffic.rows = [replace(row, key=None) for row in traffic.rows]
    assert traffic.look().figures["quality"]["n"] == {"new": RATED_OF_ONE, "champion": RATED_OF_ONE}


def test_many_names_under_one_answer_are_one_value() -> None:
    traffic = Traffic().many(2)
    traffic.say(traffic.rows[0], 1.0, user="asker")
    for number in range(3_000):
        traffic.say(traffic.rows[0], 0.0, user=f"invented-{number}")
    quality = traffic.look().figures["quality"]
    assert quality["n"] == {"new": 1, "champion": 0}


def test_ratings_of_one_person_hang_together() -> None:
    """The same ratings by 400 people decide what they cannot by eight, who may just differ in taste."""
    traffic = Traffic()
    for number in range(160):
        row = traffic.ask(new=number % 2 == 0)
        traffic.say(row, float(number % 2), user=f"u{number}")
    assert traffic.look().action == "take_back"
    few = {each.user: f"u{number % 8}" for number, each in enumerate(traffic.said)}
    traffic.said = [replace(each, user=few[each.user]) for each in traffic.said]
    assert traffic.look().action == "undecided"


def test_the_order_of_rows_does_not_matter() -> None:
    traffic = Traffic().many(300, good=(0.7, 0.8))
    for row in traffic.rows[:40]:
        traffic.say(row, 1.0, user="keen")
    traffic.say(traffic.rows[5], 0.0, user="keen")
    straight = traffic.look()
    shuffled = random.Random(1)
    shuffled.shuffle(traffic.rows)
    shuffled.shuffle(traffic.said)
    assert traffic.look() == straight


def test_one_pass_over_streams_is_enough() -> None:
    traffic = Traffic().many(400, good=(0.5, 0.9))
    rows: Iterator[Interaction] = iter(traffic.rows)
    said: Iterator[Feedback] = iter(traffic.said)
    now = traffic.time + timedelta(seconds=1)
    assert look(SETTINGS, canary(), rows, said, now) == traffic.look()


def test_figures_can_be_written_into_the_ledger() -> None:
    for traffic in (Traffic(), Traffic().many(3), Traffic().many(120, good=(0.5, 1.0))):
        figures = traffic.look().figures
        assert json.loads(canonical_json(figures)) == figures
        assert {"n", "share", "needed", "quality", "errors", "empty", "first_token", "slow"} == set(figures)


def test_times_with_another_precision_or_offset_are_understood() -> None:
    traffic = Traffic().many(60)
    moved = [
        replace(row, time=datetime.fromisoformat(row.time).astimezone(UTC).isoformat(timespec="microseconds"))
        for row in traffic.rows
    ]
    traffic.rows = moved
    assert traffic.look().figures["n"] == {"new": 30, "champion": 30, "step": 60}


@pytest.mark.parametrize("loss", [0.0, 0.3])
def test_the_verdict_falls_where_the_sequential_test_says(loss: float) -> None:
    """Rated answers of different people: the verdict at each request is that of the bare test on the same values."""
    draw = random.Random(11)
    traffic, new, old = Traffic(), Arm(), Arm()
    action = "wait"
    for number in range(1, 400):
        which = draw.random() < 0.5
        value = float(draw.random() < 0.9 - loss * which)
        traffic.rate(which, value)
        (new if which else old).add(value)
        found = compare(new, old, margin=SETTINGS.margin, alpha=ALPHA)
        expected = "take_back" if found.lower else "promote" if number >= 50 and found.close_enough else "wait"
        if expected != "wait" or number % 40 == 0:
            action = traffic.look().action
            assert action == expected
        if expected != "wait":
            break
    assert action == ("take_back" if loss else "wait")
