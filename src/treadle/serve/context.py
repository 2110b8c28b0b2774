"""Context that a caller sends with the question, put in front of the user's last message in one fixed way.

    Documents:

    [1] Title
    Text of the first document.

    [2] Text of a second one without a title.

    The user's last message, as it was sent.

Training on such prompts must write them in the same way, so that the model meets what it knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Piece(Protocol):
    """One document of the context."""

    @property
    def title(self) -> str | None: ...
    @property
    def text(self) -> str: ...


def with_context(messages: Sequence[dict[str, str]], context: Sequence[Piece]) -> list[dict[str, str]]:
    """The messages with the context in the last user message; ``ValueError`` when there is no user message."""
    placed = [dict(message) for message in messages]
    if not context:
        return placed
    last = max((i for i, message in enumerate(placed) if message["role"] == "user"), default=None)
    if last is None:
        raise ValueError("no user message")
    placed[last]["content"] = render_context(context) + placed[last]["content"]
    return placed


def render_context(context: Sequence[Piece]) -> str:
    """The block that goes in front, with the blank line that ends it."""
    blocks = []
    for number, piece in enumerate(context, start=1):
        head = f"[{number}] {piece.title}\n" if piece.title else f"[{number}] "
        blocks.append(head + piece.text)
    return "Documents:\n\n" + "\n\n".join(blocks) + "\n\n"
