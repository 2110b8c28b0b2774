"""A plugin's settings are its parameters: names, types and defaults are read off its signature, and
checked against it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, create_model

from treadle.core.errors import Place, UserError, nearest
from treadle.core.mistake import Mistake, first_mistake, keys_of
from treadle.core.place import dotted


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
            raise _wrong((key,), f"{where}: no setting {key!r};{nearest(str(key), known) or ' there are none'}")
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
        mistake = first_mistake(error, dict(settings))
        raise _wrong(mistake.place, f"{where}: {_told(mistake, fields)}") from None
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


def _told(mistake: Mistake, fields: Mapping[str, tuple[Any, Any]]) -> str:
    """The mistake as one line, without quoting the value (it may be long, or a secret)."""
    path = dotted(mistake.place)
    if mistake.kind == "missing":
        return f"{path} is missing"
    if mistake.kind == "extra_forbidden":
        first, *inside, name = mistake.place
        known = keys_of(fields[str(first)][0], tuple(inside))
        return f"no setting {path!r};{nearest(str(name), known)}"
    return f"{path}: {mistake.message}"


def _wrong(setting: Place, message: str) -> UserError:
    error = UserError(message)
    error.setting = setting
    return error
