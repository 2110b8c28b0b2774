"""What is wrong with a value, out of all that pydantic says of it: the one mistake that helps, and where it is."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from treadle.core.errors import Place

_SHOULD = "Input should be "


@dataclass(frozen=True)
class Mistake:
    """``place`` is one that the value has, or that of a key which is missing; ``kind`` is as pydantic calls it."""

    place: Place
    kind: str
    message: str
    given: Any


def first_mistake(error: ValidationError, value: Any) -> Mistake:
    """The first one, but rather an unknown key: where a key is misspelled, it is also missing.

    A value that is none of the choices of a union has a mistake for each. Those of the choice that is most like it lie
    deepest; where these are several, all of what is expected is said.
    """
    found = [_mistake(each, value) for each in error.errors(include_url=False)]
    first = min(found, key=lambda each: each.kind != "extra_forbidden")
    if first.kind in ("extra_forbidden", "missing"):
        return first
    inside = [each for each in found if each.place[: len(first.place)] == first.place]
    deepest = max(inside, key=lambda each: len(each.place))
    messages = [each.message for each in inside if each.place == deepest.place]
    if all(each.startswith(_SHOULD) for each in messages):
        expected = dict.fromkeys(each.removeprefix(_SHOULD) for each in messages)
        return Mistake(deepest.place, deepest.kind, _sentence(_SHOULD + " or ".join(expected)), deepest.given)
    return Mistake(deepest.place, deepest.kind, _sentence(deepest.message), deepest.given)


def keys_of(annotation: Any, place: Place) -> list[str]:
    """Names of the keys known at a place, following nested models; empty where nothing is known."""
    model = _model(annotation)
    for part in place:
        if model is not None and part in model.model_fields:
            model = _model(model.model_fields[str(part)].annotation)
    return sorted(model.model_fields) if model is not None else []


def dotted(place: Place) -> str:
    """As it is written in messages: ``collect.sources[0].path``."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _mistake(told: Any, value: Any) -> Mistake:
    place = _within(value, told["loc"])
    if told["type"] == "missing":
        place = (*place, told["loc"][-1])
    return Mistake(place, told["type"], told["msg"], told.get("input"))


def _within(value: Any, where: Place) -> Place:
    """The part of a place that the value has: pydantic names the choices of a union in between."""
    found: Place = ()
    for part in where:
        steps = dict(enumerate(value)) if isinstance(value, list | tuple) else value
        if isinstance(steps, dict) and part in steps:
            found, value = (*found, part), steps[part]
    return found


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model inside ``X | None``, ``list[X]`` or ``tuple[X, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        found = _model(argument)
        if found is not None:
            return found
    return None


def _sentence(message: str) -> str:
    """As the rest of a line, after where it is."""
    text = " ".join(message.removeprefix("Value error, ").removeprefix("Assertion failed, ").split())
    return text[:1].lower() + text[1:]
