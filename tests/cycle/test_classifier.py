"""A classifier from one's own labeled rows: the real encoder, the template, a label with its documents."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

from small_project import Project
from treadle.project import open_project
from treadle.text.dataset import Dataset
from treadle.text.handles import Features

LABELS = ("card_arrival", "exchange_rate", "lost_or_stolen_card", "top_up_failed")
ROWS = 24  # of each label


def write_rows(shared: Path, out: Path) -> None:
    """Questions of bank customers with four of the seventy-seven intents."""
    taken = dict.fromkeys(LABELS, 0)
    with gzip.open(shared / "2-classification-ner" / "banking77_train.csv.gz", "rt") as file, out.open("w") as target:
        writer = csv.writer(target)
        writer.writerow(["text", "intent"])
        for row in csv.DictReader(file):
            label = row.get("category") or row.get("label") or row.get("intent") or ""
            if label in taken and taken[label] < ROWS:
                taken[label] += 1
                writer.writerow([row["text"], label])
    assert set(taken.values()) == {ROWS}


def test_from_a_csv_to_a_traced_label(shared_data: Path, tmp_path: Path) -> None:
    write_rows(shared_data, tmp_path / "intents.csv")
    project = Project(tmp_path / "project")
    Project(tmp_path).call(
        *("init", "project", "--template", "classifier", "--data", str(tmp_path / "intents.csv")), timeout=60
    )
    project.edit("approval: one", "approval: none")
    project.edit("train: 0.8, validation: 0.1, test: 0.1", "train: 0.6, validation: 0.1, test: 0.3")
    project.edit("epochs: 5 ", "epochs: 10 ")
    project.edit("prepare:\n", "prepare:\n  features: {kind: tfidf}\n")
    result = project.json("run")
    assert result["ok"]
    evaluations = project.json("develop")["evaluations"]
    assert set(evaluations) == {"model", "majority", "tfidf"}
    assert evaluations["model"]["accuracy"]["value"] > 0.8 > 0.5 > evaluations["majority"]["accuracy"]["value"]
    with open_project(project.folder) as opened:
        (made,) = opened.record.runs.find(step="prepare.make_features")
        features = Features(made.outputs["features"], opened.record.store)
        dataset = Dataset(made.inputs["dataset"], opened.record.store)
        assert features.read_json("features.json")["rows"] == dataset.counts()
        assert features.document_ids() == dataset.document_ids()
    few = tmp_path / "few.csv"  # one text of a label: too few to learn it, and enough to be judged by
    few.write_text("text,label\nmy card was stolen,lost_or_stolen_card\nwhat about frogs,frogs\n")
    judged = project.json("evaluate", "model@v1", "--data", str(few), "--metric", "accuracy")
    assert judged["rows"] == {"in": 2, "kept": 2, "dropped": {}, "quarantined": 0}
    assert judged["metrics"]["accuracy"]["n"] == 2
    answer = project.json("ask", "I lost my card, please block it")
    assert answer["answer"] == "lost_or_stolen_card"
    assert answer["lineage"]["verified"]
    assert "document" in {node["kind"] for node in answer["lineage"]["nodes"]}
    assert project.json("verify")["ok"]
