"""A model card as govern wrote it, with the figures behind it: what is given away with a model says the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ModelCard:
    """``text`` is Markdown. ``scores``: value, interval and number of items, by what was evaluated and by metric.
    ``licenses``: how many documents have which."""

    text: str
    scores: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    licenses: Mapping[str, int] = field(default_factory=dict)
