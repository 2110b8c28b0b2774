"""What is monitored is what users asked: Treadle's own questions to a new release are only looked at before that."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from treadle.core.workspace import Workspace
from treadle.record.interaction import SMOKE, Interaction, Seconds, Status
from treadle.record.record import Record
from treadle.stages.monitor import Monitored, MonitorSettings, measure
from treadle.text.handles import Profile
from treadle.text.profile import make_profile

WORDS = [f"word{number}" for number in range(200)]


def asked(chance: random.Random, words: list[str], seconds: float, status: Status = "ok") -> Interaction:
    question = " ".join(chance.choices(words, k=8))
    return Interaction(
        id="int-1",
        request="r",
        time="2026-01-01T00:00:00.000Z",
        release="b3:" + "1" * 64,
        model="m",
        endpoint="chat.completions",
        status=status,
        store=True,
        messages=({"role": "user", "content": question},),
        seconds=Seconds(0.0, seconds, seconds),
        tokens_per_second=1 / seconds,
    )


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    chance = random.Random(0)
    made = make_profile([" ".join(chance.choices(WORDS, k=8)) for _ in range(600)], seed=0)
    with Workspace(tmp_path / "project") as workspace:
        record = Record(workspace, "docs")
        folder = record.store.new_folder()
        made.save(folder)
        return Profile(record.store.put(folder), record.store)


def test_users_are_not_hidden_behind_smoke_requests(profile: Profile) -> None:
    chance = random.Random(1)
    smoke = [replace(asked(chance, WORDS, 0.1), metadata=SMOKE) for _ in range(300)]
    users = [asked(chance, [word[::-1] for word in WORDS], 2.0) for _ in range(40)]
    found = measure([*smoke, *users, asked(chance, WORDS, 2.0, "failed")], MonitorSettings(), profile)
    assert (found.requests, found.errors, found.smoke) == (41, 1, False)
    assert (found.ttft_p50, found.ttft_p95, found.seconds_p95, found.tokens_per_second) == (2.0, 2.0, 2.0, 0.5)
    assert (found.drift["decided"], found.drift["n"]) == ("yes", 41)
    assert found.line().startswith("41 requests: ttft p95 2000 ms, ")


def test_before_anybody_asked(profile: Profile) -> None:
    chance = random.Random(1)
    smoke = [replace(asked(chance, WORDS, 0.1), metadata=SMOKE) for _ in range(60)]
    found = measure(smoke, MonitorSettings(), profile)
    assert (found.requests, found.smoke, found.drift["decided"]) == (60, True, "no")
    assert found.line() == "60 smoke requests: ttft p95 100 ms, 10 tok/s, 0 errors; input drift: no"
    assert measure([], MonitorSettings(), profile) == Monitored(drift=measure([], MonitorSettings(), profile).drift)
    assert measure([], MonitorSettings(), profile).line() == "no requests yet"
