"""A JSON Schema as a grammar in EBNF, for engines that are given one: JSON in one line, as ``schema_mask`` has it.

What it lets through keeps to the schema, and is less than the schema allows: properties come in the order in which they
are written down, others than these do not come beside them, and no character is written as ``\\uXXXX``. What cannot
be put so is refused by name before an engine sees it, because an engine that chokes on a grammar harms everybody.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from treadle.core.errors import UserError

_MOST_RULES = 4_000
_MOST_REPEATED = 2_000  # characters of a string, items of an array: each is a place in the grammar
_MOST_BYTES = 400_000
_NAMING = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}
_SILENT = _NAMING | {"$schema", "$id", "$comment", "$defs", "definitions", "$anchor"}
_KINDS = {
    "string": {"minLength", "maxLength", "format"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "number": set(),
    "boolean": set(),
    "null": set(),
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties"},
}
_BASE = """char ::= [^"\\\\\\x00-\\x1f\\x7f] | "\\\\" ["\\\\/bfnrt]
string ::= "\\"" char* "\\""
digits ::= "0" | [1-9] [0-9]{0,14}
integer ::= "-"? digits
number ::= "-"? digits ("." [0-9]{1,15})? ([eE] [+-]? [0-9]{1,2})?
boolean ::= "true" | "false"
null ::= "null"
pair ::= string ": " any
object ::= "{" (pair (", " pair)*)? "}"
array ::= "[" (any (", " any)*)? "]"
any ::= object | array | string | number | boolean | null
"""
_COMMA = '", " '
_DATE = '[12] [0-9]{3} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | "1" [0-9] | "2" [0-8])'
_TIME = '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] "Z"'
_HEX = "[0-9a-f]"
_RUNS_ON = re.compile(r"(?<=[\x7f-\xff])(?=[0-9A-Fa-f])")
_FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f'{_DATE} "T" {_TIME}',
    "uuid": f'{_HEX}{{8}} "-" {_HEX}{{4}} "-" {_HEX}{{4}} "-" {_HEX}{{4}} "-" {_HEX}{{12}}',
}


def grammar_of(schema: str) -> str:
    """EBNF with the rule ``root``. ``UserError`` for a schema that cannot be kept to this way."""
    try:
        value = json.loads(schema)
        made = _Grammar(value)
        root = made.rule(value, "#")
        made.check_references()
    except RecursionError:
        raise _refused("it is nested too deeply") from None
    except ValueError:
        raise _refused("it is not JSON") from None
    text = "".join([f"root ::= {root}\n", _BASE, *(f"{name} ::= {body}\n" for name, body in made.rules.items())])
    if len(text) > _MOST_BYTES:
        raise _refused("it is too large")
    return text


class _Grammar:
    """``rules`` by name; a schema that is referred to is one rule, so it may contain itself."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._references: dict[str, str] = {}
        self._leads: dict[str, set[str]] = {}  # what each is referred to by, before anything of it is written
        self._within: str | None = "#"  # the schema referred to, until something of it is written
        self.rules: dict[str, str] = {}

    def rule(self, schema: Any, where: str) -> str:
        """The name of a rule for a schema. ``where``: its place, for who wrote it."""
        if schema is True or schema == {}:
            return "any"
        if not isinstance(schema, Mapping):
            raise _refused(f"{where}: expected a schema, got {json.dumps(schema)[:40]}")
        said = {key: value for key, value in schema.items() if key not in _SILENT}
        if not said:
            return "any"
        if "$ref" in said:
            return self._referred(said, where)
        for word in ("allOf", "anyOf", "oneOf"):
            if word in said:
                return self._joined(word, said, where)
        if "const" in said or "enum" in said:
            return self._add(_alternatives(_quoted(json.dumps(v, ensure_ascii=False)) for v in _values(said, where)))
        return self._typed(said, where)

    def check_references(self) -> None:
        """``UserError`` where a schema refers to itself and nothing comes between: no answer would ever begin."""
        for start in self._leads:
            seen: set[str] = set()
            ahead = [start]
            while ahead:
                for target in self._leads.get(ahead.pop(), set()) - seen:
                    if target == start:
                        raise _refused(f"{target} refers to itself before anything is written")
                    seen.add(target)
                    ahead.append(target)

    def _add(self, body: str) -> str:
        if len(self.rules) >= _MOST_RULES:
            raise _refused("it is too large")
        name = f"r{len(self.rules)}"
        self.rules[name] = body
        return name

    def _referred(self, said: Mapping[str, Any], where: str) -> str:
        target = str(said["$ref"])
        _only(said, {"$ref"}, where)
        if self._within is not None:
            self._leads.setdefault(self._within, set()).add(target)
        if target not in self._references:
            found = self._at(target, where)
            name = self._references[target] = self._add('""')  # before it is made, since it may refer to itself
            within, self._within = self._within, target
            self.rules[name] = self.rule(found, target)
            self._within = within
        return self._references[target]

    def _at(self, target: str, where: str) -> Any:
        if not target.startswith("#"):
            raise _refused(f"{where}: $ref {target!r} is not of this schema; expected one that begins with #")
        found = self._root
        for part in target[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(key)] if isinstance(found, list) else found[key]
            except (LookupError, TypeError, ValueError):
                raise _refused(f"{where}: $ref {target!r} leads nowhere") from None
        return found

    def _joined(self, word: str, said: Mapping[str, Any], where: str) -> str:
        _only(said, {word}, where)
        parts = said[word]
        if not isinstance(parts, list) or not parts:
            raise _refused(f"{where}/{word}: expected a list of schemas")
        if word == "allOf" and len(parts) > 1:
            raise _refused(f"{where}: allOf of several schemas")
        if word == "oneOf" and not _apart(parts):
            raise _refused(f"{where}: oneOf whose schemas may hold together; anyOf says that any may")
        return self._add(_alternatives(self.rule(each, f"{where}/{word}/{place}") for place, each in enumerate(parts)))

    def _typed(self, said: Mapping[str, Any], where: str) -> str:
        kinds = said.get("type")
        if kinds is None:  # what only holds for one type says nothing of the others, which nobody means
            kinds = [kind for kind, words in _KINDS.items() if words & set(said)][:1]
            if not kinds:
                _only(said, set(), where)
        names = kinds if isinstance(kinds, list) else [kinds]
        if not names or not all(isinstance(name, str) and name in _KINDS for name in names):
            raise _refused(f"{where}: type {json.dumps(said.get('type'))[:60]}")
        _only(said, {"type"}.union(*(_KINDS[name] for name in names)), where)
        within = self._within
        parts = []
        for name in names:
            self._within = within if name not in ("array", "object") else None
            parts.append(getattr(self, f"_{name}")(said, where))
        self._within = within
        return self._add(_alternatives(parts))

    def _string(self, said: Mapping[str, Any], where: str) -> str:
        least, most = _counts(said, "minLength", "maxLength", where)
        if "format" in said:
            if said["format"] not in _FORMATS or {"minLength", "maxLength"} & set(said):
                raise _refused(f"{where}: format {json.dumps(said['format'])[:60]}; known are {', '.join(_FORMATS)}")
            return rf'"\"" {_FORMATS[said["format"]]} "\""'
        return "string" if not least and most is None else rf'"\"" char{_times(least, most)} "\""'

    def _integer(self, said: Mapping[str, Any], where: str) -> str:
        if not set(said) & _KINDS["integer"]:
            return "integer"
        least, most = -(10**15), 10**15
        for word in _KINDS["integer"] & set(said):
            value = said[word]
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise _refused(f"{where}/{word}: expected a number")
            if "inimum" in word:
                least = max(least, math.ceil(value) if word == "minimum" else math.floor(value) + 1)
            else:
                most = min(most, math.floor(value) if word == "maximum" else math.ceil(value) - 1)
        if least > most:
            raise _refused(f"{where}: no number is between its limits")
        parts = [f'"-" ({_between(max(1, -most), -least)})'] if least < 0 else []
        return f"({_alternatives([*parts, *([_between(max(0, least), most)] if most >= 0 else [])])})"

    def _number(self, _said: Mapping[str, Any], _where: str) -> str:
        return "number"

    def _boolean(self, _said: Mapping[str, Any], _where: str) -> str:
        return "boolean"

    def _null(self, _said: Mapping[str, Any], _where: str) -> str:
        return "null"

    def _array(self, said: Mapping[str, Any], where: str) -> str:
        least, most = _counts(said, "minItems", "maxItems", where)
        first = said.get("prefixItems", [])
        if not isinstance(first, list):
            raise _refused(f"{where}/prefixItems: expected a list of schemas")
        if said.get("items", True) is False:
            most = min(len(first), len(first) if most is None else most)
        if most is not None and most < least:
            raise _refused(f"{where}: no array has its number of items")
        heads = [self.rule(each, f"{where}/prefixItems/{i}") for i, each in enumerate(first[:most])]
        rest = ""
        if most is None or most > len(heads):
            item = self.rule(said.get("items", True), f"{where}/items")
            left = None if most is None else most - len(heads)
            rest = self._items(item, max(0, least - len(heads)), left, begun=bool(heads))
        body = rest
        for place in range(len(heads) - 1, -1, -1):  # from the end: an item may be left out if all behind it are
            body = f"{_COMMA if place else ''}{heads[place]} {body}"
            body = self._add(body if place < least else f"({body})?")
        return f'"[" {body} "]"'

    def _items(self, item: str, least: int, most: int | None, *, begun: bool) -> str:
        if begun:
            return f"({_COMMA}{item}){_times(least, most)}"
        if most == 0:
            return '""'
        more = f"({_COMMA}{item}){_times(max(0, least - 1), None if most is None else most - 1)}"
        return f"{item} {more}" if least else f"({item} {more})?"

    def _object(self, said: Mapping[str, Any], where: str) -> str:
        known, needed = said.get("properties", {}), said.get("required", [])
        others = said.get("additionalProperties", True)
        if (
            not isinstance(known, Mapping)
            or not isinstance(needed, list)
            or not all(isinstance(n, str) for n in needed)
        ):
            raise _refused(f"{where}: expected properties by name, and required as a list of names")
        if unknown := [name for name in needed if name not in known]:
            if others is False:
                raise _refused(f"{where}: requires {unknown[0]!r} and allows no such property")
            known = {**known, **dict.fromkeys(unknown, others)}
        if not known:
            if others is False or ("properties" in said and "additionalProperties" not in said):
                return '"{}"'
            value = self.rule(others, f"{where}/additionalProperties")
            return f'"{{" (string ": " {value} ({_COMMA}string ": " {value})*)? "}}"'
        pairs = [
            _quoted(json.dumps(name, ensure_ascii=False) + ": ") + " " + self.rule(each, f"{where}/properties/{name}")
            for name, each in known.items()
        ]
        return f'"{{" {self._members(pairs, [name in needed for name in known])} "}}"'

    def _members(self, pairs: Sequence[str], needed: Sequence[bool]) -> str:
        """Pairs in order, those that are not needed or not; the comma goes before each but the first that comes."""
        behind = opening = '""'
        for pair, must in zip(reversed(pairs), reversed(needed), strict=True):
            begin = f"{pair} {behind}"
            opening = self._add(begin if must else f"{begin} | {opening}")
            behind = self._add(f"{_COMMA}{pair} {behind}" if must else f"({_COMMA}{pair})? {behind}")
        return opening


