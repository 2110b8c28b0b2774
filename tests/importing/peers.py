"""Environments of other tools' own programs, made on first use under ``.venv-peers``."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def peer(name: str, *packages: str) -> Path:
    """The ``bin`` folder of an environment with these packages; skips where pip gets nothing."""
    folder = ROOT / ".venv-peers" / name
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f".{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / ".complete"
        if not done.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            made = subprocess.run([folder / "bin" / "pip", "install", "-q", *packages], capture_output=True, text=True)
            if made.returncode:
                if os.environ.get("CI") == "true" and _pip_works(folder):
                    pytest.fail(f"{packages} cannot be installed: {made.stderr[-500:]}")
                pytest.skip(f"{packages} cannot be installed here")
            done.touch()
    return folder / "bin"


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
