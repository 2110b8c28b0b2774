"""A reference: how people name anything in the record, and what it leads to."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from treadle.core.errors import UserError
from treadle.record.interaction import is_interaction_id
from treadle.record.record import Record

Kind = Literal["interaction", "artifact", "document", "run"]
Locate = Callable[[str], list[str]]

FORMS = "int-..., run-..., b3:..., doc:NAME, model@v1, dataset@v1 or @champion"
_SHORTEST = 4  # hexadecimal digits of a digest


@dataclass(frozen=True, slots=True)
class Reference:
    """What a reference leads to: an id, and for artifacts the kind that was recorded."""

    kind: Kind
    id: str
    of: str = ""


def resolve(record: Record, ref: str, locate: Locate) -> Reference:
    """The thing that ``ref`` names; ``UserError`` when there is none or more than one.

    ``locate`` gives the ids of documents with a locator.
    """
    if ref.startswith("int-"):
        if not is_interaction_id(ref) or record.recorder.find_interaction(ref) is None:
            raise UserError(f"there is no interaction {ref}, or it was erased; treadle ask prints the id of an answer")
        return Reference("interaction", ref)
    if ref.startswith("run-"):
        if record.runs.get(ref) is None:
            raise UserError(f"there is no run {ref}; treadle runs lists them")
        return Reference("run", ref)
    if ref.startswith("doc:"):
        return Reference("document", _document(ref, locate))
    if ref.startswith("b3:"):
        return _artifact(record, ref)
    version = record.versions.resolve(ref)
    if version is None:
        raise UserError(f"{ref!r} is no reference; expected {FORMS}")
    return Reference("artifact", version.digest, version.kind)


def _document(ref: str, locate: Locate) -> str:
    name = ref.removeprefix("doc:")
    if re.fullmatch(r"[0-9a-f]{64}", name):
        return ref
    found = locate(name)
    if not found:
        raise UserError(f"no document is called {name!r}; names are those of treadle lineage, such as doc:json.dumps")
    if len(found) > 1:
        raise UserError(f"{len(found)} documents are called {name!r}; name one by its id: {found[0]} ...")
    return found[0]


def _artifact(record: Record, ref: str) -> Reference:
    digits = ref.removeprefix("b3:")
    if len(digits) < _SHORTEST or not re.fullmatch(r"[0-9a-f]{1,64}", digits):
        raise UserError(f"{ref!r}: expected b3: and at least {_SHORTEST} hexadecimal digits")
    sql = "SELECT digest, kind FROM artifacts WHERE digest LIKE ? GROUP BY digest, kind ORDER BY min(seq)"
    rows = record.workspace.database.query(sql, (ref + "%",))
    if not rows:
        raise UserError(f"no artifact is called {ref}; treadle runs shows what runs made")
    if len({row[0] for row in rows}) > 1:
        raise UserError(f"{ref} could be {len(rows)} artifacts; give more digits")
    return Reference("artifact", rows[0][0], rows[0][1])
