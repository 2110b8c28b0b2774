"""Fine-tuning encoder-decoders: what is learned, what is cut, what is refused, and that it comes out the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tiny_models import write_encoder_decoder
from treadle.core.errors import UserError
from treadle.lm.engine import GenerateRequest
from treadle.lm.engines import BlockingEngine
from treadle.lm.fitting import FitSettings
from treadle.lm.sequence_to_sequence import train_sequences
from treadle.lm.tokenizer import ChatTokenizer

WORDS = ("system", "user", "value", "object")
SOURCES = [f"the {a} of the {b}" for a in WORDS for b in WORDS]
TARGETS = [f"{b} {a}" for a in WORDS for b in WORDS]


def how(**more: Any) -> FitSettings:
    values: dict[str, Any] = {
        "learning_rate": 3e-3,
        "epochs": 30,
        "batch_size": 4,
        "threads": 1,
        "precision": "float32",
    }
    return FitSettings(**values | more)


@pytest.mark.parametrize("family", ["t5", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bart", "marian"))])
def test_it_learns_and_is_asked_as_it_was_taught(family: str, tmp_path: Path) -> None:
    base = write_encoder_decoder(tmp_path / "base", family)
    losses: list[float] = []
    epochs = 30 if family == "t5" else 60
    result = train_sequences(
        *(base, tmp_path / "out", SOURCES, TARGETS, "return ", how(epochs=epochs)),
        lambda at: losses.append(at.loss),
    )
    assert (result.steps, result.truncated) == (4 * epochs, 0)
    assert result.loss < 0.5 < 3 < losses[0]
    tokenizer = ChatTokenizer.load(tmp_path / "out")
    asked = [tokenizer.encode_chat([{"role": "user", "content": source}]) for source in SOURCES]
    assert asked[0] == tokenizer.encode_prompt("return " + SOURCES[0])
    with BlockingEngine(
        "transformers", tmp_path / "out", threads=1, settings={"precision": "f32"}, here=True
    ) as engine:
        answers = engine.generate_all([GenerateRequest(str(i), tuple(ids), 12) for i, ids in enumerate(asked)])
    assert sum(answer == target for answer, target in zip(answers, TARGETS, strict=True)) >= 8


def test_the_same_input_gives_the_same_weights_and_padding_changes_no_loss(tmp_path: Path) -> None:
    base = write_encoder_decoder(tmp_path / "base")
    first, second = (
        train_sequences(base, tmp_path / name, SOURCES, TARGETS, "", how(epochs=2)) for name in ("one", "two")
    )
    assert first.loss == second.loss
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
    one_by_one: list[float] = []
    together: list[float] = []
    tiny = {"learning_rate": 1e-12, "epochs": 1}
    long, short = ("the value of the object " * 4, "object"), ("user", "system value " * 5)
    for size, losses in ((1, one_by_one), (2, together)):
        train_sequences(
            *(
                base,
                tmp_path / f"by-{size}",
                [long[0], short[0]],
                [long[1], short[1]],
                "",
                how(batch_size=size, **tiny),
            ),
            lambda at, losses=losses: losses.append(at.loss),
        )
    tokenizer = ChatTokenizer.load(base)
    counts = {text: len(tokenizer.encode_prompt(text)) for text in (long[1], short[1])}
    with BlockingEngine("transformers", base, threads=1, settings={"precision": "f32"}, here=True) as engine:
        scores = engine.score([(tokenizer.encode_prompt(a), tokenizer.encode_prompt(b)) for a, b in (long, short)])
    assert together[0] == pytest.approx(-sum(score.total for score in scores) / sum(counts.values()), abs=1e-4)
    assert sorted(one_by_one) == pytest.approx(sorted(-s.total / len(s.logprobs) for s in scores), abs=1e-4)


def test_longer_texts_are_cut_and_counted(tmp_path: Path) -> None:
    base = write_encoder_decoder(tmp_path / "base")
    sources, targets = ["user " * 60, "user", "value"], ["value", "system " * 90, "object"]
    result = train_sequences(base, tmp_path / "out", sources, targets, "", how(epochs=1, max_length=16))
    assert (result.figures["cut_sources"], result.figures["cut_targets"]) == (1, 1)


def test_what_cannot_be_trained_is_one_clear_line(tmp_path: Path, tiny_llama: Path) -> None:
    base, out = write_encoder_decoder(tmp_path / "base"), tmp_path / "out"

    def refused(folder: Path, words: str, sources: list[str] = SOURCES, **more: Any) -> None:
        with pytest.raises(UserError, match=words) as error:
            train_sequences(folder, out, sources, TARGETS[: len(sources)], "", how(**{"epochs": 1} | more))
        assert "\n" not in str(error.value)
        assert not out.exists()

    refused(tiny_llama, "LlamaForCausalLM is no encoder-decoder")
    refused(base, "0 sources with 0 targets", [])
    refused(base, "develop.epochs: 0 is out of range", epochs=0)
    refused(base, "the loss became nan at step", learning_rate=0.9, epochs=40, clip=float("nan"))
    other = Path(shutil.copytree(base, tmp_path / "other"))
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["post_processor"] = None
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    refused(other, "puts no token behind a text that ends it")
