"""Notes: what people write, kept in the store and cited by digest, never in the ledger."""

from __future__ import annotations

import json
import secrets

from treadle.core.secrets import conceal
from treadle.core.store import Store


def keep_note(store: Store, text: str | None) -> str | None:
    """Store a text with secrets taken out; salted, so that its digest does not let anyone guess at a person's words."""
    if not text:
        return None
    return store.put_bytes(json.dumps({"salt": secrets.token_hex(16), "text": conceal(text)}).encode())


def read_note(store: Store, digest: str | None) -> str | None:
    """The text of a note; None when there is none, or it was erased."""
    if not digest or not store.has_object(digest):
        return None
    return str(json.loads(store.read(digest))["text"])
