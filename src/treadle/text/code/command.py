"""Git's commands, run without what the user's environment or a repository's settings would add to them."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlsplit

from treadle.core.errors import UserError
from treadle.core.secrets import resolve

SCHEMES = ("https", "http", "ssh", "git", "file")
_KEPT = ("GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_TRACE_CURL_NO_DATA")
# What the settings of a repository could have run while it is read.
_OFF = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "log.showSignature=false", "core.alternateRefsCommand=",
        "protocol.ext.allow=never", "http.followRedirects=false", "submodule.recurse=false",
        "fetch.recurseSubmodules=false", "gc.auto=0", "maintenance.auto=false")  # fmt: skip


class Place(Protocol):
    """What is asked of a place that a repository lies at."""

    @property
    def location(self) -> str:
        """Address or folder."""
        ...

    @property
    def token(self) -> str | None:
        """Where the token is, for a server that wants one."""
        ...

    @property
    def seconds(self) -> float:
        """For one command."""
        ...


def git_command() -> list[str]:
    """How each command begins; ``UserError`` where there is no Git."""
    git = shutil.which("git")
    if git is None:
        raise UserError("git: there is no git on this machine; install it")
    return [git, "--no-pager", "--no-optional-locks", *(word for off in _OFF for word in ("-c", off))]


def git_environment(place: Place | None = None) -> dict[str, str]:
    """The user's own, without what would point Git elsewhere. Reading opens no connection; with ``place``, only those
    to it.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    kept |= {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": ":".join(SCHEMES) if place else "none",
        "LC_ALL": "C.UTF-8",
    }
    if place is not None and place.token is not None:
        # By the environment, since arguments can be read by everybody on the machine; and for this server only.
        login = base64.b64encode(f"x-access-token:{resolve(place.token)}".encode()).decode("ascii")
        parts = urlsplit(place.location)
        key = f"http.{parts.scheme}://{parts.netloc}/.extraHeader"
        kept |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": key}
        kept["GIT_CONFIG_VALUE_0"] = f"Authorization: Basic {login}"
    return kept


def git_said(command: list[str], environment: Mapping[str, str], place: Place) -> bytes:
    """What a command prints; ``UserError`` when it fails."""
    done = git_ran(command, environment, place)
    if done.returncode:
        raise UserError(git_failed(place, done.stderr))
    return done.stdout


def git_ran(command: list[str], environment: Mapping[str, str], place: Place) -> subprocess.CompletedProcess[bytes]:
    """A command that ended; ``UserError`` when that takes too long."""
    try:
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=place.seconds,
            check=False,
            start_new_session=True,  # without a terminal nobody is asked for a password
        )
    except subprocess.TimeoutExpired:
        raise UserError(too_late(place)) from None


def git_failed(place: Place, said: bytes) -> str:
    """The words of an error, out of what Git said."""
    lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[0] if lines else "nothing")
    return f"git: {place.location} cannot be read; Git said: {told[:200]}; check the place and your access"


def too_late(place: Place) -> str:
    """The words of an error."""
    return f"git: {place.location} took over {place.seconds:g} s; raise seconds"
