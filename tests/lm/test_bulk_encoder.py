"""Remembering pieces never changes an id, and packing loses no token."""

from __future__ import annotations

import random
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from treadle.lm.bulk_encoder import _EXPRESSIONS, BulkEncoder
from treadle.lm.packed_documents import pack_lengths, write_packed
from treadle.lm.tokens import TokenWriter

WORDS = ["the the\n\nHe's  12 don't \"Well,\" she said.\nand\tthen — 3.5e10 café naïve \u2019tis end\r\n\r\nNext"]
KINDS = ("gpt2", "llama3", "qwen", "smollm", "whitespace", "metaspace", "lowercase")


@cache
def tokenizer(kind: str) -> Tokenizer:
    made = Tokenizer(models.BPE())
    split = {
        "llama3": _EXPRESSIONS[0],
        "qwen": _EXPRESSIONS[1],
    }.get(kind)
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    parts: dict[str, Any] = {
        "smollm": [pre_tokenizers.Digits(individual_digits=True), level],
        "whitespace": [pre_tokenizers.Whitespace()],
        "metaspace": [pre_tokenizers.Metaspace()],
    }
    chosen = parts.get(kind, [pre_tokenizers.Split(Regex(split), "isolated"), level] if split else [level])
    made.pre_tokenizer = pre_tokenizers.Sequence(chosen)
    made.decoder = decoders.ByteLevel()
    if kind in ("qwen", "lowercase"):
        made.normalizer = normalizers.NFC() if kind == "qwen" else normalizers.Lowercase()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, min_frequency=1
    )
    made.train_from_iterator(WORDS * 3, trainer)
    made.add_special_tokens(["<|end|>"])
    return made


pieces = st.sampled_from(
    [" ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u2003", "\u0301", "\u200d", "\x1c", "\x85", "the", "The",
     "don", "'t", "'S", "\u2019s", "é", "e", "12", "3", "²", ".", ",", '"', "”", "—", "日本", "ß", "<|end|>", "<|", "_",
     "\\", "👩\u200d👧", ""]
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=150)
@given(st.lists(st.lists(pieces, max_size=14).map("".join), max_size=4))
def test_ids_are_the_tokenizers_own(kind: str, texts: list[str]) -> None:
    encoder = BulkEncoder(tokenizer(kind))
    assert encoder.remembers == (kind in ("gpt2", "llama3", "qwen", "smollm"))
    for _ in range(2):  # the second time from memory
        found = encoder.encode(texts)
        parts = [found.ids[a:b].tolist() for a, b in pairwise([0, *found.ends.tolist()])]
        assert parts == [each.ids for each in tokenizer(kind).encode_batch(texts, add_special_tokens=False)]


@pytest.mark.parametrize("kind", ["gpt2", "llama3", "qwen", "smollm"])
@pytest.mark.parametrize("added", [None, "n th", " then", "qu"])
def test_words_that_are_encoded_together_have_their_own_ids(kind: str, added: str | None) -> None:
    """Also where what is beside them is a token of its own only there."""
    own = Tokenizer.from_str(tokenizer(kind).to_str())
    if added:
        own.add_tokens([added])
    draw = random.Random(4)
    words = ["".join(draw.choices("thenaqu", k=draw.randint(1, 9))) for _ in range(1_500)]
    texts = [" ".join(["", *words[start : start + 30]]) for start in range(0, 1_500, 30)]
    found = BulkEncoder(own).encode([*texts, " then then"])
    assert found.ids.tolist() == [
        token for each in own.encode_batch([*texts, " then then"], add_special_tokens=False) for token in each.ids
    ]


