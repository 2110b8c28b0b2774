"""Free text that a run was given: kept out of the ledger, which holds a keyed digest in its place.

A setting that is one plain word (``adamw``, ``bf16``) stays as it is; any other text, and every tag that is text, lies
in the store, salted, with secrets concealed. Two equal texts have equal keyed digests, so runs can be searched by them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from secrets import token_hex
from typing import Any

from treadle.core.digest import canonical_json
from treadle.core.errors import UserError
from treadle.core.keys import Keys
from treadle.core.secrets import conceal, is_secret
from treadle.core.store import Store

FORMAT = 1
LIMIT = 1 << 20  # characters of one text
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,63}\Z")
_NAME = re.compile(r"[^\W_][\w./: -]{0,249}\Z|_[\w./:-]{0,249}\Z")
_KIND = "text of a run"


def keyed_text(keys: Keys, text: str) -> str:
    """What stands for a text in the ledger."""
    return keys.keyed(_KIND, conceal(text))


def is_word(text: str) -> bool:
    """Whether a setting stays in the ledger as it is."""
    return _WORD.match(text) is not None


class Texts:
    """Takes the texts out of values that go into the ledger, then keeps them together as one object."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._found: dict[str, str] = {}

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings as the ledger may have them; other values than JSON has are taken as the text they show."""
        return {check_name("params", name): self._value(f"params.{name}", value) for name, value in values.items()}

    def tags(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Tags as the ledger may have them: a number, true, false, or a keyed digest."""
        return {
            check_name("tags", name): self._value(f"tags.{name}", value, word=False) for name, value in values.items()
        }

    def _value(self, name: str, value: Any, *, word: bool = True) -> Any:
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, Mapping) and word:
            return {check_name(name, str(key)): self._value(f"{name}.{key}", item) for key, item in value.items()}
        if isinstance(value, list | tuple) and word:
            return [self._value(f"{name}.{place}", item) for place, item in enumerate(value)]
        if not isinstance(value, str) and hasattr(value, "item") and getattr(value, "size", 0) == 1:
            return self._value(name, value.item(), word=word)  # a number of an array library
        return self._text(name, str(value), word)

    def _text(self, name: str, text: str, word: bool) -> str:
        if len(text) > LIMIT:
            raise UserError(f"{name} has {len(text):,} characters, at most {LIMIT:,} are kept; store it as an artifact")
        if is_secret(name.rpartition(".")[2], text):
            return "[secret]"
        kept = conceal(text)
        if word and is_word(kept):
            return kept
        self._found[name] = kept
        return keyed_text(self._keys, text)

    def keep(self, store: Store) -> str | None:
        """The object with the texts found so far; None when there are none."""
        if not self._found:
            return None
        return store.put_bytes(canonical_json({"format": FORMAT, "salt": token_hex(16), "texts": self._found}))


def read_texts(store: Store, digest: str | None) -> dict[str, str]:
    """Texts by the place they belong to, such as ``tags.team``; nothing where they were erased."""
    if not digest or not store.has_object(digest):
        return {}
    found: dict[str, str] = json.loads(store.read(digest))["texts"]
    return found


def check_name(of: str, name: str) -> str:
    """The name of a setting, tag or metric; ``UserError`` for one that cannot be written in a search."""
    if not _NAME.match(name):
        raise UserError(
            f"{of}: {name[:80]!r} is no name; begin with a letter or digit, then letters, digits and . _ - / : or space"
        )
    return name
