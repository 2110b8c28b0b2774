"""Train, validation and test, so that no group is in two of them; and a part of training kept back for later.

A group (a module, a customer) goes where a digest of it and the seed says, weighted by what each split still
lacks, large groups first so that the small ones even out the fractions. Groups that an earlier dataset placed
stay where they were: what a model was once tested on is never trained on later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from treadle.core.digest import blake3_bytes
from treadle.core.errors import UserError
from treadle.text.dataset import Example
from treadle.text.drops import DroppedExample

SIDES = ("train", "validation", "test")
DEFAULT_FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}


@dataclass(frozen=True, slots=True)
class Split:
    """Examples by split (``holdout`` is training-side and kept back), the side of every group, and what a
    limit left out.
    """

    splits: dict[str, list[Example]]
    groups: dict[str, str]
    dropped: tuple[DroppedExample, ...] = ()


def split_examples(
    examples: Sequence[Example],
    *,
    fractions: Mapping[str, float] | None = None,
    seed: int,
    limits: Mapping[str, int] | None = None,
    holdout: int = 0,
    earlier: Mapping[str, str] | None = None,
) -> Split:
    """Split by ``Example.group``.

    ``fractions`` of examples per side add up to 1. ``limits`` caps a split; which examples stay is decided by
    a digest of seed and example, and what is over the cap is dropped as ``split.over_limit``. Validation and
    test are cut group by group in turns, so that one large group does not become the whole measure.
    ``holdout`` examples of the training side are kept back, before its limit. ``earlier`` gives the side of
    groups placed before. Raises ``UserError`` when the fractions are none or a side that was asked for stays
    empty.
    """
    shares = _checked(fractions or DEFAULT_FRACTIONS)
    members: dict[str, list[Example]] = {}
    for example in examples:
        members.setdefault(example.group, []).append(example)
    groups = assign_groups({group: len(items) for group, items in members.items()}, shares, seed, earlier or {})
    splits: dict[str, list[Example]] = {side: [] for side in (*SIDES, "holdout")}
    for group, side in groups.items():
        splits[side].extend(members[group])
    for side, share in shares.items():
        if share > 0 and not splits[side]:
            raise UserError(
                f"split: {side} is empty: {len(members)} groups of {len(examples)} examples are too few;"
                " split by something finer, or set the fraction of that split to 0"
            )
    for side, chosen in splits.items():
        splits[side] = _shuffled(seed, side, chosen)
    splits["holdout"], splits["train"] = splits["train"][:holdout], splits["train"][holdout:]
    dropped: list[DroppedExample] = []
    order = [*splits, *(limits or {})]  # not that of the file: settings come back from the ledger sorted by name
    for side, limit in sorted((limits or {}).items(), key=lambda each: order.index(each[0])):
        if side not in splits or limit < 0:
            raise UserError(f"split: limit {limit} for {side!r}; expected a count for one of {', '.join(splits)}")
        chosen = splits[side] if side in ("train", "holdout") else _in_turns(splits[side])
        dropped.extend(DroppedExample(one, "split.over_limit", f"over the limit of {limit}") for one in chosen[limit:])
        splits[side] = chosen[:limit]
    return Split(splits, groups, tuple(dropped))


def assign_groups(
    sizes: Mapping[str, int],
    fractions: Mapping[str, float],
    seed: int,
    earlier: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The side of every group, in the order they were placed.

    Among the sides that a group still fits into, one is drawn with the chance its open places give it (by
    digest, so it is no accident which); when it fits nowhere it goes where it does the least harm.
    """
    shares = _checked(fractions)
    total = sum(sizes.values())
    open_places = {side: share * total for side, share in shares.items() if share > 0}
    placed: dict[str, str] = {}
    for group in sorted(set(sizes) & set(earlier or {})):
        side = (earlier or {})[group]
        placed[group] = side
        if side in open_places:
            open_places[side] -= sizes[group]
    # Size classes by powers of two: within one, the order is the digest's and not the size's, so that every
    # seed gives another split.
    rest = sorted(set(sizes) - set(placed), key=lambda g: (-sizes[g].bit_length(), _draw(seed, "order", g), g))
    for group in rest:
        size = sizes[group]
        fitting = {side: places for side, places in open_places.items() if places >= size}
        if fitting:
            side = _weighted(fitting, _draw(seed, "side", group))
        else:
            side = max(open_places, key=lambda name: (open_places[name] - size) / (shares[name] * total))
        placed[group] = side
        open_places[side] -= size
    return placed


def _checked(fractions: Mapping[str, float]) -> dict[str, float]:
    unknown = sorted(set(fractions) - set(SIDES))
    if unknown:
        raise UserError(f"split: unknown split {unknown[0]!r}; expected {', '.join(SIDES)}")
    shares = {side: float(fractions.get(side, 0.0)) for side in SIDES}
    if any(not 0 <= share <= 1 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise UserError(f"split: fractions {dict(fractions)} do not add up to 1")
    return shares


def _weighted(places: Mapping[str, float], draw: float) -> str:
    at = draw * sum(places.values())
    for side, share in places.items():
        at -= share
        if at < 0:
            return side
    return next(reversed(places.keys()))  # type: ignore[call-overload, no-any-return]


def _draw(seed: int, purpose: str, name: str) -> float:
    """A number in [0, 1) that depends on seed, purpose and name alone."""
    data = f"{seed}\0{purpose}\0{name}".encode("utf-8", "surrogatepass")
    return int(blake3_bytes(data)[3:16], 16) / 16**13


def _shuffled(seed: int, side: str, examples: Sequence[Example]) -> list[Example]:
    drawn = {example.id: _draw(seed, side, example.id) for example in examples}
    return sorted(examples, key=lambda example: (drawn[example.id], example.id))


def _in_turns(examples: Sequence[Example]) -> list[Example]:
    """The first of each group, then the second of each, and so on, otherwise in the order given."""
    seen: Counter[str] = Counter()
    turns: list[tuple[int, int]] = []
    for place, example in enumerate(examples):
        turns.append((seen[example.group], place))
        seen[example.group] += 1
    return [examples[place] for _, place in sorted(turns)]
