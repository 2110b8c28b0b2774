"""``treadle evaluate``: what the cycle evaluated is remembered; one's own items are scored, traced and compared."""

from __future__ import annotations

import json

import pytest

from cycle.test_forget import every_byte
from docs.test_json import differences, promised
from small_project import Project
from treadle.evals.report import EvaluationReport
from treadle.project import open_project
from treadle.stages.track.walk import lineage
from treadle.text.dataset import Dataset


def write_items(project: Project) -> None:
    """Two questions that the model was trained on or tested with, and two that nobody asked."""
    known = [json.loads(line)["messages"] for line in project.data.read_text().splitlines()]
    with open_project(project.folder) as opened:
        run = opened.record.runs.find(step="develop.train", status="done", limit=1)[0]
        trained = Dataset(run.inputs["dataset"], opened.record.store).examples("train")
    asked = {each.question for each in trained}
    seen = [messages for messages in known if messages[0]["content"] in asked][:2]
    fresh = [
        ("What does a lighthouse keeper do at night?", "He keeps the lamp burning until morning comes."),
        ("Who wrote the letters found in the attic?", "Nobody knows who wrote the letters found up there."),
    ]
    rows = [{"messages": messages} for messages in seen]
    rows += [{"question": question, "answer": answer} for question, answer in fresh]
    (project.folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_what_the_cycle_evaluated_costs_nothing_again(project: Project) -> None:
    before = len(project.json("runs"))
    found = project.json("evaluate", "model@v1")
    scores = project.json("develop")["evaluations"]["model"]
    assert found["metrics"] == scores
    assert (found["seen_in_training"], found["against"], found["slices"]) == (0, None, {})
    assert len(project.json("runs")) == before
    for arguments, words in (
        (("dataset@v1",), "that is a dataset; expected a model"),
        (("smolm2",), "evaluate smolm2: no model@v1"),
        (("model@v1", "--by", "customr"), "no item has that field"),
        (("model@v1", "--metric", "blue"), "did you mean 'bleu'"),
        (
            ("model@v1", "--metric", "accuracy"),
            "metric accuracy needs probabilities; a model for task chat gives answer and likelihood",
        ),
        (("model@v1", "--data", "nothing.jsonl"), "nothing.jsonl"),
        (("model@v1", "--data", "a", "--dataset", "dataset@v1"), "expected --data or --dataset"),
    ):
        said = project.call("evaluate", *arguments, check=2).stderr
        assert words in said
        assert said.count("\n") == 1, said
    assert len(project.json("runs")) == before


def test_own_items_against_the_base_model(project: Project, base: object) -> None:
    write_items(project)
    arguments = ("@champion", "--data", "mine.jsonl", "--metric", "log_likelihood", "--metric", "chrf")
    found = project.json("evaluate", *arguments, "--against", str(base))
    example = promised("evaluate")
    for part in (example, example["against"]):
        part["metrics"]["log_likelihood"] = {k: v for k, v in part["metrics"]["chrf"].items() if k != "signature"}
    unseen = found.pop("unseen")  # two of the four were learned from
    assert found.pop("rows") == {"in": 4, "kept": 4, "dropped": {}, "quarantined": 0}
    assert {each["n"] for each in unseen.values()} == {2}
    assert not differences(example | {"slices": {}}, found)
    assert found["items"] == 4
    assert found["seen_in_training"] == 2
    assert set(found["metrics"]) == {"log_likelihood", "chrf"}
    compared = found["against"]["metrics"]
    assert compared["log_likelihood"]["n"] == 4
    assert compared["log_likelihood"]["level"] == pytest.approx(0.975)  # two metrics: both hold together in 95 %
    difference = found["metrics"]["log_likelihood"]["value"]
    with open_project(project.folder) as opened:
        record = opened.record
        theirs = EvaluationReport(found["against"]["evaluation"], record.store)
        assert difference - theirs.value("log_likelihood") == pytest.approx(compared["log_likelihood"]["difference"])
        ours = EvaluationReport(found["evaluation"], record.store)
        made = record.runs.producer(ours.digest)
        assert made is not None
        assert made.step == "develop.score"  # which no comparison takes for a score on the project's tests
        assert ours.scores()["chrf"]["signature"].startswith("nrefs:1|")
        items = ours.items().items
        assert [each.reference for each in items][-1].startswith("Nobody knows")
        reached = lineage(record, found["evaluation"], limit=1_000).nodes
        assert {document for item in items for document in item.documents} <= set(reached)
    said = project.call("evaluate", *arguments, "--against", str(base)).stdout
    assert "2 of them, or nearly the same, it was fine-tuned on" in said
    assert f"against {base}" in said
    assert project.json("verify")["ok"]


def test_own_items_are_read_by_the_columns_of_the_projects_sources(project: Project) -> None:
    rows = [
        {"asked": f"What is number {number}?", "told": f"It is the number {number} of them."} for number in range(3)
    ]
    (project.folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ("evaluate", "model@v1", "--data", "mine.jsonl", "--metric", "token_f1")
    said = project.call(*asked, check=2).stderr
    assert "evaluate: 0 items with a reference answer or label" in said
    source = project.file.read_text()
    named = source.replace(
        "prepare:", "    - {type: files, path: more, fields: {prompt: asked, response: told}}\nprepare:"
    )
    project.file.write_text(named)
    assert project.json(*asked)["items"] == 3
    project.file.write_text(source)


def test_what_is_left_out_of_own_items_is_counted_by_rule(project: Project) -> None:
    rows = [{"question": f"What is number {n}?", "answer": "It is one of them."} for n in range(3)]
    rows += [{"question": "And?", "answer": "No. " * 40}, {"question": "What is missing?", "answer": ""}]
    lines = [json.dumps(row) for row in rows] + ["{"]
    (project.folder / "mine.jsonl").write_text("\n".join(lines) + "\n")
    asked = ("evaluate", "model@v1", "--data", "mine.jsonl", "--metric", "token_f1")
    source = project.file.read_text()
    assert source.count("redact]") == 1
    project.file.write_text(source.replace("redact]", "redact, {examples: {chat: {max_characters: 60}}}]"))
    found = project.json(*asked)
    assert (found["items"], found["rows"]["in"], found["rows"]["kept"]) == (3, 6, 3)
    assert found["rows"]["dropped"]["examples.too_long"] == 1  # a setting of the project's own
    assert sum(found["rows"]["dropped"].values()) + found["rows"]["quarantined"] == 3
    said = project.call(*asked).stdout
    assert "of 6 rows; left out: " in said
    assert "1 examples.too_long" in said
    (project.folder / "mine.jsonl").write_text(lines[3] + "\n" + lines[0] + "\n")
    said = project.call(*asked, check=2).stderr
    assert "1 items with a reference answer or label, of 2 rows (1 examples.too_long)" in said
    project.file.write_text(source)


def test_a_mistake_in_ones_own_metric_says_where_it_is(project: Project) -> None:
    (project.folder / "mets.py").write_text(
        "def boom(items, outputs):\n    return [1 / 0 for _ in items]\n\n\n"
        "def pairs(items, outputs):\n    return [(1, 1) for _ in items]\n\n\n"
        "def nothing(items, outputs):\n    return None\n"
    )
    for name, said in (
        ("boom", "ZeroDivisionError: division by zero (mets.py:2, code of this project;"),
        ("pairs", "metric pairs gave list: expected a number for each item"),
        ("nothing", "metric nothing gave NoneType: expected a number for each item"),
    ):
        error = project.call("evaluate", "model@v1", "--metric", f"mets:{name}", check=2).stderr
        assert said in error
        assert error.count("\n") == 1


def test_a_person_in_own_items_is_erased(project: Project) -> None:
    rows = [
        {"question": f"What is number {number}?", "answer": f"It is the number {number} of them.", "who": who}
        for number, who in enumerate(("Kim Eschenbach", "nobody", "somebody"))
    ]
    (project.folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ("evaluate", "model@v1", "--data", "mine.jsonl", "--subject", "who", "--metric", "token_f1")
    assert project.json(*asked)["items"] == 3
    (project.folder / "mine.jsonl").unlink()
    found = project.json("forget", "Kim Eschenbach", "--no-rebuild")
    assert (found["done"], found["documents"]) == (True, 1)
    left = every_byte(project.folder)
    assert b"eschenbach" not in left
    assert b"what is number 0?" not in left
    assert project.json("verify")["ok"]
    (project.folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert project.json(*asked)["items"] == 2
