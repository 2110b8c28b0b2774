"""What was erased so far, kept outside the ledger as well: ``erasures.jsonl`` in the store, and at every remote that
was pushed to. So a backup that is older than an erasure does not bring the person back.

A line for each request, signed: how far it is, the keyed digests that are suppressed since, the objects that were
deleted, and the segments of the journal that took the place of others. No names, no texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from treadle.core import ledger_url
from treadle.core.audit import Problem
from treadle.core.digest import canonical_json
from treadle.core.errors import Corrupt
from treadle.core.fact import Row
from treadle.core.intake import sync_path
from treadle.core.keys import Keys
from treadle.core.ledger import Ledger
from treadle.core.store import Store
from treadle.core.workspace import Workspace
from treadle.record.suppression import SuppressionList

NAME = "erasures.jsonl"
KINDS = ("erasure", "seal")  # of rows
LIMIT = 256 << 20  # bytes; a longer list is not read
_SIGNED = b"treadle erasure 1\n"
_UNSIGNED = (
    "is not as this project signed it, and no row says who was erased; treadle pull where it was pushed, or "
    "forget them again, then remove the line"
)


@dataclass(frozen=True)
class Known:
    """One erasure: ``entries`` is the whole suppression list at that time, ``seals`` bodies of rows of that kind."""

    request: str
    subject: str
    phase: str
    objects: tuple[str, ...]
    entries: dict[str, int]
    seals: tuple[dict[str, Any], ...] = ()

    @property
    def done(self) -> bool:
        """Whether it came to its end."""
        return self.phase == "done"

    def encode(self, keys: Keys) -> bytes:
        """A line, signed."""
        said = {
            "request": self.request,
            "subject": self.subject,
            "phase": self.phase,
            "objects": list(self.objects),
            "entries": self.entries,
            "seals": list(self.seals),
        }
        return canonical_json({**said, "signature": keys.sign(_SIGNED + canonical_json(said))}) + b"\n"


def read(data: bytes, keys: Keys) -> list[Known]:
    """The erasures in a list, in order; lines that this project did not sign count for nothing."""
    return [known for line in _lines(data) if (known := _signed(line, keys)) is not None]


def unsigned(data: bytes, keys: Keys) -> list[tuple[int, bytes]]:
    """The other lines, with their numbers: whom they told of nobody knows."""
    return [(number, line) for number, line in enumerate(_lines(data), 1) if line and _signed(line, keys) is None]


def _lines(data: bytes) -> list[bytes]:
    return data.splitlines() if len(data) <= LIMIT else []


def _signed(line: bytes, keys: Keys) -> Known | None:
    try:
        said = json.loads(line)
        signature = said.pop("signature")
        if not keys.signed(_SIGNED + canonical_json(said), signature):
            return None
        said["objects"], said["seals"] = tuple(said["objects"]), tuple(said["seals"])
        return Known(**said)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _named(line: bytes) -> Any:
    """The request that a line claims to tell of."""
    try:
        return json.loads(line)["request"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def recorded(rows: Iterable[Row], store: Store) -> list[Known]:
    """The erasures that rows of the kinds ``KINDS`` tell of."""
    found: dict[str, Known] = {}
    replacing: dict[str, dict[str, Any]] = {}
    for row in rows:
        body = row.body
        if row.kind == "seal":
            if body["replaces"]:
                replacing[body["replaces"]] = body
            continue
        before = found.get(body["request"])
        objects = dict.fromkeys([*(before.objects if before else ()), *body["objects"]])
        seals = tuple(replacing[name] for name in objects if name in replacing)
        entries = _entries(store, body["suppression"]) or (before.entries if before else {})
        found[body["request"]] = Known(body["request"], body["subject"], body["phase"], tuple(objects), entries, seals)
    return list(found.values())


def _entries(store: Store, digest: str) -> dict[str, int]:
    try:
        return SuppressionList(digest, store).suppressed()
    except Corrupt:
        return {}


def merged(before: bytes, now: Iterable[Known], keys: Keys) -> bytes:
    """A list with what is known now; what another list knew to be done stays so, and whom it names where the list in
    force cannot be read now."""
    found = {each.request: each for each in read(before, keys)}
    for each in now:
        known = found.get(each.request)
        if known is None or each.done or not known.done:
            found[each.request] = each if each.entries or not known else replace(each, entries=known.entries)
    return b"".join(each.encode(keys) for each in found.values())


def keep(rows: Iterable[Row], store: Store, keys: Keys) -> None:
    """Bring the list in the store up to date; it is on the disk when this returns.

    A line that this project did not sign stays, for `verify` to name, unless rows tell of what it tells of.
    """
    path = store.root / NAME
    before, now = present(store.root), recorded(rows, store)
    told = [each.request for each in now]
    data = merged(before, now, keys)
    data += b"".join(line + b"\n" for _, line in unsigned(before, keys) if _named(line) not in told)
    if data == before:
        return
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(data)
    sync_path(temporary)
    temporary.replace(path)
    sync_path(path.parent)


def present(root: Path) -> bytes:
    """The list in a store's folder; nothing where there is none."""
    try:
        return (root / NAME).read_bytes()
    except OSError:
        return b""


def missed(ledger: Ledger, known: Iterable[Known]) -> list[Known]:
    """Those that the ledger does not have, or not as far."""
    order = (None, "requested", "deleting", "done")
    phases = {row.body["request"]: row.body["phase"] for row in ledger.rows("erasure")}
    return [each for each in known if order.index(phases.get(each.request)) < order.index(each.phase)]


def problems(workspace: Workspace) -> Iterator[Problem]:
    """What `verify` has to say of the list in the store: a request that is done and is not in it as it was written, and
    lines that nobody signed. Of a server's ledger this machine need not have seen every request."""
    rows = list(workspace.ledger.rows(*KINDS))
    phases = {row.body["request"]: row.body["phase"] for row in rows if row.kind == "erasure"}
    data = present(workspace.root)
    listed = {each.request: each for each in read(data, workspace.keys)}
    altered = [_named(line) for _, line in unsigned(data, workspace.keys)]
    for each in recorded(rows, workspace.store):
        known = listed.get(each.request)
        there = known is not None and set(each.objects) <= set(known.objects)
        if there or phases[each.request] != "done":  # one that is under way is written by the command that goes on
            continue
        if each.request in altered or known is not None:
            how = f"was altered in {NAME}"
        elif ledger_url.is_url(workspace.database.place):
            continue
        else:
            how = f"is missing from {NAME}"
        yield Problem(
            "erasures", each.request, f"{how}, so an older backup brings back who was erased; treadle restore mends it"
        )
    yield from strange(workspace)


def strange(workspace: Workspace) -> Iterator[Problem]:
    """Lines of the list in the store that this project did not sign and that no row stands for."""
    told = {row.body["request"] for row in workspace.ledger.rows("erasure")}
    for number, line in unsigned(present(workspace.root), workspace.keys):
        if _named(line) not in told:
            yield Problem("erasures", f"{NAME}:{number}", _UNSIGNED)
