"""A fine-tuning goes on after a fall to the same weights, and with fewer samples at a time where memory is short."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import killed_training
from treadle.core.digest import blake3_file
from treadle.core.errors import UserError
from treadle.lm import training
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.classification import train_classifier
from treadle.lm.course import OnStep, StepReport
from treadle.lm.fitting import FitSettings
from treadle.lm.packing import TokenizedExample
from treadle.lm.training import TrainingSettings, train

CHAT = TrainingSettings(
    token_budget=8 * 4 * 48, rows=4, width=48, learning_rate=3e-3, threads=1, precision="float32", save_dtype="float32"
)
LABELS = FitSettings(epochs=4, batch_size=4, learning_rate=3e-4, max_length=16, threads=1, precision="float32")
TEXTS = ["the object", "a function", "value of", "returns", "the user", "assistant", "system", "the value"]
Trains = Callable[..., Any]


def _examples() -> list[TokenizedExample]:
    draw = random.Random(0)
    sizes = [draw.randint(6, 40) for _ in range(20)]
    return [
        TokenizedExample([draw.randrange(3, 320) for _ in range(size)], [i >= size // 2 for i in range(size)])
        for size in sizes
    ]


def _trains(base: Path, method: str) -> Trains:
    """What trains to a folder: chat by a method, or a classifier, which drops out at random."""

    def chat(out: Path, on_step: OnStep | None = None, checkpoints: Checkpoints | None = None) -> Any:
        return train(base, out, _examples(), replace(CHAT, method=method), on_step, checkpoints)  # type: ignore[arg-type]

    def classifier(out: Path, on_step: OnStep | None = None, checkpoints: Checkpoints | None = None) -> Any:
        return train_classifier(base, out, TEXTS, ["a", "b"] * 4, LABELS, on_step, checkpoints)

    return classifier if method == "classifier" else chat


@pytest.fixture(scope="session")
def dropping_out(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., Path]) -> Path:
    """A model whose steps draw random numbers."""
    import json

    folder = make_model(tmp_path_factory.mktemp("models") / "gpt2", "gpt2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"resid_pdrop": 0.2, "embd_pdrop": 0.2}))
    return folder


@pytest.mark.parametrize("method", ["full", "lora", "classifier"])
def test_it_goes_on_to_the_same_weights(tmp_path: Path, tiny_llama: Path, dropping_out: Path, method: str) -> None:
    trains = _trains(tiny_llama if method == "lora" else dropping_out, method)
    whole = trains(tmp_path / "whole")

    class Fall(Exception):
        pass

    def fall(report: StepReport) -> None:
        if report.step == 5:
            raise Fall

    with Checkpoints(tmp_path / "kept", every=0.0) as checkpoints, pytest.raises(Fall):
        trains(tmp_path / "gone", fall, checkpoints)
    assert not (tmp_path / "gone").exists()
    seen: list[int] = []
    with Checkpoints(tmp_path / "kept", every=0.0) as checkpoints:
        result = trains(tmp_path / "on", lambda report: seen.append(report.step), checkpoints)
    assert 1 <= result.resumed <= 5
    assert seen == list(range(result.resumed + 1, whole.steps + 1))
    assert (result.loss, result.steps) == (whole.loss, whole.steps)
    if method != "classifier":
        assert (result.tokens, result.examples_seen) == (whole.tokens, whole.examples_seen)
    assert blake3_file(tmp_path / "on" / "model.safetensors") == blake3_file(tmp_path / "whole" / "model.safetensors")


def test_too_little_memory_is_answered_by_fewer_rows_at_a_time(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tiny_llama, tmp_path / "whole", _examples(), CHAT)
    room, asked, real = 1, list[int](), training.answer_loss

    def short(model: Any, examples: Any, rows: Any, width: int) -> Any:
        asked.append(len(rows))
        if len(rows) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, examples, rows, width)

    monkeypatch.setattr(training, "answer_loss", short)
    result = train(tiny_llama, tmp_path / "parts", _examples(), CHAT)
    assert asked[:4] == [4, 2, 1, 1]
    assert (whole.micro, result.micro) == (4, 1)
    assert result.loss == pytest.approx(whole.loss, rel=1e-3)
    assert result.tokens == whole.tokens
    room = 0
    with pytest.raises(UserError, match="one sample does not fit into the memory"):
        train(tiny_llama, tmp_path / "none", _examples(), CHAT)
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["pretrain", "full", "lora", "classifier"])
def test_killed_at_ten_random_steps_it_ends_in_the_same_weights(
    tmp_path: Path, dropping_out: Path, tiny_llama: Path, kind: str
) -> None:
    base = tiny_llama if kind == "lora" else dropping_out  # a GPT-2 has no linear layers

    def start(out: str, kept: str) -> subprocess.Popen[str]:
        paths = [str(base), str(tmp_path / out), str(tmp_path / kept)]
        command = [sys.executable, killed_training.__file__, kind, *paths]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    whole = start("whole", "whole-kept")
    assert whole.communicate()[0].split()[-1] == "0"
    draw = random.Random(kind)
    for at in sorted(draw.sample(range(2, killed_training.STEPS - 2), 10)):
        running = start("on", "kept")
        assert running.stdout is not None
        for line in running.stdout:
            if int(line) >= at:
                break
        running.kill()
        running.communicate()
        assert not (tmp_path / "on").exists()
    last = start("on", "kept")
    resumed = int(last.communicate()[0].split()[-1])
    assert last.returncode == 0
    assert resumed > 0
    assert blake3_file(tmp_path / "on" / "model.safetensors") == blake3_file(tmp_path / "whole" / "model.safetensors")
