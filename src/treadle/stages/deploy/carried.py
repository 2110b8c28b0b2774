"""A release that was carried away from its record, as a folder in a container or on another machine, and served there.

What is inside is known by the release's own digest, computed anew from the bytes when the server starts. Interactions
go into a record of the server's own, in its journal folder: a store like a project's, which `treadle verify` can read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.core.artifacts import Entry, digest_of
from treadle.core.digest import blake3_file, parsed
from treadle.core.errors import Refused, UserError
from treadle.core.workspace import Workspace
from treadle.record.record import PROJECTIONS, Record
from treadle.record.release import ReleaseSpec

if TYPE_CHECKING:
    from treadle.serve.release import Serving


@dataclass(frozen=True)
class CarriedRelease:
    """A release's folder, what it is made of, the digest of its bytes, and the name it answers to."""

    folder: Path
    spec: ReleaseSpec
    digest: str
    name: str

    async def open(self) -> Serving:
        """Open its engine."""
        from treadle.stages.deploy.serving import open_serving, served_as

        return await open_serving(served_as(self.spec, self.digest, self.name), self.spec, self.folder / "model")


def read_carried(folder: Path, *, expected: str | None = None, name: str | None = None) -> CarriedRelease:
    """The release in a folder. ``UserError`` when there is none, ``Refused`` when it is not the ``expected`` digest."""
    try:
        found: Any = parsed((folder / "release.json").read_text())
        every = list(folder.rglob("*"))
        if linked := next((path for path in every if path.is_symlink() and path.is_dir()), None):
            raise Refused(f"{linked} is a link to a folder, into which no digest looks; put its files there")
        paths = sorted(path for path in every if path.is_file())
        entries = [Entry(path.relative_to(folder).as_posix(), path.stat().st_size, blake3_file(path)) for path in paths]
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} holds no release ({type(error).__name__}); expected release.json and model/, as"
            " treadle export folder b3:... --out DIR writes them"
        ) from None
    digest = digest_of(entries)
    if expected is not None and digest != expected:
        raise Refused(f"{folder} is {digest}, not {expected}: files were changed, added or lost; export it again")
    spec = ReleaseSpec.from_json(found)
    return CarriedRelease(folder, spec, digest, name or spec.name)


@contextmanager
def own_record(journal: Path, name: str) -> Iterator[Record]:
    """The record that a server without a project keeps in its journal folder."""
    with Workspace(journal, None, PROJECTIONS) as workspace:
        yield Record(workspace, name)
