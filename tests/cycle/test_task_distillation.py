"""A smaller model from one file: it learns from the one that was trained, or from a version of it, whose documents are
its documents too."""

from __future__ import annotations

import csv
import gzip
import json
import time
from pathlib import Path

import pytest

from small_project import Project
from task_results import keep
from treadle.core.errors import UserError
from treadle.cycle import begin
from treadle.lm.classification import Classifier
from treadle.lm.model import Model
from treadle.project import open_project
from treadle.turning import go

SMALL = """\
name: reviews
task: classify
collect:
  sources: [{type: files, path: ../data/rows.jsonl, license: MIT, fields: {text: text, label: label}}]
prepare: {steps: [normalize], split: {train: 0.6, validation: 0.1, test: 0.3}}
develop:
  init: {architecture: bert, size: 200K, context: 64, vocabulary: 400}
  max_length: 32
  epochs: 1
  distill: {layers: 1, temperature: 3, epochs: 1}
"""
FILE = """\
name: intents
task: classify
collect:
  sources: [{type: files, path: ../data/intents.csv, license: CC-BY-4.0, fields: {text: text, label: category}}]
prepare:
  steps: [normalize]
  split: {train: 0.8, validation: 0.05, test: 0.15}
develop:
  base_model: all-minilm-l6-v2
  max_length: 64
  distill: {layers: half}
"""


INTENTS = 20  # of the seventy-seven, so that it takes minutes


def _project(root: Path, file: str) -> Project:
    (root / "data").mkdir()
    (root / "project").mkdir()
    (root / "project" / "treadle.yaml").write_text(file)
    return Project(root / "project")


def test_a_student_of_this_turn_and_of_a_version(tmp_path: Path) -> None:
    project = _project(tmp_path, SMALL)
    rows = [{"text": f"The lamp number {n} is {'good' if n % 2 else 'bad'}.", "label": str(n % 2)} for n in range(60)]
    (tmp_path / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open_project(project.folder) as opened:
        turn = begin(opened)
        go(turn, "track")
        runs = {run.step: run for run in opened.record.runs.find(status="done")}
        teacher = Model(runs["develop.fit"].outputs["model"], opened.record.store)
        student = turn.developed.model
        assert student.digest == runs["develop.distill"].outputs["model"]
        assert list(turn.developed.evaluations)[:2] == ["model", "teacher"]
        assert (
            student.read_json("config.json")["num_hidden_layers"]
            == 1
            < teacher.read_json("config.json")["num_hidden_layers"]
        )
        assert set(student.document_ids()) >= set(teacher.document_ids()) > set()
        assert student.about()["training"]["start"] == teacher.digest
    project.edit("distill: {layers: 1,", "distill: {teacher: model@v1, layers: half,")
    with open_project(project.folder) as opened:
        turn = begin(opened)
        go(turn, "develop")
        (second,) = opened.record.runs.find(step="develop.distill", status="done")[:1]
        assert second.inputs["start"] == student.digest
        assert len(opened.record.runs.find(step="develop.fit", status="done")) == 1
    project.edit("model@v1", "dataset@v1")
    with (
        open_project(project.folder) as opened,
        pytest.raises(UserError, match="'dataset@v1' is no version of a model"),
    ):
        go(begin(opened), "develop")


@pytest.mark.slow
def test_half_of_minilm_tells_intents_apart(shared_data: Path, tmp_path: Path) -> None:
    project = _project(tmp_path, FILE)
    with gzip.open(shared_data / "2-classification-ner" / "banking77_train.csv.gz", "rt") as file:
        head, *rows = csv.reader(file)
    labels = sorted({row[1] for row in rows})[:INTENTS]
    rows = [head, *(row for row in rows if row[1] in labels)]
    with (tmp_path / "data" / "intents.csv").open("w") as target:
        csv.writer(target).writerows(rows)
    with open_project(project.folder) as opened:
        turn = begin(opened)
        go(turn, "develop")
        evaluations = {name: report.scores() for name, report in turn.developed.evaluations.items()}
        runs = {run.step: run for run in opened.record.runs.find(status="done")}
        store = opened.record.store
        large, small = Model(runs["develop.fit"].outputs["model"], store), turn.developed.model
        texts = [row[0] for row in rows[1:801]]
        seconds = {large.digest: 1e9, small.digest: 1e9}
        for _ in range(3):
            for model in (large, small):
                classifier = Classifier(model.path())
                start = time.perf_counter()
                classifier.predict(texts)
                seconds[model.digest] = min(seconds[model.digest], time.perf_counter() - start)
    ratio = seconds[large.digest] / seconds[small.digest]
    keep(
        "distillation", f"BANKING77, {INTENTS} intents; half of MiniLM's layers, {ratio:.2f} times as fast", evaluations
    )
    accuracy = {name: found["accuracy"]["value"] for name, found in evaluations.items()}
    assert accuracy["model"] >= 0.97 * accuracy["teacher"]
    assert accuracy["teacher"] > 0.85 > accuracy["majority"]
