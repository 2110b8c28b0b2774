"""Token ids to text while they arrive, in whole UTF-8 characters only."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class IncrementalDecoder:
    """The pieces that ``push`` and ``finish`` give, joined, are ``decode`` of all ids. One stream each; not shared."""

    def __init__(self, tokenizer: Tokenizer, byte_table: list[bytes] | None) -> None:
        self._tokenizer = tokenizer
        self._bytes = byte_table
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._given = 0  # characters handed out by the slow path

    def push(self, ids: Sequence[int]) -> str:
        """Text that is whole by now; may be empty while a character's bytes are still under way."""
        if self._bytes is not None:
            table = self._bytes
            return self._utf8.decode(b"".join(table[i] for i in ids if 0 <= i < len(table)))
        pieces = []
        for token in ids:
            self._ids.append(token)
            pieces.append(self._stream.step(self._tokenizer, token) or "")
        text = "".join(pieces)
        self._given += len(text)
        return text

    def finish(self) -> str:
        """What is left: bytes that never became a character are given as U+FFFD."""
        if self._bytes is not None:
            return self._utf8.decode(b"", final=True)
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True))[self._given :]


def token_bytes(tokenizer: Tokenizer, decoder: str | None) -> list[bytes] | None:
    """The bytes each token id stands for, special tokens none; ``None`` where ``decoder`` is not byte-level."""
    if decoder != "ByteLevel":
        return None
    characters = _byte_of_character()
    vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    table = [b""] * (max(vocabulary.values(), default=-1) + 1)
    for token, index in vocabulary.items():
        if index not in special:
            # As the tokenizers library does it: a token with any other character stands for its own UTF-8.
            known = [characters.get(c) for c in token]
            table[index] = bytes(b for b in known if b is not None) if None not in known else token.encode()
    return table


def _byte_of_character() -> dict[str, int]:
    """GPT-2's printable alphabet for bytes, backwards (openai/gpt-2, src/encoder.py, ``bytes_to_unicode``)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}
