"""A second host: OpenSSH's own server on 127.0.0.1, with a key, a port and a configuration of its own."""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import debian


@dataclass
class SecondHost:
    """``config`` is for ``ssh -F``, where the host is called ``second``; ``python`` runs Treadle there."""

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def config(self) -> str:
        return str(self.folder / "config")

    @property
    def python(self) -> str:
        return str(self.folder / "python")

    def place(self, **more: str) -> dict[str, str]:
        """The settings of ``on: ssh``."""
        known = {"host": "second", "folder": str(self.folder / "store"), "python": self.python, "config": self.config}
        return known | more

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


def start(folder: Path) -> SecondHost:
    """Start it in an empty folder; ``python`` there sees the tests as well, and has caches of its own."""
    server = debian.program("openssh-server", "sshd")
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    settings = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "user.pub",
        "PidFile": "none",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "UsePAM": "no",
        "StrictModes": "no",
    }
    (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    about = {
        "HostName": "127.0.0.1",
        "Port": port,
        "User": getpass.getuser(),
        "IdentityFile": folder / "user",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": folder / "known",
    }
    (folder / "config").write_text("Host second\n" + "".join(f"  {name} {value}\n" for name, value in about.items()))
    tests = Path(__file__).parent
    known = f"TREADLE_CACHE={folder / 'cache'} PYTHONPATH={tests} OMP_NUM_THREADS=1"
    lines = ["#!/bin/sh", f'{known} exec {shlex.quote(sys.executable)} "$@"', ""]
    (folder / "python").write_text("\n".join(lines))
    (folder / "python").chmod(0o755)
    process = subprocess.Popen(
        [server, "-D", "-E", str(folder / "log"), "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return SecondHost(folder, process)
        time.sleep(0.02)
    raise AssertionError((folder / "log").read_text())
