"""The verbs of the command line, for Python: each takes the project's folder and gives what ``--json`` would."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treadle.approving import decide
from treadle.asking import ask as _ask
from treadle.asking import find_release
from treadle.core.driver import Silent
from treadle.core.publisher import largest, read_named, show_head
from treadle.core.verify import verify as _verify
from treadle.erasing import forget as _forget
from treadle.project import open_project
from treadle.record import erasure_list
from treadle.record.presence import export
from treadle.stages.govern.promotion import roll_back
from treadle.stages.track.difference import difference
from treadle.stages.track.walk import LIMIT
from treadle.stages.track.walk import lineage as _lineage
from treadle.standing import summary
from treadle.turning import turn, watch_once

Folder = str | Path


def run(folder: Folder = ".", *, until: str | None = None, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """One turn of the cycle, as ``treadle run``."""
    with open_project(Path(folder), overrides) as project, project.record.workspace.exclusive():
        return turn(project, until=until).public()


def plan(folder: Folder = ".", *, until: str | None = None, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """What would run, and why, as ``treadle plan``."""
    with open_project(Path(folder), overrides) as project:
        return turn(project, until=until, planning=True).public()


def watch(folder: Folder = ".", *, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """One pass of the loop, to the end of what is due, as ``treadle watch --once``."""
    with open_project(Path(folder), overrides) as project, project.record.workspace.exclusive():
        return watch_once(project, Silent(), patient=True).public()


def approve(ref: str, folder: Folder = ".", *, reason: str | None = None, reject: bool = False) -> dict[str, Any]:
    """Your word on a version, as ``treadle approve`` (or ``treadle reject``)."""
    with open_project(Path(folder)) as project, project.record.workspace.exclusive():
        actor = project.record.runs.keyed_actor()
        return dict(decide(project, ref, "reject" if reject else "approve", reason, actor=actor).public())


def rollback(folder: Folder = ".", *, reason: str | None = None) -> dict[str, Any]:
    """Take back what is new, as ``treadle rollback``."""
    with open_project(Path(folder)) as project:
        return dict(roll_back(project.record, reason).public())


def status(folder: Folder = ".") -> dict[str, Any]:
    """Where everything stands, as ``treadle status``."""
    with open_project(Path(folder)) as project:
        return summary(project)


def ask(question: str, folder: Folder = ".", *, release: str | None = None, user: str | None = None) -> dict[str, Any]:
    """One answer and what it came from, as ``treadle ask``."""
    with open_project(Path(folder)) as project:
        return next(iter(_ask(project, find_release(project, release), [question], user))).public()


def lineage(ref: str, folder: Folder = ".", *, down: bool = False, limit: int = LIMIT) -> dict[str, Any]:
    """The graph, both ways, as ``treadle lineage``."""
    with open_project(Path(folder)) as project:
        return _lineage(project.record, ref, down=down, limit=limit).public()


def diff(a: str, b: str, folder: Folder = ".") -> dict[str, Any]:
    """What changed between two versions, as ``treadle diff``."""
    with open_project(Path(folder)) as project:
        return difference(project.record, a, b).public()


def verify(folder: Folder = ".", *, heads: Sequence[str] = ()) -> dict[str, Any]:
    """Whether anything was tampered with, as ``treadle verify``; ``heads`` are more places where heads were kept."""
    with open_project(Path(folder)) as project:
        outside = project.publisher.outside()
        for name in heads:
            read_named(name, Path(folder), outside)
        workspace = project.record.workspace
        return _verify(workspace, outside, erasure_list.problems(workspace)).public()


def head(folder: Folder = ".", *, publish: str | None = None) -> dict[str, Any]:
    """The latest signed head of the ledger, as ``treadle head``."""
    with open_project(Path(folder)) as project:
        return show_head(project.record.workspace, publish, Path(folder))


def prove(ref: str, out: Folder, folder: Folder = ".", *, since: str | None = None) -> dict[str, Any]:
    """Files that prove that something stands in the ledger, as ``treadle prove``; paths start at ``folder``."""
    with open_project(Path(folder)) as project:
        earlier = largest(since, Path(folder)) if since else None
        return export(project.record, ref, Path(folder) / out, earlier).public()


def forget(subject: str, folder: Folder = ".", *, dry_run: bool = False) -> dict[str, Any]:
    """Erase a person, as ``treadle forget``."""
    with open_project(Path(folder)) as project, project.record.workspace.exclusive():
        return _forget(project, subject, dry_run=dry_run).public()
