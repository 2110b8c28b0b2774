"""A conversation: OpenAI-style messages, with the system prompt that a release puts first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def with_system_prompt(messages: Sequence[Mapping[str, str]], system_prompt: str | None) -> tuple[dict[str, str], ...]:
    """The conversation as the model sees it: the system prompt first, unless it has one of its own."""
    plain = tuple(dict(message) for message in messages)
    if not system_prompt or (plain and plain[0]["role"] == "system"):
        return plain
    return ({"role": "system", "content": system_prompt}, *plain)
