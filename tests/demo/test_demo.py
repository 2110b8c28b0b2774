"""The demo as it is printed in the README: the real model, the whole cycle, an answer with its documents."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_ends_with_a_traced_answer() -> None:
    done = subprocess.run(
        ["bash", "scripts/demo.sh"], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("few_shot", "@champion", "documents", "nothing close", "0 problems"):
        assert words in done.stdout
    treadle = [str(ROOT / ".venv/bin/treadle"), "-C", "build/demo"]

    def ask(*arguments: str) -> Any:
        said = subprocess.run([*treadle, *arguments, "--json"], cwd=ROOT, capture_output=True, text=True, check=True)
        return json.loads(said.stdout)

    evaluations = ask("develop")["evaluations"]
    for metric in ("log_likelihood", "rouge_l"):
        tuned, shown = evaluations["model"][metric], evaluations["few_shot"][metric]
        assert tuned["low"] <= tuned["value"] <= tuned["high"]
        assert tuned["value"] > shown["value"]
    again = ask("run")
    assert {step["status"] for stage in again["stages"] for step in stage["steps"]} == {"cached"}
    assert ask("verify")["ok"]
