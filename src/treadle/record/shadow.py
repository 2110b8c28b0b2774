"""A shadow: a release on trial that answers copies of requests, which nobody is shown."""

from __future__ import annotations

from pydantic import Field

from treadle.core.config import Settings


class ShadowSettings(Settings):
    """Which release gets copies, and of how many requests."""

    release: str = Field(min_length=1, description="model@v2, @challenger or b3:...")
    share: float = Field(0.1, gt=0, le=1, description="part of the answered requests that it gets a copy of")
    waiting: int = Field(64, ge=0, le=10_000, description="copies that wait; beyond them they are dropped and counted")
    at_once: int = Field(2, ge=1, le=1000, description="copies that are answered at once")
