"""Drift: false alarms at the rate promised, real change found, and too little said to be too little."""

from __future__ import annotations

import csv
import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest

from treadle.core.errors import Corrupt, UserError
from treadle.text.profile import MIN_TEXTS, Profile, drift, load_profile, make_profile


@pytest.fixture(scope="module")
def questions(shared_data: Path) -> list[str]:
    with gzip.open(shared_data / "2-classification-ner" / "banking77_train.csv.gz", "rt", encoding="utf-8") as file:
        texts = sorted({row["text"] for row in csv.DictReader(file)})
    random.Random(0).shuffle(texts)
    return texts


@pytest.fixture(scope="module")
def foreign(shared_data: Path) -> list[str]:
    with gzip.open(shared_data / "1-instruct-qa" / "lt_nq-open_test.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line)["question"] for line in file]


def made_up(rng: random.Random, count: int, shift: float = 0.0) -> list[str]:
    """Texts of words with Zipf's frequencies; ``shift`` of the texts are of other words."""
    weights = [1 / (rank + 1) for rank in range(600)]
    texts = []
    for _ in range(count):
        prefix = "other" if rng.random() < shift else "word"
        words = rng.choices(range(600), weights, k=max(2, int(rng.lognormvariate(2.2, 0.5))))
        texts.append(" ".join(f"{prefix}{word}" for word in words))
    return texts


def test_false_alarms_come_at_about_the_rate_asked_for() -> None:
    alarms: dict[tuple[int, float], list[bool]] = {(n, rate): [] for n in (60, 200) for rate in (0.05, 0.01)}
    for seed in range(6):  # over references as well: the promise is about both
        rng = random.Random(seed)
        profile = make_profile(made_up(rng, 700), seed=seed)
        for _ in range(20):
            for n, rate in alarms:
                alarms[n, rate].append(drift(profile, made_up(rng, n), false_alarm_rate=rate).decided == "yes")
    for (_, rate), found in alarms.items():
        spread = 3 * np.sqrt(rate * (1 - rate) / len(found))
        assert np.mean(found) <= rate + spread + 0.01
    assert 0 < np.mean([one for (_, rate), found in alarms.items() if rate == 0.05 for one in found]) < 0.1


def test_a_tenth_of_other_questions_among_a_thousand_is_found(questions: list[str], foreign: list[str]) -> None:
    profile = make_profile(questions[:2400], seed=1)
    rng = random.Random(2)
    quiet = [drift(profile, rng.sample(questions[2400:], 1000)) for _ in range(10)]
    mixed = [drift(profile, rng.sample(questions[2400:], 900) + rng.sample(foreign, 100)) for _ in range(10)]
    assert sum(found.decided == "yes" for found in quiet) <= 1
    assert sum(found.decided == "yes" for found in mixed) >= 9
    assert mixed[0].n == 1000
    assert set(mixed[0].statistics) == set(mixed[0].thresholds) == {"words", "length"}


def test_length_alone_is_drift() -> None:
    rng = random.Random(3)
    profile = make_profile(made_up(rng, 800), seed=1)
    longer = [f"{first} {second}" for first, second in zip(made_up(rng, 200), made_up(rng, 200), strict=True)]
    found = drift(profile, longer)
    assert found.decided == "yes"
    assert found.statistics["length"] > found.thresholds["length"]


def test_too_few_is_said() -> None:
    rng = random.Random(4)
    profile = make_profile(made_up(rng, 100), seed=1)
    assert drift(profile, made_up(rng, MIN_TEXTS - 1)).decided == "too few"
    assert drift(profile, []).to_json()["decided"] == "too few"
    assert drift(profile, ["Ω привет"] * MIN_TEXTS).decided == "yes"
    with pytest.raises(UserError, match="10 texts are too few"):
        make_profile(made_up(rng, 10), seed=1)
    with pytest.raises(UserError, match="false_alarm_rate"):
        drift(profile, [], false_alarm_rate=0.9)


def test_scripts_are_described() -> None:
    profile = make_profile(["hello there"] * 40 + ["привет мир"] * 40, seed=1)
    assert set(profile.shares) == {"latin", "cyrillic"}
    assert sum(profile.shares.values()) == pytest.approx(1, abs=1e-3)
    assert drift(profile, ["日本語"] * 40).shares == {"cjk": 1.0}


def test_texts_that_are_all_alike_do_not_break_it() -> None:
    profile = make_profile(["the same words"] * 100, seed=1)
    assert drift(profile, ["the same words"] * 50).decided == "no"
    assert drift(profile, ["quite other words"] * 50).decided == "yes"
    assert drift(make_profile(["", "...", "!"] * 50, seed=1), [""] * 40).decided in ("yes", "no")


def test_a_profile_is_kept_and_holds_no_word(tmp_path: Path) -> None:
    rng = random.Random(5)
    profile = make_profile(made_up(rng, 200), seed=9)
    profile.save(tmp_path)
    kept = load_profile(tmp_path)
    window = made_up(rng, 80, shift=0.5)
    assert drift(kept, window) == drift(profile, window)
    assert all(b"word1" not in path.read_bytes() for path in tmp_path.iterdir())
    (tmp_path / "again").mkdir()
    make_profile(made_up(random.Random(5), 200), seed=9).save(tmp_path / "again")
    for name in ("profile.json", "profile.npz"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    (tmp_path / "profile.json").write_text('{"format": 7}')
    with pytest.raises(Corrupt, match="format 7"):
        load_profile(tmp_path)
    with pytest.raises(Corrupt, match="holds no profile"):
        load_profile(tmp_path / "nowhere")


def test_thresholds_fall_with_the_window_and_rise_as_alarms_get_rarer() -> None:
    profile: Profile = make_profile(made_up(random.Random(6), 700), seed=1)
    for statistic in ("words", "length"):
        by_size = [profile.threshold(statistic, n, 0.01) for n in (30, 60, 120, 240, 350)]
        assert by_size == sorted(by_size, reverse=True)
        by_rate = [profile.threshold(statistic, 100, rate) for rate in (0.1, 0.01, 0.001, 0.0001)]
        assert by_rate == sorted(by_rate)