def _apart(parts: Sequence[Any]) -> bool:
    """Whether no value can keep to two of these, as far as their types, or the values that all list, tell."""
    if not all(isinstance(each, Mapping) for each in parts):
        return False
    seen: list[str] = []
    listed = all("const" in each or isinstance(each.get("enum"), list) for each in parts)
    for each in parts:
        if listed:
            seen += map(json.dumps, [each["const"]] if "const" in each else each["enum"])
        else:
            kinds = each.get("type")
            seen += map(json.dumps, kinds if isinstance(kinds, list) else [kinds])
    known = listed or "null" not in seen
    return known and len(set(seen)) == len(seen) and not {'"integer"', '"number"'} <= set(seen)


def _values(said: Mapping[str, Any], where: str) -> list[Any]:
    _only(said, {"const", "enum", "type"}, where)
    values = [said["const"]] if "const" in said else said["enum"]
    if not isinstance(values, list) or not values:
        raise _refused(f"{where}/enum: expected a list of values")
    if "const" in said and "enum" in said and said["const"] not in said["enum"]:
        raise _refused(f"{where}: const is none of enum")
    kinds = said.get("type")
    wanted = kinds if isinstance(kinds, list) else [kinds]
    kept = [value for value in values if kinds is None or any(_is(value, kind) for kind in wanted)]
    if not kept:
        raise _refused(f"{where}: none of its values has its type")
    return kept


