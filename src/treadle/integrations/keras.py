"""A callback for ``fit`` of Keras, on any of its backends.

    model.fit(x, y, callbacks=[TreadleCallback(params={"data": "reviews"})])

Each training is a run: the optimizer's settings and what the model is, the numbers of each epoch and, every so many
batches, of the epoch so far, all over the batches that were seen. A training that ends with an error is recorded as
failed when the interpreter ends or the next one starts.
"""

from __future__ import annotations

import atexit
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    import keras
except ImportError:
    from treadle.core.errors import MissingExtra

    raise MissingExtra("keras", extra="keras") from None

from treadle.core.experiment import Experiment
from treadle.tracking import start_run

_NUMBER = (bool, int, float)


class TreadleCallback(keras.callbacks.Callback):  # type: ignore[misc]  # skipped by mypy, as it is not always there
    """Writes a training into Treadle's record.

    ``params``: settings of your own beside those of optimizer and model. ``every``: batches between two points within
    an epoch, named ``batch_loss`` and so on; 0 for none. ``artifact``: store the trained model (``model.keras``).
    """

    def __init__(
        self,
        name: str = "fit",
        *,
        params: Mapping[str, Any] | None = None,
        folder: str | Path = ".",
        tags: Mapping[str, Any] | None = None,
        seed: int | None = None,
        every: int = 10,
        artifact: bool = False,
    ) -> None:
        super().__init__()
        self.run: Experiment | None = None
        self._name = name
        self._given = dict(params or {})
        self._folder = folder
        self._tags = dict(tags or {})
        self._seed = seed
        self._every = every
        self._artifact = artifact
        self._seen = 0  # batches

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Open the run."""
        self._close("failed")  # a training before this one that never ended
        self._seen = 0
        self.run = start_run(
            _plain_name(self._name),
            params=_settings(self.model, self.params) | self._given,
            tags=self._tags,
            seed=self._seed,
            folder=self._folder,
        )
        atexit.register(self._close, "failed")

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Count the batch, and log where the epoch stands."""
        self._seen += 1
        if self._every and self._seen % self._every == 0:
            self._log({f"batch_{name}": value for name, value in (logs or {}).items()})

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Log the epoch's numbers, those of the validation with them."""
        self._log({"epoch": epoch + 1, **(logs or {})})

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Close the run, with the model where that was asked for."""
        if self.run is not None and self._artifact:
            path = self.run.scratch / "model.keras"
            self.model.save(path)
            self.run.artifact(path, kind="model", name="model")
        self._close("done")

    def _log(self, logs: Mapping[str, Any]) -> None:
        numbers = {name: float(value) for name, value in logs.items() if isinstance(value, _NUMBER)}
        if self.run is not None and numbers:
            self.run.log(self._seen, **numbers)

    def _close(self, status: Any) -> None:
        run, self.run = self.run, None
        if run is not None:
            atexit.unregister(self._close)
            run.finish(status)


def _settings(model: Any, fit: Mapping[str, Any]) -> dict[str, Any]:
    """How long it trains, with which optimizer, and what the model is."""
    optimizer = getattr(model, "optimizer", None)
    found: dict[str, Any] = {name: fit[name] for name in ("epochs", "steps") if fit.get(name) is not None}
    if optimizer is not None:
        held = optimizer.get_config()
        found |= {name: value for name, value in held.items() if isinstance(value, bool | int | float | str)}
        found.pop("name", None)
        found["optimizer"] = type(optimizer).__name__.lower()
    found["model_type"] = type(model).__name__
    found["model_parameters"] = int(model.count_params())
    found["backend"] = keras.backend.backend()
    return found


def _plain_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:100] or "fit"
