"""Chat templates: Jinja that comes with a model, so somebody else's program, run in Jinja's sandbox.

The environment is the one transformers documents for templates (`trim_blocks`, `lstrip_blocks`, loop controls,
``raise_exception``, ``strftime_now``, ``tojson`` without escapes, the ``generation`` tag), so that both render alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from treadle.core.errors import UserError

_MAX_TEMPLATE_CHARACTERS = 1 << 20
_MARKS = ("treadle_generation_opens", "treadle_generation_closes")


class _Generation(Extension):
    """``{% generation %}`` marks what the assistant says: its body, between two marks where they are asked for."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as an instance attribute

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        opens, closes = (nodes.Output([nodes.Name(name, "load")], lineno=line) for name in _MARKS)
        return [opens, *body, closes]  # names that are not given print nothing


class ChatTemplate:
    """One compiled template with the model's special tokens."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], *, where: Path) -> None:
        if len(source) > _MAX_TEMPLATE_CHARACTERS:
            raise UserError(f"{where}: the chat template is longer than {_MAX_TEMPLATE_CHARACTERS} characters")
        self.where = where
        self._special_tokens = dict(special_tokens)
        try:
            environment = _environment()
            self._template = environment.from_string(source)
            self._template.globals = dict(self._template.globals)  # a chain of two is copied for each text otherwise
            names = {each.name for each in environment.parse(source).find_all(nodes.Name)}
            self.marks_generation = _MARKS[0] in names
            self.shows_tools = "tools" in names
            self.writes_calls = "tool_calls" in source
        except (TemplateError, RecursionError) as error:
            raise UserError(
                f"{where}: the chat template is not valid Jinja ({error}); copy it again from the model"
            ) from None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        marks: tuple[str, str] | None = None,
    ) -> str:
        """The conversation as one text; ``UserError`` when the template refuses it, in the template's own words.

        ``marks`` stand around what the template says the assistant says (``marks_generation``).
        """
        try:
            return self._template.render(
                messages=list(messages),
                tools=list(tools) if tools else None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
                **(dict(zip(_MARKS, marks, strict=True)) if marks else {}),
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            raise UserError(f"{self.where}: the model's chat template refuses these messages: {error}") from None


def control_text(source: str) -> str:
    """All text that a template can write by itself, joined so that no search matches across two of its pieces."""
    try:
        tree = _environment().parse(source)
    except (TemplateError, RecursionError):
        return ""
    pieces = [node.data for node in tree.find_all(nodes.TemplateData)]
    pieces += [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    return "\0".join(pieces)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(layout: str) -> str:
    from datetime import datetime

    return datetime.now().astimezone().strftime(layout)
