"""Tokens in mapped arrays: read back whole, in an order that any number of workers can go on with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.core.errors import Corrupt, UserError
from treadle.core.store import Store
from treadle.lm.packing import TokenizedExample
from treadle.lm.shuffled import shuffled
from treadle.lm.tokens import Tokens, TokenWriter, write_info, write_tokens

EXAMPLES = [TokenizedExample([n] * (n % 4), [bool(place % 2) for place in range(n % 4)]) for n in range(30)]


def kept(folder: Path) -> Tokens:
    store = Store(folder.parent / "store")
    return Tokens(store.put(folder), store)


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    (tmp_path / "made").mkdir()
    write_tokens(tmp_path / "made", {"train": EXAMPLES, "validation": []}, {"base_model": "x"})
    return kept(tmp_path / "made")


def test_examples_come_back(tokens: Tokens) -> None:
    assert tokens.examples("train") == EXAMPLES
    assert tokens.examples("validation") == []
    assert tokens.lengths("train") == [len(each.ids) for each in EXAMPLES]
    assert tokens.document("train", 0) is None
    info = tokens.read_json("tokens.json")
    assert (info["format"], info["ids"], info["splits"]["validation"]) == (
        2, "uint16", {"answer_tokens": 0, "examples": 0, "tokens": 0},
    )  # fmt: skip


def test_large_ids_take_four_bytes(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    write_tokens(tmp_path / "made", {"train": [TokenizedExample([70_000], [True])]}, {})
    assert (tmp_path / "made" / "train.ids").stat().st_size == 4
    assert kept(tmp_path / "made").examples("train") == [TokenizedExample([70_000], [True])]


def test_the_first_format_is_still_read(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    ids, answer, ends = np.array([5, 6, 7], np.int32), np.array([0, 1, 1], np.int8), np.array([2, 3], np.int64)
    np.savez(tmp_path / "made" / "train.npz", ids=ids, answer=answer, ends=ends)
    (tmp_path / "made" / "tokens.json").write_text(json.dumps({"format": 1, "splits": {"train": {"examples": 2}}}))
    old = kept(tmp_path / "made")
    assert old.examples("train") == [TokenizedExample([5, 6], [False, True]), TokenizedExample([7], [True])]
    assert old.lengths("train") == [2, 1]
    assert sorted(place for place, _ in old.stream("train", seed=1)) == [0, 1]


def test_a_file_of_another_length_or_format_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    write_tokens(tmp_path / "made", {"train": EXAMPLES}, {})
    with (tmp_path / "made" / "train.ids").open("ab") as file:
        file.write(b"x")
    with pytest.raises(Corrupt, match="87 bytes where 43 uint16"):
        kept(tmp_path / "made").examples("train")
    (tmp_path / "made").mkdir(exist_ok=True)
    (tmp_path / "made" / "tokens.json").write_text(json.dumps({"format": 9}))
    with pytest.raises(Corrupt, match="format 9"):
        kept(tmp_path / "made").examples("train")


@pytest.mark.parametrize("world", [1, 2, 7])
def test_workers_see_each_example_once_an_epoch_in_one_order(tokens: Tokens, world: int) -> None:
    order = [place for place, _ in tokens.stream("train", seed=3, epochs=2)]
    assert sorted(order[:30]) == sorted(order[30:]) == list(range(30))
    assert order[:30] != order[30:]
    assert order != [place for place, _ in tokens.stream("train", seed=4, epochs=2)]
    shares = [[p for p, _ in tokens.stream("train", 3, 0, rank, world, epochs=2)] for rank in range(world)]
    assert [shares[n % world][n // world] for n in range(60)] == order


def test_a_run_goes_on_at_any_sample_with_other_workers(tokens: Tokens) -> None:
    order = list(tokens.stream("train", seed=3, epochs=2))
    for start in (0, 1, 17, 29, 30, 31, 59, 60):
        shares = [list(tokens.stream("train", 3, start, rank, 4, epochs=2)) for rank in range(4)]
        assert [shares[n % 4][n // 4] for n in range(60 - start)] == order[start:]
    with pytest.raises(UserError, match="worker 4 of 4"):
        next(tokens.stream("train", 3, 0, 4, 4))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3_000), st.text(max_size=5))
def test_a_shuffle_has_every_item_once(count: int, seed: str) -> None:
    assert sorted(shuffled(np.arange(count, dtype=np.uint64), count, seed).tolist()) == list(range(count))


def test_a_shuffle_leaves_no_trace_of_the_order() -> None:
    drawn = shuffled(np.arange(10_000, dtype=np.uint64), 10_000, "s")
    assert abs(np.corrcoef(np.arange(10_000), drawn)[0, 1]) < 0.04
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.04


def test_packed_rows_and_documents_are_found(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    names = [f"doc:{n:064x}" for n in range(3)]
    with TokenWriter(tmp_path / "made", "train", "uint16", with_=("documents", "rows")) as writer:
        for _ in range(2):
            writer.add(np.arange(6), np.array([2, 3, 6]), documents=names, rows=np.array([2, 3]))
    write_info(tmp_path / "made", "uint16", {"train": writer}, {"width": 8})
    packed = kept(tmp_path / "made")
    rows = packed.rows("train")
    assert [rows.examples(row) for row in range(len(rows))] == [range(2), range(2, 3), range(3, 5), range(5, 6)]
    assert [packed.document("train", place) for place in range(6)] == names * 2
    assert [example.ids for example in packed.examples("train")] == [[0, 1], [2], [3, 4, 5]] * 2
    assert all(all(example.answer) for example in packed.examples("train"))
    with pytest.raises(UserError, match="not packed"):
        (tmp_path / "other").mkdir()
        write_tokens(tmp_path / "other", {"train": EXAMPLES}, {})
        kept(tmp_path / "other").rows("train")
