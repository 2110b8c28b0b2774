"""Preferences from one file: pairs of answers in, a model that prefers the wanted ones out."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest

from small_project import Project, make_project
from task_results import keep
from treadle.cycle import begin
from treadle.lm.model import Model
from treadle.project import open_project
from treadle.text.dataset import Dataset
from treadle.turning import go

FILE = """\
name: harmless
task: chat
collect:
  sources: [{type: files, path: ../data/pairs.jsonl, license: MIT}]
prepare:
  steps: [normalize]
  split: {train: 0.5, validation: 0.1, test: 0.4}
develop:
  base_model: smollm2-135m-instruct
  max_length: 192
  prefer: {method: dpo, instead: true, epochs: 3}
  evaluate: {metrics: [preference_accuracy, log_likelihood], baselines: [base]}
"""


def test_pairs_are_learned_from_after_fine_tuning(tmp_path: Path, base: Path) -> None:
    project = make_project(tmp_path, base)
    rows = [json.loads(line) for line in project.data.read_text().splitlines()]
    for row in rows:
        question, answer = row.pop("messages")
        row |= {"prompt": question["content"], "chosen": answer["content"]}
        row["rejected"] = " ".join(reversed(answer["content"].split()))
    project.data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    project.edit("fields: {messages: messages, subject: customer, time: time}", "fields: {subject: customer}")
    project.edit("tokens: 3000", "tokens: 800\n  prefer: {epochs: 2, learning_rate: 5e-3}")
    project.edit("metrics: [log_likelihood, perplexity, rouge_l], ", "metrics: [preference_accuracy], ")
    with open_project(project.folder) as opened:
        turn = begin(opened)
        go(turn, "develop")
        model, evaluations = turn.developed.model, turn.developed.evaluations
        runs = {run.step: run for run in opened.record.runs.find(status="done")}
        dataset = Dataset(runs["develop.prefer"].inputs["dataset"], opened.record.store)
        tuned = Model(runs["develop.train"].outputs["model"], opened.record.store)
        assert runs["develop.prefer"].inputs["start"] == tuned.digest
        assert model.digest == runs["develop.prefer"].outputs["model"]
        assert set(model.document_ids()) == set(dataset.split_document_ids("train"))
        assert model.about()["training"]["start"] == tuned.digest
    assert list(evaluations) == ["model", "before_pairs", "base"]
    after, before = (evaluations[name].value("preference_accuracy") for name in ("model", "before_pairs"))
    assert after >= before
    assert after > 0.9
    assert runs["develop.prefer"].metrics["held_out_accuracy"] > 0.9
    outputs = evaluations["model"].items().outputs
    assert all(output.rejected_log_likelihood is not None for output in outputs)


def test_without_pairs_it_is_said_before_training_is_lost(tmp_path: Path, base: Path) -> None:
    project = make_project(tmp_path, base)
    project.edit("tokens: 3000", "tokens: 800\n  prefer: {instead: true}")
    done = project.call("run", "--until", "develop", check=2)
    assert "develop.prefer: no example of the training split has a rejected answer; give pairs" in done.stderr
    project.edit("task: chat", "task: classify")
    project.edit("baselines: [base], ", "")
    refused = project.call("plan", check=2)
    assert "pairs of answers are not for task classify" in refused.stderr


@pytest.mark.slow
def test_harmless_pairs_of_hh_rlhf(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "project").mkdir()
    with gzip.open(shared_data / "7-load-drift-feedback" / "hh_rlhf_harmless.jsonl.gz", "rt") as file:
        lines = [line for line in file if len(line) < 1_300][:300]
    (tmp_path / "data" / "pairs.jsonl").write_text("".join(lines))
    (tmp_path / "project" / "treadle.yaml").write_text(FILE)
    project = Project(tmp_path / "project")
    with open_project(project.folder) as opened:
        turn = begin(opened)
        go(turn, "develop")
        evaluations = {name: report.scores() for name, report in turn.developed.evaluations.items()}
        (trained,) = opened.record.runs.find(step="develop.prefer", status="done")
    keep("preferences", "HH-RLHF harmless-base, 300 short pairs; SmolLM2-135M-Instruct, DPO", evaluations)
    scores = {name: found["preference_accuracy"] for name, found in evaluations.items()}
    assert scores["base"]["n"] == scores["model"]["n"] > 100
    assert scores["model"]["low"] < scores["model"]["value"] < scores["model"]["high"]
    # Pairs that it has seen before; those that it has not are in the scores, which so few hardly change.
    assert trained.metrics["margin"] > 0
    assert trained.metrics["loss"] < math.log(2)  # where it began
    assert {"held_out_margin", "held_out_accuracy"} <= set(trained.metrics)
    assert project.json("verify")["ok"]
