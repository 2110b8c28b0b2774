"""Splits by time: nothing that is learned from is younger than it should be, and no group is in two."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from treadle.core.errors import UserError
from treadle.stages.prepare.settings import SplitSettings
from treadle.text.dataset import Example
from treadle.text.split_time import split_by_time

BOUNDS = {"validation": "2026-03-01", "test": "2026-04-01T00:00:00+02:00"}


def example(name: str, group: str = "") -> Example:
    return Example((f"doc:{name}",), text=name, label="x", group=group or name)


def test_sides_by_time() -> None:
    times = {
        "doc:old": "2026-02-28T23:59:59Z",
        "doc:edge": "2026-03-01",
        "doc:zone": "2026-04-01T00:30:00+03:00",
        "doc:new": "2026-03-31T22:00:00Z",
        "doc:none": None,
        "doc:odd": "in spring",
    }
    examples = [example(name.removeprefix("doc:")) for name in times]
    made = split_by_time(examples, times, **BOUNDS)
    assert made.groups == {"old": "train", "edge": "validation", "zone": "validation", "new": "test"}
    assert {drop.example.text: drop.rule for drop in made.dropped} == {"none": "split.undated", "odd": "split.undated"}
    taught = split_by_time(examples, times, undated="train", **BOUNDS)
    assert taught.groups == {**made.groups, "none": "train", "odd": "train"}
    assert taught.dropped == ()
    with pytest.raises(UserError, match="test is empty"):
        split_by_time(examples[:3], times, **BOUNDS)
    for undated in ("drop", "train"):
        with pytest.raises(UserError, match="no example has a time; name the column with `fields: "):
            split_by_time(examples[4:], times, undated=undated, **BOUNDS)


def test_a_group_is_on_one_side_and_nothing_is_lost() -> None:
    chance = random.Random(3)
    examples = [example(str(number), f"group-{chance.randrange(40)}") for number in range(200)]
    times = {f"doc:{number}": f"2026-0{chance.randrange(1, 7)}-10" for number in range(200)}
    earlier = {"group-1": "test", "group-2": "train", "elsewhere": "train"}
    made = split_by_time(examples, times, earlier=earlier, **BOUNDS)
    assert "elsewhere" not in made.groups
    assert all(made.groups.get(group, side) == side for group, side in earlier.items() if group != "elsewhere")
    for one in made.examples:
        time = times[one.documents[0]]
        expected = "train" if time < "2026-03" else "validation" if time < "2026-04" else "test"
        assert made.groups[one.group] == expected
    out = Counter(one.id for one in [*made.examples, *(drop.example for drop in made.dropped)])
    assert out == Counter(one.id for one in examples)
    assert {drop.rule for drop in made.dropped} == {"split.other_time"}


@pytest.mark.parametrize(
    "time", [{"validation": "soon", "test": "2026-01-01"}, {"validation": "2026-02-01", "test": "2026-01-01"}]
)
def test_times_that_are_none(time: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"expected"):
        SplitSettings.model_validate({"time": time})
