"""A plugin's settings are its parameters: names, types and defaults are read off its signature, and
checked against it.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, get_args, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from treadle.core.errors import UserError, nearest


def _moment(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("expected a time in ISO 8601, such as 2027-01-31") from None
    return text


Positive = Annotated[int, Field(gt=0)]
Moment = Annotated[str, AfterValidator(_moment)]
_PREFIX = "setting_"  # keeps a parameter called `schema` or `copy` from shadowing a method of the model


def check(target: Any, settings: Mapping[str, Any], *, where: str, provided: tuple[str, ...] = ()) -> dict[str, Any]:
    """The settings as ``target`` (a class or a function) takes them; ``provided`` names parameters that are
    not settings.

    Types are those JSON has: a list is taken for a tuple, text is not taken for a number. ``UserError`` names
    ``where``, the key, what was expected and the nearest valid key.
    """
    fields = _fields(target, provided)
    known = tuple(fields)
    for key in settings:
        if key not in fields:
            raise UserError(f"{where}: no setting {key!r};{nearest(str(key), known) or ' there are none'}")
    definitions: dict[str, Any] = {
        _PREFIX + name: (kind, Field(default=default, alias=name)) for name, (kind, default) in fields.items()
    }
    config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)
    model = create_model("Settings", __config__=config, **definitions)
    try:
        text = json.dumps(dict(settings))
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: a setting is not a plain value: {error}") from None
    try:
        values = model.model_validate_json(text)
    except ValidationError as error:
        raise UserError(f"{where}: {_first(error, fields, settings)}") from None
    return {name: getattr(values, _PREFIX + name) for name in settings}


def bind(target: Any, settings: Mapping[str, Any], *, where: str, provided: Mapping[str, Any]) -> Any:
    """``target`` called with checked settings, and with those of ``provided`` that it has parameters for."""
    values = check(target, settings, where=where, provided=tuple(provided))
    parameters = inspect.signature(target).parameters
    given = {name: value for name, value in provided.items() if name in parameters}
    return target(**values, **given)


def _fields(target: Any, provided: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    """Type and default (``...`` when required) of each parameter that is a setting."""
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except NameError:  # a name that is imported for the type checker only; then types are not checked, names are
        hints = {}
    fields = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if name in provided or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (hints.get(name, Any), default)
    return fields


def _first(error: ValidationError, fields: Mapping[str, tuple[Any, Any]], settings: Mapping[str, Any]) -> str:
    """The first problem as one line, without quoting the value (it may be long, or a secret)."""
    problems = error.errors(include_url=False, include_input=False)
    first = problems[0]["loc"][:1]
    # Where a value may be of several kinds, each tells what it lacks; the kind that went furthest into it is meant.
    problem = max(
        (each for each in problems if each["loc"][:1] == first), key=lambda each: len(_given(each["loc"], settings))
    )
    path = _given(problem["loc"], settings)
    if problem["type"] == "missing":
        return f"{'.'.join([*path, str(problem['loc'][-1])])} is missing"
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _names(fields[path[0]][0]) if len(path) == 2 else ()
        return f"no setting {'.'.join(path)!r};{nearest(path[-1], known)}".removesuffix(";")
    expected = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{'.'.join(path)}: {expected[:1].lower()}{expected[1:]}"


def _given(place: tuple[int | str, ...], settings: Mapping[str, Any]) -> list[str]:
    """The part of a problem's place that the settings have; the names of kinds that a value may be of are left out."""
    path: list[str] = []
    value: Any = settings
    for part in place:
        there = part in value if isinstance(value, Mapping) else isinstance(value, list) and isinstance(part, int)
        if there:
            value = value[part]
            path.append(str(part))
    return path


def _names(kind: Any) -> tuple[str, ...]:
    """The settings of a group of them, or of the group that is among the kinds of ``X | None``."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return tuple(kind.model_fields)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return tuple(each.name for each in dataclasses.fields(kind))
    return next((found for found in map(_names, get_args(kind)) if found), ())
