"""``treadle evaluate --task``: items from a file, remembered, traced, looked for in training, and compared."""

from __future__ import annotations

import json
from pathlib import Path

from docs.pages import ROOT, blocks
from evals.test_judging import longer
from small_project import Project
from teacher_server import TeacherServer
from treadle.evals.evaluation_task import load_evaluation_task
from treadle.evals.report import EvaluationReport
from treadle.evals.task_items import items_of, worked_rows
from treadle.project import open_project
from treadle.stages.track.walk import lineage
from treadle.text.dataset import Dataset

COLORS = [
    {"question": "What color is grass?", "options": ["blue", "green"], "right": 1},
    {"question": "What color is the sea?", "options": ["blue", "green"], "right": 0},
    {"question": "What color is snow?", "options": ["white", "black", "red"], "right": 0},
    {"question": "What color is coal?", "options": ["white", "black"], "right": 1},
    {"question": "What color is blood?", "options": ["white", "red"], "right": 1},
]
CHOSEN = [block for block in blocks(ROOT / "docs" / "stages" / "develop.md") if "colors.jsonl" in block.text]


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_tasks_that_the_docs_show(project: Project, base: Path) -> None:
    file, function = CHOSEN
    (project.folder / "tasks").mkdir()
    (project.folder / "tasks" / "colors.yaml").write_text(file.text)
    write_rows(project.folder / "colors.jsonl", COLORS)
    asked = ("evaluate", "@champion", "--task", "tasks/colors.yaml", "--against", str(base))
    found = project.json(*asked)
    assert (found["items"], found["seen_in_training"]) == (3, 0)  # two are shown
    assert set(found["metrics"]) == set(found["against"]["metrics"]) == {"acc", "acc_norm"}
    assert {name: found["task"][name] for name in ("name", "version", "kind")} == {
        "name": "colors",
        "version": 1,
        "kind": "multiple_choice",
    }
    with open_project(project.folder) as opened:
        report = EvaluationReport(found["evaluation"], opened.record.store)
        assert report.read_json("scores.json")["task"]["digest"] == found["task"]["digest"]
        kept = report.items()
        assert [each.reference for each in kept.items] == ["white", "black", "red"]
        assert all(
            len(output.choices) == len(item.choices) for item, output in zip(kept.items, kept.outputs, strict=True)
        )
        reached = lineage(opened.record, found["evaluation"], limit=1_000).nodes
        assert {name for item in kept.items for name in item.documents} <= set(reached)
    before = len(project.json("runs"))
    assert project.json(*asked) == found
    assert len(project.json("runs")) == before
    (project.folder / "my_parts.py").write_text(function.text)
    assert (
        items_of(worked_rows(COLORS, load_evaluation_task("my_parts:colors", project.folder)), "generate")[0].reference
        == "green"
    )
    for arguments, words in (
        (("--task", "tasks/other.yaml"), "there is no file"),
        (("--task", "tasks/colors.yaml", "--data", "colors.jsonl"), "leave out --data"),
        (("--task", "tasks/colors.yaml", "--metric", "bleu"), "metric bleu asks for answer; colors is multiple_choice"),
    ):
        assert words in project.call("evaluate", "@champion", *arguments, check=2).stderr
    assert project.json("verify")["ok"]


def test_items_that_training_had_are_marked_or_refused(project: Project) -> None:
    with open_project(project.folder) as opened:
        run = opened.record.runs.find(step="develop.train", status="done", limit=1)[0]
        trained = Dataset(run.inputs["dataset"], opened.record.store).examples("train")[:2]
    rows = [{"asked": each.question, "told": each.answer} for each in trained]
    rows += [{"asked": f"Who is number {n} of the {n} people here?", "told": f"Nobody knows {n}."} for n in range(3)]
    write_rows(project.folder / "asked.jsonl", rows)
    task = {
        "name": "asked", "version": 1, "kind": "generate", "items": {"type": "files", "path": "asked.jsonl"},
        "prompt": "{{ asked }}", "answer": "told", "chat": True, "max_tokens": 4, "metrics": ["token_f1"],
    }  # fmt: skip
    (project.folder / "asked.yaml").write_text(json.dumps(task))
    found = project.json("evaluate", "@champion", "--task", "asked.yaml")
    assert (found["items"], found["seen_in_training"], found["unseen"]["token_f1"]["n"]) == (5, 2, 3)
    assert "not seen in training" in project.call("evaluate", "@champion", "--task", "asked.yaml").stdout
    (project.folder / "asked.yaml").write_text(json.dumps({**task, "seen": "refuse"}))
    said = project.call("evaluate", "@champion", "--task", "asked.yaml", check=1).stderr
    assert "2 of 5 items of asked are, or nearly are, in what it was fine-tuned on" in said
    (project.folder / "asked.yaml").write_text(json.dumps({**task, "answer": "tld"}))
    said = project.call("evaluate", "@champion", "--task", "asked.yaml", check=2).stderr
    assert "task asked: 0 items of 5 documents; the first without: there is no column tld" in said


def test_a_judge_compares_two_models_and_is_measured_by_people(project: Project, base: Path) -> None:
    pairs = [
        {"prompt": f"Question {n}?", "chosen": f"The long answer number {n}.", "rejected": "No."} for n in range(6)
    ]
    write_rows(project.folder / "people.jsonl", [{key: str(value) for key, value in each.items()} for each in pairs])
    with TeacherServer(longer) as server:
        (project.folder / "judge.yaml").write_text(
            f"model: large\nurl: {server.url}\n"
            "people:\n  type: files\n  path: people.jsonl\n"
            "  fields: {prompt: prompt, chosen: chosen, rejected: rejected}\n"
        )
        asked = ("evaluate", "@champion", "--against", str(base), "--metric", "rouge_l", "--judge", "judge.yaml")
        found = project.json(*asked)["judged"]
        count = len(server.asked)
        assert project.json(*asked)["judged"] == found
        assert len(server.asked) == count  # remembered
        assert "kappa 1 [" in project.call(*asked).stdout
    assert set(found["verdicts"]) <= {"one", "other", "tie", "swayed", "unparsed"}
    assert found["metrics"]["win_rate"]["n"] == sum(found["verdicts"].values()) - found["unparsed"]
    assert (found["people"]["metrics"]["agreement"]["value"], found["people"]["metrics"]["kappa"]["value"]) == (1, 1)
    said = project.call("evaluate", "@champion", "--judge", "judge.yaml", check=2).stderr
    assert "expected --against" in said
