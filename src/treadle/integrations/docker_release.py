"""How a container gets at its release: it is in the image, a folder of this machine, or fetched from a remote.

Whichever way, the server in it computes the release's digest anew from the bytes and starts with no other. Keys that a
remote takes are in variables of the environment, which are handed on by name; what is rendered holds no value of any.
"""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from treadle.core.errors import UserError
from treadle.core.remote import check_address, is_bucket
from treadle.stages.deploy.call import Call, Command
from treadle.stages.deploy.fetched import KEYS, check_sent
from treadle.stages.deploy.targets import RELEASE, Written

Model = Literal["inside", "mounted", "pulled"]
_SEVERAL = "releases"  # the folder with one for each release, on this machine or in a volume
_THERE = "/remote"  # where a remote is mounted that is a folder of this machine
_START = 180.0  # seconds until a release that is there has to be ready
_FETCHED = 3600.0  # the same of one that is fetched first
_BUCKET = re.compile(r"[a-z][a-z0-9+.-]*://[A-Za-z0-9._~/%+=-]+\Z")  # no letter that Dockerfiles or Compose know
_FOLDER = re.compile(r"/[^,:\"\\\x00-\x1f\x7f]*\Z")  # no letter that divides the parts of a mount
_NOT = "a comma, a colon, a double quote or a backslash"
# What the libraries read that open a bucket; a container gets those that are set.
_VARIABLES = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"),
    "az": ("AZURE_STORAGE_CONNECTION_STRING",),
    "abfs": ("AZURE_STORAGE_CONNECTION_STRING",),
}


class Inside:
    """The release is in the image. The base of the other ways, which differ from it."""

    scheme = ""  # of the remote, whose packages have to be in the image
    seconds = _START  # until the container is ready
    patience = 120  # seconds in which nobody minds that it is not healthy yet
    folders = "/journal"  # that are written to and outlast the container

    def place(self, _tag: str) -> str:
        """The folder beside the rendered files that the release is put into; empty where it is not."""
        return RELEASE

    def said(self, digest: str, tag: str) -> str:
        """What the Dockerfile says first."""
        return f"Needs {self.place(tag)}/ ({_export(digest, self.place(tag))}) and takes wheels that lie in\n# wheels/"

    def copied(self) -> str:
        """How the Dockerfile puts the release into the image."""
        return f"COPY {RELEASE}/ /release/\n"

    def found(self, _tag: str) -> str:
        """The variables by which the server finds the release, as one instruction's lines."""
        return "TREADLE_RELEASE_FOLDER=/release \\\n"

    def compose(self, _tag: str) -> dict[str, str]:
        """What Compose's file has besides: variables of the service, its volumes, and volumes of the file."""
        return {"variables": "", "mounts": "", "volumes": ""}

    def options(self, _written: Written, _folder: Path) -> list[str]:
        """What the container is run with; ``folder`` is the one that was rendered."""
        return []

    def before(self, _written: Written) -> list[Command]:
        """What is done before an image is built."""
        return []


class Mounted(Inside):
    """The release is a folder of this machine, mounted read-only: one for each, for the one before goes on."""

    def place(self, tag: str) -> str:
        """As `Inside.place`."""
        return f"{_SEVERAL}/{tag}"

    def said(self, digest: str, tag: str) -> str:
        """As `Inside.said`."""
        where = self.place(tag)
        return (
            f"The server alone: {where}/ is mounted at\n# /release ({_export(digest, where)})."
            "\n# Takes wheels that lie in wheels/"
        )

    def copied(self) -> str:
        """As `Inside.copied`."""
        return ""

    def compose(self, tag: str) -> dict[str, str]:
        """As `Inside.compose`."""
        return {"variables": "", "mounts": _bind(f"./{self.place(tag)}", "/release"), "volumes": ""}

    def options(self, written: Written, folder: Path) -> list[str]:
        """As `Inside.options`."""
        if folder.is_absolute() and not _FOLDER.match(str(folder)):
            raise UserError(f"target docker: {folder}: a folder with {_NOT} in its name is not mounted; render another")
        return ["--mount", f"type=bind,source={_below(folder, self.place(written.tag))},target=/release,readonly"]

    def before(self, written: Written) -> list[Command]:
        """As `Inside.before`: the server's user is nobody here."""
        return [("chmod", "-R", "a+rX", self.place(written.tag))]


