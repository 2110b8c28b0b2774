"""A model class of one's own: a ``PreTrainedModel`` of the project's code or of an installed package.

Its name ends as those of transformers do (``...ForSequenceClassification``), which says what it is for. Its folders
name the class and the version of its code in ``config.json``. Only code of the project that is open is ever imported,
and only while it is the same: never what a folder brings along.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.core.plugins import load

GROUP = "treadle.models"
PROJECT = "TREADLE_PROJECT"  # the open project's folder, also for the processes that engines run in
_CLASS, _VERSION = "treadle_class", "treadle_class_version"
_HEAD = re.compile(r"For[A-Z]\w+$")
_WIDTHS = range(8, 16_385, 8)


def own_class(name: str, folder: Path | None) -> tuple[Any, str]:
    """The class called ``name``, known to transformers from now on, and the version of its code.

    ``UserError`` for what is no ``PreTrainedModel`` with a ``config_class`` and a telling name.
    """
    import transformers

    found = load(GROUP, name, folder)
    kind, head = found.value, _HEAD.search(name)
    auto = getattr(transformers, f"AutoModel{head[0]}", None) if head else None
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)) or auto is None:
        raise UserError(
            f"{name!r} is no model class; expected a transformers.PreTrainedModel whose name ends as in"
            " MineForSequenceClassification"
        )
    config: Any = getattr(kind, "config_class", None)
    if config is None or not getattr(config, "model_type", ""):
        raise UserError(f"{name!r} has no config_class with a model_type; transformers finds it by that")
    transformers.AutoConfig.register(config.model_type, config, exist_ok=True)
    auto.register(config, kind, exist_ok=True)
    return kind, found.version


def create(name: str, folder: Path | None, parameters: int, **common: Any) -> Any:
    """A model of the class with random weights; ``common`` is what its configuration is told.

    Its ``hidden_size`` is the one that comes nearest to a number of parameters.
    """
    kind, version = own_class(name, folder)
    width = _width(kind, parameters, common)
    return kind(kind.config_class(hidden_size=width, **common, **{_CLASS: name, _VERSION: version}))


def make_known(folder: Path) -> bool:
    """Whether the model in ``folder`` is of somebody's own class; transformers can load it then.

    ``UserError`` where the class is not here, or its code is another than the model was made with.
    """
    config = _config(folder)
    name = named_class(folder)
    if name is None:
        return False
    project = os.environ.get(PROJECT)
    _, version = own_class(name, Path(project) if project else None)
    if version != config.get(_VERSION):
        raise UserError(f"{folder}: made with another {name} than is here now; bring that code back, or train anew")
    return True


def named_class(folder: Path) -> str | None:
    """The class of somebody's own that the model in ``folder`` is of; None where it is one of transformers."""
    name = _config(folder).get(_CLASS)
    return name if isinstance(name, str) else None


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _width(kind: Any, parameters: int, common: dict[str, Any]) -> int:
    import torch

    def size(width: int) -> int:
        with torch.device("meta"):
            try:
                made = kind(kind.config_class(hidden_size=width, **common))
            except TypeError as error:
                raise UserError(f"{kind.__name__}: its configuration does not take hidden_size: {error}") from None
        return int(made.num_parameters())

    low, high = 0, len(_WIDTHS) - 1
    while low < high:  # sizes grow with the width
        middle = (low + high) // 2
        low, high = (middle + 1, high) if size(_WIDTHS[middle]) < parameters else (low, middle)
    return min(_WIDTHS[max(0, low - 1) : low + 1], key=lambda width: abs(size(width) - parameters))
