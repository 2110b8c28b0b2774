"""What training takes, told beforehand: parameters and steps as they come out, and nothing run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from click.testing import CliRunner

from small_project import Project, make_project
from treadle.cli.develop import develop
from treadle.core.errors import UserError
from treadle.estimating import estimate
from treadle.lm.initial_model import Shape, config_for, shape_for
from treadle.lm.learner import AdamW, LoraLearner
from treadle.lm.packing import pack
from treadle.lm.tokens import Tokens
from treadle.lm.training_probe import Load, adapters_of, measure, memory_of, shape_of
from treadle.project import open_project

INIT = "  init: {architecture: llama, size: 200K, context: 256, vocabulary: 400}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    project = make_project(tmp_path, Path("x"))
    project.edit("  base_model: x\n", INIT + "  pretrain: {tokens: 2048, width: 64, batch: 4}\n")
    monkeypatch.chdir(project.folder)
    return project


def test_it_tells_and_runs_nothing(project: Project) -> None:
    done = CliRunner().invoke(develop, ["--estimate", "--price", "7200", "--json"], catch_exceptions=False)
    said = json.loads(done.stdout)
    trainings = {each["step"]: each for each in said["trainings"]}
    assert trainings["develop.pretrain"]["steps"] == 8
    assert trainings["develop.pretrain"]["tokens"] == 8 * 4 * 64
    assert trainings["develop.train"]["steps"] == 4  # 3,000 tokens in steps of 3 rows of 256
    assert said["tokens"] == 8 * 4 * 64 + 4 * 3 * 256
    assert said["cost"] == pytest.approx(2 * said["seconds"], rel=1e-2)
    assert said["seconds"] == pytest.approx(sum(each["seconds"] for each in said["trainings"]), abs=0.01)
    assert min(each["seconds"] for each in said["trainings"]) > 0
    assert said["fits"]
    assert said["model"]["parameters"] == pytest.approx(200_000, rel=0.3)
    with open_project(project.folder) as opened:
        assert not opened.record.runs.find()


def test_a_model_that_does_not_fit_is_not_begun(project: Project) -> None:
    done = CliRunner().invoke(develop, ["--estimate", "--set", "develop.init.size=100B"], standalone_mode=False)
    assert done.return_value == 1
    assert "does not fit" in done.stdout
    assert "not timed" in done.stdout


def test_bad_asking_is_one_line(project: Project) -> None:
    with pytest.raises(UserError, match="--price belongs to --estimate"):
        CliRunner().invoke(develop, ["--price", "1"], catch_exceptions=False)


def test_what_ones_own_code_takes_is_not_guessed(project: Project) -> None:
    for setting, said in (
        ("develop.fit=mine:alone", "how mine:alone trains is not known"),
        ("develop.init.model=mine:Bag", "what mine:Bag computes is not known; leave model out, for a usual llama"),
    ):
        with pytest.raises(UserError, match=said):
            without = ["--set", "develop.pretrain=null"]
            CliRunner().invoke(develop, ["--estimate", *without, "--set", setting], catch_exceptions=False)


@pytest.mark.parametrize(("precision", "bytes_each"), [("float32", 16), ("bfloat16", 20)])
def test_large_models_are_mostly_weights_and_moments(precision: str, bytes_each: int) -> None:
    shape = shape_of(config_for("llama", shape_for("llama", 10**9, 32_000, 512), 32_000, 512, {"eos": 0, "pad": 0}))
    needed = [memory_of(shape, Load("causal", rows, 512, 1), 10**8, precision=precision) for rows in (2, 4)]
    assert shape.parameters * bytes_each < needed[0] < shape.parameters * bytes_each * 1.1
    assert needed[1] - needed[0] >= 2 * 10**8


def test_lora_holds_less_and_is_timed_with_its_adapters(project: Project) -> None:
    project.edit("develop:\n", "develop:\n  method: lora\n")
    with open_project(project.folder) as opened:
        _pretraining, part = estimate(opened).parts
    assert (part.step, part.seconds > 0) == ("develop.train", True)
    config = config_for("llama", Shape(128, 3), 400, 256, {"eos": 0, "pad": 0})
    model = transformers.AutoModelForCausalLM.from_config(config)
    trained = LoraLearner(model, AdamW(1e-3, 1.0, 0.0, torch.float32), rank=4, alpha=1.0).size
    assert adapters_of(config, 4) == trained
    plain, lora = (Load("causal", 2, 64, 1, rank) for rank in (None, 4))
    less = memory_of(shape_of(config), plain, 0, precision="float32") - memory_of(
        shape_of(config), lora, 0, precision="float32", adapters=trained
    )
    assert less == 8 * shape_of(config).parameters - 16 * trained


def test_of_a_classifier_the_head_is_trained_too() -> None:
    config = config_for("bert", Shape(128, 3), 400, 256, {"eos": 0, "pad": 0})
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    learner = LoraLearner(model, AdamW(1e-3, 1.0, 0.0, torch.float32), rank=4, alpha=1.0)
    assert adapters_of(config, 4, "classify") == learner.size


@pytest.mark.slow
def test_pairs_and_students_are_counted_too(project: Project) -> None:
    project.edit("  pretrain: {tokens: 2048, width: 64, batch: 4}\n", "  distill: {epochs: 2, layers: 1}\n")
    with open_project(project.folder) as opened, pytest.raises(UserError, match="run treadle prepare first"):
        estimate(opened)
    project.call("prepare")
    with open_project(project.folder) as opened:
        parts = {part.step: part for part in estimate(opened).parts}
        assert not opened.record.runs.find(step="develop.train")
        tokens = Tokens(
            opened.record.runs.find(step="prepare.tokenize", status="done")[0].outputs["tokens"], opened.record.store
        )
    assert list(parts) == ["develop.train", "develop.distill"]
    rows = len(pack(tokens.examples("train"), width=256).rows)
    assert parts["develop.distill"].steps == 2 * -(-rows // 3)
    project.edit("  distill: {epochs: 2, layers: 1}\n", "  prefer: {batch: 4, epochs: 3, instead: true}\n")
    with open_project(project.folder) as opened, pytest.raises(UserError, match="has a rejected answer"):
        estimate(opened)
    lines = [json.loads(line) for line in project.data.read_text().splitlines()]
    for line in lines:
        messages = line.pop("messages")
        line["chosen"], line["rejected"] = messages, [messages[0], {"role": "assistant", "content": "No idea."}]
    project.data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    project.edit("fields: {messages: messages,", "fields: {chosen: chosen, rejected: rejected,")
    project.call("prepare")
    with open_project(project.folder) as opened:
        (part,) = estimate(opened).parts
    assert (part.step, part.tokens, part.seconds > 0) == ("develop.prefer", part.steps * 8 * 256, True)


def test_a_teacher_takes_its_time_and_its_memory() -> None:
    student, teacher = (config_for("llama", Shape(64, layers), 400, 256, {"eos": 0, "pad": 0}) for layers in (1, 8))
    alone, taught = Load("causal", 2, 64, 5), Load("causal", 2, 64, 5, judged=1.0, teacher=teacher)
    pace = measure(student, taught)
    assert taught.steps * taught.rows * pace.judging == pytest.approx(pace.seconds(taught) - pace.seconds(alone))
    assert pace.judging > 0
    shape = shape_of(student)
    for precision, each in (("float32", 4), ("bfloat16", 2)):
        more = memory_of(shape, taught, 0, precision=precision) - memory_of(shape, alone, 0, precision=precision)
        assert more == pytest.approx(shape_of(teacher).parameters * each, abs=2 * 64 * 400 * 8 * 1.1 + 2)


@pytest.mark.parametrize("family", ["DistilBert", "ModernBert"])
def test_a_classifier_on_a_base_that_cannot_be_pretrained_here(family: str) -> None:
    named = {f"{name}_token_id": place for place, name in enumerate(("pad", "bos", "eos", "cls", "sep"))}
    sizes: dict[str, Any] = {"vocab_size": 300, **named}
    if family == "DistilBert":
        config = transformers.DistilBertConfig(dim=64, hidden_dim=128, n_layers=2, n_heads=2, **sizes)
    else:
        config = transformers.ModernBertConfig(
            hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, **sizes
        )
    shape = shape_of(config, "classify")
    assert (shape.width, shape.layers, shape.heads, shape.vocabulary) == (64, 2, 2, 300)
    assert measure(config, Load("classify", 2, 16, 1)).row > 0
