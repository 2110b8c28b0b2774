"""`prepare.quality` in a project: examples from a source, the classifier with its documents, and the drops."""

from __future__ import annotations

import json

from small_project import Project
from treadle.project import open_project
from treadle.text.corpus import Corpus
from treadle.text.handles import QualityClassifier


def test_low_quality_is_dropped_by_name(project: Project) -> None:
    pairs = [(deed, thing) for deed in _DEEDS for thing in _THINGS]
    sides = {
        "good": [f"To {deed} the {thing}, open its menu, choose a page, then follow it." for deed, thing in pairs],
        "bad": [f"{deed} {thing} cheap buy now click here casino {deed}" for deed, thing in pairs],
    }
    for name, texts in sides.items():
        (project.folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    project.edit("  split:", "  quality: {good: {path: good.jsonl}, bad: {path: bad.jsonl}, threshold: 0.2}\n  split:")
    with project.data.open("a") as file:
        for place in range(3):
            said = f"buy cheap {place} now click here casino buy lamp cheap now click here"
            messages = [{"role": "user", "content": said}, {"role": "assistant", "content": said}]
            file.write(json.dumps({"messages": messages, "customer": f"spam-{place}"}) + "\n")
    done = project.json("prepare")
    assert done["in"] == done["kept"] + sum(done["dropped"].values()) + len(done["quarantined"])
    assert done["dropped"]["quality.score"] >= 3
    assert len(project.json("explore", "--rule", "quality.score")["documents"]) == done["dropped"]["quality.score"]
    assert "quality classifier, on 6 good and 6 bad documents held out: accuracy" in project.call("prepare").stdout
    with open_project(project.folder) as opened:
        run = opened.record.runs.find(step="prepare.train_quality", status="done")[0]
        classifier = QualityClassifier(run.outputs["quality"], opened.record.store)
        held = classifier.read_json("quality.json")["held_out"]
        assert held["accuracy"]["value"] == held["auc"]["value"] == 1 > held["auc"]["low"] > 0.5
        good, bad = (Corpus(run.inputs[side], opened.record.store).document_ids() for side in ("good", "bad"))
        assert set(classifier.document_ids()) == {*good, *bad}
    (project.folder / "bad.jsonl").write_text('{"text": "one"}\n')
    assert "prepare.quality.bad: 1 different documents" in project.call("prepare", check=2).stderr


_THINGS = ("kettle", "lamp", "printer", "router", "bicycle", "tent")
_DEEDS = ("return", "repair", "clean", "reset", "store")
