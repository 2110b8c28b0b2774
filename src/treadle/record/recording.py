"""What is kept of a request: the rules that the server records by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

USUAL_DAYS = 30  # that text is kept, unless the file says otherwise


@dataclass(frozen=True, slots=True)
class Recording:
    """``mode`` says how text is kept; ``retention`` in seconds (None: for ever); ``purpose`` goes with each row."""

    mode: Literal["redacted", "full", "none"] = "redacted"
    retention: float | None = None
    purpose: str | None = None

    def unusual(self) -> dict[str, Any]:
        """What a release carries of it: nothing where it is as usual."""
        return {} if self == USUAL else asdict(self)

    @classmethod
    def carried(cls, found: Mapping[str, Any] | None) -> Recording:
        """The rules that a release carries; the usual ones where it carries none."""
        return cls(**found) if found else USUAL


USUAL = Recording(retention=USUAL_DAYS * 86_400.0)
