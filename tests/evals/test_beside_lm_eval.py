"""Log-likelihoods and scores are those of lm-evaluation-harness, item by item."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from benchmarks.evaluate import asked, differences
from benchmarks.evaluate_tasks import TASKS, write_tasks

from importing.peers import ROOT, lm_eval_programs
from treadle.lm.base_model import resolve


def apart(model: Path, folder: Path, items: int) -> tuple[list[str], dict[str, float]]:
    """What differs between the two on the benchmark's tasks."""
    programs = lm_eval_programs()
    write_tasks(folder, items)
    ours = asked([sys.executable, "-m", "benchmarks.evaluate", "--worker", str(model), str(folder)])
    script = ROOT / "benchmarks" / "evaluate_peer.py"
    theirs = asked([str(programs / "python"), str(script), str(model), str(folder), "1"])
    return differences(ours["tasks"], theirs["tasks"])


@pytest.mark.slow
@pytest.mark.usefixtures("shared_data")
def test_smollm2_finds_as_lm_eval_says(tmp_path: Path) -> None:
    off, largest = apart(resolve("smollm2-135m-instruct").path, tmp_path, 8)
    assert not off, off
    assert set(largest) == set(TASKS)
