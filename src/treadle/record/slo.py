"""What users are to be spared: how long an answer may take (a service level objective), in a file or on a command."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from treadle.core.config import Settings
from treadle.core.errors import UserError, nearest

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0}


def _check(value: str) -> str:
    found = re.fullmatch(r"(\d{1,7}(?:\.\d{1,6})?)(ms|s|m)", value)
    if found is None or not float(found[1]):
        raise ValueError("expected a number above 0 and a unit out of ms, s, m, such as 500ms")
    return value


Latency = Annotated[str, AfterValidator(_check)]


def latency_seconds(text: str) -> float:
    """``250ms`` -> 0.25; ``ValueError`` for what is none."""
    found = re.match(r"[\d.]+", _check(text))
    assert found is not None
    return float(found[0]) * _UNITS[text[found.end() :]]


class Slo(Settings):
    """Limits that an answer keeps or misses; one that is not given always holds."""

    ttft: Latency | None = Field(None, description="until the first token, such as 500ms or 2s")
    per_token: Latency | None = Field(None, description="a token after the first, over the whole answer")
    total: Latency | None = Field(None, description="until the last token")

    def excess(self, ttft: float, total: float, tokens: int) -> float:
        """How long an answer took, in parts of what it may: above 1 it missed. Seconds, and tokens of the answer."""
        parts = [0.0]
        if self.ttft is not None:
            parts.append(ttft / latency_seconds(self.ttft))
        if self.per_token is not None and tokens > 1:
            parts.append((total - ttft) / (tokens - 1) / latency_seconds(self.per_token))
        if self.total is not None:
            parts.append(total / latency_seconds(self.total))
        return max(parts)

    def given(self) -> dict[str, float]:
        """The limits that are set, in seconds."""
        return {name: latency_seconds(value) for name, value in self.model_dump(exclude_none=True).items()}


def parse_slo(text: str, where: str = "--slo") -> Slo:
    """``ttft=1s,total=10s``. Raises ``UserError``."""
    known = list(Slo.model_fields)
    found: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in known or name in found:
            raise UserError(
                f"{where} {part.strip()!r}: expected {', '.join(known)}, each once, as in ttft=1s,total=10s;"
                f"{nearest(name, known)}"
            )
        try:
            found[name] = _check(value)
        except ValueError as error:
            raise UserError(f"{where} {part.strip()!r}: {error}") from None
    return Slo(**found)
