"""Small models with random weights, made by transformers itself, and the one real model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from made_once import made_once
from tiny_models import write_encoder_decoder, write_model, write_release

# Several test processes share the cores: threads that spin for each other make small models a hundred times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Path]:
    """``make_model(folder, family)``: a random model with a tokenizer; families are those of ``tiny_models.SHAPES``."""
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


@pytest.fixture(scope="session")
def dropping_out(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., Path]) -> Path:
    """A model whose steps draw random numbers."""
    folder = make_model(tmp_path_factory.mktemp("models") / "gpt2", "gpt2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"resid_pdrop": 0.2, "embd_pdrop": 0.2}))
    return folder


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory, dropping_out: Path, tiny_llama: Path) -> dict[str, Path]:
    """A small model of each family; those that are not llamas draw random numbers in each step."""
    folder = tmp_path_factory.mktemp("begun")
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification, BertConfig

    t5 = write_encoder_decoder(folder / "t5")
    config = BertConfig(
        vocab_size=320,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    for name, kind in (("bert", AutoModel), ("teacher", AutoModelForSequenceClassification)):
        kind.from_config(config).save_pretrained(folder / name)
        shutil.copyfile(tiny_llama / "tokenizer.json", folder / name / "tokenizer.json")
    still = folder / "still"
    shutil.copytree(folder / "bert", still)
    known = json.loads((still / "config.json").read_text())
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (still / "config.json").write_text(json.dumps(known | none))
    own = {"bert": folder / "bert", "teacher": folder / "teacher", "bert without dropout": still}
    return {"gpt2": dropping_out, "llama": tiny_llama, "t5": t5, **own}
