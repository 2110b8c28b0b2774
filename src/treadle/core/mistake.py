"""What is wrong with a value, out of all that pydantic says of it: the one mistake that helps, and where it is."""

from __future__ import annotations

import dataclasses
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
    """Names of the keys known at a place, following nested groups of settings; empty where nothing is known."""
    known = _group(annotation)
    for part in place:
        if part in known:
            known = _group(known[str(part)])
    return sorted(known)


def _mistake(told: Any, value: Any) -> Mistake:
    place = _within(value, told["loc"])
    if told["type"] == "missing":
        place = (*place, told["loc"][-1])
    kind = "extra_forbidden" if told["type"] == "unexpected_keyword_argument" else told["type"]  # a dataclass's
    return Mistake(place, kind, told["msg"], told.get("input"))


def _within(value: Any, where: Place) -> Place:
    """The part of a place that the value has: pydantic names the choices of a union in between."""
    found: Place = ()
    for part in where:
        steps = dict(enumerate(value)) if isinstance(value, list | tuple) else value
        if isinstance(steps, dict) and part in steps:
            found, value = (*found, part), steps[part]
    return found


def _group(annotation: Any) -> dict[str, Any]:
    """What each key means in the model or dataclass inside ``X | None``, ``list[X]`` or ``tuple[X, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {name: field.annotation for name, field in annotation.model_fields.items()}
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return {each.name: each.type for each in dataclasses.fields(annotation)}
    return next((found for found in map(_group, typing.get_args(annotation)) if found), {})


def _sentence(message: str) -> str:
    """As the rest of a line, after where it is."""
    text = " ".join(message.removeprefix("Value error, ").removeprefix("Assertion failed, ").split())
    return text[:1].lower() + text[1:]
