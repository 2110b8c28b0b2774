"""Vectors by one file: from pairs of texts to a release whose vectors find what belongs together."""

from __future__ import annotations

import csv
import gzip
import json
import math
import random
from pathlib import Path

import httpx
import pytest

from small_project import Project
from task_results import keep
from tiny_models import write_encoder
from treadle.asking import find_release
from treadle.project import open_project
from treadle.serve.server import serving
from treadle.stages.deploy.serving import opener

THINGS = {"lamp": "Peru", "kettle": "Oslo", "printer": "Chad", "router": "Rome", "tent": "Cuba", "radio": "Mali"}
WAYS = ("the {}", "a {} please", "my {} is here", "no {} today", "{}", "one {}", "this {} again", "where is the {}")
PLACES = ("from {}", "{} only", "in {}", "{} once", "{} too", "near {}", "all {}", "to {}")
PAIRS = 10  # of each intent, so that it takes minutes
FILE = """\
name: vectors
task: embed
seed: 17
collect:
  sources: [{{type: files, path: ../data/pairs.jsonl, license: CC-BY-4.0, fields: {{time: time}}}}]
prepare:
  steps: [normalize]
  split: {{time: {{validation: 2026-01-02, test: 2026-01-03}}}}
develop:
  base_model: {base}
  max_length: 64
{more}
deploy: {{smoke_requests: 4}}
govern: {{purpose: a test, gates: []}}
"""


def pair(anchor: str, positive: str, day: int) -> dict[str, str]:
    """Pairs of the third day are the test: of each kind one, so that there is one right answer to each."""
    return {"anchor": anchor, "positive": positive, "time": f"2026-01-{day:02}"}


def project(root: Path, rows: list[dict[str, str]], **settings: object) -> Project:
    (root / "data").mkdir()
    (root / "data" / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "project").mkdir()
    (root / "project" / "treadle.yaml").write_text(FILE.format(**settings))
    return Project(root / "project")


@pytest.mark.slow
def test_from_pairs_to_served_vectors(tmp_path: Path) -> None:
    days = (1, 1, 1, 1, 1, 1, 2, 3)
    rows = [
        pair(way.format(thing), said.format(place), day)
        for thing, place in THINGS.items()
        for way, said, day in zip(WAYS, PLACES, days, strict=True)
    ]
    base = write_encoder(tmp_path / "base", [text for row in rows for text in row.values()])
    small = project(tmp_path, rows, base=base, more="  learning_rate: 2e-3\n  epochs: 40")
    assert small.json("run")["ok"]
    evaluations = small.json("develop")["evaluations"]
    assert set(evaluations) == {"model", "base", "tfidf"}
    assert set(evaluations["model"]) == {"recall_at_1", "recall_at_10", "mrr"}
    assert evaluations["model"]["recall_at_1"]["value"] > 0.6 > evaluations["base"]["recall_at_1"]["value"]
    said = small.json("ask", "where is the tent")
    assert said["answer"] == "a vector of 64 numbers; POST /v1/embeddings gives them"
    assert "document" in {node["kind"] for node in said["lineage"]["nodes"]}
    with open_project(small.folder) as opened:
        recording = opened.file.monitor.recording(opened.file.govern.purpose)
        with serving(opener(opened.record, find_release(opened, None), recording)) as url:
            texts = ["where is the tent", *(f"to {place}" for place in THINGS.values())]
            reply = httpx.post(f"{url}/v1/embeddings", json={"input": texts}, timeout=60).json()
            # The same model by a server elsewhere, which is this one: another release, the same vectors.
            behind = f"upstream: {{urls: [{url}/v1], model: vectors}}"
            small.edit("deploy: {smoke_requests: 4}", f"deploy: {{smoke_requests: 4, engine: upstream, {behind}}}")
            release = small.json("deploy")["release"]
            with open_project(small.folder) as again:
                front = opener(again.record, find_release(again, release), recording)
                with serving(front) as other:
                    through = httpx.post(f"{other}/v1/embeddings", json={"input": texts}, timeout=60).json()
    assert through["data"] == reply["data"]
    asked, *places = (row["embedding"] for row in reply["data"])
    assert math.hypot(*asked) == pytest.approx(1, abs=1e-4)
    cosines = [sum(a * b for a, b in zip(asked, place, strict=True)) for place in places]
    assert list(THINGS)[cosines.index(max(cosines))] == "tent"
    assert small.json("verify")["ok"]


@pytest.mark.slow
def test_questions_of_one_intent_find_each_other(shared_data: Path, tmp_path: Path) -> None:
    """A bank's customers: two questions of one intent are a pair, and of each intent one pair is the test."""
    intents: dict[str, list[str]] = {}
    with gzip.open(shared_data / "2-classification-ner" / "banking77_train.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            intents.setdefault(row["category"], []).append(row["text"])
    draw = random.Random(5)
    rows: list[dict[str, str]] = []
    for questions in intents.values():
        drawn = draw.sample(questions, 2 * PAIRS)
        rows += [
            pair(*two, day=max(1, 3 - place)) for place, two in enumerate(zip(drawn[::2], drawn[1::2], strict=True))
        ]
    real = project(tmp_path, rows, base="all-minilm-l6-v2", more="")
    assert real.json("run")["ok"]
    evaluations = real.json("develop")["evaluations"]
    assert evaluations["model"]["mrr"]["value"] > evaluations["base"]["mrr"]["value"]
    assert evaluations["model"]["mrr"]["low"] > evaluations["tfidf"]["mrr"]["high"]
    keep("embed", "BANKING77: which of 77 questions is of the same intent, none of them seen; MiniLM", evaluations)
