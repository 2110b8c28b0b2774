"""Exports by name: a version or another artifact in the form that another tool takes, by a plugin of the group
``treadle.exports``.

A plugin is ``function(artifact, name, out, **settings) -> Exported``; ``name`` is what the artifact is called there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.core.artifacts import Artifact
from treadle.core.errors import UserError
from treadle.core.plugins import load
from treadle.core.settings import bind
from treadle.project import Project
from treadle.record.reference import resolve
from treadle.stages.track.names import DocumentNames

GROUP = "treadle.exports"


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
