"""Pairs of texts: which columns make one, what is dropped, and by which rule."""

from __future__ import annotations

import json
from typing import Any

import pytest

from treadle.text.document import Document
from treadle.text.examples import make_examples
from treadle.text.row_mapping import PAIRS, Fields, RowMapping
from treadle.text.rows import Row
from treadle.text.text_pairs import NEGATIVES, text_pairs


def documents(*rows: dict[str, Any], fields: Fields | None = None) -> list[Document]:
    mapping = RowMapping(fields or Fields(), keyed=str)
    return [
        mapping.document(Row(0, place, json.dumps(row).encode(), row), "test", "f", {})
        for place, row in enumerate(rows)
    ]


@pytest.mark.parametrize("names", PAIRS)
def test_columns_as_the_hub_has_them(names: tuple[str, str]) -> None:
    found = documents({names[0]: " one text ", names[1]: "another"})
    (example,) = make_examples(found, text_pairs).examples
    assert (example.question, example.answer) == ("one text", "another")
    assert example.documents == (found[0].id,)
    assert NEGATIVES not in example.fields


def test_a_question_and_its_answer_are_a_pair() -> None:
    found = documents({"q": "Where?", "a": "Here."}, fields=Fields(prompt="q", response="a"))
    (example,) = make_examples(found, text_pairs).examples
    assert (example.question, example.answer) == ("Where?", "Here.")


def test_wrong_ones_come_along_once_each() -> None:
    row = {"anchor": "a", "positive": "b", "negative": "c ", "hard_negatives": ["d", "c", "", None]}
    (example,) = make_examples(documents(row), text_pairs).examples
    assert example.fields[NEGATIVES] == ["c", "d"]


def test_what_makes_no_pair_is_dropped_by_name() -> None:
    turns = [{"role": role, "content": role} for role in ("user", "assistant", "user", "assistant")]
    made = make_examples(
        documents(
            {"text": "alone"},
            {"messages": turns},
            {"anchor": "a", "positive": "  "},
            {"sentence1": "a", "sentence2": "b", "score": 0.4},
            {"sentence1": "a", "sentence2": "b", "score": 0.6},
            {"sentence1": "a", "sentence2": "b", "label": 0},
            {"anchor": "c", "positive": "d", "label": "a topic"},
        ),
        text_pairs,
    )
    assert [(each.question, each.answer) for each in made.examples] == [("a", "b"), ("c", "d")]
    dropped = {name.rpartition(".")[2]: count for name, count in made.accounting.dropped.items()}
    assert dropped == {"no_pair": 2, "empty_text": 1, "not_together": 2}
