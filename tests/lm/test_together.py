"""Several processes train one model: the same losses as one, and on from the last checkpoint when one is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import together_job
import toy_training
from importing.peers import peer
from treadle.core.errors import TreadleError, UserError
from treadle.lm import torch_runtime
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.classification import train_classifier
from treadle.lm.course import StepReport
from treadle.lm.embedding_training import Pair, train_embedder
from treadle.lm.fitting import FitSettings
from treadle.lm.launcher import ByHand, Torchrun, carry_out
from treadle.lm.packed_rows import PackedRows
from treadle.lm.packing import TokenizedExample
from treadle.lm.pretraining import PretrainingSettings, pretrain
from treadle.lm.team import Team
from treadle.lm.training import TrainingSettings, train
from treadle.lm.training_job import JobFolder

WIDTH, STEPS, BATCH = 32, 50, 6
SETTINGS = PretrainingSettings(
    tokens=STEPS * BATCH * WIDTH, batch=BATCH, threads=1, precision="float32", learning_rate=1e-3, seed=5
)


@pytest.fixture(scope="module")
def rows() -> PackedRows:
    """Texts that count on, so that there is something to learn; two to a row, of several lengths."""
    draw = np.random.default_rng(0)
    lengths = [[size, WIDTH - size] for size in draw.integers(8, 25, 40).tolist()]
    texts = [(draw.integers(3, 300) + np.arange(size)) % 317 + 3 for row in lengths for size in row]
    ends = np.cumsum([len(text) for text in texts])
    return PackedRows(np.concatenate(texts).astype("<u2"), ends, np.arange(2, len(texts) + 1, 2), WIDTH)


@pytest.fixture(scope="module")
def alone(tiny_llama: Path, rows: PackedRows, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], Path]:
    """The losses of one process, and what it made."""
    out, seen = tmp_path_factory.mktemp("alone") / "model", list[float]()
    pretrain(tiny_llama, out, rows, SETTINGS, on_step=lambda report: seen.append(report.loss))
    assert seen[-1] < 0.8 * seen[0]
    return seen, out


def _together(place: Any, tmp_path: Path, base: Path, rows: PackedRows, settings: Any, on_step: Any = None) -> Any:
    with Checkpoints(tmp_path / "kept", every=0.0) as kept:
        return carry_out(
            place,
            tmp_path / "job",
            pretrain,
            (base, tmp_path / "out", rows),
            settings,
            kept,
            on_step or (lambda _report: None),
        )


def _check(losses: list[float], out: Path, alone: tuple[list[float], Path]) -> None:
    assert losses == pytest.approx(alone[0], abs=1e-3)
    one, two = load_file(alone[1] / "model.safetensors"), load_file(out / "model.safetensors")
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 5e-3


def found_by_workers(strategies: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are started find what these tests have beside them and, for ZeRO, DeepSpeed."""
    folders = [Path(together_job.__file__).parent]
    if any(name.startswith("zero") for name in strategies):
        programs = peer("deepspeed", "hjson", "ninja", "py-cpuinfo", "einops", ours=True, alone=("deepspeed==0.19.8",))
        folders += programs.parent.glob("lib/python*/site-packages")
        monkeypatch.syspath_prepend(str(folders[-1]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))


STRATEGIES = pytest.mark.parametrize(
    "strategies", [["ddp", "fsdp2"], pytest.param(["zero2", "zero3"], marks=pytest.mark.slow)], ids="-".join
)


