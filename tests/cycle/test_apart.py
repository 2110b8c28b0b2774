"""What evaluation sets and earlier versions have stays out of the next dataset, and the account says so."""

from __future__ import annotations

import json
from pathlib import Path

from small_project import DEEDS, Project
from treadle.project import open_project
from treadle.text.corpus import Corpus
from treadle.text.findings import read_findings

NEW = ("window", "garden gate", "roof", "chimney", "cellar door", "fence")


def test_evaluation_sets_are_kept_apart(project: Project) -> None:
    with open_project(project.folder) as opened:
        version = opened.record.versions.resolve("dataset@v1")
        assert version is not None
    before = project.json("prepare")
    assert before["evaluation_sets"] == {}
    asked = [f"How do I {deed} my {thing}?" for deed in DEEDS for thing in ("kettle", "lamp")]
    rows = [{"question": text, "answer": "42"} for text in [*asked, "Who was the first to sail around the world?"]]
    broken = "{bad\n" * 21
    (project.folder / "evals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + broken)
    project.edit(
        "  split:",
        "  decontaminate: [{name: quiz, path: evals.jsonl}, {name: old-test, dataset: dataset@v1}]\n  split:",
    )
    after = project.json("prepare")
    quiz, old = after["evaluation_sets"]["quiz"], after["evaluation_sets"]["old-test"]
    assert quiz["items"] == 15
    assert 0 < quiz["met"] <= 14
    assert sum(quiz["dropped"].values()) == quiz["met"]
    assert old["items"] == before["splits"]["test"]
    assert after["splits"]["test"] == before["splits"]["test"]
    assert after["in"] == after["kept"] + sum(after["dropped"].values()) + len(after["quarantined"])
    assert sum(before["splits"].values()) - sum(after["splits"].values()) == sum(quiz["dropped"].values()) + sum(
        old["dropped"].values()
    )
    page = (project.folder / after["report"]).read_text()
    assert "Evaluation sets kept apart" in page
    assert {each["source"] for each in quiz["quarantined"]} == {"files:evals.jsonl"}
    assert len(quiz["quarantined"]) == 21
    assert old["quarantined"] == []
    assert "quiz (21 quarantined)" in page
    said = project.call("prepare").stdout
    assert f"quiz: {quiz['met']} of 15 items met, {quiz['met']} documents dropped for it, 21 quarantined" in said
    assert "quiz: quarantined files:evals.jsonl at " in said
    assert "quiz: ... and 1 more quarantined; --json names all" in said
    assert project.json("prepare")["evaluation_sets"] == after["evaluation_sets"]
    rule, count = next(iter(quiz["dropped"].items()))
    assert len(project.json("explore", "--rule", f"decontaminate.quiz.{rule}")["documents"]) == count

    (project.folder / "evals.jsonl").write_text('{"question": "Who?", "answer": "42"}\n')
    failed = project.call("prepare", check=2)
    assert "quiz has no text of 5 words or more" in failed.stderr + failed.stdout
    (project.folder / "evals.jsonl").write_text(broken)
    assert (
        "or more to look for; 21 quarantined, the first, files:evals.jsonl at byte 0: line 1"
        in project.call("prepare", check=2).stderr
    )
    project.edit("dataset: dataset@v1", "dataset: dataset@v9")
    assert "there is no dataset@v9" in project.call("prepare", check=2).stderr


def test_what_an_earlier_version_has_is_left_out(project: Project) -> None:
    add(project.data)
    with project.data.open("a") as file:
        said = ("Whom do I write to about the roof?", "Write to a.b@shop.test, who knows of roofs and tiles.")
        file.write(json.dumps({"messages": messages(*said), "customer": "roofer"}) + "\n")
    project.edit("  split:", "  earlier: {versions: [dataset@v1]}\n  split:")
    after = project.json("prepare")
    assert after["dropped"]["earlier.exact"] >= 60
    assert after["dropped"]["earlier.near"] == 1
    assert after["duplicates"]["dropped"] >= 61
    assert after["kept"] > 20
    hits = project.json("explore", "--rule", "earlier.near")["documents"]
    assert [hit["fate"] for hit in hits] == ["dropped"]
    with open_project(project.folder) as opened:
        run = opened.record.runs.find(step="prepare.leave_out", status="done")[0]
        assert isinstance(run.inputs["earlier"], list)
        left, cleaned = (
            Corpus(str(digest), opened.record.store) for digest in (run.outputs["corpus"], run.inputs["corpus"])
        )
        assert list(read_findings(left.path())) == list(read_findings(cleaned.path())) != []


def add(path: Path) -> None:
    """New conversations, and one of the old ones with a word more."""
    with path.open() as file:
        first = json.loads(file.readline())
    with path.open("a") as file:
        for thing in NEW:
            for deed in DEEDS:
                said = (f"How do I {deed} the {thing} of my house?", " ".join(f"{thing}{deed}{n}" for n in range(9)))
                file.write(json.dumps({"messages": messages(*said), "customer": f"{thing} {deed}"}) + "\n")
        first["messages"][1]["content"] += " Truly."
        file.write(json.dumps(first) + "\n")


def messages(asked: str, told: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": told}]
