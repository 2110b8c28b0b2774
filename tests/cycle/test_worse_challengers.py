"""Challengers made worse on purpose are stopped at a gate; one that learned from more good data is promoted.

A tiny model learns a rule that its tests ask for: what shall be done decides the answer. What is spoiled is the real
thing each time (data, template, weights, corrections), never a figure. Slow and failing releases, which no gate sees,
are taken back as canaries: test_canary_live.py.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from small_project import DEEDS, THINGS, Project
from tiny_models import SMOLLM_TEMPLATE
from treadle.project import open_project
from treadle.record.interaction import Interaction, new_interaction_id
from treadle.stages.improve import give_feedback

Row = dict[str, Any]

FILE = """\
name: helper
task: chat
seed: 17
collect:
  sources:
    - type: files
      path: ../data/chats.jsonl
      license: CC0-1.0
      fields: {{messages: messages}}
prepare:
  steps: [normalize, deduplicate]
  split: {{by: topic, train: 0.6, validation: 0.1, test: 0.3}}
develop:
  base_model: {base}
  learning_rate: 5e-3
  tokens: 20000
  max_length: 192
  evaluate: {{metrics: [log_likelihood, rouge_l], baselines: [], max_tokens: 24}}
deploy:
  quantize: {{format: q8_0, max_loss: 0.02}}
  system_prompt: You help.
  max_tokens: 16
  smoke_requests: 0
govern:
  gates:
    - quality: {{metric: log_likelihood, not_worse_than: champion}}
    - quality: {{metric: rouge_l, not_worse_than: champion}}
    - answers: {{max_empty: 0.1}}
    - personal_data: {{max_findings: 0}}
    - license: {{allow: [CC0-1.0, unknown]}}
improve:
  retrain_when: {{corrections: 2}}
  train_from: champion
  tokens: 6000
  cooldown: 0s
  corrections: {{license: CC0-1.0, replay: 0.0, test_share: 0.0}}
  promote: auto
"""


ADVICE = ("call the shop", "find two screws", "use warm water", "write a letter", "wait all night", "press both knobs")


def rows() -> list[Row]:
    """Seventy questions; what was asked for decides the answer, so that tests ask what training can teach."""
    found = []
    for place, thing in enumerate(THINGS):
        for kind, deed in enumerate(DEEDS):
            messages = [
                {"role": "user", "content": f"How do I {deed} my {thing}?"},
                {"role": "assistant", "content": f"{ADVICE[kind % len(ADVICE)]} {place}"},
            ]
            found.append({"messages": messages, "topic": f"{thing} {deed}"})
    return found


def write(project: Project, found: list[Row]) -> None:
    """The source's file."""
    project.data.write_text("".join(json.dumps(row) + "\n" for row in found))