def test_letters_a_tokenizer_does_not_know_are_encoded_word_by_word() -> None:
    """It leaves them out, so lengths of tokens are no places in the text."""
    made = Tokenizer(models.BPE(vocab={"\u0120": 0, "a": 1, "b": 2, "ab": 3}, merges=[("a", "b")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder = BulkEncoder(made)
    found = encoder.encode([" ab xa bb", " aba x"])
    assert encoder.remembers
    assert found.ids.tolist() == [0, 3, 0, 1, 0, 2, 2, 0, 3, 1, 0]
    assert found.ends.tolist() == [7, 11]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.lm.bulk_encoder._MOST_CHARACTERS", 1_000)
    encoder = BulkEncoder(tokenizer("gpt2"))
    for number in range(50):
        encoder.encode([" ".join(f"word{number}x{n}" for n in range(20))])
        assert sum(map(len, encoder._memory)) < 2_000


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 40), max_size=80))
def test_rows_hold_every_piece_once_and_are_nearly_full(lengths: list[int]) -> None:
    order, ends = pack_lengths(np.array(lengths, dtype=np.int64), 40)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    rows = [sum(lengths[i] for i in order[a:b].tolist()) for a, b in pairwise([0, *ends.tolist()])]
    assert all(0 < row <= 40 for row in rows)
    assert sum(1 for row in rows if row <= 20) <= 1  # two such would have been one
    assert len(rows) <= 11 / 9 * -(-sum(lengths) // 40) + 6 / 9 or any(length > 13 for length in lengths)


def test_a_piece_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 1 to 4"):
        pack_lengths(np.array([3, 5]), 4)


def packed(folder: Path, texts: list[str], window: int) -> TokenWriter:
    folder.mkdir()
    named = [(f"doc:{number:064x}", text) for number, text in enumerate(texts)]
    encoder = BulkEncoder(tokenizer("gpt2"))
    return write_packed(folder, "train", named, encoder, width=16, ids="uint16", end=7, window=window)


@pytest.mark.parametrize("window", [1, 200, 1 << 20])
def test_packed_documents_come_back_whole(tmp_path: Path, window: int) -> None:
    texts = [f"{number} the end — don't " * (number % 7) for number in range(60)]
    writer = packed(tmp_path / "tokens", texts, window)
    ids = np.fromfile(tmp_path / "tokens" / "train.ids", dtype="<u2")
    ends = np.fromfile(tmp_path / "tokens" / "train.ends", dtype="<i8").tolist()
    rows = np.fromfile(tmp_path / "tokens" / "train.rows", dtype="<i8").tolist()
    owners = np.fromfile(tmp_path / "tokens" / "train.documents", dtype="V32").tolist()
    assert (len(ends), len(ids), len(rows), len(owners)) == (
        writer.examples, writer.tokens, writer.rows, writer.examples,
    )  # fmt: skip
    pieces = [ids[a:b].tolist() for a, b in pairwise([0, *ends])]
    widths = [sum(len(pieces[i]) for i in range(a, b)) for a, b in pairwise([0, *rows])]
    assert max(widths) <= 16
    for number, text in enumerate(texts):
        mine = [piece for piece, owner in zip(pieces, owners, strict=True) if int.from_bytes(owner) == number]
        expected = [*tokenizer("gpt2").encode(text, add_special_tokens=False).ids, 7]
        assert sorted(map(tuple, mine)) == sorted(tuple(expected[i : i + 16]) for i in range(0, len(expected), 16))


def test_the_same_documents_give_the_same_bytes(tmp_path: Path) -> None:
    texts = [f"{number} the end " * (number % 5) for number in range(40)]
    for name in ("one", "two"):
        packed(tmp_path / name, texts, 100)
    for file in ("ids", "ends", "rows", "documents"):
        assert (tmp_path / "one" / f"train.{file}").read_bytes() == (tmp_path / "two" / f"train.{file}").read_bytes()


@pytest.mark.parametrize("kind", ["smollm", "whitespace"])
def test_what_a_tokenizers_file_asks_for_cuts_nothing_off(kind: str) -> None:
    """Those that sentence encoders come with pad and truncate to a length."""
    texts = ["the end", WORDS[0] * 5]
    whole = [encoding.ids for encoding in tokenizer(kind).encode_batch(texts, add_special_tokens=False)]
    asking = Tokenizer.from_str(tokenizer(kind).to_str())
    asking.enable_truncation(8)
    asking.enable_padding(length=8)
    encoded = BulkEncoder(asking).encode(texts)
    assert np.split(encoded.ids, encoded.ends[:-1])[0].tolist() == whole[0]
    assert encoded.ids.tolist() == [*whole[0], *whole[1]]
