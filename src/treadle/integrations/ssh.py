"""Steps on another machine through OpenSSH: ``on: {ssh: {host: gpu-box, folder: treadle}}``.

Treadle has to be installed there, of the same version and with the same torch and transformers. Who may log in and
which key the host has is OpenSSH's to say (``~/.ssh/config``, ``known_hosts``): no password is asked for, and a host
whose key is not known is refused. What a base model's name means is looked up on the other machine.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from typing import Any, cast

from treadle.core.artifacts import Artifact
from treadle.core.channel import Channel, Gone
from treadle.core.elsewhere import conduct
from treadle.core.errors import Corrupt, UserError
from treadle.core.run import Run
from treadle.core.steps import Call

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@:-]{0,254}")
_OPTIONS = ("-T", "-oBatchMode=yes", "-oStrictHostKeyChecking=yes", "-oConnectTimeout=15",
            "-oServerAliveInterval=10", "-oServerAliveCountMax=3", "-oForwardAgent=no", "-oForwardX11=no",
            "-oClearAllForwardings=yes")  # fmt: skip
_TAIL = 4096  # bytes of what the other machine said last
_CLOSING_SECONDS = 10


class Ssh:
    """Steps run on ``host`` in ``folder``, by ``python`` there; ``config``: a file for ``ssh -F``."""

    name = "ssh"

    def __init__(
        self, host: str, folder: str = ".treadle-elsewhere", python: str = "python3", config: str | None = None
    ) -> None:
        """``UserError`` for what is no host."""
        if not _HOST.fullmatch(host):
            raise UserError(f"develop.on (ssh): host: expected a name as ssh takes it, not {host[:80]!r}")
        self._host, self._folder, self._python, self._config = host, folder, python, config
        self.about = f"ssh {host}"

    def execute(self, call: Call, run: Run) -> dict[str, Artifact]:
        """As ``Elsewhere``. ``UserError`` when the host cannot be reached, or is gone in the middle of it."""
        with tempfile.TemporaryFile() as said:
            process = self._connected(said)
            try:
                return conduct(Channel(cast("Any", process.stdout), cast("Any", process.stdin)), call, run)
            except Gone:
                raise UserError(self._why(process, said)) from None
            except (KeyError, TypeError, ValueError) as error:
                raise Corrupt(f"develop.on (ssh): {self._host} talks nonsense: {error}") from None
            finally:
                _end(process)

    def _connected(self, said: Any) -> subprocess.Popen[bytes]:
        there = f"exec {shlex.quote(self._python)} -P -m treadle.core.elsewhere {shlex.quote(self._folder)}"
        own = ["-F", self._config] if self._config else []
        ssh = shutil.which("ssh")
        if ssh is None:
            raise UserError("develop.on (ssh): there is no ssh here; install OpenSSH's client")
        command = [ssh, *_OPTIONS, *own, "--", self._host, there]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)

    def _why(self, process: subprocess.Popen[bytes], said: Any) -> str:
        _end(process)
        size = said.seek(0, 2)
        said.seek(max(0, size - _TAIL))
        lines = [line.strip() for line in said.read().decode(errors="replace").splitlines() if line.strip()]
        last = f": {lines[-1][:300]}" if lines else ""
        return (
            f"develop.on (ssh): {self._host} is gone or cannot be reached (ssh ended with {process.returncode}{last}); "
            "its checkpoints stay there: run the same command again when it is back"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            try:
                stream.close()
            except OSError:
                continue
    try:
        process.wait(_CLOSING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
