"""`develop.fit: keras` over a tiny encoder: to Keras and back, steps as our own, the same weights each time."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tiny_models import write_encoder
from treadle.core.errors import UserError
from treadle.lm.classification import Classifier, train_classifier
from treadle.lm.fitting import FitSettings
from treadle.text.dataset import Example

pytestmark = [
    pytest.mark.skipif(find_spec("keras") is None, reason="keras is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

THINGS = ("lamp", "tent", "radio", "stove")
WAYS = ("the {}", "a {} please, it is late", "my {} is here", "where is the {} of my old friend", "{} again", "{}")
EXAMPLES = [Example(("d",), text=way.format(thing), label=thing) for thing in THINGS for way in WAYS]
SETTINGS = FitSettings(learning_rate=2e-3, epochs=1, max_length=32, seed=3)


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Torch, whatever a file in somebody's home says."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """An encoder that drops nothing, so that two trainings can be compared."""
    folder = write_encoder(tmp_path / "base", [example.text for example in EXAMPLES])
    change(folder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return folder


def change(folder: Path, **settings: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


def fit(base: Path, out: Path, examples: list[Example] = EXAMPLES, settings: FitSettings = SETTINGS) -> list[float]:
    from treadle.integrations.keras_classifier import fit as train

    losses: list[float] = []
    train(base, out, examples, settings, lambda step, steps, loss: losses.append(loss))
    return losses


def test_there_and_back_is_equal_and_both_compute_the_same(base: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    from treadle.integrations.keras_classifier import build, difference, to_keras, to_transformers

    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=5).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases too, which begin as ones and zeros
            parameter.normal_(0, 0.2)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    network = build(model.config)
    to_keras(model, network)
    ids = torch.randint(5, 60, (40, 17)).numpy()
    mask = (np.arange(17)[None] < np.arange(1, 41)[:, None]).astype("int64")
    inputs = {"ids": ids, "mask": mask}
    assert difference(model, network, inputs) < 1e-4
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert difference(model, network, inputs) > 0.1
    to_transformers(network, model)
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


def test_the_steps_are_those_of_our_own_training(base: Path, tmp_path: Path) -> None:
    """Another order of the batches would be off by 1e-4 from the second epoch on."""
    losses = fit(base, tmp_path / "keras", settings=FitSettings(2e-4, 3, 32, 3))
    own: list[float] = []
    train_classifier(
        base,
        tmp_path / "own",
        [example.text for example in EXAMPLES],
        [str(example.label) for example in EXAMPLES],
        FitSettings(learning_rate=2e-4, epochs=3, max_length=32, seed=3, precision="float32"),
        lambda report: own.append(report.loss),
    )
    assert len(own) == 6
    assert losses == pytest.approx(own, abs=3e-5)
    names = [{path.name for path in (tmp_path / which).iterdir()} for which in ("keras", "own")]
    assert names[0] == names[1]
    theirs, ours = (load_file(tmp_path / which / "model.safetensors") for which in ("keras", "own"))
    assert theirs.keys() == ours.keys()


def test_it_learns_and_the_same_input_gives_the_same_weights(base: Path, tmp_path: Path) -> None:
    change(base, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    for name in ("one", "two"):
        fit(base, tmp_path / name)
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()
    change(base, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    losses = fit(base, tmp_path / "long", EXAMPLES * 20, FitSettings(5e-3, 1, 32, 3))
    assert losses[-1] < 0.9 * losses[0]
    found = Classifier(tmp_path / "long")
    assert found.labels == tuple(sorted(THINGS))
    rows = found.predict([example.text for example in EXAMPLES])
    right = [found.labels[int(np.argmax(row))] == each.label for row, each in zip(rows, EXAMPLES, strict=True)]
    assert sum(right) > len(right) / 2


def test_what_it_cannot_learn_is_said_in_one_line(base: Path, tmp_path: Path) -> None:
    talk = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    for examples in ([Example(("d",), messages=talk)], EXAMPLES[:2]):
        with pytest.raises(UserError, match="two labels or more"):
            fit(base, tmp_path / "out", examples)
    with pytest.raises(UserError, match=r"the loss became .* lower learning_rate"):
        fit(base, tmp_path / "out", EXAMPLES * 4, FitSettings(1e30, 3, 32, 3))
    change(base, hidden_act="silu")
    with pytest.raises(UserError, match="activations gelu, relu, not silu"):
        fit(base, tmp_path / "out")
    assert not (tmp_path / "out").exists()
