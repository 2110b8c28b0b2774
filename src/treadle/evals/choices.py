"""How well the right one of several choices is found, by how probable a model thinks each.

The lengths that likelihoods are divided by leave the delimiter before a choice out, as lm-evaluation-harness does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from treadle.core.errors import UserError
from treadle.evals.item import Item, Output


def acc(items: Sequence[Item], outputs: Sequence[Output]) -> list[float]:
    """Share of items whose most probable choice is right."""
    return _right(items, outputs, lambda _: 1)


def acc_norm(items: Sequence[Item], outputs: Sequence[Output]) -> list[float]:
    """The same with log-likelihoods divided by the choices' characters, so that short ones have no advantage."""
    return _right(items, outputs, len)


def acc_bytes(items: Sequence[Item], outputs: Sequence[Output]) -> list[float]:
    """The same with log-likelihoods divided by the choices' bytes of UTF-8."""
    return _right(items, outputs, lambda choice: len(choice.encode("utf-8", "surrogatepass")))


for _each in (acc, acc_norm, acc_bytes):
    _each.needs = "choices"  # type: ignore[attr-defined]


def _right(items: Sequence[Item], outputs: Sequence[Output], length: Callable[[str], int]) -> list[float]:
    found = []
    for item, output in zip(items, outputs, strict=True):
        if len(output.choices) != len(item.choices) or not item.choices:
            raise UserError(f"item {item.id}: its choices were not scored; expected a task of kind multiple_choice")
        scores = [value / max(1, length(choice)) for value, choice in zip(output.choices, item.choices, strict=True)]
        found.append(float(max(range(len(scores)), key=scores.__getitem__) == item.gold))
    return found