@pytest.fixture(scope="module")
def first(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project with its first champion, trained on half of the topics' answers."""
    root = tmp_path_factory.mktemp("first")
    (root / "project").mkdir()
    (root / "data").mkdir()
    project = Project(root / "project")
    project.file.write_text(FILE.format(base=base))
    write(project, rows())
    assert project.json("run")["ok"]
    return project


@pytest.fixture
def project(first: Project, tmp_path: Path) -> Project:
    """A copy to spoil."""
    shutil.copytree(first.folder.parent, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy" / "project")


def on_the_training_side(project: Project, change: Callable[[list[Row]], None]) -> None:
    """Change the rows that are learned from; those of tests stay as they are."""
    with open_project(project.folder) as opened:
        from treadle.text.dataset import Dataset

        data = Dataset(opened.record.versions.all("dataset")[-1].digest, opened.record.store)
        groups = {example.group for example in data.examples("train")}
    every = rows()
    change([row for row in every if row["topic"] in groups])
    write(project, every)


def shuffled_labels(project: Project) -> None:
    def change(found: list[Row]) -> None:
        answers = [row["messages"][1]["content"] for row in found]
        random.Random(5).shuffle(answers)
        for row, answer in zip(found, answers, strict=True):
            row["messages"][1]["content"] = answer

    on_the_training_side(project, change)


def garbled_answers(project: Project) -> None:
    def change(found: list[Row]) -> None:
        for row in found:
            letters = list(row["messages"][1]["content"])
            random.Random(len(letters)).shuffle(letters)
            row["messages"][1]["content"] = "".join(letters)

    on_the_training_side(project, change)


def empty_answers(project: Project) -> None:
    def change(found: list[Row]) -> None:
        for place, row in enumerate(found):
            row["messages"][1]["content"] = "." * (place % 3 + 1)

    on_the_training_side(project, change)


def leaking(project: Project) -> None:
    def change(found: list[Row]) -> None:
        for row in found:
            row["messages"][1]["content"] = "Ask jo@ex.org. " + row["messages"][1]["content"]

    on_the_training_side(project, change)


def truncated_training(project: Project) -> None:
    project.edit("train_from: champion", "train_from: base")
    project.edit("tokens: 20000", "tokens: 600")


def diverging(project: Project) -> None:
    project.edit("learning_rate: 5e-3", "learning_rate: 0.9")


def forbidden_license(project: Project) -> None:
    project.edit("license: CC0-1.0\n      fields", "license: all-rights-reserved\n      fields")


def wrong_template(project: Project) -> None:
    """The model is taught with a template that hides the question."""
    base = Path(project.file.read_text().partition("base_model: ")[2].partition("\n")[0])
    copy = project.folder.parent / "blind"
    shutil.copytree(base, copy)
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    blind = SMOLLM_TEMPLATE.replace("message['content']", "(message['content'] if message['role'] != 'user' else '?')")
    settings["chat_template"] = blind
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    project.edit(f"base_model: {base}", f"base_model: {copy}")


def over_quantized(project: Project) -> None:
    project.edit("format: q8_0, max_loss: 0.02", "format: q4_0, max_loss: 0.005")
    project.edit("train_from: champion", "train_from: base")


def poisoned_corrections(project: Project) -> None:
    """Many people, each within their bounds, want nonsense."""
    draw = random.Random(11)
    with open_project(project.folder) as opened:
        record = opened.record
        release = record.versions.served()
        assert release
        for number in range(60):
            question = {"role": "user", "content": f"How do I {DEEDS[number % 7]} my {THINGS[number % 10]} now?"}
            row = Interaction(
                new_interaction_id(), "req", "2026-11-23T00:00:00.000Z", release, "helper@v1", "/v1/chat/completions",
                "ok", store=True, messages=(question,), answer="Yes.",
            )  # fmt: skip
            record.recorder.interaction(row)
            nonsense = " ".join("".join(draw.sample("abcdefghijklmnopqrstuvwxyz", 5)) for _ in range(6))
            give_feedback(record, row.id, "correction", None, nonsense, None, f"mallory-{number % 20}")


@pytest.mark.parametrize(
    ("spoil", "stopped_by"),
    [
        (shuffled_labels, "quality"),
        pytest.param(garbled_answers, "quality", marks=pytest.mark.slow),
        pytest.param(truncated_training, "quality", marks=pytest.mark.slow),
        pytest.param(wrong_template, "quality", marks=pytest.mark.slow),
        pytest.param(diverging, "", marks=pytest.mark.slow),
        pytest.param(empty_answers, "answers", marks=pytest.mark.slow),
        (leaking, "personal_data"),
        pytest.param(forbidden_license, "license", marks=pytest.mark.slow),
        pytest.param(over_quantized, "deploy.quantize", marks=pytest.mark.slow),
        pytest.param(poisoned_corrections, "quality", marks=pytest.mark.slow),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_worse_challenger_is_stopped(project: Project, spoil: Callable[[Project], None], stopped_by: str) -> None:
    spoil(project)
    poisoned = spoil is poisoned_corrections
    done = project.call(*(("watch", "--once") if poisoned else ("run", "--next")), "--json", check=None)
    assert done.returncode in (1, 2), done.stdout
    status = project.json("status")
    assert status["champion"]["number"] == 1
    assert status["turn"]["number"] == 2
    assert status["turn"]["outcome"] in ("refused", "failed")
    assert stopped_by in status["turn"]["detail"] + done.stdout + done.stderr
    if status["turn"]["outcome"] == "refused":
        assert stopped_by in status["turn"]["detail"], status["turn"]["detail"]
    assert project.json("verify")["ok"]


def test_one_trained_on_more_good_data_is_promoted(project: Project) -> None:
    more = []
    for row in rows():
        question, answer = (dict(message) for message in row["messages"])
        question["content"] = question["content"].replace("How do I", "Please tell me how to")
        more.append({"messages": [question, answer], "topic": row["topic"]})
    write(project, rows() + more)
    assert project.json("run", "--next")["ok"]
    status = project.json("status")
    assert (status["champion"]["number"], status["turn"]["outcome"]) == (2, "promoted")
