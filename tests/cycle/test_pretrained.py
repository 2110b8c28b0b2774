"""The base model reads the project's text before it is fine-tuned, but for its tests, and a killed run goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from small_project import Project, make_project
from treadle.lm.model import Model
from treadle.lm.tokens import Tokens
from treadle.project import open_project
from treadle.text.corpus import Corpus
from treadle.text.dataset import Dataset
from treadle.text.mixture import repeats_of

PRETRAIN = "  pretrain: {tokens: 20000, width: 64, batch: 4, learning_rate: 5e-3}\n  evaluate:"
MIXTURE = "{mixture: {by: part, weights: {a: 5, b: 4}, count: documents, repeat: 3}}"


@pytest.fixture
def asked(tmp_path: Path, base: Path) -> Project:
    return _asked(tmp_path, base)


def _asked(root: Path, base: Path) -> Project:
    project = make_project(root, base)
    project.edit("  evaluate:", PRETRAIN)
    project.edit("deduplicate, redact]", f"deduplicate, redact, {MIXTURE}]")
    rows = [json.loads(line) for line in project.data.read_text().splitlines()]
    project.data.write_text("".join(json.dumps({**row, "part": "aaab"[n % 4]}) + "\n" for n, row in enumerate(rows)))
    return project


def _weights(project: Project) -> str:
    with open_project(project.folder) as opened:
        (run,) = [
            each for each in opened.record.runs.find() if each.step == "develop.pretrain" and each.status == "done"
        ]
        return str(next(iter(run.outputs.values())))


def test_the_text_is_read_first_and_the_tests_are_not(asked: Project) -> None:
    said = asked.call("develop").stdout
    assert "pretrained on the corpus: held-out text takes" in said
    with open_project(asked.folder) as opened:
        runs = {run.step: run for run in opened.record.runs.find() if run.status == "done"}
        store = opened.record.store
        pretrained = runs["develop.pretrain"]
        assert pretrained.metrics["bits_per_byte"] < pretrained.metrics["bits_per_byte_before"]
        packed = Tokens(runs["develop.pack_text"].outputs["tokens"], store)
        dataset = Dataset(runs["develop.pack_text"].inputs["dataset"], store)
        tests = set(dataset.split_document_ids("test")) | set(dataset.split_document_ids("validation"))
        rows = {side: packed.rows(side) for side in ("train", "validation")}
        places = Counter(
            packed.document("train", place)
            for row in range(len(rows["train"]))
            for place in rows["train"].examples(row)
        )
        cleaned = Corpus(runs["develop.pack_text"].inputs["cleaned"], store)
        often = {each.id: repeats_of(each) for batch in cleaned.documents() for each in batch if each.id in places}
        assert {2, 3} <= set(often.values())
        assert packed.read_json("tokens.json")["repeated"] == sum(often.values()) - len(often)
        assert all(places[name] % times == 0 for name, times in often.items())
        read = {
            side: {packed.document(side, place) for row in range(len(found)) for place in found.examples(row)}
            for side, found in rows.items()
        }
        assert tests
        assert read["validation"] == tests
        assert not read["train"] & tests
        model = Model(runs["develop.train"].outputs["model"], store)
        assert runs["develop.train"].inputs["pretrained"] == next(iter(pretrained.outputs.values()))
        assert read["train"] <= set(model.document_ids())
        assert not set(model.document_ids()) & tests


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_weights(asked: Project, tmp_path: Path, base: Path) -> None:
    other = _asked(tmp_path / "other", base)
    environment = "TREADLE_CHECKPOINT_SECONDS"
    os.environ[environment] = "0"
    try:
        asked.call("prepare")
        running = asked.start("develop")
        kept = asked.folder / ".treadle" / "cache" / "checkpoints"
        until = time.monotonic() + 120
        while not list(kept.glob("*/*.checkpoint")) and running.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
        assert list(kept.glob("*/*.checkpoint"))
        asked.call("develop")
        other.call("develop")
    finally:
        del os.environ[environment]
    assert not list(kept.glob("*"))
    with open_project(asked.folder) as opened:
        (run,) = [
            each for each in opened.record.runs.find() if each.step == "develop.pretrain" and each.status == "done"
        ]
        assert run.metrics["resumed"] > 0
    assert _weights(asked) == _weights(other)
