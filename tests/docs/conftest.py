"""A small project that is really collected and prepared, once for all tests of the documentation."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import command

WORDS = [
    "amber",
    "basin",
    "cable",
    "delta",
    "ember",
    "fabric",
    "garden",
    "harbor",
    "island",
    "jacket",
    "kettle",
    "ladder",
    "meadow",
    "needle",
    "orchard",
    "pillow",
    "quarry",
    "ribbon",
    "saddle",
    "timber",
    "umbrella",
    "velvet",
    "window",
    "yellow",
    "zipper",
    "anchor",
    "bottle",
    "candle",
    "drawer",
    "engine",
    "feather",
    "glacier",
    "hammer",
    "insect",
    "jungle",
    "kernel",
    "lantern",
    "marble",
    "napkin",
    "oyster",
    "pepper",
    "quiver",
    "rocket",
    "silver",
    "tunnel",
    "urchin",
    "violin",
    "walnut",
]

Treadle = Callable[..., subprocess.CompletedProcess[str]]


def write_reviews(path: Path) -> None:
    """80 made-up reviews, three of them shouted, and two lines that are no reviews."""
    chance = random.Random(1)
    rows = []
    for number in range(80):
        text = " ".join(chance.sample(WORDS, 8)) + (" and it works" if number % 2 else " but it broke")
        row = {"review": text.upper() if number < 3 else text, "sentiment": "good" if number % 2 else "bad"}
        rows.append(json.dumps(row))
    path.write_text("\n".join([*rows, "{broken", '{"review": "", "sentiment": "good"}']) + "\n")


@pytest.fixture(scope="session")
def treadle() -> Treadle:
    """Runs the command in a process of its own, in a folder."""

    def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return command.run(*arguments, folder=folder, environment={**os.environ, "COLUMNS": "100"})

    return call


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, treadle: Treadle) -> tuple[Path, dict[str, Any]]:
    """A classifier's project, collected and prepared, and what ``run --json`` said of it."""
    folder = tmp_path_factory.mktemp("tiny")
    write_reviews(folder / "reviews.jsonl")
    made = treadle(folder, "init", "reviews", "--template", "classifier", "--data", "reviews.jsonl")
    assert made.returncode == 0, made.stderr
    ran = treadle(folder, "-C", "reviews", "run", "--until", "prepare", "--json")
    assert ran.returncode == 0, ran.stderr
    return folder / "reviews", json.loads(ran.stdout)


@pytest.fixture
def copied(tiny: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of the small project, for tests that write to it."""
    shutil.copytree(tiny[0], tmp_path / "reviews")
    shutil.copy(tiny[0].parent / "reviews.jsonl", tmp_path)
    return tmp_path / "reviews"
