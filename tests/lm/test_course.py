"""A fine-tuning goes on after a fall to the same weights, and with fewer samples at a time where memory is short."""

from __future__ import annotations

import json
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import killed_training
from treadle.core.digest import blake3_file
from treadle.core.errors import UserError
from treadle.lm import training
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.course import StepReport
from treadle.lm.packing import TokenizedExample
from treadle.lm.training import TrainingSettings, train

CHAT = TrainingSettings(
    token_budget=8 * 4 * 48, rows=4, width=48, learning_rate=3e-3, threads=1, precision="float32", save_dtype="float32"
)


def _examples() -> list[TokenizedExample]:
    draw = random.Random(0)
    sizes = [draw.randint(6, 40) for _ in range(20)]
    return [
        TokenizedExample([draw.randrange(3, 320) for _ in range(size)], [i >= size // 2 for i in range(size)])
        for size in sizes
    ]


class Fall(Exception):
    """A training ends in the middle."""


@pytest.mark.parametrize("kind", killed_training.KINDS)
def test_it_goes_on_to_the_same_weights(tmp_path: Path, begun: dict[str, Path], kind: str) -> None:
    def training(name: str) -> Callable[..., Any]:
        base = begun[killed_training.KINDS[kind]]
        return killed_training.training_of(kind, base, tmp_path / name, 6, watched=kind != "pretrain")

    def fall(report: StepReport) -> None:
        if report.step == 4:
            raise Fall

    whole: list[StepReport] = []
    training("whole")(on_step=whole.append)
    with Checkpoints(tmp_path / "kept", every=0.0) as checkpoints, pytest.raises(Fall):
        training("gone")(on_step=fall, checkpoints=checkpoints)
    assert not (tmp_path / "gone").exists()
    seen: list[StepReport] = []
    with Checkpoints(tmp_path / "kept", every=0.0) as checkpoints:
        result = training("on")(on_step=seen.append, checkpoints=checkpoints)
    assert 1 <= result.figures["resumed"] <= 4
    assert [(each.step, each.loss, each.figures) for each in seen] == [
        (each.step, each.loss, each.figures) for each in whole[int(result.figures["resumed"]) :]
    ]
    assert any("held_out_loss" in each.figures for each in whole) is (kind != "pretrain")
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


@pytest.mark.parametrize("kind", killed_training.KINDS)
def test_words_that_the_model_does_not_have_are_one_line(tmp_path: Path, begun: dict[str, Path], kind: str) -> None:
    import transformers

    base = Path(shutil.copytree(begun[killed_training.KINDS[kind]], tmp_path / "base"))
    named = json.loads((base / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, named).from_pretrained(base)
    model.resize_token_embeddings(100)
    model.save_pretrained(base)
    training = killed_training.training_of(kind, base, tmp_path / "out", 6, watched=kind != "pretrain")
    with pytest.raises(UserError, match=r"the tokenizer gives id \d{3}, and the model has 100 words") as error:
        training()
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_disk_that_is_full_while_checkpointing_leaves_the_checkpoint_before(tmp_path: Path, tiny_llama: Path) -> None:
    whole = train(tiny_llama, tmp_path / "whole", _examples(), CHAT)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(report: StepReport) -> None:
        time.sleep(0.05)
        if report.step == 4:
            checkpoints.wait()
            while not checkpoints.due():
                time.sleep(0.01)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))

    try:
        with (
            Checkpoints(tmp_path / "kept", every=0.0) as checkpoints,
            pytest.raises(UserError, match=r"no checkpoint could be written to .*; the one before it is as it was"),
        ):
            train(tiny_llama, tmp_path / "out", _examples(), CHAT, on_step=fill, checkpoints=checkpoints)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "out").exists()
    assert all(path.suffix == ".checkpoint" for path in (tmp_path / "kept").iterdir())
    with Checkpoints(tmp_path / "kept", every=0.0) as checkpoints:
        found = checkpoints.latest()
        assert found is not None
        result = train(tiny_llama, tmp_path / "out", _examples(), CHAT, checkpoints=checkpoints)
    assert result.resumed == found.step <= 4
    assert result.loss == whole.loss
    assert blake3_file(tmp_path / "out" / "model.safetensors") == blake3_file(tmp_path / "whole" / "model.safetensors")


def test_a_loss_that_stands_out_is_noticed(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = training.answer_loss, list[int]()

    def jumping(model: Any, examples: Any, rows: Any, width: int) -> Any:
        calls.append(1)
        return real(model, examples, rows, width) * (8 if len(calls) == 55 else 1)

    monkeypatch.setattr(training, "answer_loss", jumping)
    settings = TrainingSettings(
        token_budget=60 * 48, rows=1, width=48, learning_rate=1e-5, threads=1, precision="float32", save_dtype="float32"
    )
    assert train(tiny_llama, tmp_path / "out", _examples(), settings).spikes == (55,)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", killed_training.KINDS)
def test_killed_at_ten_random_steps_it_ends_in_the_same_weights(
    tmp_path: Path, begun: dict[str, Path], kind: str
) -> None:
    base = begun[killed_training.KINDS[kind]]

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
