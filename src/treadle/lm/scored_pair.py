"""A prompt and what follows it, as the two lists of ids whose likelihood an engine is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from treadle.core.errors import UserError
from treadle.lm.source_encoder import SourceEncoder

Pair = tuple[list[int], list[int]]


class EncodesAnswers(Protocol):
    """The part of ``ChatTokenizer`` that conversations need."""

    def encode_for_training(self, messages: Any, *, tools: Any = None) -> tuple[list[int], list[bool]]:
        """Ids of a conversation with its answers, and which of them the assistant says."""
        ...


class EncodesTexts(Protocol):
    """The part of ``ChatTokenizer`` that bare texts need."""

    first_id: int | None
    sources: SourceEncoder | None

    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""
        ...

    def encode_whole(self, text: str) -> list[int]:
        """The same with what the tokenizer puts around every text."""
        ...


def answer_pair(
    tokenizer: EncodesAnswers, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
) -> Pair:
    """A conversation before its last answer, and that answer with the token that ends the turn."""
    ids, said = tokenizer.encode_for_training(messages, tools=tools)
    end = len(said) - said[::-1].index(True)
    start = end
    while start > 0 and said[start - 1]:
        start -= 1
    return ids[:start], ids[start:end]


def text_pair(tokenizer: EncodesTexts, context: str, continuation: str) -> Pair:
    """A bare text and what continues it, encoded together and cut where the first alone ends, spaces at its end counted
    to the second. An empty text is the tokenizer's first token; an encoder-decoder has source and target.

    ``UserError`` for a text of nothing but spaces, or an empty one where the tokenizer names no first token.
    """
    if tokenizer.sources is not None:
        (source, target), _ = tokenizer.sources.encode([context, continuation])
        return source, target
    if not context:
        first = tokenizer.first_id
        if first is None:
            raise UserError("the tokenizer names neither a first nor a last token, behind which a text could be scored")
        ids = tokenizer.encode(continuation)
        return ([first], ids) if ids[:1] != [first] else (ids[:1], ids[1:])
    bare = context.rstrip()
    if not bare:
        raise UserError("a prompt is nothing but spaces; expected text")
    continuation, context = context[len(bare) :] + continuation, bare
    whole, prompt = tokenizer.encode_whole(context + continuation), tokenizer.encode_whole(context)
    return prompt, whole[len(prompt) :]
