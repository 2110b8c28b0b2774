"""Ids of documents in 32 bytes each: a set, sorted, whatever the order they came in."""

from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from treadle.core import document_ids
from treadle.core.document_ids import DocumentIds, StoredIds
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


def test_stored_ids_are_like_a_tuple() -> None:
    made = tuple(sorted(f"doc:{blake3(bytes([number])).hexdigest()}" for number in range(9)))
    ids = StoredIds(b"".join(DocumentIds(made).sorted()))
    assert ids == made
    assert (list(ids), len(ids), ids[0], ids[-1], ids[2:5]) == (list(made), 9, made[0], made[-1], made[2:5])
    assert all(name in ids for name in made)
    assert not any(other in ids for other in ("doc:00", "nothing", 7, "doc:" + "0" * 64))
    assert ids != made[:-1]
    assert ids != (*made[:-1], "doc:other")
    assert not StoredIds()
    with pytest.raises(IndexError):
        ids[9]


def test_what_is_no_id_is_refused() -> None:
    with pytest.raises(TreadleError, match="is not the id of a document"):
        DocumentIds(["doc:00ff"])
