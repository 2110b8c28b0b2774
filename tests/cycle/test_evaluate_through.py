"""A release asked by lm-eval and by Inspect themselves, in environments of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from importing.peers import lm_eval_programs, peer
from small_project import Project

ROWS = [{"question": f"Say the number {number}.", "answer": str(number)} for number in range(4)]
INSPECT = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes


@task
def numbers():
    return Task(dataset=[Sample(input=f"Say {n}.", target=str(n)) for n in range(3)], scorer=includes())
"""


def check(project: Project, environment: Path, program: str, task: str, items: int) -> None:
    asked = ("evaluate", "@champion", "--through", program, "--environment", str(environment), "--task", task)
    interactions = len(project.json("runs"))
    found = project.json(*asked)
    (score,) = found["metrics"].values()
    assert score["n"] == items
    assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
    assert found["program"]["name"] == program
    assert project.json(*asked) == found
    assert len(project.json("runs")) == interactions + 1  # the second time it was remembered
    assert project.json("verify")["ok"]


@pytest.mark.slow
def test_lm_eval_asks_the_release(project: Project) -> None:
    programs = lm_eval_programs()
    (project.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    task = {
        "task": "numbers",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(project.folder / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    (project.folder / "numbers.yaml").write_text(yaml.safe_dump(task))
    check(project, programs.parent, "lm-eval", "numbers.yaml", 4)


@pytest.mark.slow
def test_inspect_asks_the_release(project: Project) -> None:
    programs = peer("inspect-ai", "inspect_ai", "openai")
    (project.folder / "numbers.py").write_text(INSPECT)
    check(project, programs.parent, "inspect-ai", "numbers.py", 3)


def test_a_program_that_is_not_there_is_one_line(project: Project) -> None:
    for arguments, words in (
        (("--through", "lm-eval", "--environment", "nowhere", "--task", "x"), "make one with `python -m venv"),
        (("--through", "lm-evl", "--environment", "nowhere", "--task", "x"), "did you mean 'lm-eval'"),
        (("--through", "lm-eval", "--task", "x"), "needs --environment DIR and --task"),
    ):
        said = project.call("evaluate", "@champion", *arguments, check=2).stderr
        assert words in said
        assert said.count("\n") == 1
