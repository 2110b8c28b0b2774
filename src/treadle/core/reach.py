"""What the rows of the ledger reach in the store, and which absences a collection accounts for.

A `gc` row names artifacts whose files were let go, and the files in them that stay (`keeps`), so that an answer still
leads to its documents. A later `artifact` row, written when the step ran again or the artifact was pulled, takes an
artifact off this list.
"""

from __future__ import annotations

import re

from treadle.core.artifacts import Entry
from treadle.core.digest import canonical_json
from treadle.core.errors import Corrupt
from treadle.core.ledger import Ledger, Row
from treadle.core.store import Store

_DIGEST = re.compile(r"b3:[0-9a-f]{64}")
_LISTS_OF_THE_GONE = {"erasure": ("objects",), "gc": ("artifacts",)}


def collected_artifacts(ledger: Ledger) -> dict[str, frozenset[str]]:
    """Artifacts that were collected and not made again since, with the paths of the files that stayed."""
    collected: dict[str, frozenset[str]] = {}
    for row in ledger.rows("gc", "artifact"):
        if row.kind == "artifact":
            collected.pop(row.body["digest"], None)
        else:
            collected.update(dict.fromkeys(row.body["artifacts"], frozenset(row.body["keeps"])))
    return collected


def collected_objects(ledger: Ledger, store: Store) -> set[str]:
    """Objects that may be absent because a collection let go of every artifact that has them."""
    collected = collected_artifacts(ledger)
    if not collected:
        return set()
    files = {entry.digest for digest in collected for entry in _entries(store, digest)}
    return files - reached(store, mentioned(ledger), collected)


def reached(store: Store, named: set[str], collected: dict[str, frozenset[str]]) -> set[str]:
    """The objects in ``named``, with the files of those that are manifests; of the artifacts in ``collected`` only
    the files that stay."""
    found = set(named)
    for digest in named:
        keeps = collected.get(digest)
        found.update(entry.digest for entry in _entries(store, digest) if keeps is None or entry.path in keeps)
    return found


def mentioned(ledger: Ledger) -> set[str]:
    """Every digest that stands in a row, of whatever kind, also one that this version does not know; not those in the
    lists of what was deleted."""
    found: set[str] = set()
    for row in ledger.rows():
        found.update(_DIGEST.findall(_text(row)))
    return found


def _text(row: Row) -> str:
    gone = _LISTS_OF_THE_GONE.get(row.kind, ())
    return canonical_json({name: value for name, value in row.body.items() if name not in gone}).decode()


def _entries(store: Store, digest: str) -> tuple[Entry, ...]:
    """The files of an artifact; none for what is no manifest, or is not there."""
    if not store.has_object(digest):
        return ()
    try:
        return store.entries(digest)
    except Corrupt:
        return ()
