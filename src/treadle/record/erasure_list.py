"""What was erased so far, kept outside the ledger as well: ``erasures.jsonl`` in the store, and at every remote that
was pushed to. So a backup that is older than an erasure does not bring the person back.

A line for each request, signed: how far it is, the keyed digests that are suppressed since, the objects that were
deleted, and the segments of the journal that took the place of others. No names, no texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from treadle.core.digest import canonical_json
from treadle.core.errors import Corrupt
from treadle.core.fact import Row
from treadle.core.intake import sync_path
from treadle.core.keys import Keys
from treadle.core.ledger import Ledger
from treadle.core.store import Store
from treadle.record.suppression import SuppressionList

NAME = "erasures.jsonl"
KINDS = ("erasure", "seal")  # of rows
LIMIT = 256 << 20  # bytes; a longer list is not read
_SIGNED = b"treadle erasure 1\n"


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
    found = []
    for line in data.splitlines() if len(data) <= LIMIT else ():
        try:
            said = json.loads(line)
            signature = said.pop("signature")
            if keys.signed(_SIGNED + canonical_json(said), signature):
                said["objects"], said["seals"] = tuple(said["objects"]), tuple(said["seals"])
                found.append(Known(**said))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
    return found


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
    """Bring the list in the store up to date; it is on the disk when this returns."""
    path = store.root / NAME
    before = present(store.root)
    data = merged(before, recorded(rows, store), keys)
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