class Pulled(Inside):
    """The server fetches the release from a remote into a volume, once; the next one finds it there."""

    seconds = _FETCHED
    patience = int(_FETCHED)
    folders = f"/journal /{_SEVERAL}"

    def __init__(self, remote: str) -> None:
        """``UserError`` for an address that is none, holds a key, or would be read as something else."""
        check_address(remote)
        parts = urlsplit(remote)
        self._folder = "" if is_bucket(remote) and parts.scheme != "file" else remote.removeprefix("file://")
        if not (_FOLDER if self._folder else _BUCKET).match(self._folder or remote):
            raise UserError(
                f"target docker: remote {remote!r}: expected an address such as s3://bucket/team, or the whole path of"
                f" a folder without {_NOT}"
            )
        self.scheme = "" if self._folder else parts.scheme
        self._remote = _THERE if self._folder else remote

    def place(self, _tag: str) -> str:
        """As `Inside.place`."""
        return ""

    def said(self, _digest: str, _tag: str) -> str:
        """As `Inside.said`."""
        return (
            "The server alone: it fetches the release from where `treadle push`\n# sent it, into a volume at"
            f" /{_SEVERAL}. Takes wheels that lie in wheels/"
        )

    def copied(self) -> str:
        """As `Inside.copied`."""
        return ""

    def found(self, tag: str) -> str:
        """As `Inside.found`."""
        return f"TREADLE_RELEASE_FOLDER=/{_SEVERAL}/{tag} \\\n    TREADLE_RELEASE_REMOTE={self._remote} \\\n"

    def compose(self, _tag: str) -> dict[str, str]:
        """As `Inside.compose`."""
        mounts = f', "{_SEVERAL}:/{_SEVERAL}"' + (_bind(self._folder, _THERE) if self._folder else "")
        variables = "".join(f"      {name}:\n" for name in self._variables())
        return {"variables": variables, "mounts": mounts, "volumes": f"  {_SEVERAL}:\n"}

    def options(self, written: Written, _folder: Path) -> list[str]:
        """As `Inside.options`. A release on trial shares the volume: it is fetched once for both."""
        there = ["--mount", f"type=bind,source={self._folder},target={_THERE},readonly"] if self._folder else []
        handed = [part for name in self._variables() for part in ("--env", name)]
        return [*handed, *there, "--volume", f"treadle-{written.slug}-{_SEVERAL}:/{_SEVERAL}"]

    def before(self, written: Written) -> list[Command]:
        """As `Inside.before`. Whether a bucket has the release is seen by the container, whose way there may be
        another."""
        if not self._folder:
            return []
        look = partial(_look, self._folder, written.release)
        return [Call(f"look whether {self._folder} has release {written.release[:11]}", look)]

    def _variables(self) -> list[str]:
        return [*_VARIABLES.get(self.scheme, ()), KEYS]


def way(model: Model, remote: str) -> Inside:
    """The way that the settings ``model`` and ``remote`` say; ``UserError`` where they do not go together."""
    if model == "pulled" and not remote:
        raise UserError(
            "target docker: model=pulled: remote is missing; name where treadle push sent the release, such as"
            " --with remote=s3://bucket/team"
        )
    if model != "pulled" and remote:
        raise UserError(f"target docker: remote: nothing is pulled with model={model}; take --with model=pulled")
    if model == "pulled":
        return Pulled(remote)
    return Mounted() if model == "mounted" else Inside()


def _export(digest: str, where: str) -> str:
    return f"treadle export folder {digest} --out {where}; `treadle apply` does it"


def _below(folder: Path, name: str) -> str:
    return f"{folder}/{name}" if folder.is_absolute() else f"./{name}"


def _bind(source: str, target: str) -> str:
    """One more of a service's volumes: a folder of this machine, which has to be there."""
    named = json.dumps(source.replace("$", "$$"), ensure_ascii=False)
    return f", {{type: bind, source: {named}, target: {target}, read_only: true, bind: {{create_host_path: false}}}}"


def _look(remote: str, release: str, _rendered: Path) -> None:
    """``UserError`` where there is no such folder, no such release in it, or more than a container may see."""
    folder = Path(remote)
    if (folder / "format").is_file() and not (folder / "remote").exists():
        raise UserError(f"{remote} is a project's own store, with its keys; push the release to a folder of its own")
    check_sent(remote, folder, release)
