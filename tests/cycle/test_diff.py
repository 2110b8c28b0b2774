"""What changed between two versions of a real project: settings, documents, metrics with intervals, items."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from small_project import Project
from treadle.core.errors import UserError
from treadle.core.workspace import Workspace
from treadle.evals.item import Item, Output
from treadle.evals.metric import as_metric
from treadle.evals.report import EvaluationReport
from treadle.evals.results import Evaluation, write_evaluation
from treadle.record.record import PROJECTIONS, Record
from treadle.stages.track.flips import Asked, Flips, flips


def test_two_versions_of_a_project(project: Project) -> None:
    rows = [json.loads(line) for line in project.data.read_text().splitlines()]
    rows[0]["messages"][1]["content"] += " Then wait."  # the same place, another text
    rows[1]["messages"][1]["content"] += " Then rest."
    new = {"role": "user", "content": "How do I sail my boat?"}, {"role": "assistant", "content": "Read page 99."}
    rows.append({"messages": list(new), "customer": "customer-99", "time": "2026-02-01"})
    project.data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    project.edit("tokens: 3000", "tokens: 4000")
    project.call("run", "--until", "develop", check=None)
    runs = project.json("runs")
    trained = [run["outputs"]["model"] for run in runs if run["step"] == "develop.train"]
    corpora = [run["outputs"]["corpus"] for run in runs if run["step"] == "collect.gather"]
    assert len(trained) == len(corpora) == 2

    found = project.json("diff", corpora[1], corpora[0])
    assert found["documents"] == {"a": 70, "b": 71, "added": 3, "removed": 2, "changed": 2}
    assert found["changed"] == ["../data/chats.jsonl:1", "../data/chats.jsonl:2"]
    assert found["added"][0] == "../data/chats.jsonl:71"
    assert set(found["removed"]) == set(found["changed"]) == set(found["added"][1:])
    said = project.call("diff", corpora[1], corpora[0], "--limit", "1").stdout
    assert "documents    70 -> 71: 3 added, 2 removed, 2 of them changed" in said
    assert "  ~ ../data/chats.jsonl:1\n  ~ ... and 1 more\n  + ../data/chats.jsonl:71\n" in said
    assert "  - " not in said

    found = project.json("diff", trained[1], trained[0], "--metric", "rouge_l")
    assert found["settings"]["develop.train.budget"] == [3000, 4000]
    name = "develop.evaluate.log_likelihood"
    for value, (low, high) in zip(found["metrics"][name], found["intervals"][name], strict=True):
        assert low <= value <= high
    items = found["items"]
    assert items["metric"] == "rouge_l"
    assert 10 < items["n"] <= 22  # of both test sets
    assert items["count_better"] == len(items["better"])
    assert all(flip["value_b"] > flip["value_a"] for flip in items["better"])
    assert all(flip["value_b"] < flip["value_a"] and flip["question"] for flip in items["worse"])
    assert items["paired"]["low"] <= items["paired"]["difference"] <= items["paired"]["high"]
    back = project.json("diff", trained[0], trained[1], "--metric", "rouge_l")["items"]
    assert {flip["item"] for flip in back["worse"]} == {flip["item"] for flip in items["better"]}
    said = project.call("diff", trained[1], trained[0], "--metric", "log_likelihood", "--limit", "2").stdout
    assert f"items        log_likelihood: of {items['n']} that both were asked, " in said
    assert f"metrics      {name}: " in said
    assert said.count("How do I") <= 4
    wrong = project.json("diff", trained[1], trained[0], "--metric", "beauty", check=2)
    assert "expected one of" in wrong["error"]["message"]
    assert "nothing changed" in project.call("diff", trained[0], trained[0]).stdout
    project.call("diff", trained[0], trained[1], "--limit", "0", check=2)


# -- items, from evaluations made here


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    """An empty record."""
    with Workspace(tmp_path / "store", projections=PROJECTIONS) as workspace:
        yield Record(workspace, "demo")


def exact(items: list[Item], outputs: list[Output]) -> list[float]:
    """1 for the answer that is wanted."""
    return [float(item.reference == output.text) for item, output in zip(items, outputs, strict=True)]


def length(items: list[Item], outputs: list[Output]) -> list[float]:
    """Characters of an answer."""
    return [float(len(output.text)) for output in outputs]


def evaluation(record: Record, answers: dict[str, str], wanted: dict[str, str] | None = None) -> Asked:
    items = tuple(Item(name, text=f"what is {name}?", reference=(wanted or {}).get(name, name)) for name in answers)
    told = Evaluation("test", items, tuple(Output(text) for text in answers.values()))
    folder = record.store.new_folder()
    write_evaluation(folder, told, [as_metric("length", length), as_metric("exact", exact)], seed=1)
    return Asked(None, EvaluationReport(record.store.put(folder), record.store))


def found(record: Record, a: Asked, b: Asked, metric: str = "", **settings: Any) -> Flips:
    told = flips(record, a, b, metric, **settings)
    assert told is not None
    return told


def test_an_item_that_was_right_and_is_wrong_is_named_and_the_other_way(record: Record) -> None:
    a = evaluation(record, {f"i{n}": f"i{n}" if n % 3 else "?" for n in range(30)})
    b = evaluation(record, {f"i{n}": f"i{n}" if n % 4 else "!" for n in range(2, 40)})
    told = found(record, a, b)
    assert (told.metric, told.metrics, told.right_or_wrong, told.n) == ("exact", ("exact", "length"), True, 28)
    assert {flip.item for flip in told.better} == {f"i{n}" for n in range(2, 30) if n % 3 == 0 and n % 4}
    assert {flip.item for flip in told.worse} == {f"i{n}" for n in range(2, 30) if n % 3 and n % 4 == 0}
    assert {(flip.a, flip.b, flip.reference) for flip in told.worse} == {(f, "!", f) for f in map(_item, told.worse)}
    assert told.paired is not None
    assert told.paired.difference == pytest.approx((told.count_better - told.count_worse) / 28)
    assert told.paired.low <= told.paired.difference <= told.paired.high
    short = found(record, a, b, shown=2)
    assert (len(short.better), len(short.worse)) == (2, 2)
    assert (short.count_better, short.count_worse) == (told.count_better, told.count_worse)


def _item(flip: Any) -> str:
    return str(flip.item)


def test_the_largest_changes_come_first(record: Record) -> None:
    a = evaluation(record, {f"i{n}": "x" * 50 for n in range(20)})
    b = evaluation(record, {f"i{n}": "x" * (50 + n * (-1) ** n) for n in range(20)})
    told = found(record, a, b, "length", shown=3)
    assert not told.right_or_wrong
    assert [flip.item for flip in told.better] == ["i18", "i16", "i14"]
    assert [flip.item for flip in told.worse] == ["i19", "i17", "i15"]
    assert (told.count_better, told.count_worse) == (9, 10)


def test_an_item_that_asks_something_else_by_now_is_not_compared(record: Record) -> None:
    answers = {f"i{n}": "?" for n in range(10)}
    a, b = evaluation(record, answers), evaluation(record, answers, wanted={"i3": "?", "i4": "4"})
    told = found(record, a, b)
    assert (told.n, told.count_better, told.count_worse) == (8, 0, 0)


def test_what_cannot_be_compared_is_said(record: Record) -> None:
    a, b = evaluation(record, {"i1": "x", "i2": "y"}), evaluation(record, {"j1": "x", "j2": "y"})
    assert flips(record, a, b) is None
    assert flips(record, a, Asked(None, None)) is None
    with pytest.raises(UserError, match="expected one of exact, length"):
        flips(record, a, a, "beauty")
    with pytest.raises(UserError, match="too large to compare here"):
        flips(record, a, a, most_bytes=10)
