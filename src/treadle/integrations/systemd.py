"""The target ``systemd``: a hardened unit for one machine, with the release in a folder there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from treadle.core.errors import UserError
from treadle.stages.deploy.targets import RELEASE, Plan, Rendering, Written, check_port

_UNIT = """\
# {model}, release {digest}. Written by `treadle render systemd`.
[Unit]
Description=Treadle: {model}
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={program} -m treadle serve --host 127.0.0.1 --port {port}
Environment=TREADLE_RELEASE_FOLDER={home}/{tag}
Environment=TREADLE_RELEASE_DIGEST={digest}
Environment=TREADLE_RELEASE_NAME={model}
Environment=TREADLE_JOURNAL=/var/lib/treadle-{slug}
Environment=OMP_WAIT_POLICY=passive PYTHONDONTWRITEBYTECODE=1
EnvironmentFile=-/etc/treadle/{slug}.env
DynamicUser=yes
StateDirectory=treadle-{slug}
StateDirectoryMode=0700
Restart=on-failure
TimeoutStopSec=45
CapabilityBoundingSet=
LockPersonality=yes
MemoryDenyWriteExecute=no
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome={homes}
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectSystem=strict
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0077

[Install]
WantedBy=multi-user.target
"""


class Systemd:
    """A hardened unit on this machine; a key for clients goes into /etc/treadle/NAME.env (TREADLE_API_KEY=...)."""

    tool = "systemctl"

    def __init__(self, *, python: str = "", port: int = 8000, home: str = "/opt/treadle") -> None:
        """``python`` is the interpreter that Treadle is installed for; the release is put under ``home``."""
        self._python, self._port, self._home = python or sys.executable, port, home
        check_port("systemd", port)
        for word, path in (("python", self._python), ("home", home)):
            if not Path(path).is_absolute() or any(letter in path for letter in " %\"'\\\n"):
                raise UserError(f"target systemd: {word} {path!r}: expected a plain absolute path")

    def render(self, release: Rendering) -> Mapping[str, bytes]:
        """As `Target.render`."""
        # Hidden, /home would hide an interpreter that lies there as well.
        there = (Path(self._python), Path(self._python).resolve(), Path(self._home))
        at_home = any(path.is_relative_to(home) for path in there for home in ("/home", "/root"))
        text = _UNIT.format(
            homes="read-only" if at_home else "yes",
            model=release.model,
            digest=release.digest,
            slug=release.slug,
            tag=release.tag,
            program=self._python,
            port=self._port,
            home=self._home,
        )
        return {f"treadle-{release.slug}.service": text.encode(), ".gitignore": b"/release/\n"}

    def apply(self, written: Written) -> Plan:
        """As `Target.apply`."""
        unit = f"treadle-{written.slug}.service"
        return Plan(
            (
                ("install", "-d", self._home),
                ("cp", "-rT", RELEASE, f"{self._home}/{written.tag}"),
                ("install", "-m", "0644", unit, f"/etc/systemd/system/{unit}"),
                ("systemctl", "daemon-reload"),
                ("systemctl", "enable", unit),
                ("systemctl", "restart", unit),
            ),
            endpoint=f"http://127.0.0.1:{self._port}",
            release=RELEASE,
        )

    def down(self, written: Written) -> Plan:
        """As `Target.down`; release and journal stay."""
        unit = f"treadle-{written.slug}.service"
        return Plan((("systemctl", "disable", "--now", unit),), f"http://127.0.0.1:{self._port}")
