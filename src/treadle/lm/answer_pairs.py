"""Pairs of answers, and how much more probable a model finds the one than the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from treadle.lm.attention_mask import crosses
from treadle.lm.packing import TokenizedExample, lay_out
from treadle.lm.training import logits_at


@dataclass(frozen=True, slots=True)
class Pair:
    """Two ways a conversation went, up to their answers; ``answer`` marks what is compared."""

    chosen: TokenizedExample
    rejected: TokenizedExample

    @property
    def tokens(self) -> int:
        """Of both."""
        return len(self.chosen.ids) + len(self.rejected.ids)


def pair_of(chosen: TokenizedExample, rejected: TokenizedExample) -> Pair:
    """What both begin with is no part of the answers: its log-probability is the same in both and cancels out."""
    common = 0
    for one, other in zip(chosen.ids, rejected.ids, strict=False):
        if one != other:
            break
        common += 1

    def after(example: TokenizedExample) -> TokenizedExample:
        return TokenizedExample(example.ids, [at >= common and said for at, said in enumerate(example.answer)])

    return Pair(after(chosen), after(rejected))


def preference_loss(model: Any, pairs: Sequence[Pair], before: Sequence[float], beta: float, width: int) -> Any:
    """Loss of each pair and its reward margin, as two tensors of shape (pairs,), the first with its gradient.

    ``before``: log-probability of the chosen less that of the rejected answer, of the model as it was.
    """
    import torch

    now = log_ratio(model, pairs, width)
    margins = beta * (now - torch.tensor(list(before), dtype=now.dtype, device=now.device))
    return -torch.nn.functional.logsigmoid(margins), margins.detach()


def log_probabilities(
    model: Any, examples: Sequence[TokenizedExample], rows: Sequence[Sequence[int]], width: int
) -> Any:
    """Log-probability in nats of what each example's ``answer`` marks, of shape (examples,), with its gradient."""
    import torch

    batch = lay_out(examples, rows, width=width)
    targets = torch.tensor(batch.targets, device=model.device).flatten()
    wanted = (targets >= 0).nonzero().squeeze(1)
    owners = torch.tensor(
        [
            [row[segment] if segment >= 0 else 0 for segment in line]
            for row, line in zip(rows, batch.segments, strict=True)
        ],
        device=model.device,
    ).flatten()[wanted]
    each = -torch.nn.functional.cross_entropy(
        logits_at(model, batch, wanted).float(), targets[wanted], reduction="none"
    )
    # A product with zeros and ones adds up in a fixed order on every device, which index_add does not.
    members = torch.arange(len(examples), device=model.device).unsqueeze(1) == owners.unsqueeze(0)
    return members.to(each.dtype) @ each


def log_ratio(model: Any, pairs: Sequence[Pair], width: int) -> Any:
    """Log-probability of the chosen answer less that of the rejected one, of shape (pairs,)."""
    examples = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
    rows = _rows(examples, width)
    if crosses(model.config):
        rows, width = [(place,) for place in range(len(examples))], max(len(each.ids) for each in examples)
    found = log_probabilities(model, examples, rows, width)
    return found[0::2] - found[1::2]


def usable_pairs(pairs: Sequence[Pair], width: int) -> tuple[list[int], dict[str, tuple[int, ...]]]:
    """Places of the pairs that can be learned from; the others by rule: ``too_long``, ``no_answer``."""
    rules: dict[str, list[int]] = {"too_long": [], "no_answer": []}
    usable = []
    for place, pair in enumerate(pairs):
        sides = (pair.chosen, pair.rejected)
        if any(len(side.ids) > width for side in sides):
            rules["too_long"].append(place)
        elif not any(any(side.answer[1:]) for side in sides):
            rules["no_answer"].append(place)
        else:
            usable.append(place)
    return usable, {rule: tuple(found) for rule, found in rules.items() if found}


def _rows(examples: Sequence[TokenizedExample], width: int) -> list[tuple[int, ...]]:
    """The examples in rows of at most ``width`` tokens, by first fit, longest first."""
    rows: list[list[int]] = []
    room: list[int] = []
    for place in sorted(range(len(examples)), key=lambda each: (-len(examples[each].ids), each)):
        size = len(examples[place].ids)
        at = next((row for row, free in enumerate(room) if free >= size), len(rows))
        if at == len(rows):
            rows.append([])
            room.append(width)
        rows[at].append(place)
        room[at] -= size
    return [tuple(row) for row in rows]
