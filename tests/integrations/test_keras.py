"""`fit` of Keras, for a few real steps of a tiny model over torch, with the callback in it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from treadle.core.artifacts import Artifact
from treadle.core.verify import verify
from treadle.record.run_view import whole
from treadle.tracking import open_record

pytestmark = [
    pytest.mark.skipif(find_spec("keras") is None, reason="keras is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Torch, whatever a file in somebody's home says."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))


def fit(callback: Any, **more: Any) -> Any:
    import keras
    import numpy as np

    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="relu"), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.AdamW(learning_rate=0.05), loss="mse", metrics=["mae"])
    chance = np.random.default_rng(3)
    x = chance.normal(size=(24, 4)).astype("float32")
    callbacks = [callback, *more.pop("beside", [])]
    model.fit(x, x.sum(1), epochs=3, batch_size=4, validation_split=1 / 3, callbacks=callbacks, verbose=0, **more)
    return model


def test_a_training_is_a_run(tmp_path: Path) -> None:
    from treadle.integrations.keras import TreadleCallback

    callback = TreadleCallback(
        "sum of four",
        params={"data": "made up"},
        folder=tmp_path,
        tags={"team": "search"},
        seed=3,
        every=2,
        artifact=True,
    )
    model = fit(callback)
    with open_record(tmp_path) as record:
        (run,) = record.runs.find()
        assert (run.step, run.status, run.facts["seed"]) == ("experiment.sum-of-four", "done", 3)
        shown = whole(record, run)
        wanted = {"optimizer": "adamw", "epochs": 3, "steps": 4, "model_type": "Sequential", "backend": "torch"}
        assert {name: run.parameters[name] for name in wanted} == wanted
        assert run.parameters["learning_rate"] == pytest.approx(0.05)
        assert run.parameters["model_parameters"] == model.count_params() == 19
        assert shown["parameters"]["data"] == "made up"
        assert shown["tags"] == {"team": "search"}
        history = model.history.history
        for name in ("loss", "mae", "val_loss", "val_mae"):
            points = [(point["step"], point[name]) for point in shown["points"] if name in point]
            assert points == list(zip((4, 8, 12), history[name], strict=True))
            assert run.metrics[name] == history[name][-1]
        assert [point["step"] for point in shown["points"] if "batch_loss" in point] == [2, 4, 6, 8, 10, 12]
        assert Artifact(run.outputs["model"], record.store).has("model.keras")
        assert verify(record.workspace).ok


def test_one_that_breaks_off_is_a_failure(tmp_path: Path) -> None:
    import keras

    from treadle.integrations.keras import TreadleCallback

    class Breaks(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                raise RuntimeError("the disk of the data went away")

    callback = TreadleCallback(folder=tmp_path, every=0)
    with pytest.raises(RuntimeError, match="went away"):
        fit(callback, beside=[Breaks()])
    assert callback.run is not None
    fit(callback)
    with open_record(tmp_path) as record:
        later, earlier = record.runs.find()
        assert (later.status, earlier.status) == ("done", "failed")
        assert "loss" in earlier.metrics
        assert not any(name.startswith("batch_") for name in later.metrics)
