"""A model with some of another's layers, and all else of it: where a student begins (arXiv:1910.01108, section 3)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from treadle.core.errors import UserError


def evenly(layers: int, kept: int) -> list[int]:
    """``kept`` of ``layers`` numbers, the first and the last among them and the others between, as DistilBERT has it:
    0, 2, 4, 7, 9, 11 of twelve."""
    if not 1 <= kept <= layers:
        raise UserError(f"develop.distill.layers: {kept} of the teacher's {layers} layers; expected 1 to {layers}")
    if kept == 1:
        return [0]
    return [int(place * (layers - 1) / (kept - 1) + 0.5) for place in range(kept)]


def kept_layers(model: Any, kept: int | None) -> list[int]:
    """The layers of a teacher that a student of so many begins with; None for half of them."""
    return layers_of(blocks(model)[1], kept)


def layers_of(count: int, kept: int | None) -> list[int]:
    """As ``kept_layers``, of a teacher with ``count`` layers."""
    return evenly(count, max(1, count // 2) if kept is None else kept)


def with_layers(model: Any, kept: Sequence[int]) -> Any:
    """A new model like ``model`` with only those of its layers; weights are copied."""
    prefix = blocks(model)[0]
    student = type(model)(config_with(model.config, kept))
    places = {str(old): str(new) for new, old in enumerate(kept)}
    weights = {}
    for name, value in model.state_dict().items():
        if name.startswith(prefix):
            number, _, rest = name.removeprefix(prefix).partition(".")
            if number in places:
                weights[f"{prefix}{places[number]}.{rest}"] = value
        else:
            weights[name] = value
    student.load_state_dict(weights)
    return student.to(model.device, next(model.parameters()).dtype)


def config_with(config: Any, kept: Sequence[int]) -> Any:
    """A copy of a transformers configuration that has only those layers."""
    config = copy.deepcopy(config)
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[place] for place in kept]
    return config


def blocks(model: Any) -> tuple[str, int]:
    """Where the layers stand among a model's parts, as the beginning of their names, and how many there are."""
    import torch

    count = int(getattr(model.config, "num_hidden_layers", 0))
    for name, part in model.named_modules():
        if isinstance(part, torch.nn.ModuleList) and len(part) == count:
            return f"{name}.", count
    raise UserError(f"develop.distill: the layers of a {model.config.model_type} cannot be told apart")
