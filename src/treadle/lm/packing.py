"""Putting several short examples into one row of fixed width, so that hardly a token is padding.

A row is only a place: what stands beside an example must not change its loss. So every example gets its own positions
from 0, and a mask that lets it see itself alone. Fixed shapes also keep memory flat.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

IGNORED = -100  # the target that torch's cross entropy leaves out
PADDING = -1  # the segment of a place that holds no token


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """``answer[i]`` says whether ``ids[i]`` is to be learned; both of one length."""

    ids: Sequence[int]
    answer: Sequence[bool]


@dataclass(frozen=True, slots=True)
class Packing:
    """``rows``: the indices of the examples in each row, of one where they are ``alone``. ``dropped``: those left out,
    by rule."""

    width: int
    rows: tuple[tuple[int, ...], ...]
    dropped: dict[str, tuple[int, ...]]
    fill: float
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Lists of shape (rows, width). ``segments`` numbers the examples in a row; ``targets`` are already shifted."""

    ids: list[list[int]]
    positions: list[list[int]]
    segments: list[list[int]]
    targets: list[list[int]]
    tokens: int


def learned_in(example: TokenizedExample) -> int:
    """How many tokens of it are learned; the first of a row has none before it that it could be learned from."""
    return sum(map(bool, example.answer[1:]))


def pack(examples: Sequence[TokenizedExample], *, width: int = 256, seed: int = 0, alone: bool = False) -> Packing:
    """Best fit, longest first; rows come back in an order drawn from ``seed``. The same input gives the same rows.
    ``alone``: each example has a row to itself.

    Rules: ``too_long`` (more than ``width`` tokens) and ``no_answer`` (nothing to learn).
    """
    too_long = tuple(i for i, example in enumerate(examples) if len(example.ids) > width)
    left_out = set(too_long)
    no_answer = tuple(i for i, e in enumerate(examples) if i not in left_out and not any(e.answer[1:]))
    left_out.update(no_answer)
    shuffle = random.Random(seed)  # noqa: S311 - an order, not a secret
    order = [i for i in range(len(examples)) if i not in left_out]
    shuffle.shuffle(order)
    order.sort(key=lambda i: -len(examples[i].ids))

    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free places, row), ascending
    for index in order:
        length = len(examples[index].ids)
        at = len(room) if alone else bisect_left(room, (length, -1))
        if at < len(room):
            free, row = room.pop(at)
        else:
            free, row = width, len(rows)
            rows.append([])
        rows[row].append(index)
        insort(room, (free - length, row))
    shuffle.shuffle(rows)
    used = sum(len(examples[i].ids) for i in order)
    dropped = {rule: found for rule, found in (("too_long", too_long), ("no_answer", no_answer)) if found}
    return Packing(width, tuple(map(tuple, rows)), dropped, used / (width * len(rows)) if rows else 0.0, alone)


def lay_out(examples: Sequence[TokenizedExample], rows: Sequence[Sequence[int]], *, width: int) -> Batch:
    """The rows as rectangles of numbers; places without a token hold id 0 and are seen by nobody."""
    batch = Batch([], [], [], [], sum(len(examples[i].ids) for row in rows for i in row))
    for row in rows:
        ids, positions, segments, targets = [0] * width, [0] * width, [PADDING] * width, [IGNORED] * width
        at = 0
        for segment, index in enumerate(row):
            example = examples[index]
            size = len(example.ids)
            if at + size > width:
                raise ValueError(f"row {list(row)} does not fit into {width} tokens")
            ids[at : at + size] = example.ids
            positions[at : at + size] = range(size)
            segments[at : at + size] = [segment] * size
            for offset in range(1, size):
                if example.answer[offset]:
                    targets[at + offset - 1] = example.ids[offset]
            at += size
        for rectangle, line in (
            (batch.ids, ids),
            (batch.positions, positions),
            (batch.segments, segments),
            (batch.targets, targets),
        ):
            rectangle.append(line)
    return batch
