"""Nothing was tampered with: every row, every head, every projection, every object the ledger names.

An object may be absent only where an erasure or a collection accounts for it. What is not covered: rows of journal
segments that are not sealed yet, and objects that no row names (left behind by a killed run), whose own bytes are
checked all the same.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

from treadle.core.digest import is_digest
from treadle.core.errors import Corrupt
from treadle.core.ledger import Problem
from treadle.core.publisher import Outside
from treadle.core.reach import collected_objects
from treadle.core.uploads import pending
from treadle.core.workspace import Workspace


@dataclass(frozen=True)
class Verification:
    """What was checked, and what was found."""

    objects: int
    rows: int
    erased: int
    heads: int
    problems: tuple[Problem, ...]
    collected: int = 0
    restores: tuple[dict[str, object], ...] = ()

    @property
    def ok(self) -> bool:
        """No problem."""
        return not self.problems

    def public(self) -> dict[str, object]:
        """The shape that ``treadle verify --json`` promises."""
        return {
            "ok": self.ok,
            "checked": {
                "objects": self.objects,
                "rows": self.rows,
                "erased": self.erased,
                "collected": self.collected,
                "heads": self.heads,
            },
            "restores": list(self.restores),
            "problems": [{"kind": p.kind, "ref": p.ref, "detail": p.detail} for p in self.problems],
        }


def verify(workspace: Workspace, outside: Outside | None = None, beside: Iterable[Problem] = ()) -> Verification:
    """Check everything there is. Reads every byte of the store; others may go on working meanwhile.

    ``outside`` are heads that were published: each has to be a head of this history. ``beside`` are problems of what
    is kept beside the ledger.
    """
    outside = outside or Outside()
    audit = workspace.ledger.audit(outside.heads)
    problems = [*audit.problems, *outside.problems]
    heads = len(outside.heads)
    try:
        named = dict(named_objects(workspace))
        present = {name for name, _ in workspace.store.objects()}
        erased, under_way = erased_objects(workspace)  # last: what was removed just now is accounted for
        collected = collected_objects(workspace.ledger, workspace.store)
        problems.extend(beside)
        restores = tuple(_restores(workspace))
    except (Corrupt, KeyError, TypeError, ValueError, AttributeError) as error:
        problems.append(Problem("ledger", "rows", f"cannot be read any more: {type(error).__name__} {error}"))
        return Verification(0, audit.rows, 0, heads, tuple(problems))
    damaged: set[str] = set()
    for name, detail in workspace.store.audit():
        damaged.add(name)
        problems.append(Problem("object", name, f"{detail} ({_what(name, named)})"))
    problems.extend(
        Problem("object", name, "was erased, and is back")
        for name in sorted((erased - under_way) & present)
        if name not in damaged and workspace.store.has_object(name)
    )
    for name, what in sorted(named.items()):
        if name not in present and name not in erased:
            problems.append(Problem("object", name, f"is missing ({what}), and no erasure accounts for it"))
        elif name in present and name not in damaged and what.startswith("artifact"):
            problems.extend(_check_files(workspace, name, what, present, erased | collected))
    problems.extend(Problem("view", name, detail) for name, detail in workspace.store.changed_views())
    gone = len(collected - present)
    return Verification(len(present), audit.rows, len(erased), heads, tuple(problems), gone, restores)


def _restores(workspace: Workspace) -> Iterator[dict[str, object]]:
    """What of history is lost: after which row of the ledger how many that were there before."""
    for row in workspace.ledger.rows("restored"):
        if row.body["lost"]:
            yield {"row": row.seq, "time": row.time, "after": row.body["after"], "lost": row.body["lost"]}


def expected_objects(workspace: Workspace) -> set[str]:
    """Objects that rows name, files of artifacts with them, and that neither an erasure nor a collection accounts for;
    files of a manifest that is not here are not known. And what was uploaded and is to be named."""
    waiting = pending(workspace.state)
    named = dict(named_objects(workspace))
    erased, _ = erased_objects(workspace)
    absent = erased | collected_objects(workspace.ledger, workspace.store)
    wanted = set(named)
    for name, what in named.items():
        if what.startswith("artifact") and name not in erased:
            wanted |= _tree(workspace, name)
    return (wanted - absent) | (waiting - erased)


def erased_objects(workspace: Workspace) -> tuple[set[str], set[str]]:
    """Objects that an erasure removed and nothing made again since, nor anybody sent again; and those whose removal is
    still under way."""
    again = {digest for digest in pending(workspace.state) if workspace.store.has_object(digest)}
    erased: set[str] = set()
    under_way: dict[str, set[str]] = {}
    for row in workspace.ledger.rows("erasure", "artifact", "seal"):
        body = row.body
        if row.kind != "erasure":
            if erased:
                erased -= _tree(workspace, body["digest" if row.kind == "artifact" else "segment"])
        elif body["phase"] == "done":
            under_way.pop(body["request"], None)
        else:
            erased.update(body["objects"])
            under_way.setdefault(body["request"], set()).update(body["objects"])
    return erased - again, {name for names in under_way.values() for name in names}


def erased_by(workspace: Workspace, digest: str) -> str | None:
    """The request that accounts for an object not being here; None where it is here, or nothing accounts for it."""
    if not digest or workspace.store.has_object(digest) or digest not in erased_objects(workspace)[0]:
        return None
    rows = workspace.ledger.rows("erasure")
    return [str(row.body["request"]) for row in rows if digest in row.body["objects"]][-1]


def _tree(workspace: Workspace, digest: str) -> set[str]:
    """An artifact's manifest and files, as far as the manifest can be read."""
    try:
        return {digest, *(entry.digest for entry in workspace.store.entries(digest))}
    except Corrupt:
        return {digest}


_NAMING = {  # fields that name objects, by kind of row; a ``note`` in any other row does as well
    "run.started": ("environment", "surroundings", "texts", "note"),
    "run.noted": ("note", "texts"),
    "run.finished": ("error",),
    "card": ("texts",),
}


def named_objects(workspace: Workspace) -> Iterator[tuple[str, str]]:
    """Objects that rows name, with what they are; artifacts by their manifest."""
    for row in workspace.ledger.rows():
        body = row.body
        if row.kind == "artifact":
            yield body["digest"], f"artifact {body['kind']} of {body['run']}"
        elif row.kind == "seal" and body["rows"]:
            yield body["segment"], f"artifact segment of {body['stream']}"
        elif row.kind == "erasure":
            yield body["suppression"], f"artifact suppression list of {body['request']}"
        elif row.kind in _NAMING:
            for name in _NAMING[row.kind]:
                if body.get(name):
                    yield body[name], f"{name} of {body.get('run') or body['of']}"
            note = body.get("parameters", {}).get("note") if body.get("kind") == "import" else None
            if isinstance(note, str) and is_digest(note):  # what was imported with a note
                yield note, f"note of {body['run']}"
        elif body.get("note"):
            yield body["note"], f"note of {row.kind} row {row.seq}"


def _check_files(
    workspace: Workspace, name: str, what: str, present: Container[str], absent: set[str]
) -> Iterator[Problem]:
    try:
        entries = workspace.store.entries(name)
    except Corrupt as error:
        yield Problem("object", name, f"{what}: {error}")
        return
    for entry in entries:
        if entry.digest not in present and entry.digest not in absent:
            yield Problem(
                "object", entry.digest, f"is missing ({entry.path} of {what}), and no erasure accounts for it"
            )


def _what(name: str, named: dict[str, str]) -> str:
    return named.get(name, "a file of an artifact, or named by no row")
