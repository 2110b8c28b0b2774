"""Translations and summaries out of rows with the ecosystem's column names, and nothing lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from treadle.core.errors import UserError
from treadle.text.document import Document
from treadle.text.examples import Made, load_maker, make_examples
from treadle.text.row_mapping import Fields, RowMapping, UnusableRowError
from treadle.text.rows import Row


def made(name: str, *rows: dict[str, Any], **settings: Any) -> Made:
    documents = [
        Document(f"doc:{place}", "rows", f"rows.jsonl:{place}", row.pop("", "a title"), fields=row)
        for place, row in enumerate(rows)
    ]
    maker, _ = load_maker(name)
    return make_examples(documents, maker, name=name, settings=settings)


def said(found: Made) -> list[tuple[str, str]]:
    return [(example.question, example.answer) for example in found.examples]


def test_translations_by_their_usual_names() -> None:
    rows = (
        {"source": "un", "target": "one"},
        {"src": "deux", "tgt": "two"},
        {"": "trois", "target": "three"},  # collected with fields: {text: source}
        {"messages": [{"role": "user", "content": "quatre"}, {"role": "assistant", "content": "four"}]},
    )
    assert said(made("translation", *rows)) == [("un", "one"), ("deux", "two"), ("trois", "three"), ("quatre", "four")]


def test_translations_by_language_and_a_prefix() -> None:
    rows = ({"translation": {"en": "one", "fr": "un"}, "level": "easy"}, {"en": "two", "fr": "deux"})
    found = made("translation", *rows, languages=["fr", "en"], prefix="translate French to English: ")
    assert said(found) == [("un", "one"), ("deux", "two")]
    first = found.examples[0]
    assert first.messages[0] == {"role": "system", "content": "translate French to English: "}
    assert first.fields == {"level": "easy", "locator": "rows.jsonl:0"}
    assert said(made("translation", {"": "un", "en": "one"}, languages=["fr", "en"])) == [("un", "one")]
    with pytest.raises(UserError, match="has the languages en, fr; say from which to which"):
        made("translation", {"translation": {"en": "one", "fr": "un"}})
    with pytest.raises(UserError, match="expected from which to which"):
        made("translation", {"en": "one"}, languages=["en"])


def test_summaries_by_their_usual_names() -> None:
    rows = (
        {"document": "long", "summary": "short"},
        {"article": "news", "highlights": "new"},
        {"": "a text", "summary": "one"},
        {"source": ["First.", "Second."], "target": ["Both.", "All."]},
    )
    expected = [("long", "short"), ("news", "new"), ("a text", "one"), ("First. Second.", "Both.")]
    assert said(made("summary", *rows)) == expected


@pytest.mark.parametrize(
    ("maker", "row", "text"),
    [
        ("translation", {"source": "un", "target": "one"}, "un\n\none"),
        ("translation", {"src": "un", "tgt": "one"}, "un\n\none"),
        ("translation", {"translation": {"fr": "un", "en": "one"}}, "un\n\none"),
        ("summary", {"document": "un", "summary": "one"}, "un\n\none"),
        ("summary", {"article": "un", "highlights": ["one"]}, "un\n\none"),
        ("summary", {"text": "un", "summary": "one"}, "un"),
    ],
)
def test_rows_as_they_are_documented_need_no_fields(maker: str, row: dict[str, Any], text: str) -> None:
    mapping = RowMapping(Fields(), keyed=str)
    document = mapping.document(Row(0, 1, json.dumps(row).encode(), row), "test", "f", {})
    assert document.text == text
    settings = {"languages": ["fr", "en"]} if "translation" in row else {}
    found = make_examples([document], load_maker(maker)[0], name=maker, settings=settings)
    assert said(found) == [("un", "one")]


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"source": "a great film", "target": "positive"}, {"label": "target"}),
        ({"source": "alice@example.com", "target": "hello"}, {"subject": "source"}),
        ({"title": "a great film", "body": "positive"}, {"label": "body"}),
        ({"source": "crm", "target": "web", "notes": "the long text that it is about"}, {}),
    ],
)
def test_what_has_another_meaning_is_no_text(row: dict[str, Any], fields: dict[str, Any]) -> None:
    with pytest.raises(UnusableRowError, match="no text among"):
        RowMapping(Fields(**fields), keyed=str).document(Row(0, 1, b"{}", row), "test", "f", {})


def test_what_is_no_pair_is_dropped_by_name() -> None:
    talk = [{"role": role, "content": role} for role in ("user", "assistant", "user", "assistant")]
    rows = (
        {"source": "one"},
        {"source": "one", "target": " "},
        {"source": "One", "target": "One"},
        {"source": "o" * 50, "target": "one"},
        {"messages": talk},
        {"source": "un", "target": "one"},
    )
    found = made("translation", *rows, max_characters=40)
    assert said(found) == [("un", "one")]
    assert dict(found.accounting.dropped) == {
        "examples.no_pair": 2,
        "examples.empty": 1,
        "examples.same": 1,
        "examples.too_long": 1,
    }
