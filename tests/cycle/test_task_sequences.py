"""Translating and summarizing by one file: from rows to a release that answers, on a tiny model."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path

import pytest

from small_project import Project
from task_results import keep
from tiny_models import write_encoder_decoder

COLORS = {"red": "rot", "blue": "blau", "green": "gelb", "black": "schwarz", "white": "weiss"}
THINGS = {"house": "Haus", "book": "Buch", "car": "Auto", "dog": "Hund", "tree": "Baum", "bird": "Vogel"}
FILE = """\
name: pairs
task: {task}
collect:
  sources:
    - {{type: files, path: ../data/pairs.jsonl, license: CC0-1.0, fields: {{{fields}}}}}
prepare:
  steps: [normalize, {{examples: {examples}}}]
  split: {{train: 0.6, validation: 0.1, test: 0.3}}
develop:
  base_model: {base}
  learning_rate: 3e-3
  epochs: 12
  max_length: 64
  evaluate: {{metrics: [{metrics}], max_tokens: 12}}
deploy: {{max_tokens: 16, smoke_requests: 3}}
govern: {{gates: [], purpose: a test}}
"""


FROM_NOTHING = """\
name: pairs
task: {task}
collect:
  sources:
    - {{type: files, path: ../data/pairs.jsonl, license: {license}, fields: {{prompt: source, response: target}}}}
prepare:
  steps: [normalize, deduplicate]
  split: {{by: {by}, train: 0.9, validation: 0.02, test: 0.08, limit: {{test: 200}}}}
develop:
  init: {{architecture: t5, size: {size}, context: 256, vocabulary: {vocabulary}}}
  learning_rate: 2e-3
  epochs: {epochs}
  max_length: {length}
  evaluate: {{max_tokens: {tokens}}}
