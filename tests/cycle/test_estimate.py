"""What training takes, told beforehand: parameters and steps as they come out, and nothing run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from small_project import Project, make_project
from treadle.cli.develop import develop
from treadle.core.errors import UserError
from treadle.lm.initial_model import config_for, shape_for
from treadle.lm.training_probe import Load, memory_of, shape_of
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


@pytest.mark.parametrize(("precision", "bytes_each"), [("float32", 16), ("bfloat16", 20)])
def test_large_models_are_mostly_weights_and_moments(precision: str, bytes_each: int) -> None:
    shape = shape_of(config_for("llama", shape_for("llama", 10**9, 32_000, 512), 32_000, 512, {"eos": 0, "pad": 0}))
    needed = [memory_of(shape, Load("causal", rows, 512, 1), 10**8, precision=precision) for rows in (2, 4)]
    assert shape.parameters * bytes_each < needed[0] < shape.parameters * bytes_each * 1.1
    assert needed[1] - needed[0] >= 2 * 10**8
