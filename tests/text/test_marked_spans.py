"""Spans as people write them down, and the examples that come of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from treadle.core.errors import UserError
from treadle.lm.word_tags import spans_of, tags_of, words
from treadle.text.document import Document, document_id
from treadle.text.examples import make_examples
from treadle.text.row_mapping import Fields, RowMapping
from treadle.text.rows import Row
from treadle.text.spans import BadSpansError, from_list, from_tags, label_of, read_label
from treadle.text.tagged import tagging

TOKENS = ["Ann", "Lee", "saw", "Paris", "Rome", "."]
LONG = [(0, 7, "PER"), (12, 17, "LOC"), (18, 22, "LOC")]


def document(text: str, **fields: Any) -> Document:
    return Document(document_id("test", text, str(fields).encode()), "test", "x", text, fields=fields)


@pytest.mark.parametrize(
    "tags",
    [
        ["B-PER", "I-PER", "O", "B-LOC", "B-LOC", "O"],  # IOB2
        ["I-PER", "I-PER", "O", "I-LOC", "B-LOC", "O"],  # IOB1
        ["B-PER", "L-PER", "O", "U-LOC", "U-LOC", "O"],  # BILOU
        ["B-PER", "E-PER", "O", "S-LOC", "S-LOC", "O"],  # BIOES
    ],
)
def test_every_way_of_tagging_says_the_same_spans(tags: list[str]) -> None:
    assert from_tags(TOKENS, tags) == ("Ann Lee saw Paris Rome .", LONG)
    names = ["O", *sorted(set(tags) - {"O"})]
    assert from_tags(TOKENS, [names.index(tag) for tag in tags], names)[1] == LONG


def test_bare_types_and_types_with_a_dash() -> None:
    assert from_tags(["a", "b", "c"], ["X", "X", "work-of-art"])[1] == [(0, 3, "X"), (4, 5, "work-of-art")]
    assert from_tags(["a", "b"], ["B-X", "I-Y"])[1] == [(0, 1, "X"), (2, 3, "Y")]


@pytest.mark.parametrize(
    ("tokens", "tags", "rule"),
    [
        (["a"], ["O", "O"], "tags_do_not_fit"),
        (["a", 1], ["O", "O"], "bad_tokens"),
        (["a"], [3], "unknown_tag"),
        (["a"], [-1], "unknown_tag"),
        (["a"], [None], "unknown_tag"),
        (["a"], [True], "unknown_tag"),
    ],
)
def test_tags_that_do_not_fit_are_refused_by_name(tokens: list[Any], tags: list[Any], rule: str) -> None:
    with pytest.raises(BadSpansError) as raised:
        from_tags(tokens, tags, ["O"])
    assert raised.value.rule == rule


def test_spans_under_their_usual_names() -> None:
    text = "Ann saw Paris"
    wanted = [(0, 3, "PER"), (8, 13, "LOC")]
    ways: list[Any] = [
        [[8, 13, "LOC"], [0, 3, "PER"]],
        [{"start": 0, "end": 3, "label": "PER"}, {"start": 8, "end": 13, "label": "LOC", "text": "Paris"}],
        [
            {"entity_type": kind, "entity_value": text[start:end], "start_position": start, "end_position": end}
            for start, end, kind in wanted
        ],
    ]
    assert [from_list(text, way) for way in ways] == [wanted] * 3


@pytest.mark.parametrize(
    ("spans", "rule"),
    [
        ("no list", "bad_span"),
        ([[0, 3]], "bad_span"),
        ([[0, "3", "X"]], "bad_span"),
        ([[0, True, "X"]], "bad_span"),
        ([{"start": 0, "end": 3}], "bad_span"),
        ([[0, 99, "X"]], "outside_text"),
        ([[3, 3, "X"]], "outside_text"),
        ([[3, 4, "X"]], "outside_text"),
        ([{"start": 0, "end": 3, "type": "X", "text": "Bob"}], "other_text"),
        ([[0, 5, "X"], [4, 7, "Y"]], "overlapping_spans"),
    ],
)
def test_bad_spans_are_dropped_by_a_named_rule(spans: Any, rule: str) -> None:
    made = make_examples([document("Ann saw Paris", spans=spans)], tagging)
    assert made.examples == ()
    assert set(made.accounting.dropped) == {f"examples.{rule}"}


def test_examples_of_rows_as_they_come() -> None:
    rows: list[dict[str, Any]] = [
        {"tokens": TOKENS, "ner_tags": [1, 2, 0, 3, 3, 0], "id": "7"},
        {"text": "Ann saw Paris", "entities": [{"start": 0, "end": 3, "label": "PER"}]},
        {"text": "nobody", "spans": []},
        {"text": "Ann again", "label": '[[0,3,"PER"]]'},
        {"text": "no marks"},
    ]
    mapping = RowMapping(Fields(), keyed=str)
    documents = [
        mapping.document(Row(0, place, json.dumps(row).encode(), row), "test", "f", {})
        for place, row in enumerate(rows)
    ]
    assert documents[0].text == " ".join(TOKENS)
    made = make_examples(documents, tagging, settings={"names": ["O", "B-PER", "I-PER", "B-LOC"]})
    assert [(each.text, each.label) for each in made.examples] == [
        ("Ann Lee saw Paris Rome .", label_of(LONG)),
        ("Ann saw Paris", '[[0,3,"PER"]]'),
        ("nobody", "[]"),
        ("Ann again", '[[0,3,"PER"]]'),
    ]
    assert set(made.accounting.dropped) == {"examples.no_spans"}


def test_labels_are_read_as_written_or_refused() -> None:
    assert read_label(label_of(LONG[::-1])) == LONG
    for label in ("nonsense", "{}3", "[[1]]", "[1]"):
        with pytest.raises(UserError, match="no list of spans"):
            read_label(label)


def test_words_carry_spans_whatever_the_script() -> None:
    for text in ("Dr. Ann O'Hara flew to New York-Newark (USA).", "王小明住在北京", "Привет, Анна!"):
        places = words(text)
        assert "".join(text[start:end] for start, end in places) == "".join(text.split())
        for i in range(len(places)):
            spans = [(places[i][0], places[min(i + 2, len(places) - 1)][1], "A-B")]
            assert spans_of(places, tags_of(places, spans)) == spans
    assert len(words("王小明")) == 3
    assert tags_of(words("10km away"), [(0, 2, "N")]) == ["B-N", "O"]  # of a part of a word, the word
    assert spans_of(words("a b c"), ["I-X", "I-Y", "I-Y"]) == [(0, 1, "X"), (2, 5, "Y")]
