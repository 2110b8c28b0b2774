"""What each token stands for, in bytes, for whoever needs single tokens and not the text of all: alternatives to a
token, and grammars that say which may come next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer

from treadle.lm.incremental_decoder import token_bytes

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")
_SPACE = "\u2581"  # SentencePiece's, in the place of a space


def spelled_tokens(tokenizer: Tokenizer, decoder: Mapping[str, Any] | None) -> list[bytes] | None:
    """Bytes by token id, none for special tokens and ids without one; ``decoder`` is tokenizer.json's. ``None`` for
    tokenizers whose tokens stand for other text in other places (WordPiece)."""
    kinds = list(_kinds(decoder or {}))
    if "ByteLevel" in kinds:
        return token_bytes(tokenizer, "ByteLevel")
    if not {"Metaspace", "ByteFallback"} & set(kinds):
        return None
    vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    added = tokenizer.get_added_tokens_decoder()
    table = [b""] * (max(vocabulary.values(), default=-1) + 1)
    for token, index in vocabulary.items():
        if index in added:
            table[index] = b"" if added[index].special else token.encode()
        elif (byte := _BYTE.match(token)) is not None:
            table[index] = bytes([int(byte[1], 16)])
        else:
            table[index] = token.replace(_SPACE, " ").encode()
    return table


def _kinds(decoder: Mapping[str, Any]) -> Iterator[str]:
    yield str(decoder.get("type"))
    for part in decoder.get("decoders") or ():
        yield from _kinds(part)
