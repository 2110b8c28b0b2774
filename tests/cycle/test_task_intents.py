"""Intents by one file: from rows to an evaluated release that is served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cycle.test_task_pretraining import intents
from small_project import Project
from task_results import keep

FILE = """\
name: intents
task: classify
seed: 17
collect:
  sources: [{type: files, path: ../data/rows.jsonl, license: CC-BY-4.0, fields: {text: text, label: label}}]
prepare:
  steps: [normalize]
  split: {train: 0.7, validation: 0.05, test: 0.25}
develop:
  base_model: all-minilm-l6-v2
  learning_rate: 3e-4
  epochs: 5
  max_length: 64
deploy: {quantize: null, smoke_requests: 4}
govern:
  purpose: a test
  gates: [{quality: {metric: accuracy, beats: majority}}]
"""

pytestmark = pytest.mark.slow


def test_minilm_tells_intents_apart_by_all_weights_and_by_adapters(shared_data: Path, tmp_path: Path) -> None:
    rows = intents(shared_data, 77, 40)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "treadle.yaml").write_text(FILE)
    project = Project(tmp_path / "project")
    assert project.json("run")["ok"]
    evaluations = project.json("develop")["evaluations"]
    accuracy = {name: scores["accuracy"]["value"] for name, scores in evaluations.items()}
    assert accuracy["model"] > accuracy["tfidf"] > accuracy["majority"]
    said = project.json("ask", rows[0]["text"])
    assert said["answer"] in {row["label"] for row in rows}
    assert "document" in {node["kind"] for node in said["lineage"]["nodes"]}
    keep("intents", "BANKING77, 77 intents, 40 texts of each; MiniLM", evaluations)
    project.edit("  learning_rate: 3e-4\n  epochs: 5\n", "  method: lora\n  epochs: 5\n")
    by_adapters = project.json("develop")["evaluations"]["model"]["accuracy"]["value"]
    assert by_adapters > 0.9 * accuracy["model"]
    assert project.json("run")["ok"]
    assert project.json("ask", rows[0]["text"])["answer"] in {row["label"] for row in rows}
