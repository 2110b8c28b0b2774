"""Questions about a text: what is taken, what is dropped, and by which rule."""

from __future__ import annotations

import json
from typing import Any

import pytest

from treadle.text.dataset import Example
from treadle.text.decontaminate import decontaminate
from treadle.text.document import Document, document_id
from treadle.text.examples import make_examples
from treadle.text.questions import questions
from treadle.text.row_mapping import Fields, RowMapping
from treadle.text.rows import Row

TEXT = "Ann lives in Paris. Bob met Ann in Rome."


def document(**fields: Any) -> Document:
    return Document(document_id("test", "x", str(fields).encode()), "test", "x", "t", fields=fields)


def test_answers_as_squad_has_them_and_as_the_hub_has_them() -> None:
    rows: list[dict[str, Any]] = [
        {"context": TEXT, "question": "Where?", "answers": [{"text": "Paris", "answer_start": 13}], "title": "A"},
        {"context": TEXT, "question": "Who?", "answers": {"text": ["Ann", "Bob"], "answer_start": [28, 20]}},
        {"context": TEXT, "question": "When?", "answers": {"text": [], "answer_start": []}},
    ]
    mapping = RowMapping(Fields(), keyed=str)
    documents = [
        mapping.document(Row(0, place, json.dumps(row).encode(), row), "test", "f", {})
        for place, row in enumerate(rows)
    ]
    assert len({each.text for each in documents}) == 3  # so that none is taken for another's duplicate
    where, who, when = make_examples(documents, questions).examples
    assert [message["role"] for message in where.messages] == ["system", "user", "assistant"]
    assert (where.messages[0]["content"], where.question, where.answer) == (TEXT, "Where?", "Paris")
    assert where.fields == {"title": "A", "start": 13, "locator": "f:0"}
    assert (who.answer, who.fields["start"], who.fields["references"]) == ("Ann", 28, ["Ann", "Bob"])
    assert (when.answer, when.fields["start"]) == ("", None)


def test_an_answer_that_moved_is_found_nearest_to_where_it_was() -> None:
    asked = {"context": TEXT, "question": "Who?", "answers": [{"text": "Ann", "answer_start": 26}]}
    corrected = {"messages": [{"role": r, "content": c} for r, c in zip(
        ("system", "user", "assistant"), (TEXT, "Who?", "Bob"), strict=True
    )]}  # fmt: skip
    first, second = make_examples([document(**asked), document(**corrected)], questions).examples
    assert first.fields["start"] == 28
    assert (second.answer, second.fields["start"]) == ("Bob", 20)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"question": "Who?", "answers": []}, "no_question"),
        ({"context": " ", "question": "Who?", "answers": []}, "no_question"),
        ({"context": TEXT, "question": "Who?"}, "no_answers"),
        ({"context": TEXT, "question": "Who?", "answers": [{"text": "Ann"}]}, "no_answers"),
        ({"context": TEXT, "question": "Who?", "answers": {"text": ["Ann"], "answer_start": []}}, "no_answers"),
        ({"context": TEXT, "question": "Who?", "answers": [{"text": "", "answer_start": 0}]}, "no_answers"),
        ({"context": TEXT, "question": "Who?", "answers": [{"text": "Eve", "answer_start": 0}]}, "not_in_context"),
        ({"messages": [{"role": "user", "content": "Who?"}]}, "no_question"),
    ],
)
def test_what_cannot_be_used_is_dropped_by_a_named_rule(fields: dict[str, Any], rule: str) -> None:
    made = make_examples([document(**fields)], questions)
    assert made.accounting.dropped == {f"examples.{rule}": 1}


def test_short_answers_may_recur_but_a_text_may_not_be_on_two_sides() -> None:
    def asked(context: str, question: str, answer: str) -> Example:
        told = (("system", context), ("user", question), ("assistant", answer))
        messages = tuple({"role": role, "content": content} for role, content in told)
        return Example((f"doc:{context}",), messages=messages, fields={"start": context.find(answer)})

    test = [asked("Ann lives in Paris with three cats and a very old dog.", "Where does Ann live?", "Paris")]
    other = asked("The games of 1924 were held in Paris.", "Where were they held?", "Paris")
    same = asked("Ann lives in Paris with three cats and a very old dog.", "Where does she live?", "Paris")
    assert decontaminate({"test": test, "train": [other, same]}).splits["train"] == [other]
