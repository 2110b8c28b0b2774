"""A callback for the Trainer of transformers, and for those of TRL, which are built on it.

    Trainer(model, args, train_dataset=data, callbacks=[TreadleCallback()])

Each training is a run with the Trainer's arguments as its settings and everything it logs over its steps. A training
that ends with an error is recorded as failed when the interpreter ends or the next one starts.
"""

from __future__ import annotations

import atexit
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from treadle.core.experiment import Experiment
from treadle.tracking import start_run

_LEFT_OUT = re.compile(r"(?:token|_dir|_path|_host|report_to|run_name|logging_dir)\b|^(?:hub_|push_to_hub)")
_NUMBER = (int, float)


class TreadleCallback(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Writes a training into Treadle's record; in distributed training only the first process does.

    ``artifact``: store the folder of the trained model as an artifact of the run, where the Trainer saved one.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        folder: str | Path = ".",
        tags: Mapping[str, Any] | None = None,
        artifact: bool = False,
    ) -> None:
        self.run: Experiment | None = None
        self._name = name
        self._folder = folder
        self._tags = dict(tags or {})
        self._artifact = artifact

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Open the run."""
        if not state.is_world_process_zero:
            return
        self._close("failed")  # a training before this one that never ended
        self.run = start_run(
            _plain_name(self._name or getattr(args, "run_name", None) or "train"),
            params=_settings(args, model),
            tags=self._tags,
            seed=args.seed,
            folder=self._folder,
        )
        atexit.register(self._close, "failed")

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """Log what the Trainer logs, at its step."""
        numbers = {name: float(value) for name, value in (logs or {}).items() if isinstance(value, _NUMBER)}
        if self.run is not None and numbers:
            self.run.log(state.global_step, **numbers)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the run, with the latest checkpoint where that was asked for."""
        if self.run is None:
            return
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self._artifact and checkpoint.is_dir():
            self.run.artifact(checkpoint, kind="model", name="model")
        self._close("done")

    def _close(self, status: Any) -> None:
        run, self.run = self.run, None
        if run is not None:
            atexit.unregister(self._close)
            run.finish(status)


def _settings(args: Any, model: Any) -> dict[str, Any]:
    """The Trainer's arguments without paths and addresses, and what the model is."""
    found = {
        name: value
        for name, value in args.to_dict().items()
        if not _LEFT_OUT.search(name) and isinstance(value, bool | int | float | str)
    }
    if model is not None:
        found["model_type"] = str(getattr(getattr(model, "config", None), "model_type", "unknown"))
        found["model_parameters"] = sum(each.numel() for each in model.parameters())
    return found


def _plain_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:100] or "train"
