"""Sides by time: what is older is learned from, what is newer is tested on, as it is when a model is used.

A group is on one side: on that of its earliest example, or where an earlier dataset placed it. Its examples of another
time are dropped by name, so that nothing that is learned from is younger than it should be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from treadle.core.errors import UserError
from treadle.record.interaction_filter import moment
from treadle.text.dataset import Example
from treadle.text.drops import DroppedExample

UNDATED = "split.undated"
OTHER_TIME = "split.other_time"


@dataclass(frozen=True, slots=True)
class Timed:
    """The examples that stay, the side of each of their groups, and what was dropped."""

    examples: list[Example]
    groups: dict[str, str]
    dropped: tuple[DroppedExample, ...]


def split_by_time(
    examples: Sequence[Example],
    times: Mapping[str, str | None],
    *,
    validation: str,
    test: str,
    undated: str = "drop",
    earlier: Mapping[str, str] | None = None,
) -> Timed:
    """Train is what is before ``validation``, test what is from ``test`` on (ISO 8601, UTC where they do not say).

    ``times`` are those of documents, by id; an example's is the latest of its documents'. One without is dropped as
    ``split.undated``, or with ``undated`` ``train`` learned from. ``UserError`` where nothing has a time, or a side
    stays empty.
    """
    first, second = moment(validation), moment(test)
    if examples and all(_time(example, times) is None for example in examples):
        raise UserError(
            "prepare.split.time: no example has a time; name the column with `fields: {time: ...}` of its source"
        )
    sides: list[tuple[Example, int, str]] = []
    dropped: list[DroppedExample] = []
    for example in examples:
        at = _time(example, times)
        if at is None and undated != "train":
            dropped.append(DroppedExample(example, UNDATED, "none of its documents says when it was made"))
            continue
        side = "train" if at is None or at < first else "validation" if at < second else "test"
        sides.append((example, -1 if at is None else at, side))
    groups = {example.group: earlier[example.group] for example, _, _ in sides if earlier and example.group in earlier}
    for example, _, side in sorted(sides, key=lambda each: (each[1], each[0].id)):
        groups.setdefault(example.group, side)
    kept: list[Example] = []
    for example, _, side in sides:
        if groups[example.group] == side:
            kept.append(example)
        else:
            reason = f"its time is one of {side}, and its group is in {groups[example.group]}"
            dropped.append(DroppedExample(example, OTHER_TIME, reason))
    left = {example.group for example in kept}
    groups = {group: side for group, side in groups.items() if group in left}
    for side in ("train", "test", *(["validation"] if first < second else [])):
        if side not in groups.values():
            raise UserError(
                f"split: {side} is empty by prepare.split.time; {len(dropped)} examples were dropped, move its times"
            )
    return Timed(kept, groups, tuple(dropped))


def is_learned_from(time: str | None, *, validation: str, undated: str) -> bool:
    """Whether what a document of this time says may be learned from, by the times that ``split_by_time`` takes."""
    at = _moment(time)
    return undated == "train" if at is None else at < moment(validation)


def _time(example: Example, times: Mapping[str, str | None]) -> int | None:
    found = [_moment(times.get(document)) for document in example.documents]
    known = [each for each in found if each is not None]
    return max(known) if known else None


def _moment(time: str | None) -> int | None:
    try:
        return None if time is None else moment(time)
    except (ValueError, OverflowError):
        return None