def _is(value: Any, kind: Any) -> bool:
    types: dict[Any, tuple[type, ...]] = {
        "string": (str,),
        "integer": (int,),
        "number": (int, float),
        "boolean": (bool,),
        "null": (type(None),),
        "array": (list,),
        "object": (dict,),
    }
    return isinstance(value, types.get(kind, ())) and (kind == "boolean" or not isinstance(value, bool))


def _only(said: Mapping[str, Any], known: set[str], where: str) -> None:
    if others := sorted(set(said) - known):
        raise _refused(f"{where}: {others[0]}")


def _counts(said: Mapping[str, Any], least: str, most: str, where: str) -> tuple[int, int | None]:
    found: list[int | None] = []
    for word in (least, most):
        value = said.get(word)
        if value is not None and (type(value) is not int or not 0 <= value <= _MOST_REPEATED):
            raise _refused(f"{where}/{word}: expected a whole number up to {_MOST_REPEATED:,}")
        found.append(value)
    low, high = found[0] or 0, found[1]
    if high is not None and high < low:
        raise _refused(f"{where}: {most} is less than {least}")
    return low, high


def _times(least: int, most: int | None) -> str:
    if most is None:
        return "*" if least == 0 else f"{{{least},}}"
    return f"{{{least},{most}}}"


