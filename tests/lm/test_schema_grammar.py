"""Schemas as grammars: what a real engine makes of them keeps to the schema; what cannot be put so is named."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from treadle.core.errors import UserError
from treadle.lm.engine import GenerateRequest
from treadle.lm.engines import BlockingEngine
from treadle.lm.schema_grammar import _between, grammar_of

NODE = {
    "type": "object",
    "properties": {"v": {"type": "boolean"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    "required": ["v"],
}
KEPT: list[Any] = [
    {"type": "object", "properties": {"a": {"const": {"b": [1, None, '\u00e9"\n']}}}, "required": ["a"]},
    {"$ref": "#/$defs/node", "$defs": {"node": NODE}},
    {"type": "array", "items": {"type": "integer", "minimum": -13, "maximum": 1207}, "minItems": 2, "maxItems": 4},
    {
        "type": "array",
        "prefixItems": [{"type": "boolean"}, {"enum": ["x", 3]}],
        "items": {"type": "null"},
        "maxItems": 3,
    },
    {"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": False, "minItems": 1},
    {"properties": {"a": {"type": "boolean"}, "b": {"enum": [1, 2]}, "c": {"type": "null"}}, "required": ["c"]},
    {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}}, "additionalProperties": False},
    {"type": "object", "additionalProperties": {"type": "boolean"}},
    {"type": ["integer", "null"], "exclusiveMinimum": 8, "exclusiveMaximum": 11.5},
    {"type": "string", "minLength": 2, "maxLength": 5},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "uuid"},
    {"type": "number"},
    {"oneOf": [{"type": "integer"}, {"const": "none", "type": "string"}, {"type": "boolean"}][::2]},
    {"allOf": [{"type": "boolean", "title": "Only one"}]},
    {"type": "object", "required": ["x"]},
    {"enum": ["a", 1, None], "type": ["string", "null"]},
]


def test_what_an_engine_makes_of_a_grammar_keeps_to_the_schema(tiny_release: Path) -> None:
    pytest.importorskip("openvino_genai")
    asked = [
        GenerateRequest(f"{i}-{n}", (5, 6, 7 + n), 160, float(n > 0), seed=n, schema=json.dumps(schema))
        for i, schema in enumerate(KEPT)
        for n in range(4)
    ]
    with BlockingEngine("openvino", tiny_release, threads=1, settings={"precision": "f32"}) as engine:
        answers = engine.generate_all(asked)
    whole = 0
    for place, answer in enumerate(answers):
        try:
            found = json.loads(answer)
        except ValueError:  # cut at its length
            continue
        whole += 1
        jsonschema.validate(found, KEPT[place // 4], format_checker=jsonschema.FormatChecker())
    assert whole > 0.8 * len(answers)


def test_letters_of_any_script_come_as_they_are_written(tiny_release: Path) -> None:
    pytest.importorskip("openvino_genai")
    tired = {"type": "object", "properties": {"Müdigkeit": {"enum": ["Süden"]}}, "required": ["Müdigkeit"]}
    parts: dict[str, Any] = {"größe": {"const": "année"}, "geändert": tired, "été": {"const": {"ße": ["ïd"]}}}
    whole = {"größe": "année", "geändert": {"Müdigkeit": "Süden"}, "été": {"ße": ["ïd"]}}
    texts = [
        "".join(f"{chr(n)}{digit}" for n in range(first, first + 43)) for first in (127, 170, 213) for digit in "a0"
    ]
    texts.append('āb€b\ufffdb😀b\\xdfb\\é"éb\r\n\t\x01b')
    schemas = [{"type": "object", "properties": parts, "required": list(parts)}, *({"const": text} for text in texts)]
    asked = [GenerateRequest(str(n), (5, 6, 7), 200, schema=json.dumps(schema)) for n, schema in enumerate(schemas)]
    with BlockingEngine("openvino", tiny_release, threads=1, settings={"precision": "f32"}) as engine:
        answers = engine.generate_all(asked)
    assert answers == [json.dumps(each, ensure_ascii=False) for each in (whole, *texts)]


def test_no_property_comes_where_properties_are_listed_and_none_is(tiny_release: Path) -> None:
    pytest.importorskip("openvino_genai")
    none = {"type": "object", "properties": {}}
    call = {"type": "object", "properties": {"name": {"const": "now"}, "arguments": none}, "required": ["name"]}
    free = [{"type": "object"}, {**none, "additionalProperties": {"type": "boolean"}}]
    asked = [
        GenerateRequest(f"{i}-{n}", (5, 6, 7 + n), 60, float(n > 0), seed=n, schema=json.dumps(schema))
        for i, schema in enumerate([none, call, *free])
        for n in range(6)
    ]
    with BlockingEngine("openvino", tiny_release, threads=1, settings={"precision": "f32"}) as engine:
        answers = engine.generate_all(asked)
    assert set(answers[:6]) == {"{}"}
    assert set(answers[6:12]) <= {'{"name": "now"}', '{"name": "now", "arguments": {}}'}
    assert set(answers[12:18]) != {"{}"} != set(answers[18:])


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "string", "pattern": "a"}, "#: pattern"),
        (
            {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}},
            "#/properties/a: uniqueItems",
        ),
        ({"type": "colour"}, 'type "colour"'),
        ({"$ref": "#/$defs/none"}, "leads nowhere"),
        ({"$ref": "https://example.com/x"}, "not of this schema"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "itself"),
        ({"allOf": [{"type": "string"}, {"maxLength": 3}]}, "allOf of several"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"not": {}}, "#: not"),
        ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "before anything is written"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no number"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "less than"),
        ({"type": "string", "maxLength": 10**9}, "up to 2,000"),
        ({"type": "object", "required": ["x"], "additionalProperties": False}, "allows no such property"),
        ({"enum": []}, "list of values"),
        ({"type": "string", "format": "email"}, "known are date"),
        ({"anyOf": []}, "list of schemas"),
    ],
)
def test_what_cannot_be_kept_to_is_named(schema: Any, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        grammar_of(json.dumps(schema))


def test_hostile_schemas_are_refused_in_no_time() -> None:
    deep: Any = {"type": "null"}
    for _ in range(400):
        deep = {"type": "array", "items": deep}
    wide = {"type": "object", "properties": {f"p{i}": {"enum": [i]} for i in range(5000)}}
    long = {"enum": ["x" * 500_000]}
    begun = time.perf_counter()
    for schema in (wide, long):
        with pytest.raises(UserError, match="too large"):
            grammar_of(json.dumps(schema))
    with pytest.raises(UserError, match="nested too deeply"):
        grammar_of(json.dumps(deep))
    assert time.perf_counter() - begun < 2


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 9), (7, 7), (3, 128), (99, 1000), (1207, 1399), (90, 110)])
def test_ranges_of_numbers_are_exact(low: int, high: int) -> None:
    pattern = re.compile(f"(?:{_between(low, high)})".replace('"', "").replace(" ", ""))
    for number in range(1500):
        assert bool(pattern.fullmatch(str(number))) == (low <= number <= high), number
