"""A training's processes as a Slurm job and as tasks of Ray."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny_models import write_model
from treadle.core.errors import UserError
from treadle.core.plugins import load
from treadle.lm.launcher import carry_out
from treadle.lm.packed_rows import PackedRows
from treadle.lm.pretraining import PretrainingSettings, pretrain

SETTINGS = PretrainingSettings(tokens=10 * 4 * 16, batch=4, threads=1, precision="float32", seed=5)


@pytest.fixture
def arguments(tmp_path: Path) -> tuple[Any, ...]:
    ids = np.random.default_rng(0).integers(3, 300, 40 * 16).astype("<u2")
    rows = PackedRows(ids, np.arange(1, 41) * 16, np.arange(1, 41), 16)
    return write_model(tmp_path / "base"), tmp_path / "out", rows


def _nothing(_report: Any) -> None:
    """Nobody watches."""


def test_a_batch_file_says_who_each_process_is(tmp_path: Path) -> None:
    slurm = load("treadle.trainers", "slurm").value(2, 4, "fsdp2", ("--gres=gpu:4", "--time=01:00:00"))
    assert slurm.about == "slurm: 8 processes, fsdp2"
    text = slurm.rendered(tmp_path / "a b")
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    lines = text.splitlines()
    assert {"#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=4", "#SBATCH --gres=gpu:4"} <= set(lines)
    assert "RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=4" in lines[-1]
    assert "-m treadle.lm.training_worker" in lines[-1]
    with pytest.raises(UserError, match="expected --name or --name=value"):
        load("treadle.trainers", "slurm").value(directives=("--wrap=x; rm -rf",))


def test_without_slurm_it_says_so(tmp_path: Path, arguments: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"there is no sbatch here; run this where there is, or see .*job\.sbatch"):
        carry_out(
            load("treadle.trainers", "slurm").value(), tmp_path / "job", pretrain, arguments, SETTINGS, None, _nothing
        )
    assert (tmp_path / "job" / "job.sbatch").is_file()


@pytest.mark.slow
def test_tasks_of_ray_lose_as_one_process_does(tmp_path: Path, arguments: tuple[Any, ...]) -> None:
    pytest.importorskip("ray")
    base, out, rows = arguments
    alone = pretrain(base, out, rows, SETTINGS)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    place = load("treadle.trainers", "ray").value(2, "fsdp2")
    result = carry_out(place, tmp_path / "job", pretrain, (base, tmp_path / "ray", rows), SETTINGS, None, _nothing)
    assert result.environment["processes"] == 2
    assert result.loss == pytest.approx(alone.loss, abs=1e-3)
