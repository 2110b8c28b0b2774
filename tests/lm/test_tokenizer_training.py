"""A tokenizer learned from a corpus: whole, and the same every time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from treadle.core.errors import UserError
from treadle.lm.tokenizer_training import measure_fertility, train_tokenizer

TEXTS = [f"The weaver's {word} número {n}: größer — 日本 {n * 7}.\n" for n in range(40) for word in ("loom", "shuttle")]
ODD = "\U0001f9f5 nie gesehen \x00 ñ<|end|>"


def trained(folder: Path, kind: str, vocabulary: int = 400) -> Tokenizer:
    folder.mkdir()
    train_tokenizer(folder, lambda: TEXTS, kind=kind, vocabulary=vocabulary, special=["<|end|>", "<|turn|>"])  # type: ignore[arg-type]
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_any_text_comes_back_from_bytes(tmp_path: Path, kind: str) -> None:
    tokenizer = trained(tmp_path / "made", kind)
    for text in (*TEXTS, ODD):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
    assert [tokenizer.token_to_id(name) for name in ("<|end|>", "<|turn|>")] == [0, 1]
    assert tokenizer.get_vocab_size() <= 400


def test_wordpiece_writes_words_and_has_a_token_for_the_rest(tmp_path: Path) -> None:
    tokenizer = trained(tmp_path / "made", "wordpiece")
    assert tokenizer.encode("the shuttle").tokens == ["the", "shuttle"]
    assert tokenizer.encode("\U0001f9f5").tokens == ["[UNK]"]
    assert [each.content for each in tokenizer.get_added_tokens_decoder().values()] == ["<|end|>", "<|turn|>", "[UNK]"]


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_another_process_learns_the_same(tmp_path: Path, kind: str) -> None:
    trained(tmp_path / "one", kind)
    code = (
        "import sys; from pathlib import Path; from tests.lm.test_tokenizer_training import trained;"
        " trained(Path(sys.argv[1]), sys.argv[2])"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "two"), kind], cwd=root, check=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_more_tokens_make_fewer_of_a_word(tmp_path: Path) -> None:
    found = []
    for size in (280, 500):
        trained(tmp_path / str(size), "bpe", size)
        found.append(measure_fertility(tmp_path / str(size), [TEXTS[:5], TEXTS[5:]]))
    assert found[0]["tokens_per_word"] > found[1]["tokens_per_word"] >= 1
    assert found[0]["bytes_per_token"] < found[1]["bytes_per_token"]
    size = sum(len(text.encode()) for text in TEXTS)
    words = sum(len(text.split()) for text in TEXTS)
    for each in found:
        assert each["tokens_per_word"] * words * each["bytes_per_token"] == pytest.approx(size, rel=1e-3)


def test_transformers_opens_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ours = trained(tmp_path / "made", "bpe")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "made")
    assert theirs(TEXTS[0])["input_ids"] == ours.encode(TEXTS[0]).ids
    assert theirs.eos_token_id == 0


def test_no_room_and_no_text_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected at least 257"):
        train_tokenizer(tmp_path, lambda: TEXTS, kind="bpe", vocabulary=256, special=[])
    with pytest.raises(UserError, match="no text to learn from"):
        train_tokenizer(tmp_path, lambda: [""], kind="bpe", vocabulary=300, special=[])
