"""Finding names: from rows of tokens and tags to a release that answers with spans."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from small_project import Project
from task_results import keep
from tiny_models import write_encoder

PEOPLE = ("Ann Lee", "Bob", "Carol Poe", "Dan", "Eve Moss", "Finn", "Gus Day", "Hal")
PLACES = ("Paris", "New York", "Oslo", "Rome", "Lima", "Bonn")
SHAPES = ("{p} flew to {l} .", "in {l} , {p} was ill", "{l} is where {p} lives", "{p} met {p} today")
TAGS = ("O", "B-person", "I-person", "B-place", "I-place")


def project(root: Path, rows: Iterator[dict[str, Any]], **changed: str) -> Project:
    """A project of the template on rows of tokens and tags."""
    with (root / "rows.jsonl").open("w") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
    Project(root).call("init", "project", "--template", "tagger", "--data", str(root / "rows.jsonl"), timeout=60)
    made = Project(root / "project")
    made.edit("approval: one", "approval: none")
    made.edit("train: 0.8, validation: 0.1, test: 0.1", "train: 0.7, validation: 0.05, test: 0.25")
    for old, new in changed.items():
        made.edit(f"{old}: ", f"{old}: {new}  # ")
    return made


def small_rows() -> Iterator[dict[str, Any]]:
    """Made-up sentences, tagged by numbers, as data sets of the hub are."""
    for shape in SHAPES:
        for person in PEOPLE:
            for place in PLACES:
                tokens, tags = list[str](), list[int]()
                for word in shape.split():
                    names, first = {"{p}": (person, 1), "{l}": (place, 3)}.get(word, (word, 0))
                    for at, name in enumerate(names.split()):
                        tokens.append(name)
                        tags.append(first + 1 if first and at else first)
                yield {"tokens": tokens, "ner_tags": tags}


@pytest.mark.slow
def test_from_tokens_to_a_release_that_tags(tmp_path: Path) -> None:
    base = write_encoder(tmp_path / "base", [" ".join(row["tokens"]) for row in small_rows()])
    small = project(tmp_path, small_rows(), base_model=str(base), epochs="12", learning_rate="3e-3", max_length="64")
    small.edit("    - quality: {metric: span_f1, beats: dictionary}\n", "")  # made-up names are all in a dictionary
    small.edit("names: []", f"names: [{', '.join(TAGS)}]")
    assert small.json("run")["ok"]
    evaluations = small.json("develop")["evaluations"]
    assert set(evaluations) == {"model", "dictionary"}
    assert set(evaluations["model"]) == {"span_f1", "token_accuracy"}
    assert evaluations["model"]["span_f1"]["value"] > 0.9
    answer = small.json("ask", "Eve Moss flew to Oslo .")
    assert answer["answer"] == "person: Eve Moss\nplace: Oslo"
    assert "document" in {node["kind"] for node in answer["lineage"]["nodes"]}
    assert small.json("verify")["ok"]


def conll(path: Path) -> Iterator[dict[str, Any]]:
    """Sentences of a CoNLL file: a token and its tag a line, an empty line between two."""
    with gzip.open(path, "rt") as file:
        tokens, tags = list[str](), list[str]()
        for line in [*file, ""]:
            token, _, tag = line.strip().partition("\t")
            if token:
                tokens.append(token)
                tags.append(tag)
            elif tokens:
                yield {"tokens": tokens, "ner_tags": tags}
                tokens, tags = [], []


@pytest.mark.slow
def test_names_in_posts_are_found_better_than_by_a_dictionary(shared_data: Path, tmp_path: Path) -> None:
    """WNUT17: rare and new names in posts, of which few are in any dictionary."""
    rows = conll(shared_data / "2-classification-ner" / "wnut17train.conll.gz")
    real = project(tmp_path, rows, epochs="3", learning_rate="3e-4")
    assert real.json("run")["ok"]
    evaluations = real.json("develop")["evaluations"]
    model, simple = evaluations["model"]["span_f1"], evaluations["dictionary"]["span_f1"]
    assert model["low"] > simple["value"]
    keep("tag", "WNUT17, names in posts, a quarter of its training part held out; MiniLM", evaluations)
