"""Exports by name: a version or another artifact in the form that another tool takes, by a plugin of the group
``treadle.exports``.

A plugin is ``function(artifact, name, out, **settings) -> Exported``; ``name`` is what the artifact is called there.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from treadle.core.artifacts import Artifact
from treadle.core.errors import Corrupt, UserError
from treadle.core.plugins import load
from treadle.core.settings import bind
from treadle.project import Project
from treadle.record.reference import resolve
from treadle.stages.track.names import DocumentNames

GROUP = "treadle.exports"
_PIECE = 1 << 20  # bytes copied at a time


@dataclass(frozen=True)
class Exported:
    """What was written: where, how many files and bytes were new there, and what to do next."""

    path: Path
    files: int
    written: int
    then: str

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return {"path": str(self.path), "files": self.files, "bytes_written": self.written, "then": self.then}


def export_folder(artifact: Artifact, name: str, out: Path) -> Exported:
    """The files of an artifact in a new folder, as they are: also where the store keeps them encrypted or in packs.

    \b
    Example:
      treadle export folder @champion --out ../champion
    """
    if out.exists():
        raise UserError(f"export folder: {out} is there already; name a new folder")
    building = out.with_name(f".{out.name}.{token_hex(8)}")
    try:
        for entry in artifact.entries():
            target = building / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            with artifact.open(entry.path) as source, target.open("xb") as file:
                shutil.copyfileobj(source, file, _PIECE)
        building.mkdir(parents=True, exist_ok=True)
        building.rename(out)
    except Corrupt as error:
        raise UserError(f"export folder: {error}") from None
    except OSError as error:
        raise UserError(f"export folder: cannot write {out}: {error.strerror}") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Exported(out, len(artifact.entries()), artifact.size, f"it is {name}, to be looked at or copied")


def export(project: Project, tool: str, ref: str, out: Path, settings: Mapping[str, Any]) -> Exported:
    """Write the artifact that ``ref`` names for another tool; ``UserError`` when it names none, or it was erased."""
    plugin, record = load(GROUP, tool, project.folder), project.record
    found = resolve(record, ref, DocumentNames(record).locate)
    if found.kind != "artifact":
        raise UserError(f"export {tool}: {ref} is a {found.kind}; expected a version such as dataset@v1, or b3:...")
    if not record.store.has(found.id):
        raise UserError(f"export {tool}: {ref} is not in the store any more; treadle verify says why")
    versions = record.versions.with_digest(found.id)
    name = f"{versions[0].name}-{versions[0].kind}" if versions else f"{found.of}-{found.id[3:11]}"
    provided = {"artifact": Artifact(found.id, record.store), "name": name, "out": out}
    exported: Exported = bind(plugin.value, settings, where=f"export {tool}", provided=provided)
    return exported