def _between(low: int, high: int) -> str:
    """Whole numbers from 0, without leading zeros."""
    parts = []
    while low <= high:
        end = min(high, 10 ** len(str(low)) - 1)
        parts.append(_same_length(str(low), str(end)))
        low = end + 1
    return _alternatives(parts)


def _same_length(low: str, high: str) -> str:
    if not low:
        return '""'
    rest = len(low) - 1
    tail = f" [0-9]{{{rest}}}" if rest else ""
    if low[1:] == "0" * rest and high[1:] == "9" * rest:
        return f"[{low[0]}-{high[0]}]{tail}"
    if low[0] == high[0]:
        return f'"{low[0]}" ({_same_length(low[1:], high[1:])})'
    parts = [f'"{low[0]}" ({_same_length(low[1:], "9" * rest)})']
    if int(high[0]) - int(low[0]) > 1:
        parts.append(f"[{int(low[0]) + 1}-{int(high[0]) - 1}]{tail}")
    return _alternatives([*parts, f'"{high[0]}" ({_same_length("0" * rest, high[1:])})'])


def _alternatives(parts: Iterable[str]) -> str:
    return " | ".join(parts)


def _quoted(text: str) -> str:
    """As literals, one behind the other: xgrammar writes a grammar anew before it reads it, a letter of Latin-1 as
    ``\\xdf``, and takes the hex digits behind that in the same literal for digits of it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    parted = _RUNS_ON.sub('" "', escaped)
    return f'"{parted}"'


def _refused(said: str) -> UserError:
    return UserError(f"response_format: this schema cannot be kept to ({said[:300]})")
