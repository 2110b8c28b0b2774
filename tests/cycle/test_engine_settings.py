"""What the file says to an engine reaches its process, and what it does not have is said before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from small_project import Project
from tiny_models import write_model
from treadle.core.errors import UserError
from treadle.record.recording import USUAL
from treadle.stages.deploy import DeploySettings
from treadle.stages.deploy.bundling import for_gateway
from treadle.stages.deploy.chain import _told


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("  engine_settings: {precision: f32}\n", "engine_settings are of one engine, and auto is none"),
        ("  engine: openvino\n  engine_settings: {cache: 3}\n", "engine openvino has no setting 'cache'"),
        ("  engine: openvino\n  engine_settings: {hang_seconds: soon}\n", "engine openvino: Expected `float`"),
        ("  threads: 0\n", "deploy.threads"),
        ("  timeout: soon\n", "deploy.timeout"),
        ("  timeout: 0s\n", "deploy.timeout: expected more than no time at all"),
    ],
)
def test_what_an_engine_does_not_have_is_said_first(project: Project, lines: str, said: str) -> None:
    project.edit("deploy:\n", f"deploy:\n{lines}")
    for command in ("plan", "run"):
        assert said in project.call(command, check=2).stderr


def test_settings_are_of_the_engine_that_serves() -> None:
    settings = DeploySettings.model_validate({"engine": "openvino", "engine_settings": {"hang_seconds": 5}})
    assert _told(settings, "openvino") == {"hang_seconds": 5}
    with pytest.raises(UserError, match="is served by onnx; set deploy"):
        _told(settings, "onnx")
    assert _told(DeploySettings(), "onnx") == {}
    assert for_gateway(DeploySettings.model_validate({"timeout": "90s"}), USUAL, None) == {"timeout": "90s"}


def test_threads_and_settings_reach_the_process(project: Project) -> None:
    project.edit("deploy:\n", "deploy:\n  threads: 1\n  engine: openvino\n  engine_settings: {wait_policy: active}\n")
    release = project.json("deploy")["release"]
    started = project.start("serve", release, "--port", "0", "--json")
    assert started.stdout is not None
    line = started.stdout.readline()
    try:
        assert json.loads(line)["release"] == release
        (engine,) = (
            each
            for each in psutil.Process(started.pid).children(recursive=True)
            if "treadle.lm.engine_worker" in each.cmdline()
        )
        told = engine.environ()
        assert (told["OMP_NUM_THREADS"], told["OMP_WAIT_POLICY"]) == ("1", "active")
    finally:
        started.terminate()
        rest = started.communicate(timeout=60)[0]
        assert started.returncode == 0, line + rest


def test_a_model_that_cannot_be_quantized_is_refused_before_it_is_trained(
    project: Project, tmp_path: Path, base: Path
) -> None:
    folder = write_model(tmp_path / "gpt2", "gpt2")
    project.edit(f"base_model: {base}", f"base_model: {folder}")
    before = project.json("runs")
    for command in ("plan", "run"):
        said = project.call(command, check=2).stderr
        assert "gpt2 with rope 'default' cannot be written as a Llama GGUF; set deploy.quantize: null" in said
    assert project.json("runs") == before
    project.edit("quantize: {format: q8_0, max_loss: 0.5}", "quantize: null")
    assert project.json("deploy")["release"]  # trained, answered for its evaluation, and answered over HTTP
