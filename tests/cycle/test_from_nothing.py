"""A model from nothing by a setting: made, pretrained, fine-tuned, judged; traced, forgotten, the same each time."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from small_project import SUBJECT, Project, make_project
from treadle.core.artifacts import Builder
from treadle.core.driver import Silent
from treadle.core.errors import UserError
from treadle.core.runs import RunRecord
from treadle.cycle import begin
from treadle.lm.model import Model
from treadle.lm.tokenizer_training import TrainedTokenizer
from treadle.project import open_project
from treadle.record.release import Release, ReleaseSpec
from treadle.record.turn import TurnInputs
from treadle.record.version import FROM_NOTHING, NO_BASE_LICENSE
from treadle.stages.govern import judge, write_card
from treadle.text.corpus import Corpus
from treadle.text.dataset import Dataset, Example, write_dataset
from treadle.text.held_out import documents_on
from treadle.turning import go

INIT = "  init: {architecture: llama, size: 200K, context: 256, vocabulary: 400}\n"
PRETRAIN = "  pretrain: {tokens: 2048, width: 64, batch: 4}\n"
EVALUATE = "evaluate: {metrics: [log_likelihood, perplexity, rouge_l], baselines: [base], max_tokens: 8}"


def _project(root: Path) -> Project:
    project = make_project(root, Path("x"))
    project.edit("  base_model: x\n", INIT + PRETRAIN)
    project.edit("learning_rate: 1e-2\n  tokens: 3000", "learning_rate: 1e-3\n  tokens: 800")
    project.edit(EVALUATE, "evaluate: {metrics: [log_likelihood]}")
    return project


def _develop(project: Project, until: str = "develop", listener: Silent | None = None) -> dict[str, RunRecord]:
    """Runs by step, those that are done."""
    with open_project(project.folder) as opened:
        go(begin(opened, listener=listener), until)
        return {run.step: run for run in reversed(opened.record.runs.find(status="done"))}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, RunRecord]]:
    project = _project(tmp_path_factory.mktemp("from-nothing"))
    return project, _develop(project, "track")


def test_what_it_learned_from_is_known(made: tuple[Project, dict[str, RunRecord]]) -> None:
    project, runs = made
    assert runs["develop.pretrain"].metrics["bits_per_byte"] < runs["develop.pretrain"].metrics["bits_per_byte_before"]
    with open_project(project.folder) as opened:
        store = opened.record.store
        initial, pretrained, model = (
            Model(runs[f"develop.{step}"].outputs["model"], store) for step in ("create_model", "pretrain", "train")
        )
        dataset = Dataset(runs["develop.pack_text"].inputs["dataset"], store)
        cleaned = Corpus(runs["develop.pack_text"].inputs["cleaned"], store)
        tests = {name for side in ("validation", "test") for name in dataset.split_document_ids(side)}
        read = {document.id for batch in cleaned.documents() for document in batch} - tests
        assert tests
        # The tokenizer has read what may be learned from, and every later model stands on it.
        assert set(initial.document_ids()) == set(pretrained.document_ids()) == set(model.document_ids()) == read
        base = model.about()["base_model"]
        assert (base["name"], base["license"]) == (FROM_NOTHING, NO_BASE_LICENSE)
        assert base["digest"] == runs["prepare.learn_tokenizer"].outputs["tokenizer"]
        assert runs["develop.train"].inputs["pretrained"] == pretrained.digest
        (judged,) = opened.record.runs.find(step="develop.evaluate_base")
        assert judged.inputs["begun"] == pretrained.digest
        assert judged.parameters["shots"] == 0
    traced = project.json("lineage", "model@v1")
    assert {node["id"] for node in traced["nodes"] if node["kind"] == "document"} == read
    forward = project.json("lineage", "--down", min(read))
    assert model.digest in {node["id"] for node in forward["nodes"]}


def test_what_only_pretraining_read_counts_for_the_license(
    made: tuple[Project, dict[str, RunRecord]], tmp_path: Path
) -> None:
    shutil.copytree(made[0].folder.parent, tmp_path / "copy", symlinks=True)
    with open_project(tmp_path / "copy" / "project") as opened:
        store = opened.record.store
        model = Model(made[1]["develop.pretrain"].outputs["model"], store)
        cleaned = Corpus(made[1]["develop.pack_text"].inputs["cleaned"], store)
        example = Example(model.document_ids()[:1], text="x", label="y")
        with Builder(Dataset, store) as builder:
            write_dataset(builder.path, {"train": [example]}, accounting={}, info={"synthetic": 2})
            builder.add_documents(example.documents)
            dataset = builder.commit()
        base = model.about()["base_model"]
        spec = ReleaseSpec("helper", "chat", model.digest, dataset.digest, base, "local")
        with Builder(Release, store) as builder:
            (builder.path / "release.json").write_text(json.dumps(spec.to_json()))
            builder.add_documents(model.document_ids())
            release = builder.commit()
        driver = begin(opened).driver
        gates = [{"license": {"allow": ["MIT"]}}]
        report = driver.run(judge, release, (cleaned,), dataset, (), names=[], gates=gates, versions=["1"])
        card = driver.run(write_card, release, dataset, report, None, (), names=[], purpose=None)
        count = len(model.document_ids())
        assert report.read_json("licenses.json") == {"CC0-1.0": count}
        assert not report.read_json("gates.json")[0]["passed"]
        said = card.path("card.md").read_text()
    assert f"Learned from besides: {count - 1} documents" in said
    assert "A teacher wrote answers of 2 examples" in said
    assert "Nothing in it came from outside" not in said


class _Stops(Silent):
    """Stops the training after a few steps, as Ctrl-C does; keeps what it said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def progress(self, step: str, done: float, total: float | None, unit: str, note: str) -> None:
        if step == "develop.pretrain":
            self.notes.append(note)
            if done == 5:
                raise KeyboardInterrupt


