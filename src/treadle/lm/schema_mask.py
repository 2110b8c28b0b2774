"""Answers held to a JSON Schema: which tokens may come next, token by token.

A token that the schema forbids gets no probability; what the model thinks of the others stays as it was. The JSON is
written without line breaks, because small models fall into whitespace and do not come out of it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treadle.core.errors import MissingExtra, UserError

_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
INSTALLED = importlib.util.find_spec("llguidance") is not None


class SchemaMasks:
    """Makes the masks of one model. ``vocabulary`` is the width of its logits, where it is known; the tokenizer is
    read at first use."""

    def __init__(self, folder: Path, vocabulary: int | None) -> None:
        self._folder = folder
        self._vocabulary = vocabulary
        self._tokens: Any = None

    def mask(self, schema: str, stop_ids: Sequence[int]) -> SchemaMask:
        """For one answer. ``UserError`` for a schema that cannot be kept to; `schema_check` has looked at it."""
        try:
            import llguidance
        except ModuleNotFoundError:
            raise MissingExtra("llguidance", extra="structured") from None
        if self._tokens is None:
            written = (self._folder / "tokenizer.json").read_text(encoding="utf-8")
            self._tokens = llguidance.LLTokenizer(written, n_vocab=self._vocabulary, eos_token=list(stop_ids) or None)
        return SchemaMask(llguidance.LLMatcher(self._tokens, grammar_of(schema, self._tokens)))


class SchemaMask:
    """Of one answer under way."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    @property
    def ended(self) -> bool:
        """Nothing may follow."""
        return bool(self._matcher.is_stopped())

    def over(self, logits: Any) -> Any:
        """``logits`` (vocabulary,) with those of forbidden tokens at minus infinity."""
        import numpy as np
        import torch

        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        allowed = np.zeros(logits.shape[0], dtype=bool)
        allowed[: len(bits)] = bits[: len(allowed)]
        return logits.masked_fill(~torch.from_numpy(allowed).to(logits.device), float("-inf"))

    def take(self, token: int) -> None:
        """The token that was chosen."""
        self._matcher.consume_token(token)


def grammar_of(schema: str, tokens: Any) -> str:
    """What llguidance makes of a schema; ``UserError`` for one that cannot be kept to. May take for ever."""
    import llguidance

    try:
        grammar: str = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=_COMPACT)
    except ValueError as error:
        raise _refused(str(error)) from None
    if said := llguidance.LLMatcher.validate_grammar(grammar, tokens):
        raise _refused(said)
    return grammar


def _refused(said: str) -> UserError:
    return UserError(f"response_format: this schema cannot be kept to ({said.splitlines()[0][:200]})")
