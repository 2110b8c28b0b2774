"""Reading a YAML file into frozen models, with errors that name the line, the key, what was expected and the nearest valid key.

Scalars follow the YAML 1.2 core schema: ``1e-4`` is a number, ``off``, ``yes`` and ``1:30`` are text. Anchors and tags are refused.
"""

from __future__ import annotations

import math
import re
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from treadle.core.errors import UserError, nearest
from treadle.core.secrets import find as find_secrets

LIMIT = 1 << 20  # bytes; a settings file larger than this is a mistake
_DEPTH = 50

_NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"(?:[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")


class Settings(BaseModel):
    """Base of everything that comes from a file: frozen, no unknown keys, no silent conversion of text to numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


M = TypeVar("M", bound=Settings)
Lines = dict[tuple[str | int, ...], int]


def scalar(text: str) -> Any:
    """A plain scalar as YAML 1.2's core schema reads it; digits may be grouped by ``_``."""
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text.lower() == "true"
    if _INT.match(text):
        return int(text.replace("_", ""), 0 if text[:2] in ("0o", "0x") else 10)
    if _FLOAT.match(text):
        return float(text)
    if _SPECIAL.match(text):
        return float(text.lower().replace(".", "", 1)) if "nan" not in text.lower() else math.nan
    return text


def read_yaml(text: str, name: str) -> tuple[Any, Lines]:
    """The value and the line of every key in it; ``UserError`` with the line for anything that is not plain YAML."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{name}:{line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{name}: not valid YAML: {str(error).splitlines()[0]}") from None
    lines: Lines = {(): 1}
    seen: set[int] = set()
    return (None if node is None else _value(node, (), name, lines, seen)), lines


def _value(node: yaml.Node, where: tuple[str | int, ...], name: str, lines: Lines, seen: set[int]) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(where, line)
    if id(node) in seen:
        raise UserError(f"{name}:{line}: anchors and aliases are not used here; write the value out")
    seen.add(id(node))
    if len(where) > _DEPTH:
        raise UserError(f"{name}:{line}: nested more than {_DEPTH} deep")
    if isinstance(node, yaml.ScalarNode):
        if node.tag.startswith("!") and not node.tag.startswith("tag:yaml.org,2002:"):
            raise UserError(f"{name}:{line}: tags such as {node.tag} are not used here; write a plain value")
        return scalar(node.value) if node.style is None else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*where, index), name, lines, seen) for index, item in enumerate(node.value)]
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        at = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{name}:{at}: a key must be plain text")
        key = str(key_node.value)
        if key in result:
            raise UserError(f"{name}:{at}: {_dotted((*where, key))} is given twice; keep one")
        lines[(*where, key)] = at
        result[key] = _value(value_node, (*where, key), name, lines, seen)
    return result


def load(path: Path, model: type[M], overrides: tuple[str, ...] = ()) -> M:
    """The settings in a file, with ``key.path=value`` overrides applied; one ``UserError`` line for the first mistake."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"there is no {path}; make a project with: treadle init {path.parent}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > LIMIT:
        raise UserError(f"{path} has {len(data)} bytes; settings have at most {LIMIT}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    value, lines = read_yaml(text, path.name)
    if not isinstance(value, dict):
        raise UserError(f"{path.name}:1: expected keys such as `name:` and `collect:`, got {_kind(value)}")
    for override in overrides:
        _override(value, override)
    _refuse_secrets(value, (), path.name, lines)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise UserError(_explain(error, model, path.name, lines)) from None


def _override(value: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override!r}: expected key.path=value, such as develop.learning_rate=2e-4")
    parsed, _ = read_yaml(text, f"--set {key}")
    *path, last = key.split(".")
    for part in path:
        value = value.setdefault(part, {})
        if not isinstance(value, dict):
            raise UserError(f"--set {override!r}: {part} is not a section")
    value[last] = parsed


def _refuse_secrets(value: Any, where: tuple[str | int, ...], name: str, lines: Lines) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_secrets(item, (*where, key), name, lines)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_secrets(item, (*where, index), name, lines)
    elif isinstance(value, str) and find_secrets(value):
        raise UserError(f"{name}:{_line(where, lines)}: {_dotted(where)} holds a secret; write ${{env:NAME}} instead")


def _explain(error: ValidationError, model: type[BaseModel], name: str, lines: Lines) -> str:
    first = error.errors(include_url=False)[0]
    where = tuple(part for part in first["loc"])
    at = f"{name}:{_line(where, lines)}: {_dotted(where) or 'the file'}"
    if first["type"] == "extra_forbidden":
        known = _fields(model, where[:-1])
        return f"{at}: unknown key {str(where[-1])!r};{nearest(str(where[-1]), known)}"
    if first["type"] == "missing":
        return f"{at}: is missing; {_dotted(where)} has to be given"
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if first["type"] == "value_error":
        return f"{at}: {message}"
    shown = first.get("input")
    return f"{at}: {message}, got {_kind(shown)} {_shown(shown)}".rstrip()


def _fields(model: Any, where: tuple[str | int, ...]) -> list[str]:
    """Names of the keys known at a place, following nested models; empty where nothing is known."""
    for part in where:
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return []
        if isinstance(part, int) or part not in model.model_fields:
            continue
        model = _inner(model.model_fields[part].annotation)
    return sorted(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _inner(annotation: Any) -> Any:
    """The model inside ``X | None``, ``list[X]`` or ``tuple[X, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in typing.get_args(annotation):
        found = _inner(argument)
        if found is not None:
            return found
    return None


def _line(where: tuple[str | int, ...], lines: Lines) -> int:
    while where not in lines and where:
        where = where[:-1]
    return lines.get(where, 1)


def _dotted(where: tuple[str | int, ...]) -> str:
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _kind(value: Any) -> str:
    names = {
        dict: "a section",
        list: "a list",
        str: "text",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float) else ""
    return text if len(text) <= 60 else text[:57] + "..."
