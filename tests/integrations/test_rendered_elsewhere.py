"""A release rendered in two processes that have nothing in common but the release: the same bytes."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import given_away
from described_release import described
from treadle.core.plugins import names
from treadle.stages.deploy.targets import GROUP, Rendering

RENDER = """
import os, pickle, sys
from pathlib import Path
os.umask(int(sys.argv[3], 8))
from treadle.stages.deploy.targets import render
for number, (target, release, settings) in enumerate(pickle.loads(Path(sys.argv[1]).read_bytes())):
    render(target, release, Path(sys.argv[2]) / f"{number}-{target}", settings)
"""
# Where two processes differ: the order of their sets, their clock, their language, and where they are.
ONE = {"PYTHONHASHSEED": "1", "TZ": "Asia/Kolkata", "LC_ALL": "C", "USER": "one", "COLUMNS": "40"}
OTHER = {"PYTHONHASHSEED": "987654", "TZ": "America/Los_Angeles", "LC_ALL": "C.UTF-8", "USER": "two", "COLUMNS": "200"}

OLD = described("Docs_Assistant")
TRIED = replace(OLD, canary=described("Docs_Assistant", version=4, digest="cd"))
IMAGE = "registry.example.org/models/helper:3"
TRIAL = {"canary": "model@v4", "share": 0.25}
CASES: list[tuple[str, Rendering, dict[str, Any]]] = [
    ("docker", OLD, {}),
    ("docker", described(engine="transformers"), {"gpu": True}),
    ("docker", OLD, {"model": "mounted"}),
    ("docker", OLD, {"model": "pulled", "remote": "s3://bucket/team"}),
    ("docker", OLD, {"model": "pulled", "remote": "/mnt/team's $HOME"}),
    ("kubernetes", OLD, {}),
    ("kubernetes", TRIED, {"gateway": "infra/web", "host": "models.example.org", **TRIAL}),
    ("kubernetes", described(engine="transformers"), {"gpu": True, "scale_by": "queue"}),
    ("kserve", OLD, {}),
    ("kserve", TRIED, TRIAL),
    ("rayserve", OLD, {}),
    ("sagemaker", OLD, {"image": IMAGE, "role": "arn:aws:iam::123456789012:role/serving"}),
    ("vertex", OLD, {"image": IMAGE, "project": "models-1", "region": "europe-west4"}),
    ("systemd", OLD, {}),
    *[("triton", described(asking=asking), {}) for asking in ("chat", "extract", "classify", "tag", "embed")],
]


def rendered(cases: list[tuple[str, Rendering, dict[str, Any]]], root: Path) -> list[dict[str, bytes]]:
    """The files of both processes, by path."""
    root.mkdir(exist_ok=True)
    (root / "cases").write_bytes(pickle.dumps(cases))
    found = []
    for different, umask in ((ONE, "022"), (OTHER, "077")):
        own = root / different["USER"]
        for name in ("out", "home", "scratch"):
            (own / name).mkdir(parents=True)
        environment = {**os.environ, **different, "HOME": str(own / "home"), "TMPDIR": str(own / "scratch")}
        done = subprocess.run(
            [sys.executable, "-c", RENDER, str(root / "cases"), str(own / "out"), umask],
            cwd=own / "home", env=environment, capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        out = own / "out"
        found.append({p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()})
    return found


def check(cases: list[tuple[str, Rendering, dict[str, Any]]], root: Path) -> None:
    one, other = rendered(cases, root)
    assert one.keys() == other.keys()
    assert len({path.partition("/")[0] for path in one}) == len(cases)
    assert [path for path, data in one.items() if other[path] != data] == []
    for path, data in one.items():
        assert str(root).encode() not in data, f"{path} says where it was rendered"


def test_every_target_has_a_case() -> None:
    assert {target for target, _, _ in CASES} | set(given_away.TARGETS) == set(names(GROUP))


def test_files_are_the_same_from_another_process(tmp_path: Path) -> None:
    without = () if importlib.util.find_spec("ray") else ("rayserve",)
    check([case for case in CASES if case[0] not in without], tmp_path / "rendered")


# TensorFlow has an environment of its own, which `make test` does not make.
@pytest.mark.parametrize(
    "target",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "tensorflow-serving" else name
        for name in given_away.TARGETS
    ],
)
def test_a_model_to_give_away_is_the_same_from_another_process(target: str, tmp_path: Path) -> None:
    given_away.need(target)
    release = given_away.release_of(tmp_path / "project", given_away.write_classifier)
    check([(target, release, {})], tmp_path / "rendered")
