"""Ids of documents in 32 bytes each: a set, sorted, whatever the order they came in."""

from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from treadle.core import document_ids
from treadle.core.document_ids import DocumentIds
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


def test_what_waits_on_disk_is_in_the_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_ids, "_IN_MEMORY", 7)
    made = [f"doc:{blake3(bytes([number])).hexdigest()}" for number in range(100)]
    ids = DocumentIds([*made, *made[20:40]])
    assert list(ids) == sorted(made)
    assert list(ids) == sorted(made), "it is read again"
    ids.add(made[0])
    assert list(ids) == sorted(made)


def test_what_is_no_id_is_refused() -> None:
    with pytest.raises(TreadleError, match="is not the id of a document"):
        DocumentIds(["doc:00ff"])
