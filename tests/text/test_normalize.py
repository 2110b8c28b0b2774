"""One form, reached in one go."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.text.document import Document
from treadle.text.normalize import normalize, normalized

awkward = st.text(
    st.sampled_from("a \t\n\r\x0b\x0c\x85\u2028\u00a0\u3000\ufeff\x00\x1b\u0301\u0327e\u00e9\u1100\u1161\u200d\u212b")
    | st.characters(exclude_categories=["Cs"]),
    max_size=60,
)


@given(awkward)
def test_twice_is_once(text: str) -> None:
    assert normalized(normalized(text)) == normalized(text)


@given(awkward)
def test_the_form_is_what_it_says(text: str) -> None:
    result = normalized(text)
    assert unicodedata.is_normalized("NFC", result)
    assert all(line == line.rstrip() for line in result.split("\n"))
    assert not any(unicodedata.category(character) == "Cc" and character not in "\n\t" for character in result)
    assert result == result.strip("\n")


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1))
def test_plain_words_stay(text: str) -> None:
    assert normalized(f"  {text} and {text}") == f"  {text} and {text}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("e\u0301", "\u00e9"),
        ("a  \n\t b\t\n", "a\n\t b"),
        ("\ufeffx\x00\x07y\u200dz", "xy\u200dz"),
        ("\n\n  code\n    more\n\n", "  code\n    more"),
        ("", ""),
    ],
)
def test_examples(text: str, expected: str) -> None:
    assert normalized(text) == expected


def test_naughty_strings(shared_data: Path) -> None:
    for text in json.loads((shared_data / "8-nasty-inputs" / "blns.json").read_bytes()):
        assert normalized(normalized(text)) == normalized(text)


def test_marks_without_end_are_not_waited_for() -> None:
    text = "a" + "\u0301" * 300_000 + "\u0327" * 300_000
    assert normalized(text + "\r\n") == text


def test_fields_are_normalized_and_the_count_is_noted() -> None:
    first = Document("doc:1", "t", "1", "fine", fields={"messages": [{"role": "user", "content": "a\r\n"}], "n": 1})
    second = Document("doc:2", "t", "2", "fine", fields={"n": [1.5, None]})
    *changed, note = normalize([first, second])
    assert getattr(changed[0], "fields", None) == {"messages": [{"role": "user", "content": "a"}], "n": 1}
    assert changed[1] is second
    assert getattr(note, "count", None) == 1
