"""Intents by a small encoder: ``python -m benchmarks.intents [--quick]``.

MiniLM learns the training part of BANKING77 (10,003 texts, 77 intents) from a project's file; then half of its layers
are distilled from it. Both answer the official test part (3,080 texts), through ``treadle evaluate``.

    student_speed   texts a second of the student over the teacher's, in turn, in one process

``minutes``: of ``treadle run --until track``, from rows to an evaluated model; 15 wanted. ``accuracy``: of the test
part, .915 wanted. ``student_kept``: the student's accuracy over the teacher's, .97 wanted.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import print_report, versions

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TREADLE_TEST_DATA", ROOT.parent / "shared" / "data"))
FILE = """\
name: intents
task: classify
collect:
  sources: [{type: files, path: train.csv, license: CC-BY-4.0, fields: {text: text, label: category}}]
prepare:
  steps: [normalize]
  split: {train: 0.96, validation: 0.02, test: 0.02}
develop:
  base_model: all-minilm-l6-v2
  max_length: 64
  learning_rate: 3e-4
  epochs: EPOCHS
"""
STUDENT = "  distill: {teacher: model@v1, layers: half, epochs: EPOCHS, learning_rate: 3e-4}\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Intents by a small encoder, and by half of it.")
    parser.add_argument("--quick", action="store_true", help="every tenth text, once")
    arguments = parser.parse_args()
    epochs = "1" if arguments.quick else "5"
    with tempfile.TemporaryDirectory(prefix="treadle-intents-") as place:
        folder = Path(place)
        for part in ("train", "test"):
            lay_out(folder, part, every=10 if arguments.quick else 1)
        took = {}
        for name, file in (("teacher", FILE), ("student", FILE + STUDENT)):
            (folder / "treadle.yaml").write_text(file.replace("EPOCHS", epochs))
            began = time.perf_counter()
            treadle(folder, "run", "--until", "track")
            took[name] = round((time.perf_counter() - began) / 60, 2)
        versions_made = ("model@v1", "model@v2")
        found = [treadle(folder, "evaluate", version, "--data", "test.csv") for version in versions_made]
        texts_per_second = speeds(folder, versions_made)
    scores = [each["metrics"]["accuracy"] for each in found]
    figures = {
        "texts": 10_003,
        "minutes": took["teacher"],
        "student_minutes": took["student"],
        "accuracy": round(scores[0]["value"], 4),
        "accuracy_interval": [round(scores[0][end], 4) for end in ("low", "high")],
        "student_accuracy": round(scores[1]["value"], 4),
        "student_kept": round(scores[1]["value"] / scores[0]["value"], 4),
        "texts_per_second": {name: round(value) for name, value in zip(took, texts_per_second, strict=True)},
        "load": round(os.getloadavg()[0], 1),
        "versions": versions(("treadle", "torch", "transformers", "tokenizers")),
    }
    print_report("intents", {"student_speed": texts_per_second[1] / texts_per_second[0]}, figures)


def lay_out(folder: Path, part: str, *, every: int) -> None:
    """One part as a file of its own."""
    with gzip.open(DATA / "2-classification-ner" / f"banking77_{part}.csv.gz", "rt") as file:
        head, *rows = csv.reader(file)
    with (folder / f"{part}.csv").open("w") as target:
        csv.writer(target).writerows([head, *rows[::every]])


def treadle(folder: Path, *arguments: str) -> dict[str, Any]:
    """What a command says."""
    command = [sys.executable, "-m", "treadle", "-C", str(folder), *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def speeds(folder: Path, names: tuple[str, ...]) -> list[float]:
    """Texts a second of each model, in turn."""
    from treadle.lm.classification import Classifier
    from treadle.lm.model import Model
    from treadle.project import open_project
    from treadle.record.reference import resolve

    with (folder / "test.csv").open() as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    with open_project(folder) as project:
        models = [Model(resolve(project.record, name, lambda _: []).id, project.record.store) for name in names]
        classifiers = [Classifier(model.path(), max_length=64) for model in models]
        seconds: list[list[float]] = [[] for _ in names]
        for _ in range(7):
            for place, classifier in enumerate(classifiers):
                began = time.perf_counter()
                classifier.predict(texts)
                seconds[place].append(time.perf_counter() - began)
    return [len(texts) / statistics.median(each) for each in seconds]


if __name__ == "__main__":
    main()
