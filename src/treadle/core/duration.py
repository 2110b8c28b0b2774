"""Durations as people write them in the file: 30d, 12h, 90s."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def _check(value: str) -> str:
    if not re.fullmatch(r"\d{1,9}[smhdw]", value):
        raise ValueError("expected a number and a unit out of s, m, h, d, w, such as 30d")
    return value


Duration = Annotated[str, AfterValidator(_check)]


def _some(value: str) -> str:
    if not seconds_of(value):
        raise ValueError("expected more than no time at all, such as 30s")
    return value


Span = Annotated[Duration, AfterValidator(_some)]  # longer than nothing


def seconds_of(duration: str) -> float:
    """``90m`` -> 5400.0."""
    return float(duration[:-1]) * _UNITS[duration[-1]]


def parse_seconds(text: str) -> float:
    """``90m`` -> 5400.0; ``ValueError`` for what is no duration."""
    return seconds_of(_check(text))
