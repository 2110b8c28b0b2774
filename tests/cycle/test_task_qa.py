"""Finding answers in a text: from rows as SQuAD has them to a release that answers in chat completions."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from small_project import Project
from task_results import keep
from tiny_models import write_encoder
from treadle.asking import find_release
from treadle.project import open_project
from treadle.serve.server import serving
from treadle.stages.deploy.serving import opener

PEOPLE = ("Ann", "Bob", "Carol", "Dan", "Eve", "Finn", "Gus", "Hal")
PLACES = ("Paris", "Oslo", "Rome", "Lima", "Bonn", "Kyiv")
WORDS = ("red", "old", "wet", "big", "fox", "cup", "sea", "hat", "oak", "bus", "jam", "sun")


def small_rows() -> Iterator[dict[str, Any]]:
    """Made-up texts with three questions each, one of which the text does not answer."""
    for row, person in enumerate(PEOPLE):
        for column, place in enumerate(PLACES):
            before = " ".join(WORDS[(row * at + column * step) % len(WORDS)] for at, step in ((1, 5), (5, 1), (7, 11)))
            context = f"{before} . {person} lives in {place} ."
            for question, answer in (("Who is it?", person), ("Where is it?", place), ("When is it?", "")):
                answers = [{"text": answer, "answer_start": context.index(answer)}] if answer else []
                yield {"context": context, "question": question, "answers": answers, "title": f"{person} {place}"}


def project(root: Path, **changed: str) -> Project:
    """A project of the template on the rows beside it."""
    Project(root).call("init", "project", "--template", "reader", "--data", str(root / "rows.jsonl"), timeout=60)
    made = Project(root / "project")
    made.edit("approval: one", "approval: none")
    made.edit("train: 0.8, validation: 0.1, test: 0.1", "train: 0.7, validation: 0.05, test: 0.25")
    for old, new in changed.items():
        made.edit(f"{old}: ", f"{old}: {new}  # ")
    return made


@pytest.mark.slow
def test_from_questions_to_a_release_that_finds_answers(tmp_path: Path) -> None:
    rows = list(small_rows())
    base = write_encoder(tmp_path / "base", [f"{row['context']} {row['question']}" for row in rows])
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = project(tmp_path, base_model=str(base), epochs="16", learning_rate="3e-3", max_length="64")
    assert small.json("run")["ok"]
    evaluations = small.json("develop")["evaluations"]
    assert set(evaluations) == {"model", "similar_sentence", "first_sentence"}
    assert set(evaluations["model"]) == {"exact_match", "token_f1"}
    assert evaluations["model"]["exact_match"]["value"] > 0.8
    assert "send it as the system message" in small.call("ask", "Who is it?", check=2).stderr
    with open_project(small.folder) as opened:
        recording = opened.file.monitor.recording(opened.file.govern.purpose)
        with serving(opener(opened.record, find_release(opened, None), recording)) as url:
            told = [
                {"role": "system", "content": next(r["context"] for r in rows if r["title"] == "Eve Oslo")},
                {"role": "user", "content": "Where is it?"},
            ]
            reply = httpx.post(f"{url}/v1/chat/completions", json={"messages": told}, timeout=60).json()
    assert reply["choices"][0]["message"]["content"] == "Oslo"
    assert "document" in {node["kind"] for node in small.json("lineage", reply["id"])["nodes"]}
    assert small.json("verify")["ok"]


@pytest.mark.slow
def test_questions_about_articles_are_answered_better_than_by_sentences(shared_data: Path, tmp_path: Path) -> None:
    """XQuAD's English part: 612 questions, where SQuAD has 88,000 to learn from."""
    with (
        gzip.open(shared_data / "1-instruct-qa" / "xquad_en.jsonl.gz") as file,
        (tmp_path / "rows.jsonl").open("wb") as out,
    ):
        shutil.copyfileobj(file, out)
    real = project(tmp_path, epochs="3", learning_rate="3e-4")
    real.edit("metric: token_f1, beats: similar_sentence", "metric: exact_match, beats: similar_sentence")
    assert real.json("run")["ok"]
    evaluations = real.json("develop")["evaluations"]
    for simple in ("similar_sentence", "first_sentence"):  # whose words overlap, and which are hardly ever the answer
        assert evaluations["model"]["exact_match"]["low"] > evaluations[simple]["exact_match"]["value"]
    keep("qa", "XQuAD, English, a quarter of its articles held out; MiniLM", evaluations)