def test_stopped_it_goes_on_to_the_same_weights(
    made: tuple[Project, dict[str, RunRecord]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TREADLE_CHECKPOINT_SECONDS", "0")
    project, watching = _project(tmp_path), _Stops()
    with pytest.raises(KeyboardInterrupt):
        _develop(project, listener=watching)
    # The curve of the loss, the loss and the speed; from nothing it falls from the first step on.
    assert re.fullmatch(r"█[▁-█]{3}▁ loss \d\.\d{3}, .*\d tok/s", watching.notes[-1])
    runs = _develop(project)
    assert runs["develop.pretrain"].metrics["resumed"] > 0
    for step in ("learn_tokenizer", "create_model", "pretrain", "train"):
        name = "prepare." + step if step == "learn_tokenizer" else "develop." + step
        assert runs[name].outputs == made[1][name].outputs, name


def test_forgetting_reaches_tokenizer_and_model(made: tuple[Project, dict[str, RunRecord]], tmp_path: Path) -> None:
    shutil.copytree(made[0].folder.parent, tmp_path / "copy", symlinks=True)
    project = Project(tmp_path / "copy" / "project")
    said = project.json("forget", SUBJECT, "--no-rebuild")
    assert said["documents"] > 0
    with open_project(project.folder) as opened:
        for name in ("prepare.learn_tokenizer", "develop.create_model", "develop.pretrain", "develop.train"):
            for digest in made[1][name].outputs.values():
                assert not opened.record.store.has(digest), name
    assert project.json("verify")["ok"]


def test_what_gives_a_test_away_is_not_read(tmp_path: Path) -> None:
    project = _project(tmp_path)
    rows = [json.loads(line) for line in project.data.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["messages"][0]["content"] = f"In other words, question {number}?"
        row["customer"] = f"other-{number}"
    with project.data.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    runs = _develop(project, "prepare")
    with open_project(project.folder) as opened:
        store = opened.record.store
        learned = runs["prepare.learn_tokenizer"]
        tokenizer = TrainedTokenizer(learned.outputs["tokenizer"], store)
        dataset, cleaned = Dataset(learned.inputs["dataset"], store), Corpus(learned.inputs["cleaned"], store)
        answers = {each.answer for side in ("validation", "test") for each in dataset.examples(side)}
        told = {each.id for batch in cleaned.documents() for each in batch if any(a in each.text for a in answers)}
        held = {name for side in ("validation", "test") for name in dataset.split_document_ids(side)}
        packed = [each.id for batch in documents_on("train", cleaned, dataset) for each in batch]
    assert told - held
    assert not told & set(tokenizer.document_ids())
    assert set(packed) == set(tokenizer.document_ids())


@pytest.fixture
def reviews(tmp_path: Path) -> Callable[[str], Project]:
    """Makes projects that tell good from bad."""

    def make(init: str) -> Project:
        (tmp_path / "data").mkdir()
        (tmp_path / "project").mkdir()
        rows = [
            {"text": f"The lamp number {n} is {'good' if n % 2 else 'bad'}.", "label": "pos" if n % 2 else "neg"}
            for n in range(60)
        ]
        (tmp_path / "data" / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "project" / "treadle.yaml").write_text(
            "name: reviews\ntask: classify\ncollect:\n  sources:\n"
            "    - {type: files, path: ../data/reviews.jsonl, license: MIT, fields: {text: text, label: label}}\n"
            "prepare: {steps: [normalize], split: {train: 0.6, validation: 0.1, test: 0.3}}\n"
            f"develop:\n  init: {init}\n  pretrain: {{tokens: 512, width: 32, batch: 4}}\n"
            "  max_length: 32\n  epochs: 1\n"
        )
        return Project(tmp_path / "project")

    return make


@pytest.mark.parametrize(
    ("architecture", "size"), [("bert", "200K"), pytest.param("t5", "500K", marks=pytest.mark.slow)]
)
def test_a_classifier_from_nothing(reviews: Callable[[str], Project], architecture: str, size: str) -> None:
    project = reviews(f"{{architecture: {architecture}, size: {size}, context: 64, vocabulary: 400}}")
    runs = _develop(project)
    with open_project(project.folder) as opened:
        model = Model(runs["develop.fit"].outputs["model"], opened.record.store)
        config = model.read_json("config.json")
    assert config["model_type"] == architecture
    assert sorted(config["id2label"].values()) == ["neg", "pos"]
    assert runs["develop.fit"].inputs["pretrained"] == runs["develop.pretrain"].outputs["model"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (INIT, "", "treadle.yaml:13: develop: expected base_model, or init for a model from nothing; neither is given"),
        (INIT, INIT + "  base_model: x\n", "both are given"),
        ("architecture: llama", "architecture: bert", "bert is not for task chat; expected llama or gpt2"),
        ("architecture: llama", "architecture: gpt2", "gpt2 cannot be written as a GGUF; set it to null"),
        ("size: 200K", "size: big", "'big' is no size of a model"),
        ("vocabulary: 400", "vocabulary: 40000", "leave no room for layers"),
        ("context: 256", "context: 32", "max_length is 256 tokens, and init.context 32; raise that"),
        ("vocabulary: 400", "vocabulary: 400, tokenizer: x", "leave out either"),
        ("prepare:\n", "prepare:\n  tokenizer: {vocabulary: 400}\n", "prepare.tokenizer says which tokenizer it has"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(tmp_path: Path, old: str, new: str, said: str) -> None:
    project = _project(tmp_path)
    project.edit(old, new)
    with pytest.raises(UserError) as refused, open_project(project.folder):
        pass
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (project.folder / ".treadle").exists()


def test_a_tokenizer_that_does_not_suit_is_refused_before_any_work(
    reviews: Callable[[str], Project], base: Path
) -> None:
    project = reviews(f"{{architecture: bert, size: 1M, tokenizer: {base}}}")
    with open_project(project.folder) as opened:
        with pytest.raises(UserError, match=r"has no \[PAD\], which bert needs"):
            begin(opened).go()
        assert not opened.record.runs.find()


def test_a_later_turn_keeps_the_tokenizer(made: tuple[Project, dict[str, RunRecord]], tmp_path: Path) -> None:
    shutil.copytree(made[0].folder.parent, tmp_path / "copy", symlinks=True)
    project = Project(tmp_path / "copy" / "project")
    first: Any = made[1]["develop.train"].outputs["model"]
    with project.data.open("a") as file:  # a word that a tokenizer learned again would know
        for number in range(30):
            said = {"role": "assistant", "content": f"Zwieback zwieback number {number}, zwieback."}
            row = {"messages": [{"role": "user", "content": f"Zwieback {number}?"}, said], "customer": f"z{number}"}
            file.write(json.dumps(row) + "\n")
    with open_project(project.folder) as opened:
        opened.record.turns.begin(("asked for",), TurnInputs(start=first), "develop")
        go(begin(opened), "develop")
        runs = {run.step: run for run in reversed(opened.record.runs.find(status="done"))}
        learned = opened.record.runs.find(step="prepare.learn_tokenizer", status="done")
        assert runs["prepare.tokenize"].inputs["words"] == first
        assert runs["develop.train"].inputs["start"] == first
        assert runs["develop.evaluate_base"].inputs["begun"] == made[1]["develop.pretrain"].outputs["model"]
    assert len(learned) == 1


def test_another_base_does_not_go_on_from_the_model_before(
    made: tuple[Project, dict[str, RunRecord]], base: Path, tmp_path: Path
) -> None:
    shutil.copytree(made[0].folder.parent, tmp_path / "copy", symlinks=True)
    project = Project(tmp_path / "copy" / "project")
    start: Any = made[1]["develop.train"].outputs["model"]
    for old, new, name in (
        (INIT + PRETRAIN, f"  base_model: {base}\n", str(base)),
        (f"  base_model: {base}\n", INIT, FROM_NOTHING),
    ):
        project.edit(old, new)
        with open_project(project.folder) as opened:
            opened.record.turns.begin(("asked for",), TurnInputs(start=start), "")
            turn = begin(opened)
            go(turn, "develop")
            model, tokens = turn.developed.model, turn.prepared.tokens
            assert model.about()["base_model"]["name"] == name
            assert tokens is not None
            trained, tokenized = (opened.record.runs.producer(each.digest) for each in (model, tokens))
            assert trained is not None
            assert tokenized is not None
            assert trained.inputs["start"] is None
            assert tokenized.inputs.get("words") != start
            start = model.digest
