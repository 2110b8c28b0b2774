"""What runs are searched for: ``metrics.loss < 2 and params.lr > 1e-4 and not tags.team in ('a', 'b')``.

    filter      any of: all {"or" all}         all: each {"and" each}         each: ["not"] each | "(" filter ")" | test
    test        field ("=" | "!=" | "<" | "<=" | ">" | ">=" | "~" | "!~") value
                field ["not"] "in" "(" value {"," value} ")"
    field       id, name, step, kind, status, started, seconds, seed, commit,
                or params., metrics., tags., inputs., outputs. and a name; metrics."eval loss" where it has spaces
    value       a number, 'text' or "text", true, false, null

``~`` looks for a piece of text in any case of letters. A test of something that a run does not have is false, except
``= null``. It is read here and made SQL of elsewhere; nothing is ever evaluated as code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from treadle.core.errors import UserError, nearest

PLAIN = ("id", "name", "step", "kind", "status", "started", "seconds", "seed", "commit")
GROUPS = ("params", "metrics", "tags", "inputs", "outputs")
OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "~", "!~")
_LONGEST = 10_000  # characters
_DEEPEST = 50  # brackets and negations inside each other
_EXAMPLE = "metrics.loss < 2 and params.lr > 1e-4"

Value = str | float | bool | None

_TOKENS = re.compile(
    r"""(?x) \s*(?:
      (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    | (?P<field>[A-Za-z_][\w/-]*(?:\.[\w/-]+)*(?:\.(?:"[^"]*"|`[^`]*`))?)
    | (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    | (?P<sign><=|>=|!=|<>|==|!~|[=<>~(),])
    )"""
)
_SPELLINGS = {"==": "=", "<>": "!="}
_WORDS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class Field:
    """What is looked at: one of `PLAIN`, or a name in one of `GROUPS`. ``column`` counts from 1."""

    group: str
    name: str
    column: int = 1

    def __str__(self) -> str:
        return f"{self.group}.{self.name}" if self.group else self.name


@dataclass(frozen=True, slots=True)
class Test:
    """A field against a value, or against several with ``in``."""

    field: Field
    operator: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """What must not hold."""

    inner: Filter


@dataclass(frozen=True, slots=True)
class Both:
    """Several that must hold: all of them (``and``) or any (``or``)."""

    word: str
    parts: tuple[Filter, ...]


Filter = Test | Not | Both


def parse(text: str) -> Filter:
    """The filter; ``UserError`` that names the column and what was expected there."""
    return _Parser(text).whole()


def parse_field(text: str, option: str = "--sort") -> Field:
    """A single field, as a search is sorted by."""
    parser = _Parser(text, option)
    field = parser.field()
    parser.end()
    return field


def fields_of(filter_: Filter) -> Iterator[Field]:
    """Every field that is looked at."""
    if isinstance(filter_, Test):
        yield filter_.field
    elif isinstance(filter_, Not):
        yield from fields_of(filter_.inner)
    else:
        for part in filter_.parts:
            yield from fields_of(part)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


class _Parser:
    """Reads tokens from left to right; each method takes what its name says."""

    def __init__(self, text: str, option: str = "--where") -> None:
        self._option = option
        self._place = 0
        self._depth = 0
        if len(text) > _LONGEST:
            raise UserError(f"{option} has {len(text):,} characters, at most {_LONGEST:,} are read")
        self._tokens = list(self._split(text))

    def _split(self, text: str) -> Iterator[_Token]:
        place, end = 0, len(text.rstrip())
        while place < end:
            match = _TOKENS.match(text, place)
            if match is None:
                place += len(text[place:]) - len(text[place:].lstrip())
                quote = text[place] in "'\""
                problem = "this text has no end; close the quote" if quote else f"{text[place]!r} means nothing here"
                raise self._wrong(place + 1, problem)
            kind = str(match.lastgroup)
            yield _Token(kind, match[kind], match.start(kind) + 1)
            place = match.end()
        yield _Token("end", "", end + 1)

    def _wrong(self, column: int, problem: str) -> UserError:
        return UserError(f"{self._option}, column {column}: {problem}")

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place]

    def _take(self) -> _Token:
        token = self._next
        self._place += token.kind != "end"
        return token

    def _word(self, word: str) -> bool:
        """Whether the next is this word, which is taken then."""
        found = self._next.kind == "field" and self._next.text.lower() == word
        self._place += found
        return found

    def _sign(self, sign: str) -> None:
        token = self._take()
        if token.text != sign or token.kind != "sign":
            raise self._wrong(token.column, f"expected {sign!r}, got {_shown(token)}")

    def whole(self) -> Filter:
        """All of it."""
        found = self._any()
        self.end()
        return found

    def end(self) -> None:
        """Nothing more may come."""
        if self._next.kind != "end":
            expected = "'and' or 'or' before " if self._option == "--where" else "nothing more, got "
            raise self._wrong(self._next.column, f"expected {expected}{_shown(self._next)}")

    def _any(self) -> Filter:
        return self._joined("or", self._all)

    def _all(self) -> Filter:
        return self._joined("and", self._each)

    def _joined(self, word: str, part: Callable[[], Filter]) -> Filter:
        parts = [part()]
        while self._word(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Both(word, tuple(parts))

    def _each(self) -> Filter:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._wrong(self._next.column, f"nested more than {_DEEPEST} deep")
        try:
            if self._word("not"):
                return Not(self._each())
            if self._next.kind == "sign" and self._next.text == "(":
                self._take()
                found = self._any()
                self._sign(")")
                return found
            return self._test()
        finally:
            self._depth -= 1

    def _test(self) -> Filter:
        field = self.field()
        turned = self._word("not")
        if self._word("in"):
            test = Test(field, "in", self._list())
            return Not(test) if turned else test
        token = self._take()
        operator = _SPELLINGS.get(token.text, token.text)
        if turned or token.kind != "sign" or operator not in OPERATORS:
            raise self._wrong(token.column, f"expected one of {' '.join(OPERATORS)} or 'in', got {_shown(token)}")
        value = self._value()
        self._check(field, operator, value, token.column)
        if operator == "!~":
            return Not(Test(field, "~", (value,)))
        return Test(field, operator, (value,))

    def _check(self, field: Field, operator: str, value: Value, column: int) -> None:
        if operator in ("~", "!~"):
            if not isinstance(value, str):
                raise self._wrong(column, f"{operator} looks for a piece of text; write it in quotes")
            if field.group == "tags":
                raise self._wrong(
                    column, f"texts of tags are not in the ledger, so {operator} cannot look into them; use ="
                )
        if value is None and operator not in ("=", "!="):
            raise self._wrong(column, f"null is compared with = or !=, not with {operator}")
        if field.group == "metrics" and isinstance(value, str):
            raise self._wrong(column, f"{field} is a number and is compared with one, such as 0.5")

    def _list(self) -> tuple[Value, ...]:
        self._sign("(")
        values = [self._value()]
        while self._next.text == ",":
            self._take()
            values.append(self._value())
        self._sign(")")
        return tuple(values)

    def _value(self) -> Value:
        token = self._take()
        if token.kind == "number":
            return float(token.text)
        if token.kind == "text":
            quote = token.text[0]
            return token.text[1:-1].replace(quote * 2, quote)
        if token.kind == "field" and token.text.lower() in _WORDS:
            return _WORDS[token.text.lower()]
        hint = f"; write '{token.text}' in quotes" if token.kind == "field" else ""
        raise self._wrong(token.column, f"expected a number, a text or null, got {_shown(token)}{hint}")

    def field(self) -> Field:
        """A field that there can be."""
        token = self._take()
        if token.kind != "field":
            raise self._wrong(token.column, f"expected a field, got {_shown(token)}; for example: {_EXAMPLE}")
        group, dot, name = token.text.partition(".")
        if dot and group in GROUPS:
            if '"' in _unquoted(name):
                raise self._wrong(token.column, f"{token.text}: a name has no quotes in it")
            return Field(group, _unquoted(name), token.column)
        if not dot and group in PLAIN:
            return Field("", group, token.column)
        if dot:
            close = nearest(group, GROUPS)
            hint = close[:-2] + f".{name}'?" if close.endswith("'?") else close
        else:
            hint = nearest(group, PLAIN)
            hint = f"; write {group}. and a name" if group in GROUPS else hint
        raise self._wrong(token.column, f"there is no field {token.text!r};{hint}".replace(";;", ";"))


def _unquoted(name: str) -> str:
    """A name whose last part may stand in quotes."""
    for quote in '"`':
        if name.endswith(quote):
            before, _, last = name[:-1].partition(quote)
            return before + last
    return name


def _shown(token: _Token) -> str:
    return repr(token.text) if token.kind != "end" else "the end"
