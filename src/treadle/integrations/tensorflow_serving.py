"""The target ``tensorflow-serving``: a classifier as a SavedModel in the folders that TensorFlow Serving reads.

TensorFlow is large, and need not be where torch is. ``TREADLE_TENSORFLOW_PYTHON`` names the interpreter of one where it
and Keras are installed; that needs nothing of ours. It writes the model from Keras' layers, opens it again, and
compares its outputs with torch's. Served by TensorFlow Serving it was not: that is no part of TensorFlow's package.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import treadle
from treadle.core.errors import MissingExtra, Refused, UserError
from treadle.integrations.onnx_export import TOLERANCE, power_above, shape_of
from treadle.lm import torch_runtime
from treadle.lm.model_folder import longest, read_config
from treadle.stages.deploy.packages import Package, beside_weights, trained_folder
from treadle.stages.deploy.targets import Content, Rendering

VARIABLE = "TREADLE_TENSORFLOW_PYTHON"
PACKAGE = "tensorflow-serving.json"
_BATCHES, _TEXTS = 25, 8  # of random tokens that are compared
_SECONDS = 900
_USED = [
    "model_type",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "type_vocab_size",
    "max_position_embeddings",
    "layer_norm_eps",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "num_labels",
    "position_embedding_type",
]


class TensorFlowServing(Package):
    """A BERT classifier as a SavedModel for TensorFlow Serving; checked by TensorFlow, exported and not served here."""

    name: ClassVar[str] = "tensorflow-serving"
    then: ClassVar[str] = (
        'run: docker run --publish 127.0.0.1:8501:8501 --volume "$PWD/models:/models" tensorflow/serving'
        " --model_config_file=/models/models.config"
    )
    tool = "tensorflow"

    @staticmethod
    def python() -> str:
        """The Python with TensorFlow: that of ``TREADLE_TENSORFLOW_PYTHON``, or this one. ``UserError`` where there is
        none."""
        named = os.environ.get(VARIABLE)
        if named:
            if not os.access(named, os.X_OK):
                raise UserError(f"{VARIABLE}: {named} is no program; expected a python that has TensorFlow")
            return named
        if importlib.util.find_spec("tensorflow") is None:
            raise UserError(
                "target tensorflow-serving: TensorFlow is not installed here; install it in an environment of its own"
                " (python -m venv tensorflow && tensorflow/bin/pip install tensorflow-cpu keras) and set"
                f" {VARIABLE}=tensorflow/bin/python"
            )
        return sys.executable

    def render(self, release: Rendering) -> Mapping[str, Content]:
        """As `Target.render`."""
        folder = trained_folder(release, self.name)
        config = read_config(folder)
        if shape_of(config, folder) != "classifier" or config.get("model_type") != "bert":
            raise UserError(
                f"render {self.name}: expected a BERT that classifies; {release.model} is"
                f" {(config.get('architectures') or ['unknown'])[0]}: take target onnx or docker"
            )
        python = self.python()
        version = re.search(r"@v(\d+)$", release.model)
        place = f"models/{release.slug}/{version[1] if version else 1}"
        out = release.scratch / place
        out.parent.mkdir(parents=True)
        job = {"model": str(folder), "out": str(out), "release": release.digest, **_expected(folder, release.scratch)}
        found = _run(python, job)
        if not (found["worst"] <= TOLERANCE and found["told"]):
            raise Refused(f"{folder}: its SavedModel gives logits that are {found['worst']:.2g} off, or other labels")
        files: dict[str, Content] = {
            path.relative_to(release.scratch).as_posix(): path for path in sorted(out.rglob("*")) if path.is_file()
        }
        files["models/models.config"] = _config(release.slug)
        files |= beside_weights(folder)
        files[PACKAGE] = _told(release, folder, found)
        return files


def _run(python: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """What the program there found; ``UserError`` with its last line where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(Path(next(iter(treadle.__path__))).parent), "PYTHONHASHSEED": "0"}
    command, given = [python, "-m", "treadle.integrations.saved_model"], json.dumps(job)
    try:
        done = subprocess.run(
            command, input=given, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"target tensorflow-serving: {python}: {error}") from None
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    if done.returncode:
        raise UserError(f"target tensorflow-serving: {python}: {lines[-1][:400]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _expected(folder: Path, scratch: Path) -> dict[str, Any]:
    """Configuration and labels, and a file with random texts of tokens and the logits that torch gives for them."""
    try:
        torch_runtime.patient_threads()
        import numpy as np
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), extra="train") from None

    model = torch_runtime.load(folder, transformers.AutoModelForSequenceClassification).eval()
    held: dict[str, Any] = {}
    draw = torch.Generator().manual_seed(0)
    for number in range(_BATCHES):
        width = 1 + number * min(longest(folder), 64) // _BATCHES
        ids = torch.randint(0, model.config.vocab_size, (_TEXTS, width), generator=draw)
        lengths = torch.randint(1, width + 1, (_TEXTS, 1), generator=draw)
        mask = (torch.arange(width)[None] < lengths).long()
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask).logits
        held |= {f"ids_{number}": ids.int(), f"mask_{number}": mask.int(), f"logits_{number}": logits.float()}
    path = scratch / "expected.npz"
    np.savez(path, **{name: value.numpy() for name, value in held.items()})
    labels = [str(model.config.id2label[place]) for place in range(model.config.num_labels)]
    config = {name: getattr(model.config, name, None) for name in _USED}
    config["position_embedding_type"] = config["position_embedding_type"] or "absolute"
    return {"expected": str(path), "labels": labels, "config": config}


def _config(name: str) -> bytes:
    """Of https://www.tensorflow.org/tfx/serving/serving_config"""
    lines = (
        "model_config_list {",
        f'  config {{ name: "{name}" base_path: "/models/{name}" model_platform: "tensorflow" }}',
        "}",
    )
    return "\n".join([*lines, ""]).encode()


def _told(release: Rendering, folder: Path, found: Mapping[str, Any]) -> bytes:
    """Release, signature and check."""
    told = {
        "release": release.digest,
        "model": release.model,
        "weights": release.spec.model,
        "max_length": longest(folder),
        "signature": {"name": "serving_default", **found["signature"]},
        "checked": {
            "against": "torch",
            "tensorflow": found["tensorflow"],
            "inputs": found["inputs"],
            "tolerance": TOLERANCE,
            "worst_at_most": power_above(found["worst"]),
        },
        "served": "exported, not served here",
    }
    return (json.dumps(told, indent=2) + "\n").encode()
