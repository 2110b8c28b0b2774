"""A classifier that Keras trains, by one file: from rows to an evaluated release that is served as any other."""

from __future__ import annotations

import csv
import gzip
import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from small_project import Project
from task_results import keep
from tiny_models import write_encoder

pytestmark = [
    pytest.mark.skipif(find_spec("keras") is None, reason="keras is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

INTENTS, EACH = 10, 40  # of the seventy-seven, so that it takes minutes
THINGS = ("lamp", "tent", "radio", "stove")
WAYS = ("the {}", "a {} please", "my {} is here", "where is the {}", "{} again", "one {}", "that {} now", "{} or not")
FILE = """\
name: intents
task: classify
seed: 17
collect:
  sources: [{{type: files, path: ../data/rows.jsonl, license: CC-BY-4.0, fields: {{text: text, label: label}}}}]
prepare:
  steps: [normalize]
  split: {{train: 0.7, validation: 0.05, test: 0.25}}
develop:
  base_model: {base}
  fit: keras
  max_length: 64
{more}
deploy: {{quantize: null, smoke_requests: 4}}
govern: {{purpose: a test, gates: []}}
"""


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Torch, whatever a file in somebody's home says."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))


def project(root: Path, rows: list[tuple[str, str]], base: str, more: str) -> Project:
    (root / "data").mkdir()
    lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label in rows]
    (root / "data" / "rows.jsonl").write_text("".join(lines))
    (root / "project").mkdir()
    (root / "project" / "treadle.yaml").write_text(FILE.format(base=base, more=more))
    return Project(root / "project")


@pytest.mark.slow
def test_what_keras_trained_is_served(tmp_path: Path) -> None:
    rows = [(way.format(thing), thing) for thing in THINGS for way in WAYS]
    base = write_encoder(tmp_path / "base", [text for text, _ in rows])
    small = project(tmp_path, rows, str(base), "  learning_rate: 5e-3\n  epochs: 40")
    assert small.json("run")["ok"]
    evaluations = small.json("develop")["evaluations"]
    assert set(evaluations) == {"model", "majority", "tfidf"}
    assert evaluations["model"]["accuracy"]["value"] > evaluations["majority"]["accuracy"]["value"]
    said = small.json("ask", "where is the tent")
    assert said["answer"] in THINGS
    assert "document" in {node["kind"] for node in said["lineage"]["nodes"]}
    small.edit("fit: keras", "fit: kears")
    assert "there is no fit called 'kears'; did you mean" in small.call("develop", check=2).stderr


@pytest.mark.slow
def test_keras_tells_intents_apart(shared_data: Path, tmp_path: Path) -> None:
    intents: dict[str, list[str]] = {}
    with gzip.open(shared_data / "2-classification-ner" / "banking77_train.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            intents.setdefault(row["category"], []).append(row["text"])
    rows = [(text, label) for label in sorted(intents)[:INTENTS] for text in intents[label][:EACH]]
    real = project(tmp_path, rows, "all-minilm-l6-v2", "  epochs: 10")
    assert real.json("run")["ok"]
    evaluations = real.json("develop")["evaluations"]
    accuracy = {name: scores["accuracy"]["value"] for name, scores in evaluations.items()}
    assert accuracy["model"] > 0.8 > accuracy["majority"]
    assert accuracy["model"] > accuracy["tfidf"]
    keep("keras", f"BANKING77, {INTENTS} intents; MiniLM, trained by Keras", evaluations)
