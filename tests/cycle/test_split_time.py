"""``prepare.split`` in a project: by time, where the account still adds up, and by a field, which has to be there.

And what is said where there is nothing to split."""

from __future__ import annotations

import json
from collections.abc import Callable

from small_project import Project


def test_a_project_that_splits_by_time(fresh: Callable[[], Project]) -> None:
    project = fresh()
    old = "split: {train: 0.6, validation: 0.1, test: 0.3}"
    project.edit(old, "split: {time: {validation: 2026-01-18, test: 2026-01-20}}")
    with project.data.open("a") as file:
        said = [{"role": "user", "content": "When was it?"}, {"role": "assistant", "content": "Nobody knows the date."}]
        file.write(json.dumps({"messages": said, "customer": "nobody"}) + "\n")
    found = project.json("prepare")
    # 28 days, two or three questions each; what gives a test away goes as ever
    assert found["dropped"].pop("split.undated") == 1
    assert set(found["dropped"]) <= {
        "decontaminate.same_answer",
        "decontaminate.near_answer",
        "decontaminate.shared_words",
    }
    assert found["in"] == 71 == found["kept"] + sum(found["dropped"].values()) + 1
    assert found["splits"]["test"] == sum(1 for number in range(70) if number % 28 + 1 >= 20)
    assert found["splits"]["validation"] <= sum(1 for number in range(70) if 18 <= number % 28 + 1 < 20)
    project.edit("test: 2026-01-20", "test: 2026-12-01")
    assert "test is empty" in project.call("prepare", check=2).stderr


def test_a_project_that_splits_by_a_field(fresh: Callable[[], Project]) -> None:
    project = fresh()
    project.edit("split: {train: 0.6", "split: {by: custmer, train: 0.6")
    assert "no example has a field 'custmer'; did you mean 'customer'?" in project.call("prepare", check=2).stderr
    project.edit("by: custmer", "by: kind")
    rows = project.data.read_text().splitlines()
    rows[1:] = [json.dumps({**json.loads(row), "kind": f"k{place % 9}"}) for place, row in enumerate(rows[1:])]
    project.data.write_text("\n".join(rows) + "\n")
    assert "; 1 examples without 'kind' are each a group of their own" in project.call("prepare").stdout
    assert project.json("prepare")["ungrouped"] == 1


def test_a_maker_that_makes_nothing_is_named_with_its_rules(fresh: Callable[[], Project]) -> None:
    project = fresh()
    steps = "steps: [normalize, deduplicate, redact]"
    project.edit(steps, "steps: [{examples: docstring_qa}]")
    said = project.call("prepare", check=2).stderr
    assert said.startswith("treadle: prepare: docstring_qa made no example of 70 documents (70 examples.no_name); ")
    assert "`- examples: NAME` of another maker; known: chat, classification, " in said
    project.edit("steps: [{examples: docstring_qa}]", "steps: [filter: {min_chars: 9999}]")
    said = project.call("prepare", check=2).stderr
    assert "prepare: no document is left to make examples of (70 filter.min_chars of 70); loosen prepare.steps" in said


def test_what_is_all_kept_back_is_said(fresh: Callable[[], Project]) -> None:
    project = fresh()
    project.edit("split: {train: 0.6", "split: {holdout: 400, train: 0.6")
    said = project.call("prepare", check=2).stderr
    assert "prepare.split.holdout keeps back all 42 examples to learn from; chat made examples of 70 of 70" in said
