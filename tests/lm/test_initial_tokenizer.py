"""The tokenizer of a model from nothing, by family: what it has, what it puts around a text, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tiny_models import write_tokenizer
from treadle.core.errors import UserError
from treadle.lm.initial_model import parameters_of, shape_for, vocabulary_of, vocabulary_size
from treadle.lm.initial_tokenizer import KINDS, SPECIAL, check_suits, learn_tokenizer, take_tokenizer, vocabulary_for
from treadle.lm.tokenizer import ChatTokenizer

TEXTS = ["How do I clean my kettle?", "Open its menu and choose clean."] * 4
CHAT = [{"role": "user", "content": "clean <|im_end|>?"}, {"role": "assistant", "content": "Open its menu."}]


def _learned(folder: Path, architecture: Any, special: tuple[str, ...] = ()) -> Tokenizer:
    folder.mkdir()
    learn_tokenizer(
        folder,
        lambda: TEXTS,
        architecture=architecture,
        kind=KINDS[architecture],
        vocabulary=320,
        special=special,
    )
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("special", [(), ("<|end|>",)])
def test_a_generator_learns_what_ends_a_turn(tmp_path: Path, special: tuple[str, ...]) -> None:
    end = special[0] if special else "<|im_end|>"
    _learned(tmp_path / "a", "llama", special)
    tokenizer = ChatTokenizer.load(tmp_path / "a")
    assert tokenizer.eos_ids == {tokenizer.token_id(end)}
    ids, said = tokenizer.encode_for_training(CHAT)
    answer = [token for token, learned in zip(ids, said, strict=True) if learned]
    assert tokenizer.decode(answer, skip_special_tokens=False) == f"Open its menu.{end}"
    assert ids.count(tokenizer.token_id(end)) == 2  # the one that the user spelled is plain text
    assert tokenizer.render(CHAT[:1]).endswith("<|im_start|>assistant\n")


def test_tools_are_refused_in_one_line(tmp_path: Path) -> None:
    _learned(tmp_path / "a", "gpt2")
    tools = [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises(UserError, match="this template knows no tools"):
        ChatTokenizer.load(tmp_path / "a").render(CHAT, tools=tools)


@pytest.mark.parametrize(
    ("architecture", "around"), [("bert", ("[CLS]", "[SEP]")), ("t5", (None, "</s>"))], ids=["bert", "t5"]
)
def test_an_encoder_has_its_own_around_a_text(
    tmp_path: Path, architecture: str, around: tuple[str | None, str]
) -> None:
    tokenizer = _learned(tmp_path / "a", architecture)
    found = tokenizer.encode("clean my kettle").tokens
    assert found[-1] == around[1]
    assert (found[0] == around[0]) is (around[0] is not None)
    check_suits(tmp_path / "a", architecture, "a")  # what was learned can be taken by another


def test_the_same_text_gives_the_same_bytes(tmp_path: Path) -> None:
    for architecture in ("llama", "bert"):
        for name in ("1", "2"):
            _learned(tmp_path / (architecture + name), architecture)
        one, two = ((tmp_path / (architecture + name) / "tokenizer.json").read_bytes() for name in ("1", "2"))
        assert one == two


def test_a_tokenizer_is_taken_with_its_template_or_given_one(tmp_path: Path) -> None:
    base, out, bare = tmp_path / "base", tmp_path / "out", tmp_path / "bare"
    write_tokenizer(base)
    for folder in (out, bare):
        folder.mkdir()
    take_tokenizer(base, out, "llama", "base")
    assert (out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert "You help." in ChatTokenizer.load(out).render(CHAT)
    settings = json.loads((base / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    take_tokenizer(base, bare, "gpt2", "base")
    assert ChatTokenizer.load(bare).render(CHAT[:1]).endswith("<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("architecture", ["bert", "t5"])
def test_an_encoders_tokenizer_that_fills_texts_up_is_taken_without_that(tmp_path: Path, architecture: Any) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    tokenizer = _learned(base, architecture)
    tokenizer.enable_padding(length=32, pad_id=tokenizer.token_to_id(SPECIAL[architecture][0]))
    tokenizer.enable_truncation(16)
    tokenizer.save(str(base / "tokenizer.json"))
    (base / "tokenizer_config.json").write_text('{"pad_token": null, "model_max_length": 32}')
    out.mkdir()
    take_tokenizer(base, out, architecture, "base")
    taken = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert len(taken.encode("a").ids) < 5
    assert len(taken.encode("How do I clean my kettle? " * 9).ids) > 16
    size, ids = vocabulary_of(out)
    ends = {"bert": ("[SEP]", "[PAD]"), "t5": ("</s>", "<pad>")}[architecture]
    assert (ids["eos"], ids["pad"]) == tuple(map(taken.token_to_id, ends))
    assert size == vocabulary_size(base)


def test_a_size_that_cannot_be_had_is_told_from_a_vocabulary_that_is_too_large() -> None:
    with pytest.raises(UserError, match="take a smaller size"):
        shape_for("llama", 10**13, 32_000, 512)
    with pytest.raises(UserError, match="take a larger size"):
        shape_for("llama", 200_000, 32_000, 512)


@pytest.mark.parametrize(("architecture", "lacking"), [("bert", "[PAD]"), ("t5", "</s>")])
def test_a_tokenizer_without_what_a_family_needs_is_refused(tmp_path: Path, architecture: Any, lacking: str) -> None:
    write_tokenizer(tmp_path)
    with pytest.raises(UserError) as refused:
        check_suits(tmp_path, architecture, "tiny")
    assert f"that of tiny has no {lacking}, which {architecture} needs" in str(refused.value)


@pytest.mark.parametrize("size", ["1M", "10M", "124M", "1B"])
def test_the_vocabulary_leaves_room_for_layers(size: str) -> None:
    vocabulary, parameters = vocabulary_for(size), parameters_of(size)
    for architecture in ("llama", "gpt2", "bert", "t5"):
        shape = shape_for(architecture, parameters, vocabulary, 512)
        assert shape.width * vocabulary < 0.4 * parameters
