"""Rows hold every example once, and nothing beside it changes what it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from treadle.lm.packing import IGNORED, PADDING, TokenizedExample, lay_out, pack

lengths = st.lists(st.integers(1, 40), max_size=60)


def _examples(sizes: list[int]) -> list[TokenizedExample]:
    return [
        TokenizedExample([100 * n + i for i in range(size)], [i > 0 for i in range(size)])
        for n, size in enumerate(sizes)
    ]


@given(lengths, st.integers(0, 9))
def test_kept_and_dropped_are_all_there_are(sizes, seed) -> None:
    packing = pack(_examples(sizes), width=32, seed=seed)
    kept = sorted(i for row in packing.rows for i in row)
    assert sorted(kept + [i for found in packing.dropped.values() for i in found]) == list(range(len(sizes)))
    assert set(packing.dropped.get("too_long", ())) == {i for i, size in enumerate(sizes) if size > 32}
    assert set(packing.dropped.get("no_answer", ())) == {i for i, size in enumerate(sizes) if size == 1}
    assert all(sum(sizes[i] for i in row) <= 32 for row in packing.rows)
    assert packing == pack(_examples(sizes), width=32, seed=seed)


@given(lengths)
def test_no_two_rows_would_fit_into_one(sizes) -> None:
    packing = pack(_examples(sizes), width=32)
    used = sorted(sum(sizes[i] for i in row) for row in packing.rows)
    assert len(used) < 2 or used[0] + used[1] > 32


def test_the_seed_changes_the_order() -> None:
    examples = _examples([10] * 50)
    assert pack(examples, width=32, seed=1).rows != pack(examples, width=32, seed=2).rows


@given(st.lists(st.integers(2, 32), min_size=1, max_size=30))
def test_a_row_restarts_positions_and_learns_answers_only(sizes) -> None:
    examples = _examples(sizes)
    packing = pack(examples, width=32)
    batch = lay_out(examples, packing.rows, width=32)
    assert batch.tokens == sum(sizes)
    for n, row in enumerate(packing.rows):
        at = 0
        for segment, index in enumerate(row):
            size = sizes[index]
            here = slice(at, at + size)
            assert batch.ids[n][here] == examples[index].ids
            assert batch.positions[n][here] == list(range(size))
            assert batch.segments[n][here] == [segment] * size
            # The last token of an example predicts nothing: what follows is another example's.
            assert batch.targets[n][here] == [*examples[index].ids[1:], IGNORED]
            at += size
        assert batch.segments[n][at:] == [PADDING] * (32 - at)
        assert batch.targets[n][at:] == [IGNORED] * (32 - at)


@given(lengths)
def test_alone_each_has_a_row(sizes) -> None:
    packing = pack(_examples(sizes), width=32, alone=True)
    assert all(len(row) == 1 for row in packing.rows)
    assert {i for row in packing.rows for i in row} == {i for row in pack(_examples(sizes), width=32).rows for i in row}
