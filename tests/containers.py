"""Containers for tests: a base image where no registry is reached, wheels for a Dockerfile, and what runs an image."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import debian

ROOT = Path(__file__).resolve().parents[1]
BASE = f"docker.io/library/python:{sys.version_info[0]}.{sys.version_info[1]}-slim-bookworm"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def need_podman(*programs: str) -> None:
    """Skip where this is not root; it, and other programs, are installed if they are not there."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    for name in ("podman", "runc", *programs):
        debian.program(name)
    # crun, which comes with podman, runs nothing where the first kind of control groups is mounted beside the second.
    os.environ.setdefault("CONTAINERS_CONF", str(Path(__file__).with_name("containers.conf")))


def make_base_image() -> None:
    """Under the name that the Dockerfile asks for, a Debian with Python in it; this machine reaches no registry."""
    need_podman("debootstrap")
    if subprocess.run(["podman", "image", "exists", BASE]).returncode == 0:
        return
    root = Path("/var/tmp/treadle-base-image")
    packages = "--include=python3,python3-pip,ca-certificates"
    change = [
        "--change",
        "ENV PIP_BREAK_SYSTEM_PACKAGES=1",
        "--change",
        f"ENV PATH={_PATH}",
    ]  # Debian's pip asks for it
    try:
        subprocess.run(["debootstrap", "--variant=minbase", packages, "bookworm", str(root)], check=True)
        with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as packed:
            subprocess.run(["podman", "import", *change, "-", BASE], stdin=packed.stdout, check=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def add_wheels(out: Path) -> None:
    """Beside the Dockerfile, so that the build asks no index; Treadle's own is built from here."""
    kept, wheels = os.environ.get("TREADLE_TEST_WHEELS"), out / "wheels"
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(wheels)]
    pins = [line for line in (out / "requirements.txt").read_text().split() if not line.startswith("treadle==")]
    if kept:
        for path in Path(kept).glob("*.whl"):
            shutil.copy(path, wheels)
    else:
        subprocess.run([*wheel, *pins], check=True)
    subprocess.run([*wheel, str(ROOT)], check=True)


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def container(image: str, *arguments: str, environment: Mapping[str, str], inside: int) -> Iterator[str]:
    """An image that runs, as a platform runs it: its address on this machine. ``inside``: where it listens."""
    port = free_port()
    given = [part for name, value in environment.items() for part in ("--env", f"{name}={value}")]
    command = ["podman", "run", "--detach", "--publish", f"127.0.0.1:{port}:{inside}", *given, image, *arguments]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        until = time.monotonic() + 120
        while not _ready(f"http://127.0.0.1:{port}/health/ready"):
            assert time.monotonic() < until, subprocess.run(["podman", "logs", name], capture_output=True, text=True)
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        subprocess.run(["podman", "rm", "--force", "--volumes", name], capture_output=True, check=True)


@contextmanager
def docker_api(folder: Path) -> Iterator[str]:
    """Docker's API, by podman; its address."""
    sock = folder / "podman.sock"
    process = subprocess.Popen(["podman", "system", "service", "--time=0", f"unix://{sock}"])
    try:
        until = time.monotonic() + 30
        while not sock.exists():
            assert time.monotonic() < until
            time.sleep(0.1)
        yield f"unix://{sock}"
    finally:
        process.terminate()
        process.wait(30)


def _ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
