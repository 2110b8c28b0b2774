"""A plugin's settings are its parameters: names, types and defaults are read off its signature, and
checked against it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, Field, ValidationError, create_model

from treadle.core.errors import UserError, nearest

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
        raise UserError(f"{where}: {_first(error)}") from None
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


def _first(error: ValidationError) -> str:
    """The first problem as one line, without quoting the value (it may be long, or a secret)."""
    problem = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"{path} is missing"
    expected = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if problem["type"] == "extra_forbidden":
        return f"no setting {path!r}"
    return f"{path}: {expected[:1].lower()}{expected[1:]}"
