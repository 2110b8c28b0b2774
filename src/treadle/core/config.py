"""Reading a YAML file into frozen models; errors name the line, the key, what was expected, the nearest valid key.

Scalars follow the YAML 1.2 core schema: ``1e-4`` is a number, ``off``, ``yes`` and ``1:30`` are text. Anchors and
tags are refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from treadle.core.errors import Place, UserError, nearest
from treadle.core.mistake import Mistake, first_mistake, keys_of
from treadle.core.place import dotted
from treadle.core.secrets import is_secret

LIMIT = 1 << 20  # bytes; a settings file larger than this is a mistake
_DEPTH = 50

_NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
_DIGITS = 300  # of a number; more is text


class Settings(BaseModel):
    """Base of everything that comes from a file: frozen, no unknown keys; ``load`` converts no text to numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)

    @classmethod
    def instead_of_secret(cls, beside: Mapping[str, Any], key: str) -> str:
        """What to do where the value of ``key``, which stands ``beside`` others, holds a secret."""
        return "write ${env:NAME} instead"


M = TypeVar("M", bound=Settings)
Lines = dict[Place, int]


def scalar(text: str) -> Any:
    """A plain scalar as YAML 1.2's core schema reads it."""
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text.lower() == "true"
    if len(text) > _DIGITS:
        return text
    if _INT.match(text):
        return int(text, 0 if text[:2] in ("0o", "0x") else 10)
    if _FLOAT.match(text):
        return float(text)
    if _SPECIAL.match(text):
        return float(text.lower().replace(".", "", 1)) if "nan" not in text.lower() else math.nan
    return text


class _Loader(yaml.SafeLoader):
    """Composes plain nodes only; what YAML adds to that is refused where it stands."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As YAML's own, without anchors, aliases and tags, and not too deep."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _NotPlainError(mark, "anchors and aliases are not used here; write the value out")
        if getattr(event, "tag", None) is not None:
            raise _NotPlainError(mark, f"tags such as {event.tag} are not used here; write a plain value")
        if self.depth > _DEPTH:
            raise _NotPlainError(mark, f"nested more than {_DEPTH} deep")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _NotPlainError(Exception):
    def __init__(self, mark: yaml.Mark, problem: str) -> None:
        super().__init__(problem)
        self.line = mark.line + 1


def read_yaml(text: str, name: str) -> tuple[Any, Lines]:
    """The value and the line of every key in it; ``UserError`` with the line for anything that is not plain YAML."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except _NotPlainError as error:
        raise UserError(f"{name}:{error.line}: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{name}:{line}: not valid YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{name}:{line}: not valid YAML: character {error.character!r} is not allowed") from None
    except yaml.YAMLError as error:
        raise UserError(f"{name}:1: not valid YAML: {str(error).splitlines()[0]}") from None
    lines: Lines = {(): 1}
    return (None if node is None else _value(node, (), name, lines)), lines


def _value(node: yaml.Node, where: Place, name: str, lines: Lines) -> Any:
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        return scalar(node.value) if node.style is None else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*where, index), name, lines) for index, item in enumerate(node.value)]
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        at = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{name}:{at}: a key must be plain text")
        key = str(key_node.value)
        if key in result:
            raise UserError(f"{name}:{at}: {dotted((*where, key))} is given twice; keep one")
        lines[(*where, key)] = at
        result[key] = _value(value_node, (*where, key), name, lines)
    return result


def load(path: Path, model: type[M], overrides: tuple[str, ...] = ()) -> M:
    """The settings in a file, with ``key.path=value`` overrides applied; one ``UserError`` line for a mistake."""
    return load_with_places(path, model, overrides)[0]


def load_with_places(path: Path, model: type[M], overrides: tuple[str, ...] = ()) -> tuple[M, Places]:
    """The settings as ``load`` gives them, and who says where they stand."""
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
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path.name}:{line}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    value, lines = read_yaml(text, path.name)
    if not isinstance(value, dict):
        raise UserError(f"{path.name}:1: expected keys such as `name:` and `collect:`, got {_kind(value)}")
    for override in overrides:
        _override(value, override, lines)
    at = Places(path.name, lines)
    _refuse_secrets(value, at, model)
    try:
        # As JSON, so that a list may become a tuple, and yet text never a number and `off` never a boolean.
        return model.model_validate_json(json.dumps(value), strict=True), at
    except ValidationError as error:
        raise UserError(_explain(first_mistake(error, value), model, at)) from None


_OVERRIDE = 0  # the "line" of what was given on the command line


def _override(value: dict[str, Any], override: str, lines: Lines) -> None:
    key, equals, text = override.partition("=")
    path: list[str | int] = list(key.split("."))
    if not equals or "" in path:
        raise UserError(f"--set {override!r}: expected key.path=value, such as develop.learning_rate=2e-4")
    parsed, _ = read_yaml(text, f"--set {key}")
    place: Any = value
    for index, part in enumerate(path):
        if isinstance(place, list) and str(part).isdigit() and int(part) < len(place):
            path[index] = int(part)
        elif not isinstance(place, dict):
            raise UserError(f"--set {override!r}: {dotted(tuple(path[:index]))} has no {part!r}; it is {_kind(place)}")
        if index == len(path) - 1:
            place[path[index]] = parsed
        else:
            inner = place.get(part) if isinstance(place, dict) else place[path[index]]
            if inner is None:
                inner = place[path[index]] = {}
                lines.setdefault(tuple(path[: index + 1]), _OVERRIDE)
            place = inner
    lines[tuple(path)] = _OVERRIDE


@dataclass(frozen=True)
class Places:
    """Says where in the file, or on the command line, a key stands."""

    name: str
    lines: Lines

    def __call__(self, where: Place) -> str:
        return self._before(where) + (dotted(where) or "the file")

    @contextmanager
    def pointing(self) -> Iterator[None]:
        """An error in the block that is about a part of the file says where that stands."""
        try:
            yield
        except UserError as error:
            if known := self._known(error.place):
                section = dotted(error.place[:2])  # most name it themselves
                said = str(error) if str(error).startswith(section) else f"{dotted(known)}: {error}"
                error.args, error.place = (self._before(known) + said,), ()
            raise

    def _before(self, where: Place) -> str:
        starts = [self.lines[where[:count]] for count in range(len(where) + 1) if where[:count] in self.lines]
        return "--set " if _OVERRIDE in starts else f"{self.name}:{starts[-1]}: "

    def _known(self, where: Place) -> Place:
        """The part of a place that was given; none of what is there by default."""
        return next(where[:count] for count in range(len(where), -1, -1) if where[:count] in self.lines)


def _refuse_secrets(settings: Any, at: Places, model: type[Settings]) -> None:
    def look(value: Any, where: Place, beside: Mapping[str, Any], key: str) -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                look(item, (*where, name), value, name)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                look(item, (*where, index), beside, key)
        elif isinstance(value, str) and is_secret(str(where[-1]) if where else "", value):
            raise UserError(f"{at(where)} holds a secret; {model.instead_of_secret(beside, key)}")

    look(settings, (), {}, "")


def _explain(found: Mistake, model: type[BaseModel], at: Places) -> str:
    where = at(found.place)
    if found.kind == "extra_forbidden":
        name = str(found.place[-1])
        return f"{where}: unknown key {name!r};{nearest(name, keys_of(model, found.place[:-1]))}"
    if found.kind == "missing":
        return f"{where}: is missing; it has to be given"
    if found.kind == "value_error":
        return f"{where}: {found.message}"
    return f"{where}: {found.message}, got {_kind(found.given)} {_shown(found.given)}".rstrip()


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
