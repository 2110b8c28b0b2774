"""Ids of documents in 32 bytes each: a set, sorted, whatever the order they came in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.core.artifacts import DocumentIds
from treadle.core.errors import TreadleError

names = st.builds(
    lambda head, tail: "doc:" + bytes([head, *[0] * 30, tail]).hex(), st.integers(0, 255), st.integers(0, 9)
)


@given(st.lists(names, max_size=40), st.lists(names, max_size=10))
def test_it_is_a_sorted_set(first: list[str], more: list[str]) -> None:
    ids = DocumentIds(first)
    ids.update(more)
    assert list(ids) == sorted({*first, *more})
    assert [raw.hex() for raw in ids.sorted()] == [name.removeprefix("doc:") for name in ids]
    assert bool(ids) == bool(first or more)


def test_what_is_no_id_is_refused() -> None:
    with pytest.raises(TreadleError, match="is not the id of a document"):
        DocumentIds(["doc:00ff"])
