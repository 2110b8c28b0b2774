"""Cards: what a client of another tool's protocol keeps beside its runs, such as the groups it puts them in.

A card is words: names, descriptions, tags. They lie in the store, salted and with secrets concealed, and the ledger
says which object is in force. So they are found and erased with the person they name, all words of a card together.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

from treadle.core.database import Cursor
from treadle.core.digest import canonical_json
from treadle.core.ledger import Fact, Ledger, Projection, Row
from treadle.core.secrets import conceal, is_secret
from treadle.core.store import Store

FORMAT = 1
_KEPT = 10_000  # cards that stay in memory


def _project_card(cursor: Cursor, row: Row) -> None:
    body = row.body
    cursor.execute(
        "INSERT INTO cards VALUES (?, ?, ?, ?) ON CONFLICT (kind, id) DO UPDATE SET "
        "texts = excluded.texts, seq = excluded.seq",
        (body["of"], body["id"], body["texts"], row.seq),
    )


CARDS = Projection(
    "cards",
    """
CREATE TABLE IF NOT EXISTS cards (
    kind TEXT NOT NULL, id TEXT NOT NULL, texts TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (kind, id));
""",
    frozenset({"card"}),
    _project_card,
)


class Cards:
    """Reads and writes cards; safe for many threads."""

    def __init__(self, ledger: Ledger, store: Store) -> None:
        self._ledger = ledger
        self._store = store
        self._read: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def put(self, of: str, identifier: str, content: dict[str, Any]) -> None:
        """Write a card, or what is to stand in its place."""
        kept = _concealed("", content)
        digest = self._store.put_bytes(canonical_json({"format": FORMAT, "salt": token_hex(16), "card": kept}))
        self._ledger.append(Fact("card", {"of": of, "id": identifier, "texts": digest}))

    def get(self, of: str, identifier: str) -> dict[str, Any] | None:
        """The content of a card; None when there is none, empty when it was erased."""
        rows = self._ledger.database.query("SELECT texts FROM cards WHERE kind = ? AND id = ?", (of, identifier))
        return self._content(rows[0][0]) if rows else None

    def all(self, of: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every card of a kind with its id, in the order of the latest change."""
        sql = "SELECT id, texts FROM cards WHERE kind = ? ORDER BY seq"
        for identifier, digest in self._ledger.database.query(sql, (of,)):
            yield str(identifier), self._content(digest)

    def _content(self, digest: str) -> dict[str, Any]:
        with self._lock:
            if not self._store.has_object(digest):
                self._read.pop(digest, None)
                return {}
            if digest not in self._read:
                if len(self._read) >= _KEPT:
                    self._read.clear()
                self._read[digest] = json.loads(self._store.read(digest))["card"]
            found = json.dumps(self._read[digest])
        content: dict[str, Any] = json.loads(found)  # the caller's own, to be changed and put
        return content


def _concealed(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {conceal(key): _concealed(key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_concealed(name, item) for item in value]
    if isinstance(value, str):
        return "[secret]" if is_secret(name, value) else conceal(value)
    return value
