"""Other tools beside ours: each in an environment of its own under ``.venv-peers``, and their servers.

A server that is not asked sleeps: its processes are stopped (SIGSTOP) while others are measured, because some spin
while they wait, on the cores that the others are measured on.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".venv-peers"
# It imports more than it asks for, and hashes texts as xxhash before 4 took them.
DATATROVE = (
    *("datatrove[processing]==0.10.1", "fasteners", "orjson", "regex==2026.11.19", "spacy==3.8.18"),
    *("tokenizers", "xxhash<4"),
)


def environment(
    name: str,
    *packages: str,
    ours: bool = False,
    without_dependencies: bool = False,
    then: Callable[[Path], None] | None = None,
    built: str = "",
) -> Path:
    """The folder of an environment with these packages, made on first use, or when others are asked for.

    ``ours``: it sees the packages of this environment as well, so that both sides run the same. ``then`` does what pip
    cannot, before the environment counts as made; ``built`` names what it builds, for the same.
    """
    folder = PEERS / name
    done = folder / ".complete"
    wanted = "\n".join([*packages, built])
    if done.is_file() and done.read_text() == wanted:
        return folder
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    if ours:
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "ours.pth").write_text("".join(f"{place}\n" for place in sys.path if place.endswith("-packages")))
    install(folder, *packages, without_dependencies=without_dependencies)
    if then is not None:
        then(folder)
    done.write_text(wanted)
    return folder


def install(folder: Path, *packages: str, without_dependencies: bool = False) -> None:
    """By the environment's own pip."""
    alone = ["--no-deps"] if without_dependencies else []
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *alone, *packages], check=True)


def version(folder: Path, package: str) -> str:
    """Of what is installed there."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    done = subprocess.run([folder / "bin" / "python", "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


@dataclass(frozen=True)
class PeerServer:
    """One that answers at ``url``, in a process group of its own."""

    url: str
    process: subprocess.Popen[bytes]

    @contextmanager
    def awake(self) -> Iterator[str]:
        """Let it run for as long as the ``with`` lasts; gives its URL."""
        os.killpg(self.process.pid, signal.SIGCONT)
        try:
            yield self.url
        finally:
            self.sleep()

    def sleep(self) -> None:
        """Stop it where it is."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGSTOP)


@contextmanager
def peer_server(
    command: Callable[[int], Sequence[str | Path]],
    log: Path,
    *,
    ready: str,
    within: float = 300.0,
    variables: Mapping[str, str] | None = None,
) -> Iterator[PeerServer]:
    """Run ``command``, given a free port, until it answers at the path ``ready``; then it sleeps until it is asked.

    Raises ``RuntimeError`` with the end of its ``log`` when it ends or does not answer ``within`` so many seconds.
    """
    port = free_port()
    before = signal.signal(signal.SIGTERM, _leave)  # a server in a group of its own would outlive us
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(part) for part in command(port)],
            cwd=log.parent,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | dict(variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        server = PeerServer(f"http://127.0.0.1:{port}", process)
        try:
            _wait_until(server.url + ready, process, log, within)
            server.sleep()
            yield server
        finally:
            _end(process)
            signal.signal(signal.SIGTERM, before)


def _leave(_signal: int, _frame: object) -> None:
    raise SystemExit(143)


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _wait_until(url: str, process: subprocess.Popen[bytes], log: Path, within: float) -> None:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.3)
    said = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{process.args!r} does not answer: {said}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it started: first asked, then killed."""
    for sent, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 10)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
            os.killpg(process.pid, signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            if sent == signal.SIGTERM:
                with suppress(ProcessLookupError):  # workers that outlive it
                    os.killpg(process.pid, signal.SIGKILL)
            return


def fastest(
    ways: Mapping[str, Callable[[], AbstractContextManager[PeerServer]]], rate: Callable[[str], float]
) -> dict[str, float]:
    """What each way of starting a peer does, one after the other: ``rate``, given its URL. The best comes first."""
    found = {}
    for name, start in ways.items():
        with start() as server, server.awake() as url:
            rate(url)  # warms up
            found[name] = rate(url)
    return dict(sorted(found.items(), key=lambda each: -each[1]))
