"""What stands around a number tells what it is: words before it, and whether it is a piece of a longer one."""

from __future__ import annotations

import re

LOOK_BACK = 48  # bytes before a number in which a word like "phone" counts
_NEVER = rb"\z."  # what no text matches


class Context:
    """Words that make a number what it is when they stand shortly before it, at most ``window`` bytes."""

    def __init__(self, *words: str, window: int = LOOK_BACK) -> None:
        either = "|".join(words)
        # A placeholder such as ``[PHONE]`` is no such word, or redacting twice would redact more.
        self._pattern = re.compile(rf"(?i)(?<![a-z_])(?:{either})(?![a-z\]])".encode()) if words else None
        self._window = window
        self.hint = f"(?i)(?:{either})".encode() if words else _NEVER

    def before(self, data: bytes, start: int) -> bool:
        """Whether one of the words stands within reach of ``start``."""
        return self._pattern is not None and self._pattern.search(data, max(0, start - self._window), start) is not None


def isolated(data: bytes, start: int, end: int) -> bool:
    """Not a part of a longer number or word: no letter or digit touches it, nor a point with a digit
    behind.
    """
    before, after = data[max(0, start - 2) : start], data[end : end + 2]
    if before[-1:].isalnum() or before[-1:] == b"#" or after[:1].isalnum():  # `#990000` is a color
        return False
    return not (before[-1:] in b".-" and before[:1].isdigit()) and not (after[:1] in b".-" and after[1:].isdigit())
