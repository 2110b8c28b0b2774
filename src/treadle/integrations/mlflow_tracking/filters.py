"""MLflow's filters and orders: ``metrics.loss < 2 AND params.`batch size` = '8' AND tags.team LIKE 'a%'``.

    filter   clause {"AND" clause}
    clause   name ("=" | "!=" | "<" | "<=" | ">" | ">=") value | name ("LIKE" | "ILIKE") text
             | name ["NOT"] "IN" "(" text {"," text} ")" | name "IS" ["NOT"] "NULL"
    name     [group "."] key; keys that are no plain words in backticks or double quotes
    order    name ["ASC" | "DESC"]

What a thing does not have meets no clause but ``IS NULL``. Nothing is ever evaluated as code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from treadle.integrations.mlflow_tracking.problem import invalid

_LONGEST = 20_000  # characters
_MOST = 200  # clauses
_GROUPS = {
    "metric": "metric", "metrics": "metric", "param": "parameter", "params": "parameter", "parameter": "parameter",
    "parameters": "parameter", "tag": "tag", "tags": "tag", "attribute": "attribute", "attributes": "attribute",
    "attr": "attribute", "run": "attribute", "dataset": "dataset", "datasets": "dataset",
}  # fmt: skip
_ALIASES = {"created": "start_time", "Created": "start_time", "run name": "run_name", "Run name": "run_name",
            "Run Name": "run_name"}  # fmt: skip
_TOKEN = re.compile(
    r"""(?x)\s*(?:
      (?P<text>'(?:[^'\\]|\\.|'')*')
    | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    | (?P<name>(?:`[^`]+`|"[^"]+"|[A-Za-z_][\w/-]*)(?:\.(?:`[^`]+`|"[^"]+"|[\w/:-]+))*)
    | (?P<sign><=|>=|!=|<>|=|<|>|\(|\)|,)
    )"""
)
_EXAMPLE = "metrics.loss < 2 AND params.optimizer = 'adam'"

Order = tuple[str, str, bool]  # group, key, whether the smallest comes first


@dataclass(frozen=True, slots=True)
class Clause:
    """A name, an operator and what it is compared with: a text, a number, several texts, or None."""

    group: str
    key: str
    operator: str
    value: Any


class Searched:
    """Something that is searched: attributes, and groups of named values."""

    def __init__(self, attributes: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]]) -> None:
        self._attributes = attributes
        self._groups = groups

    def value(self, group: str, key: str) -> Any:
        """What is compared; None where there is none."""
        return (self._attributes if group == "attribute" else self._groups.get(group, {})).get(key)

    def meets(self, clauses: Sequence[Clause]) -> bool:
        """Whether all of them hold."""
        return all(holds(clause, self.value(clause.group, clause.key)) for clause in clauses)


def holds(clause: Clause, value: Any) -> bool:
    """Whether a clause holds for a value; a number that is none is unlike every other."""
    if clause.operator in ("IS NULL", "IS NOT NULL"):
        return (value is None) == (clause.operator == "IS NULL")
    if value is None:
        return False
    try:
        return _COMPARED[clause.operator](value, clause.value)
    except TypeError:
        return False


def ordered(found: list[tuple[Any, Any]], orders: Sequence[Order]) -> list[Any]:
    """Sorted by each order in turn; what has no value comes last either way. Of each pair the second is given back."""
    for group, key, ascending in reversed(orders):
        known: list[tuple[Any, Any]] = []
        unknown: list[tuple[Any, Any]] = []
        for pair in found:
            value = pair[0].value(group, key)
            (unknown if value is None or (isinstance(value, float) and math.isnan(value)) else known).append(pair)
        known.sort(key=lambda pair: pair[0].value(group, key), reverse=not ascending)
        found = known + unknown
    return [second for _, second in found]


def parse_filter(text: str, *, texts: Sequence[str], numbers: Sequence[str], groups: Sequence[str]) -> list[Clause]:
    """The clauses of a filter over attributes that are texts or numbers, and over these groups."""
    if len(text) > _LONGEST:
        raise invalid(f"The filter string has {len(text)} characters, at most {_LONGEST} are read")
    return _Reader(text, texts, numbers, groups).clauses() if text.strip() else []


def parse_order(orders: Sequence[str], attributes: Sequence[str], *, groups: Sequence[str]) -> list[Order]:
    """What a list is sorted by."""
    found = []
    for text in orders:
        reader = _Reader(text[:_LONGEST], attributes, attributes, groups)
        group, key = reader.name()
        word = reader.word("asc", "desc")
        reader.end(f"Invalid order_by clause '{text[:200]}'. Could not be parsed.")
        found.append((group, key, word != "desc"))
    return found


class _Reader:
    """Reads tokens from left to right."""

    def __init__(self, text: str, texts: Sequence[str], numbers: Sequence[str], groups: Sequence[str]) -> None:
        self._text, self._texts, self._numbers, self._groups = text, texts, numbers, groups
        self._place = 0
        self._tokens = []
        place, end = 0, len(text.rstrip())
        while place < end:
            match = _TOKEN.match(text, place)
            if match is None:
                raise invalid(f"Invalid clause(s) in filter string: {text[place:].strip()[:80]!r}; write {_EXAMPLE}")
            self._tokens.append((str(match.lastgroup), match[str(match.lastgroup)]))
            place = match.end()

    def _next(self) -> tuple[str, str]:
        return self._tokens[self._place] if self._place < len(self._tokens) else ("end", "")

    def word(self, *words: str) -> str:
        """The next token where it is one of these words, in any case of letters; else nothing."""
        kind, text = self._next()
        if kind == "name" and text.lower() in words:
            self._place += 1
            return text.lower()
        return ""

    def end(self, told: str) -> None:
        """Nothing more may come."""
        if self._next()[0] != "end":
            raise invalid(told)

    def clauses(self) -> list[Clause]:
        """All of it."""
        found = [self._clause()]
        while self.word("and"):
            found.append(self._clause())
            if len(found) > _MOST:
                raise invalid(f"The filter string has more than {_MOST} clauses")
        self.end(f"Invalid clause(s) in filter string: {self._next()[1][:80]!r}; clauses are joined by AND")
        return found

    def name(self) -> tuple[str, str]:
        """Group and key."""
        kind, text = self._next()
        if kind != "name":
            raise invalid(f"Invalid comparison clause: expected a name, found {text[:80]!r}; write {_EXAMPLE}")
        self._place += 1
        first, rest = _split(text)
        if rest is None or (first not in _GROUPS and "attribute" not in self._groups):
            group, key = "attribute", text if rest is not None else first
            if rest is None and first in ("run", "Run") and self.word("name"):
                key = "run name"
        else:
            group, key = _GROUPS.get(first, ""), rest
        if group != "attribute" and group not in self._groups:
            raise invalid(f"Invalid entity type '{first[:80]}'. Valid values are {['attribute', *self._groups]}")
        key = _ALIASES.get(key, key) if group == "attribute" else key
        if group == "attribute" and key not in (*self._texts, *self._numbers):
            raise invalid(f"Invalid attribute key '{key[:80]}' specified. Valid keys are {sorted(self._texts)}")
        if group == "dataset" and key not in ("name", "digest", "context"):
            raise invalid(f"Invalid dataset key '{key[:80]}' specified. Valid keys are ['name', 'digest', 'context']")
        return group, key

    def _clause(self) -> Clause:
        group, key = self.name()
        number = group == "metric" or (group == "attribute" and key in self._numbers)
        if self.word("is"):
            operator = "IS NOT NULL" if self.word("not") else "IS NULL"
            if not self.word("null") or group not in ("tag", "parameter"):
                raise invalid("IS NULL / IS NOT NULL is only supported for tags and params")
            return Clause(group, key, operator, None)
        negated = self.word("not")
        if self.word("in"):
            return Clause(group, key, "NOT IN" if negated else "IN", self._several(group))
        like = self.word("like", "ilike").upper()
        kind, sign = self._next()
        if not like:
            sign = {"<>": "!="}.get(sign, sign)
            self._place += 1
        operator = like or sign
        if negated or operator not in _COMPARED or (like and number) or (kind != "sign" and not like):
            raise invalid(f"Invalid comparator '{operator[:20]}' for '{group}.{key[:80]}'")
        if not number and operator not in ("=", "!=", "LIKE", "ILIKE"):
            raise invalid(f"Invalid comparator '{operator}' not one of '=', '!=', 'LIKE', 'ILIKE', 'IN', 'NOT IN'")
        return Clause(group, key, operator, self._number(key) if number else self._quoted(group))

    def _number(self, key: str) -> float:
        kind, text = self._next()
        if kind != "number":
            raise invalid(f"Expected numeric value type for '{key[:80]}'. Found {text[:80]}")
        self._place += 1
        return float(text)

    def _quoted(self, group: str) -> str:
        kind, text = self._next()
        if not (kind == "text" or (kind == "name" and text[0] == '"' == text[-1])):
            raise invalid(f"Expected a quoted string value for {group} (e.g. 'my-value'). Got value {text[:80]}")
        self._place += 1
        return text[1:-1].replace("''", "'") if text[0] == "'" else text[1:-1]

    def _several(self, group: str) -> frozenset[str]:
        if group not in ("attribute", "dataset") or self._next()[1] != "(":
            raise invalid("IN takes a list of quoted strings, and is for attributes and datasets")
        found = []
        while self._next()[1] in ("(", ","):
            self._place += 1
            found.append(self._quoted(group))
        if self._next()[1] != ")":
            raise invalid("expected ')' at the end of a list")
        self._place += 1
        return frozenset(found)


def _split(text: str) -> tuple[str, str | None]:
    """The group before the first point, and the key after it, without quotes."""
    match = re.match(r"""(`[^`]+`|"[^"]+"|[^.`"]+)(?:\.(.+))?\Z""", text)
    if match is None:
        return text, None
    return _bare(match[1]), None if match[2] is None else _bare(match[2])


def _bare(text: str) -> str:
    return text[1:-1] if len(text) > 2 and text[0] in '`"' and text[-1] == text[0] else text


def _like(text: str, pattern: str, flags: re.RegexFlag = re.NOFLAG) -> bool:
    """``%`` stands for any text, ``_`` for any character; in time that grows with the text, whatever the pattern."""
    first, *rest = [re.compile(_literal(piece), flags | re.DOTALL) for piece in pattern.split("%")]
    if not rest:
        return first.fullmatch(text) is not None
    match = first.match(text)
    if match is None:
        return False
    place = match.end()
    for piece in rest[:-1]:
        match = piece.search(text, place)
        if match is None:
            return False
        place = match.end()
    last = len(pattern) - 1 - pattern.rindex("%")
    return len(text) - last >= place and rest[-1].fullmatch(text, len(text) - last) is not None


def _literal(piece: str) -> str:
    return "".join("." if character == "_" else re.escape(character) for character in piece)


_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
    "IN": lambda left, right: left in right,
    "NOT IN": lambda left, right: left not in right,
    "LIKE": _like,
    "ILIKE": lambda left, right: _like(left, right, re.IGNORECASE),
}
