"""What makes a prompt, choices or an answer of a row: a column's name, or Jinja in a sandbox.

A template that is one ``{{ expression }}`` gives the value itself (a list of choices, a number), any other gives text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from treadle.core.errors import MissingExtra, UserError

Template = Callable[[Mapping[str, Any]], Any]
_LONGEST = 20_000  # characters of a template
_LARGEST = 1 << 20  # characters of what it makes


class RowError(ValueError):
    """Why a row makes no item, in words that do not quote it."""


def compile_template(source: str, where: str) -> Template:
    """``UserError`` for a template that is none; what is made of a row may raise ``RowError``."""
    if len(source) > _LONGEST:
        raise UserError(f"{where}: {len(source)} characters; a template has at most {_LONGEST}")
    if source.isidentifier():
        return lambda row: _column(row, source)
    try:
        from jinja2 import TemplateError, Undefined
    except ImportError:
        raise MissingExtra("jinja2", extra="data") from None
    environment = _environment()
    try:
        inner = _expression(source)
        expression = environment.compile_expression(inner, undefined_to_none=False) if inner else None
        template = environment.from_string(source)
    except (TemplateError, RecursionError) as error:
        raise UserError(
            f"{where}: not valid Jinja ({error}); expected a column's name or text with {{{{ name }}}}"
        ) from None

    def make(row: Mapping[str, Any]) -> Any:
        try:
            found = expression(**row) if expression is not None else template.render(**row)
            if isinstance(found, Undefined):
                raise RowError(f"there is no {inner}")
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            raise RowError(str(error).splitlines()[0][:200] if str(error) else type(error).__name__) from None
        if isinstance(found, str) and len(found) > _LARGEST:
            raise RowError(f"the template makes {len(found)} characters of it; at most {_LARGEST} are kept")
        return found

    return make


def first_name(source: str) -> str:
    """The first column that a template asks for; empty where it asks for none."""
    if source.isidentifier():
        return source
    from jinja2 import TemplateError, nodes

    try:
        names = [each.name for each in _environment().parse(source).find_all(nodes.Name) if each.ctx == "load"]
    except (TemplateError, RecursionError):
        return ""
    return names[0] if names else ""


def _column(row: Mapping[str, Any], name: str) -> Any:
    if name not in row:
        raise RowError(f"there is no column {name}")
    return row[name]


def _expression(source: str) -> str:
    """What stands in a template that is one expression and nothing else; else empty."""
    inner = source.strip()
    if source == inner and inner.startswith("{{") and inner.endswith("}}") and inner.count("{{") == 1:
        return inner[2:-2].strip("-").strip() if "}}" not in inner[2:-2] else ""
    return ""


def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Bounded(ImmutableSandboxedEnvironment):
        """Without what makes much of little: powers, and texts and lists many times over."""

        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" or not all(isinstance(each, int | float) for each in (left, right)):
                raise SecurityError(f"{operator} is for numbers, and ** not allowed")
            return left * right

    return Bounded(keep_trailing_newline=True, undefined=StrictUndefined)
