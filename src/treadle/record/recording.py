"""What is kept of a request: the rules that the server records by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Recording:
    """``mode`` says how text is kept; ``retention`` in seconds (None: for ever); ``purpose`` goes with each row."""

    mode: Literal["redacted", "full", "none"] = "redacted"
    retention: float | None = None
    purpose: str | None = None
