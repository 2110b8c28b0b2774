"""Small models with random weights, made by transformers itself, and the one real model."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from made_once import made_once
from tiny_models import write_model, write_release

# Several test processes share the cores: threads that spin for each other make small models a hundred times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Path]:
    """``make_model(folder, family)``: a random model with a tokenizer; families are llama, qwen2, gemma2 and gpt2."""
    return write_model


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of SmolLM2's shape, small."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real SmolLM2-135M-Instruct, converted once and kept in the cache."""
    from treadle.lm.base_model import resolve

    return resolve("smollm2-135m-instruct").path


@pytest.fixture(scope="session")
def tiny_release(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random Llama as a release."""
    return write_release(tiny_llama, tmp_path_factory.mktemp("releases") / "tiny")


@pytest.fixture(scope="session")
def smollm2_release(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model as a release."""
    return made_once(tmp_path_factory, "smollm2-release", lambda folder: write_release(smollm2, folder))
