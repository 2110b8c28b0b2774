"""Continuations scored together have the likelihoods that they have alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.lm.token_tree import grow

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=8)


@given(SEQUENCES, st.integers(1, 30))
def test_every_token_sees_its_own_beginning(sequences: list[list[int]], limit: int) -> None:
    tree = grow(sequences, limit)
    assert tree.paths
    assert len(tree.ids) <= max(limit, len(sequences[0]))
    allowed, depths = tree.allowed(), tree.depths()
    for path, sequence in zip(tree.paths, sequences, strict=False):
        assert [tree.ids[node] for node in path] == sequence
        assert [int(depths[node]) for node in path] == list(range(len(sequence)))
        for place, node in enumerate(path):
            assert sorted(path[: place + 1]) == list(allowed[node].nonzero()[0])
    if len(tree.paths) < len(sequences):
        assert len(grow(sequences, 1 << 20).paths) == len(sequences)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_scores_are_those_of_each_pair_alone(family: str, make_model: Callable[..., Path], tmp_path: Path) -> None:
    """With worked examples before all, choices behind one question, pairs met twice, and rows too long to join."""
    import torch
    from transformers import AutoModelForCausalLM

    from treadle.lm.torch_scoring import TreeScorer

    model: Any = AutoModelForCausalLM.from_pretrained(make_model(tmp_path, family), dtype=torch.float32).eval()
    draw = random.Random(7)

    def tokens(low: int, high: int) -> list[int]:
        return [draw.randrange(model.config.vocab_size) for _ in range(draw.randint(low, high))]

    shown = tokens(40, 40)
    pairs = [(shown + asked, tokens(1, 8)) for asked in (tokens(1, 20) for _ in range(12)) for _ in range(3)]
    pairs += [(asked, tokens(1, 250)) for asked in (tokens(1, 120) for _ in range(4)) for _ in range(2)]
    pairs += pairs[:2]
    scorer = TreeScorer(model, "cpu", plain=True)
    found: list[list[float]] = []
    while len(found) < len(pairs):
        found += scorer.score_some(pairs[len(found) : len(found) + 20])
    alone = TreeScorer(model, "cpu", plain=False)
    for pair, row in zip(pairs, found, strict=True):
        assert row == pytest.approx(alone.score_some([pair])[0], abs=1e-4)
