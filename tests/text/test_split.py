"""Splits: no group in two, fractions met, the same every time, and nothing lost."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.core.errors import UserError
from treadle.text.dataset import Example
from treadle.text.split import SIDES, assign_groups, split_examples

FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}


def examples_of(sizes: dict[str, int]) -> list[Example]:
    made = []
    for group, size in sizes.items():
        for n in range(size):
            name = f"{group}-{n}"
            made.append(Example((f"doc:{name}",), text=name, label="x", group=group))
    return made


sizes_of_groups = st.dictionaries(st.text(min_size=1, max_size=8), st.integers(1, 40), min_size=12, max_size=40)


@given(sizes_of_groups, st.integers(0, 2**31), st.integers(0, 30))
def test_groups_stay_together_and_nothing_is_lost(sizes: dict[str, int], seed: int, holdout: int) -> None:
    examples = examples_of(sizes)
    try:
        made = split_examples(examples, fractions=FRACTIONS, seed=seed, holdout=holdout, limits={"test": 5})
    except UserError as error:
        assert "is empty" in str(error)
        return
    sides: dict[str, set[str]] = {}
    for split, members in made.splits.items():
        for example in members:
            sides.setdefault(example.group, set()).add("train" if split == "holdout" else split)
    assert all(len(found) == 1 for found in sides.values())
    out = [example.id for members in made.splits.values() for example in members]
    out += [drop.example.id for drop in made.dropped]
    assert Counter(out) == Counter(example.id for example in examples)
    again = split_examples(examples[::-1], fractions=FRACTIONS, seed=seed, holdout=holdout, limits={"test": 5})
    assert again.splits == made.splits


@pytest.mark.parametrize("seed", range(8))
def test_fractions_are_met_with_few_large_groups(seed: int) -> None:
    sizes = {"huge": 400, "large": 300, "middle": 200, **{f"small{n}": 10 + n % 7 for n in range(60)}}
    placed = assign_groups(sizes, FRACTIONS, seed)
    total = sum(sizes.values())
    for side, share in FRACTIONS.items():
        got = sum(size for group, size in sizes.items() if placed[group] == side)
        assert abs(got / total - share) < 0.02


def test_seeds_give_other_splits_and_large_groups_are_tested_too() -> None:
    sizes = {f"g{n}": 5 + n for n in range(60)}
    tested = [
        tuple(sorted(g for g, side in assign_groups(sizes, FRACTIONS, seed).items() if side == "test"))
        for seed in range(40)
    ]
    assert len(set(tested)) == 40
    assert any(f"g{n}" in groups for groups in tested for n in range(50, 60))


def test_earlier_groups_stay_where_they_were() -> None:
    sizes = {f"g{n}": 10 for n in range(40)}
    earlier = assign_groups(sizes, FRACTIONS, 1)
    grown = {**sizes, **{f"new{n}": 25 for n in range(20)}}
    placed = assign_groups(grown, FRACTIONS, 2, earlier)
    assert {group: placed[group] for group in sizes} == earlier
    tested = sum(grown[group] for group, side in placed.items() if side == "test")
    assert abs(tested / sum(grown.values()) - 0.1) < 0.03


def test_limits_take_from_every_group_in_turn() -> None:
    examples = examples_of({"a": 500, "b": 20, "c": 20, **{f"t{n}": 40 for n in range(30)}})
    made = split_examples(examples, seed=3, limits={"test": 12})
    groups = Counter(example.group for example in made.splits["test"])
    assert len(made.splits["test"]) == 12
    assert max(groups.values()) - min(groups.values()) <= 1
    assert {drop.rule for drop in made.dropped} == {"split.over_limit"}


def test_holdout_is_of_the_training_side() -> None:
    examples = examples_of({f"g{n}": 20 for n in range(30)})
    plain = split_examples(examples, seed=5)
    kept_back = split_examples(examples, seed=5, holdout=50)
    assert len(kept_back.splits["holdout"]) == 50
    together = kept_back.splits["holdout"] + kept_back.splits["train"]
    assert {example.id for example in together} == {example.id for example in plain.splits["train"]}
    assert kept_back.splits["test"] == plain.splits["test"]


@pytest.mark.parametrize(
    "fractions", [{"train": 0.8}, {"train": 1.2, "test": -0.2}, {"train": 0.9, "dev": 0.1}, {"train": 0.0}]
)
def test_fractions_that_are_none(fractions: dict[str, float]) -> None:
    with pytest.raises(UserError, match="split:"):
        split_examples(examples_of({"a": 3}), fractions=fractions, seed=1)


def test_an_empty_side_is_said() -> None:
    with pytest.raises(UserError, match="is empty: 1 groups of 30 examples"):
        split_examples(examples_of({"only": 30}), seed=1)
    assert len(split_examples(examples_of({"only": 30}), fractions={"train": 1.0}, seed=1).splits["train"]) == 30
    with pytest.raises(UserError, match="limit"):
        split_examples(examples_of({"only": 30}), fractions={"train": 1.0}, seed=1, limits={"dev": 3})
    assert SIDES == ("train", "validation", "test")


def test_the_order_of_limits_changes_nothing() -> None:
    examples = examples_of({f"group {n}": 9 for n in range(30)})
    limits = {"train": 40, "validation": 6, "test": 5}
    one = split_examples(examples, fractions=FRACTIONS, seed=3, limits=limits)
    other = split_examples(examples, fractions=FRACTIONS, seed=3, limits=dict(sorted(limits.items())))
    assert (one.splits, one.dropped) == (other.splits, other.dropped)
    assert one.dropped
