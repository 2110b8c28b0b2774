"""Environments of other tools' own programs, made on first use under ``.venv-peers``."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from benchmarks.evaluate import PACKAGES as LM_EVAL_PACKAGES
from benchmarks.evaluate import VERSION as LM_EVAL

ROOT = Path(__file__).resolve().parent.parent.parent


def peer(name: str, *packages: str, ours: bool = False, alone: tuple[str, ...] = ()) -> Path:
    """The ``bin`` folder of an environment with these packages; skips where pip gets nothing.

    ``ours``: it sees the packages of this environment as well, so that none of them (torch) is fetched again.
    ``alone``: packages that are installed without what they ask for.
    """
    folder = ROOT / ".venv-peers" / f"tests-{name}"  # the benchmarks have theirs beside it, with other packages
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f".{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done, wanted = folder / ".complete", "\n".join([*packages, *alone])
        if not done.exists() or done.read_text() != wanted:
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            if ours:
                _see_ours(folder)
            install = [folder / "bin" / "pip", "install", "-q"]
            made = subprocess.run([*install, *packages], capture_output=True, text=True)
            if alone and not made.returncode:
                made = subprocess.run([*install, "--no-deps", *alone], capture_output=True, text=True)
            if made.returncode:
                if os.environ.get("CI") == "true" and _pip_works(folder):
                    pytest.fail(f"{packages} cannot be installed: {made.stderr[-500:]}")
                pytest.skip(f"{packages} cannot be installed here")
            done.write_text(wanted)
    return folder / "bin"


def lm_eval_programs() -> Path:
    """As ``peer``, of lm-evaluation-harness with this environment's torch and transformers."""
    alone = (f"lm_eval=={LM_EVAL}", *LM_EVAL_PACKAGES)
    return peer("lm-eval", "more_itertools", "tenacity", ours=True, alone=alone)


def _see_ours(folder: Path) -> None:
    (site,) = folder.glob("lib/python*/site-packages")
    places = [place for place in sys.path if place.endswith("-packages")]
    (site / "ours.pth").write_text("".join(f"{place}\n" for place in places))


def _pip_works(folder: Path) -> bool:
    """Whether pip gets anything at all here."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [folder / "bin" / "pip", "download", "-q", "--no-deps", "-d", scratch, "six"]
        return subprocess.run(command, capture_output=True).returncode == 0


def call(program: Path, *arguments: str, cwd: Path, check: bool = True, **environment: str) -> str:
    """Run a peer's program without its telemetry; what it says on stdout."""
    quiet = {"DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}
    who = {f"GIT_{role}_{what}": "a@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        [str(program), *arguments],
        cwd=cwd,
        env={**os.environ, **quiet, **who, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout
