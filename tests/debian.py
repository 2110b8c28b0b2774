"""Programs that tests run and Debian has: installed where this may be done, else a skip, and a failure if CI=true."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where a user's own PATH does not look


def program(package: str, *names: str) -> str:
    """Where the first of these programs is that is there; without names, the package's own."""
    names = names or (package,)
    install = ("apt-get", "install", "-y", "--no-install-recommends", package)
    # One worker installs it, the others wait: apt refuses a second one.
    with Path(tempfile.gettempdir(), "treadle-tests-apt.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found := _find(names):
            return found
        if os.geteuid() == 0 and shutil.which("apt-get"):
            subprocess.run(["apt-get", "update"], capture_output=True, timeout=300)
            # No service that comes with it is to be started.
            settings = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
            subprocess.run(install, capture_output=True, timeout=550, env=settings)
            if found := _find(names):
                return found
    reason = f"no {names[0]}; run: {' '.join(install)}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def kubectl(minor: int = 0) -> str:
    """It, from version 1.``minor`` on; Debian 12 has 1.20, which makes files of a base and little more."""
    found = program("kubernetes-client", "kubectl")
    said = subprocess.run([found, "version", "--client", "--output", "json"], capture_output=True, check=True)
    here = json.loads(said.stdout)["clientVersion"]
    if int(here["minor"].rstrip("+")) < minor:
        pytest.skip(f"kubectl is {here['gitVersion']}, and 1.{minor} or later is needed")
    return found


def _find(names: tuple[str, ...]) -> str | None:
    return next((found for name in names if (found := shutil.which(name, path=_PATH))), None)
