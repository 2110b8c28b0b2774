"""Whether a run matches a filter, worked out from the run itself: what ``run_sql`` does for all runs, for one."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from treadle.core.run_values import columns, values
from treadle.core.runs import RunRecord
from treadle.core.texts import is_word
from treadle.record.run_filter import Both, Field, Filter, Not, Test, Value

FACTS = ("name", "kind", "seed", "commit")  # plain fields that stand among a run's facts
_TEXTS = ("params", "tags")  # what may stand in the ledger as a keyed digest
_ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}

Keyed = Callable[[str], str]


def matches(run: RunRecord, filter_: Filter, keyed: Keyed) -> bool:
    """Whether the filter holds. ``keyed`` gives what stands for a text in the ledger."""
    if isinstance(filter_, Not):
        return not matches(run, filter_.inner, keyed)
    if isinstance(filter_, Both):
        every = all if filter_.word == "and" else any
        return every(matches(run, part, keyed) for part in filter_.parts)
    held = value_of(run, filter_.field)
    return any(_compares(held, filter_, value, keyed) for value in filter_.values)


def value_of(run: RunRecord, of: Field) -> tuple[float | None, str | None]:
    """What a run has there as number and text, one of which is None; both are where it has nothing."""
    if not of.group:
        return columns(run.facts.get(of.name) if of.name in FACTS else getattr(run, of.name))
    number, text = None, None
    for name, one, other in values(of.group, _group(run, of.group)):
        if name == str(of):
            number, text = one, other
    return number, text


def names_of(run: RunRecord, group: str) -> Iterator[str]:
    """The whole names of what a run took or made."""
    yield from (name for name, _, _ in values(group, _group(run, group)))


def _group(run: RunRecord, group: str) -> Mapping[str, Any]:
    if group == "tags":
        return run.facts.get("tags", {})  # type: ignore[no-any-return]
    found: Mapping[str, Any] = getattr(run, "parameters" if group == "params" else group)
    return found


def forms(of: Field, text: str, keyed: Keyed) -> tuple[str, ...]:
    """How a text may stand in the ledger: settings of steps as they are, other texts as keyed digests."""
    if of.group not in _TEXTS or (of.group == "params" and is_word(text)):
        return (text,)
    return (keyed(text),) if of.group == "tags" else (text, keyed(text))


def lowered(text: str) -> str:
    """Small letters as a database makes them, which knows those of ASCII only."""
    return "".join([letter.lower() if letter.isascii() else letter for letter in text])


def _compares(held: tuple[float | None, str | None], test: Test, value: Value, keyed: Keyed) -> bool:
    sign = "=" if test.operator == "in" else test.operator
    number, text = held
    if value is None or held == (None, None):
        return sign == ("=" if held == (None, None) else "!=") and value is None
    if isinstance(value, str):
        if sign in ("=", "!="):
            return (text in forms(test.field, value, keyed)) == (sign == "=")
        if text is None:
            return False
        return lowered(value) in lowered(text) if sign == "~" else bool(_ORDERS[sign](text.encode(), value.encode()))
    if sign in ("=", "!="):
        return (number == value) == (sign == "=")
    return number is not None and bool(_ORDERS[sign](number, value))