deploy: {{max_tokens: {tokens}, smoke_requests: 4}}
govern: {{gates: [], purpose: a test}}
"""


def make(root: Path, task: str, rows: list[dict[str, object]], **more: str) -> Project:
    base = write_encoder_decoder(root / "base")
    return write(root, rows, FILE.format(task=task, base=base, **more))


def write(root: Path, rows: list[dict[str, object]], file: str) -> Project:
    (root / "data").mkdir()
    (root / "data" / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "project").mkdir()
    (root / "project" / "treadle.yaml").write_text(file)
    return Project(root / "project")


@pytest.mark.slow
def test_translations_from_rows_to_a_traced_answer(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"id": n, "translation": {"en": f"the {c} {t}", "de": f"{COLORS[c]}, {THINGS[t]}"}}
        for n, (c, t) in enumerate((c, t) for c in COLORS for t in THINGS)
    ]
    project = make(
        tmp_path,
        "translate",
        rows,
        fields="text: translation.en",
        examples="{translation: {languages: [en, de], prefix: 'to German: '}}",
        metrics="log_likelihood, chrf, bleu",
    )
    said = project.call("run")
    shown = [line.split()[1:] for line in (said.stdout + said.stderr).splitlines() if line.startswith("develop")]
    assert next(words for words in shown if words[0] == "copy")[-1] == "-"  # it finds no reference probable
    evaluations = project.json("develop")["evaluations"]
    assert set(evaluations) == {"model", "copy", "base"}
    learned, before = (evaluations[name]["log_likelihood"] for name in ("model", "base"))
    assert learned["low"] > before["high"]
    assert set(evaluations["copy"]) == {"chrf", "bleu"}
    answer = project.json("ask", "the red house")  # without the prefix, which the model remembers
    assert answer["lineage"]["verified"]
    assert "document" in {node["kind"] for node in answer["lineage"]["nodes"]}
    assert project.json("verify")["ok"]


@pytest.mark.slow
def test_summaries_are_judged_against_first_sentences(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"text": f"The {c} {t} is old. It is {c}. It has {n} parts. Nobody has it.", "summary": f"Old {c} {t}."}
        for n, (c, t) in enumerate((c, t) for c in COLORS for t in THINGS)
    ]
    project = make(tmp_path, "summarize", rows, fields="", examples="summary", metrics="rouge_l, perplexity")
    evaluations = project.json("develop")["evaluations"]
    assert set(evaluations) == {"model", "lead_1", "lead_3", "base"}
    assert evaluations["lead_1"]["rouge_l"]["value"] > evaluations["lead_3"]["rouge_l"]["value"] > 0
    assert evaluations["model"]["perplexity"]["high"] < evaluations["base"]["perplexity"]["low"]


EPOCHS = {"translate": 3, "summarize": 4}
LANGUAGES = ("ara", "cmn", "deu", "fin", "fra", "hin", "jpn", "rus", "swh", "tur")


def tatoeba(shared: Path) -> list[dict[str, object]]:
    """Sentences of ten languages with their English, marked by language; 9,390 are next to nothing."""
    rows: list[dict[str, object]] = []
    with tarfile.open(shared / "3-translation-summ" / "tatoeba_pairs.tar.gz") as archive:
        for name in LANGUAGES:
            sides = []
            for side in (name, "eng"):
                member = archive.extractfile(f"tatoeba.{name}-eng.{side}")
                assert member is not None
                sides.append(member.read().decode().splitlines())
            rows += [
                {"source": f"{name}: {text}", "target": english, "language": name, "english": english.lower()}
                for text, english in zip(*sides, strict=True)
            ]
    return rows


@pytest.mark.slow
def test_a_small_t5_from_nothing_translates_a_little(shared_data: Path, tmp_path: Path) -> None:
    """8,440 sentences are next to nothing; it has to beat random weights, and not to be good."""
    file = FROM_NOTHING.format(
        task="translate",
        license="CC-BY-2.0",
        by="english",  # or a test's answer would be in training with a source of another language
        size="1500K",
        vocabulary=3000,
        epochs=EPOCHS["translate"],
        length=64,
        tokens=32,
    )
    project = write(tmp_path, tatoeba(shared_data), file)
    assert project.json("run")["ok"]
    evaluations = project.json("develop")["evaluations"]
    assert set(evaluations) == {"model", "copy", "base"}
    model, base = evaluations["model"]["chrf"], evaluations["base"]["chrf"]
    assert model["low"] > base["high"]
    assert evaluations["model"]["bleu"]["high"] < 15  # if it is ever good, the docs are wrong
    keep("translate", "a T5 of 1.3M parameters from nothing, Tatoeba, ten languages to English", evaluations)


def scitldr(shared: Path) -> list[dict[str, object]]:
    """Abstracts of papers with a sentence that says what is in them."""
    with gzip.open(shared / "3-translation-summ" / "scitldr_a_train.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    return [{"source": " ".join(row["source"]), "target": row["target"][0], "paper": row["paper_id"]} for row in rows]


@pytest.mark.slow
def test_a_small_t5_from_nothing_summarizes_a_little(shared_data: Path, tmp_path: Path) -> None:
    """2,000 abstracts are next to nothing; it has to beat random weights."""
    file = FROM_NOTHING.format(
        task="summarize",
        license="Apache-2.0",
        by="paper",
        size="1500K",
        vocabulary=3000,
        epochs=EPOCHS["summarize"],
        length=192,
        tokens=48,
    )
    project = write(tmp_path, scitldr(shared_data), file)
    assert project.json("run")["ok"]
    evaluations = project.json("develop")["evaluations"]
    assert set(evaluations) == {"model", "lead_1", "lead_3", "base"}
    assert evaluations["model"]["rouge_1"]["low"] > evaluations["base"]["rouge_1"]["high"]
    assert evaluations["lead_1"]["rouge_1"]["low"] > 0.15
    keep("summarize", "a T5 of 1.3M parameters from nothing, SciTLDR abstracts", evaluations)