@STRATEGIES
def test_two_processes_learn_what_one_does(
    tmp_path: Path, strategies: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found_by_workers(strategies, monkeypatch)
    with torch_runtime.session(1, 0):
        losses, weights, _ = toy_training.train(Team(), None)
        arguments = (strategies, tmp_path / "out")
        result = carry_out(
            Torchrun(2),
            tmp_path / "job",
            toy_training.several,
            arguments,
            toy_training.Settings(),
            None,
            lambda _report: None,
        )
        for name in strategies:
            for micro in (None, 2):
                assert result.environment[name, micro] == pytest.approx(losses, abs=1e-4)
                # What they left is gone on from by one process.
                with Checkpoints(tmp_path / "out" / f"{name}-{micro}", every=0.0) as kept:
                    _, again, resumed = toy_training.train(Team(), kept)
                assert 0 < resumed < toy_training.STEPS
                assert all(torch.allclose(one, two, atol=1e-4) for one, two in zip(weights, again, strict=True))


@pytest.mark.slow
@STRATEGIES
def test_two_pretrain_as_one_does(
    tmp_path: Path,
    tiny_llama: Path,
    rows: PackedRows,
    alone: tuple[list[float], Path],
    strategies: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found_by_workers(strategies, monkeypatch)
    out = tmp_path / "out"
    arguments = (strategies, tiny_llama, out, rows)
    result = carry_out(
        Torchrun(2), tmp_path / "job", together_job.several, arguments, SETTINGS, None, lambda _report: None
    )
    assert result.environment["processes"] == 2
    for name in strategies:
        _check(result.environment[name], out / name, alone)
        # What they left is gone on from by one process.
        with Checkpoints(out / f"{name}-kept", every=0.0) as kept:
            again = pretrain(tiny_llama, tmp_path / "one", rows, SETTINGS, kept)
        assert 0 < again.resumed < STEPS
        assert again.loss == pytest.approx(sum(alone[0][-5:]) / 5, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2", "zero2", "zero3"])
def test_a_killed_worker_is_answered_from_the_last_checkpoint(
    tmp_path: Path,
    tiny_llama: Path,
    rows: PackedRows,
    alone: tuple[list[float], Path],
    strategy: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found_by_workers([strategy], monkeypatch)
    losses, killed = list[float](), list[int]()

    def kill(report: StepReport) -> None:
        losses.append(report.loss)
        if report.step >= 10 and not killed:
            killed.append(_worker(tmp_path / "job", 1))
            os.kill(killed[0], signal.SIGKILL)

    result = _together(Torchrun(2, strategy), tmp_path, tiny_llama, rows, SETTINGS, kill)
    assert killed
    assert result.resumed > 0
    assert result.environment["strategy"] == strategy
    _check(losses, tmp_path / "out", alone)


@pytest.mark.slow
def test_killed_too_often_it_says_so_and_more_processes_go_on(
    tmp_path: Path, tiny_llama: Path, rows: PackedRows, alone: tuple[list[float], Path]
) -> None:
    def kill(report: StepReport) -> None:
        if report.step == 10:
            os.kill(_worker(tmp_path / "job", 1), signal.SIGKILL)

    with pytest.raises(TreadleError, match=r"process 2 of 2 was ended by SIGKILL; the last checkpoint is whole"):
        _together(Torchrun(2, "fsdp2", restarts=0), tmp_path, tiny_llama, rows, SETTINGS, kill)
    assert not (tmp_path / "out").exists()
    result = _together(Torchrun(3, "fsdp2"), tmp_path, tiny_llama, rows, SETTINGS)
    assert result.resumed > 0
    assert result.environment["processes"] == 3
    assert result.loss == pytest.approx(sum(alone[0][-5:]) / 5, abs=1e-3)


@pytest.mark.slow
def test_fewer_rows_than_processes_and_adapters(tmp_path: Path, tiny_llama: Path) -> None:
    examples = [
        TokenizedExample([3 + (at + i) % 300 for i in range(20)], [i > 9 for i in range(20)]) for at in range(9)
    ]
    settings = TrainingSettings(
        token_budget=8 * 3 * 24, rows=3, width=24, threads=1, precision="float32", method="lora", learning_rate=3e-3
    )
    one = train(tiny_llama, tmp_path / "one", examples, settings)
    arguments = (tiny_llama, tmp_path / "two", examples)
    two = carry_out(Torchrun(2), tmp_path / "job", train, arguments, settings, None, lambda _report: None)
    assert (two.loss, two.tokens, two.examples_seen) == (
        pytest.approx(one.loss, abs=1e-3),
        one.tokens,
        one.examples_seen,
    )
    with pytest.raises(UserError, match="lora needs a strategy that keeps the model whole"):
        carry_out(Torchrun(2, "fsdp2"), tmp_path / "job", train, arguments, settings, None, lambda _report: None)
    alone = replace(settings, rows=1, method="full")
    many = carry_out(Torchrun(2, "fsdp2"), tmp_path / "job", train, arguments, alone, None, lambda _report: None)
    expected = train(tiny_llama, tmp_path / "expected", examples, alone)
    assert many.loss == pytest.approx(expected.loss, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("function", [train_classifier, train_embedder])
def test_adapters_of_an_encoder_are_trained_together(tmp_path: Path, begun: dict[str, Path], function: Any) -> None:
    texts = [f"value {word}" for word in ("user", "function", "returns", "system", "object", "value")] * 4
    of: dict[Any, tuple[Any, ...]] = {
        train_classifier: (texts, ["a", "b", "c"] * 8),
        train_embedder: ([Pair(text, f"{text} {at}") for at, text in enumerate(texts)],),
    }
    settings = FitSettings(
        3e-3, epochs=4, max_length=16, batch_size=6, threads=1, precision="float32", method="lora", lora_rank=4
    )
    base = begun["bert without dropout"]
    one = function(base, tmp_path / "one", *of[function], settings)
    arguments = (base, tmp_path / "two", *of[function])
    two = carry_out(Torchrun(2), tmp_path / "job", function, arguments, settings, None, lambda _report: None)
    assert two.loss == pytest.approx(one.loss, abs=1e-3)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(tensor, second[name], atol=1e-3) for name, tensor in first.items())


@pytest.mark.slow
def test_processes_that_somebody_starts(
    tmp_path: Path, tiny_llama: Path, rows: PackedRows, alone: tuple[list[float], Path], capsys: Any
) -> None:
    losses: list[float] = []

    def start() -> None:
        while not (tmp_path / "job" / "job.pickle").exists():
            time.sleep(0.02)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        command = [sys.executable, "-m", "treadle.lm.training_worker", str(tmp_path / "job")]
        for rank in range(2):
            who = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
            started.append(subprocess.Popen(command, env=os.environ | meeting | who))

    started: list[subprocess.Popen[bytes]] = []
    starting = threading.Thread(target=start)
    starting.start()
    place = ByHand(2, "fsdp2")
    result = _together(place, tmp_path, tiny_llama, rows, SETTINGS, lambda report: losses.append(report.loss))
    starting.join()
    assert [each.wait() for each in started] == [0, 0]
    assert result.environment["processes"] == 2
    _check(losses, tmp_path / "out", alone)
    assert f"-m treadle.lm.training_worker {tmp_path / 'job'}" in capsys.readouterr().err


def test_numbers_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="expected processes of 1 or more"):
        Torchrun(0)


def _worker(job: Path, rank: int) -> int:
    """The process of a rank that works on a job."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        for process in Path("/proc").iterdir():
            try:
                command = (process / "cmdline").read_bytes().split(b"\0")
                environment = (process / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(job).encode() in command and f"RANK={rank}".encode() in environment:
                return int(process.name)
    raise AssertionError("no such process")


def test_a_process_that_is_not_heard_of_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.lm.launcher.SILENT", 0.5)
    folder = JobFolder(tmp_path)
    waiting = ByHand(2).start(tmp_path)
    time.sleep(0.6)
    assert waiting.poll() is None  # nobody was there yet
    folder.beat(0)
    folder.beat(1)
    time.sleep(0.7)
    folder.beat(0)
    ended = waiting.poll()
    assert ended is not None
    assert ended.reason == "process 1 has not been heard of for 0.5 seconds"
