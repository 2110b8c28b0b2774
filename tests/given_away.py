"""Releases of small models, for targets that give a model away."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treadle.core.artifacts import Builder
from treadle.core.document_ids import DOCUMENT_PREFIX
from treadle.core.store import Store
from treadle.lm.model import Model
from treadle.record.model_card import ModelCard
from treadle.record.release import ReleaseSpec
from treadle.stages.deploy.targets import Rendering

TARGETS = ("huggingface", "onnx", "tensorflow-serving", "tensorrt")
TEXTS = ("the lamp is here", "where is the tent of my old friend", "a radio please, it is late", "my stove again")
CARD = ModelCard(
    "# clerk\n\n**Intended use.** a test\n",
    {
        "model": {"accuracy": {"value": 0.91234567, "low": 0.85, "high": 0.96, "n": 40, "level": 0.95}},
        "majority": {"accuracy": {"value": 0.25, "low": 0.1, "high": 0.4, "n": 40, "level": 0.95}},
    },
    {"CC0-1.0": 3},
)


def need(target: str) -> None:
    """Skip where what the target is made with is not installed."""
    if target in ("onnx", "tensorrt"):
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
    there = os.environ.get("TREADLE_TENSORFLOW_PYTHON") or importlib.util.find_spec("tensorflow")
    if target == "tensorflow-serving" and not there:
        pytest.skip("needs TensorFlow, here or in the environment of TREADLE_TENSORFLOW_PYTHON")


def write_classifier(folder: Path) -> None:
    """A BERT with random weights and four labels."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from tiny_models import write_encoder

    write_encoder(folder, TEXTS)
    torch.manual_seed(3)
    names = dict(enumerate(("lamp", "tent", "radio", "stove")))
    made = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=4, id2label=names)
    with torch.no_grad():
        made.classifier.weight.normal_(0, 0.5)
    made.save_pretrained(folder)


def release_of(root: Path, write: Callable[[Path], Any], task: str = "classify", **spec: Any) -> Rendering:
    """A release of the model that ``write`` puts into a folder."""
    with Builder(Model, Store(root / "store")) as builder:
        write(builder.path)
        (builder.path / "treadle.json").write_text("{}")
        builder.add_documents([f"{DOCUMENT_PREFIX}{'44' * 32}"])
        model = builder.commit()
    asking = {"classify": "classify", "embed": "embed", "tag": "tag"}.get(task, "chat")
    base = {"name": "/home/jane/base", "digest": "b3:" + "33" * 32, "license": "Apache-2.0", "origin": "folder base"}
    given = {"base_model": base, "settings": {"max_tokens": 12}, **spec}
    made = ReleaseSpec("clerk", task, model.digest, "b3:" + "22" * 32, engine="transformers", asking=asking, **given)
    return Rendering("b3:" + "ab" * 32, "clerk@v3", made, "transformers", model.size, trained=model, card=CARD)
