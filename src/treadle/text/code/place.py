"""Where a repository is, and which commit of it is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from treadle.core.errors import UserError
from treadle.text.code.command import SCHEMES, git_command, git_environment, git_failed, git_ran, git_said

_SCP = re.compile(r"(?:[\w.-]+@)?[\w.-]+:(?!/?/)[^:]")  # git@host:path
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_PEELED = ("^{}", "")  # what a tag with a message is of, then what a name itself is
_REF = re.compile(r"[A-Za-z0-9_][\w./+@#-]{0,250}\Z")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a repository is, and what of it is asked for."""

    location: str
    ref: str = "HEAD"
    token: str | None = None
    seconds: float = 3600.0
    largest: int = 10_000_000_000

    def __post_init__(self) -> None:
        if not _REF.match(self.ref) or ".." in self.ref or "@{" in self.ref:
            raise UserError(f"git: {self.ref[:60]!r} names no commit, branch or tag; expected one, such as main")
        if "::" in self.location:
            raise UserError("git: an address with :: would run a helper; give https, ssh or a folder")
        if not self.remote:
            return
        try:
            parts = urlsplit(self.location) if "://" in self.location else None
        except ValueError:
            raise UserError("git: that is no address; expected one such as https://host/name.git") from None
        if parts is not None and parts.scheme not in SCHEMES:
            raise UserError(f"git: nobody opens {parts.scheme}://; expected one of {', '.join(SCHEMES)}, or a folder")
        if parts is not None and (parts.password or (parts.username and parts.scheme.startswith("http"))):
            raise UserError("git: an address with a key in it is refused; write `token: ${env:NAME}`")
        if self.location.startswith("-") or (parts and (parts.hostname or "").startswith("-")):
            raise UserError("git: an address does not begin with a dash")

    @property
    def remote(self) -> bool:
        """Whether it has to be fetched."""
        return "://" in self.location or bool(_SCP.match(self.location) and not Path(self.location).exists())


def find_commit(place: Place, folder: Path) -> str:
    """The id of the commit that ``place`` names now; a server is asked for its names and nothing else."""
    if not place.remote:
        return resolve_commit(local_folder(place, folder), place, git_environment())
    if _COMMIT.match(place.ref):
        return place.ref
    # In Git's own order (gitrevisions), so that a name means the same here and on a server: a tag before a branch.
    names = [
        f"{before}{place.ref}{peeled}" for before in ("", "refs/", "refs/tags/", "refs/heads/") for peeled in _PEELED
    ]
    command = [*git_command(), "ls-remote", "--", place.location, *names]
    found: dict[str, str] = {}
    for line in git_said(command, git_environment(place), place).decode("utf-8", "replace").splitlines():
        commit, _, name = line.partition("\t")
        found[name] = commit
    commit = next((found[name] for name in names if name in found), "")
    if not _COMMIT.match(commit):
        raise UserError(f"git: {place.location} has no branch or tag {place.ref!r}; name one that it has")
    return commit


def local_folder(place: Place, folder: Path) -> Path:
    """Where a repository lies that is not fetched; ``UserError`` where nothing does."""
    path = folder / Path(place.location).expanduser()
    if not path.is_dir():
        raise UserError(f"git: no folder {path}; give a repository or its address")
    return path


def resolve_commit(root: Path, place: Place, environment: Mapping[str, str]) -> str:
    """The id of the commit that ``place`` names in the repository at ``root``."""
    command = [*git_command(), "-C", str(root), "rev-parse", "--verify", "--quiet", f"{place.ref}^{{commit}}"]
    done = git_ran(command, environment, place)
    commit = done.stdout.decode("ascii", "replace").strip()
    if done.returncode == 0 and _COMMIT.match(commit):
        return commit
    if done.stderr.strip():
        raise UserError(git_failed(place, done.stderr))
    raise UserError(f"git: {place.location} has no commit, branch or tag {place.ref!r}; name one that it has")
