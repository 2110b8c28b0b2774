"""A classifier from one's own labeled rows: the real encoder, the template, a label with its documents."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

from small_project import Project
from treadle.core.ledger import now
from treadle.project import open_project
from treadle.record.interaction import Interaction, new_interaction_id
from treadle.stages.improve import give_feedback
from treadle.text.accounting import read_accounting
from treadle.text.dataset import Dataset
from treadle.text.handles import Features
from treadle.turning import begin_next

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


INTENTS = """\
name: intents
task: classify
collect:
  sources: [{type: files, path: ../rows.csv, license: CC0-1.0, fields: {text: text, label: intent}}]
prepare:
  split: {train: 0.8, validation: 0.1, test: 0.1}
develop: {base_model: all-minilm-l6-v2, epochs: 1}
govern: {purpose: a test}
improve: {corrections: {license: CC0-1.0, test_share: 0}}
"""


def answered(project: Project, wanted: list[tuple[str, str]]) -> None:
    """Texts that were labeled wrongly, and the label that each should have had."""
    with open_project(project.folder) as opened:
        record = opened.record
        for text, label in wanted:
            said = ({"role": "user", "content": text},)
            row = Interaction(
                new_interaction_id(), "req", now(), "b3:0", "intents@v1", "/v1/classify", "ok", store=True,
                messages=said, answer=LABELS[0],
            )  # fmt: skip
            record.recorder.interaction(row)
            give_feedback(record, row.id, "correction", None, label, None, None)
        begin_next(opened, ("asked for",))


def corrected(project: Project) -> tuple[dict[str, int], set[str], list[str]]:
    """What the last dataset's rules took, the labels to learn, and those of the test cases."""
    with open_project(project.folder) as opened:
        store = opened.record.store
        (made, *_), (chosen, *_) = (
            opened.record.runs.find(step=f"prepare.{step}", status="done") for step in ("assemble", "choose_cases")
        )
        dataset, cases = Dataset(made.outputs["dataset"], store), Dataset(chosen.outputs["dataset"], store)
        labels = {str(example.label) for example in dataset.examples("train")}
        return read_accounting(dataset.path()).dropped, labels, [str(case.label) for case in cases.examples("test")]


def test_a_slip_in_a_correction_makes_no_class(shared_data: Path, tmp_path: Path) -> None:
    write_rows(shared_data, tmp_path / "rows.csv")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "treadle.yaml").write_text(INTENTS)
    project = Project(tmp_path / "project")
    fresh = [f"nobody said number {word} of these things yet" for word in ("one", "two", "three", "four", "five")]
    answered(project, [("where does my plastic remain?", "card_arrivalX"), ("it was taken from me", f"{LABELS[2]} ")])
    said = project.call("prepare").stdout
    assert "2 corrections: 1 to learn from, 0 kept as test cases" in said
    assert "0 too near to a test, 1 with an unknown label (corrections.rare_label)" in said
    dropped, labels, _ = corrected(project)
    assert dropped["corrections.rare_label"] == 1
    assert labels == set(LABELS)
    with open_project(project.folder) as opened:
        opened.record.turns.end(1, "failed", "a test", None)
    answered(project, [(text, "frogs") for text in fresh])  # five make a class, as five texts do
    project.call("prepare")
    dropped, labels, _ = corrected(project)
    assert dropped["corrections.rare_label"] == 1
    assert labels == {*LABELS, "frogs"}
    project.edit("test_share: 0}", "test_share: 0.5}")
    project.edit("prepare:\n", "prepare:\n  steps: [examples: {classification: {min_per_label: 6}}]\n")
    with open_project(project.folder) as opened:
        opened.record.turns.end(2, "failed", "a test", None)
        begin_next(opened, ("asked for",))
    said = project.call("prepare").stdout
    dropped, labels, cases = corrected(project)
    assert dropped["corrections.rare_label"] == 6
    assert labels == set(LABELS)
    assert set(cases) <= set(LABELS)  # and nobody is judged by what cannot be learned
    assert f"7 corrections: {1 - len(cases)} to learn from, {len(cases)} kept as test cases" in said
