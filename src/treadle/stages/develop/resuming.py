"""Where a training's checkpoints lie: in a folder that is named by everything the weights depend on, so that the same
step goes on from them and no other does."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.errors import MissingExtra, UserError
from treadle.core.place import about
from treadle.core.plugins import load
from treadle.core.runs import Run
from treadle.core.settings import bind
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.launcher import Here, Launcher
from treadle.text.transform import parse_step

PLACE = "develop.on"  # the setting that says where a training runs
CHECKPOINTS = ("cache", "checkpoints")  # under the store's folder; gone when the model is made, or a person erased
_EVERY = "TREADLE_CHECKPOINT_SECONDS"  # of the environment: from one checkpoint to the next, at least
_SECONDS = 240.0  # by default: the first one is written before it is known what one costs, and six seconds were seen


def trainer_for(on: str | dict[str, Any]) -> Any:
    """Where trainings run; nothing is started yet. None for this process. ``UserError`` for what is no such place, or
    a wrong setting."""
    name, settings = parse_step(on, PLACE)
    with about(PLACE, name):
        found = bind(load("treadle.trainers", name).value, settings, where=f"{PLACE} ({name})", provided={})
        strategy = load("treadle.strategies", found.strategy).value if isinstance(found, Launcher) else None
    for package in (getattr(part, "package", None) for part in (found, strategy)):
        if package is not None and find_spec(package) is None:
            raise MissingExtra(package, extra=package)
    return None if isinstance(found, Here) else found


def checkpoints_for(run: Run, *parts: Any) -> Checkpoints:
    """Those of the training that ``parts`` (digests, settings) tell from every other."""
    import torch
    import transformers

    named = blake3_bytes(canonical_json([*parts, run.version, torch.__version__, transformers.__version__]))[3:35]
    every = float(os.environ.get(_EVERY) or _SECONDS)
    return Checkpoints(run.store.root.joinpath(*CHECKPOINTS, named), every=every, cipher=run.store.cipher)


def remove(checkpoints: Checkpoints) -> None:
    """The model is kept, so they are not needed any more."""
    with suppress(UserError):  # there was no room for the last one
        checkpoints.wait()
    checkpoints.discard()
