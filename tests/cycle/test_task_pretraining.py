"""Models from nothing, one file each: pretrained on bare text by the next token, by hidden tokens and by spans, then
fine-tuned, evaluated beside what costs nothing, and served."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from small_project import Project
from task_results import keep
from treadle.project import open_project

INTENTS = 10
FILE = """\
name: fromnothing
task: {task}
seed: 17
collect:
  sources: [{{type: files, path: ../data/rows.jsonl, license: CC-BY-4.0{fields}}}]
prepare:
  steps: [normalize]
  split: {{train: 0.7, validation: 0.05, test: 0.25}}
develop:
  init: {{architecture: {architecture}, size: 1M, context: 256}}
  pretrain: {{tokens: 400000, width: 128, batch: 16}}
  {more}
deploy: {{quantize: null, smoke_requests: 4, max_tokens: 16}}
govern: {{purpose: a test, gates: []}}
"""
WAYS = {
    "llama": (
        "chat",
        "causal",
        "learning_rate: 1e-3\n  tokens: 60000\n  evaluate: {metrics: [log_likelihood], baselines: [base]}",
    ),
    "bert": ("classify", "masked", "learning_rate: 5e-4\n  epochs: 12\n  max_length: 64"),
    "t5": ("classify", "spans", "learning_rate: 1e-3\n  epochs: 12\n  max_length: 64"),
}

pytestmark = pytest.mark.slow


def intents(shared: Path, count: int, each: int) -> list[dict[str, str]]:
    """Questions of a bank's customers and what each is about: so many of the intents, so many questions of each."""
    found: dict[str, list[str]] = {}
    with gzip.open(shared / "2-classification-ner" / "banking77_train.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["category"], []).append(row["text"])
    return [{"text": text, "label": label} for label in sorted(found)[:count] for text in found[label][:each]]


def questions(shared: Path) -> list[dict[str, str]]:
    """Sums in words, and their solutions."""
    with gzip.open(shared / "1-instruct-qa" / "gsm8k_train.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for _, line in zip(range(3_000), file, strict=False)]
    short = (row for row in rows if len(row["question"]) + len(row["answer"]) < 350)
    return [{"question": row["question"], "answer": row["answer"]} for row in short]


@pytest.mark.parametrize("architecture", list(WAYS))
def test_from_bare_text_to_a_release(shared_data: Path, tmp_path: Path, architecture: str) -> None:
    task, objective, more = WAYS[architecture]
    rows = questions(shared_data) if task == "chat" else intents(shared_data, INTENTS, 200)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "project").mkdir()
    fields = "" if task == "chat" else ", fields: {text: text, label: label}"
    file = FILE.format(task=task, architecture=architecture, fields=fields, more=more)
    (tmp_path / "project" / "treadle.yaml").write_text(file)
    project = Project(tmp_path / "project")
    assert project.json("run")["ok"]
    evaluations = project.json("develop")["evaluations"]
    with open_project(project.folder) as opened:
        read = opened.record.runs.find(step="develop.pretrain", status="done")[0].metrics
    said = project.json("ask", rows[0]["question" if task == "chat" else "text"])
    assert "document" in {node["kind"] for node in said["lineage"]["nodes"]}
    before, after = read["bits_per_byte_before"], read["bits_per_byte"]
    assert after < 0.7 * before
    unit = "byte" if task == "chat" else "hidden token"
    about = f"GSM8K, {len(rows):,} sums" if task == "chat" else f"BANKING77, {INTENTS} intents"
    about += f"; a {architecture} of 1M parameters from nothing, {before:.2f} to {after:.2f} bits a {unit} by reading"
    keep(f"pretrain-{objective}", about, evaluations)
    if task == "chat":
        assert evaluations["model"]["log_likelihood"]["value"] > evaluations["base"]["log_likelihood"]["value"]
    else:
        assert evaluations["model"]["accuracy"]["low"] > evaluations["majority"]["accuracy"]["high"]
