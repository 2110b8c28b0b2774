"""Texts that belong together move together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from tiny_models import write_encoder
from treadle.core.errors import UserError
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.embedding_training import Pair, train_embedder
from treadle.lm.fitting import FitSettings
from treadle.lm.launcher import Torchrun, carry_out
from treadle.lm.torch_embedding import Embedder

THINGS = ["lamp", "kettle", "printer", "router", "tent", "radio", "camera", "stove"]
PLACES = ["Peru", "Oslo", "Chad", "Rome", "Cuba", "Mali", "Nice", "Bonn"]  # a thing's place is to be learned
PAIRS = [Pair(f"the {thing}", f"from {place}") for thing, place in zip(THINGS, PLACES, strict=True)]
SETTINGS = FitSettings(learning_rate=2e-3, epochs=12, max_length=32, seed=5)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [text for pair in PAIRS for text in (pair.anchor, pair.positive)]
    return write_encoder(tmp_path_factory.mktemp("encoder"), texts)


def margin(folder: Path) -> float:
    """How much nearer a pair is than two texts of different pairs, in cosine."""
    embed = Embedder(folder, "cpu", 32)
    anchors, positives = (np.array(embed([getattr(pair, side) for pair in PAIRS])) for side in ("anchor", "positive"))
    cosines = anchors @ positives.T
    own = np.eye(len(PAIRS), dtype=bool)
    return float(cosines[own].mean() - cosines[~own].mean())


def test_pairs_move_together_and_the_same_input_gives_the_same_weights(base: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, float]] = []
    fitted = train_embedder(
        base, tmp_path / "one", PAIRS, SETTINGS, lambda each: told.append((each.step, each.steps, each.loss))
    )
    train_embedder(base, tmp_path / "two", PAIRS, SETTINGS)
    assert margin(tmp_path / "one") > margin(base) + 0.2
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    assert fitted.steps == len(told) == 12
    assert told[-1][2] < told[0][2]
    theirs = SentenceTransformer(str(tmp_path / "one"), device="cpu").encode([pair.anchor for pair in PAIRS])
    ours = Embedder(tmp_path / "one", "cpu", 32)([pair.anchor for pair in PAIRS])
    assert np.abs(theirs - np.array(ours)).max() < 1e-5


def test_given_negatives_are_told_from_the_pair(base: Path, tmp_path: Path) -> None:
    wrong = "from Lima in Peru"
    pairs = [replace(PAIRS[0], negatives=(wrong,)), *PAIRS[1:]]
    train_embedder(base, tmp_path / "told", pairs, SETTINGS)
    train_embedder(base, tmp_path / "not", PAIRS, SETTINGS)

    def near(folder: Path) -> float:
        one, other = np.array(Embedder(folder, "cpu", 32)([PAIRS[0].anchor, wrong]))
        return float(one @ other)

    assert near(tmp_path / "told") < near(tmp_path / "not")


def test_what_another_pair_has_as_well_is_no_wrong_answer(base: Path, tmp_path: Path) -> None:
    same = [
        Pair(f"the {thing} is bad", "send it back" if place % 2 else "keep it") for place, thing in enumerate(THINGS)
    ]
    fitted = train_embedder(base, tmp_path / "m", same, replace(SETTINGS, epochs=20))
    assert fitted.loss < 0.4  # of eight, four say the same: told from them as well it could not fall below log 4 = 1.39


@pytest.mark.parametrize(
    ("pairs", "rate", "words"),
    [(PAIRS[:1], 1e-3, "1 pairs; expected two or more"), (PAIRS, float("inf"), "lower learning_rate")],
)
def test_what_cannot_be_trained_says_so(base: Path, tmp_path: Path, pairs: list[Pair], rate: float, words: str) -> None:
    with pytest.raises(UserError, match=words):
        train_embedder(base, tmp_path / "m", pairs, replace(SETTINGS, learning_rate=rate, epochs=3))
    assert not (tmp_path / "m").exists()


def test_a_length_that_the_encoder_has_no_positions_for_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"develop\.max_length: 5000 tokens, and the model reads"):
        train_embedder(base, tmp_path / "out", PAIRS, replace(SETTINGS, max_length=5000))


@pytest.mark.slow
def test_two_processes_move_texts_as_one_does(base: Path, tmp_path: Path) -> None:
    settings, one, two = replace(SETTINGS, epochs=3), list[float](), list[float]()
    train_embedder(base, tmp_path / "one", PAIRS, settings, lambda report: one.append(report.loss))
    arguments = (base, tmp_path / "two", PAIRS)
    with Checkpoints(tmp_path / "kept", every=1e9) as kept:
        carry_out(
            Torchrun(2),
            tmp_path / "job",
            train_embedder,
            arguments,
            settings,
            kept,
            lambda report: two.append(report.loss),
        )
    assert len(two) == len(one) > 1
    assert two == pytest.approx(one, abs=1e-3)
    assert margin(tmp_path / "two") == pytest.approx(margin(tmp_path / "one"), abs=0.01)
