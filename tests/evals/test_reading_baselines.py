"""Baselines and scores of questions about a text."""

from __future__ import annotations

import pytest

from treadle.core.errors import UserError
from treadle.evals.answers import exact_match, token_f1
from treadle.evals.item import Item, Output
from treadle.evals.runner import items_from
from treadle.evals.tasks.qa import first_sentence, sentences, similar_sentence
from treadle.text.dataset import Example

TEXT = "Ann lives in Paris (in the north). Bob met her in Rome! It cost 3.50 dollars"


def item(question: str, reference: str, **fields: object) -> Item:
    asked = ({"role": "system", "content": TEXT}, {"role": "user", "content": question})
    return Item("i", messages=asked, reference=reference, fields=fields)


def test_baselines_answer_with_sentences() -> None:
    assert sentences(TEXT) == ["Ann lives in Paris (in the north).", "Bob met her in Rome!", "It cost 3.50 dollars"]
    assert sentences("") == [""]
    items = [item("What did it cost?", "3.50 dollars"), item("Who met her?", "Bob")]
    assert [each.text for each in similar_sentence([], items, seed=0)] == [sentences(TEXT)[2], sentences(TEXT)[1]]
    assert {each.text for each in first_sentence([], items, seed=0)} == {sentences(TEXT)[0]}


def test_the_best_of_several_references_counts() -> None:
    items = [item("Who?", "Bob", references=["Bob", "the man"]), item("Who?", "Bob"), item("Who?", "")]
    outputs = [Output(text="The man."), Output(text="a man, Bob"), Output(text="")]
    assert exact_match(items, outputs) == [1.0, 0.0, 1.0]
    assert token_f1(items, outputs) == pytest.approx([1.0, 2 / 3, 1.0])


def test_no_answer_is_a_reference_only_where_the_data_says_so() -> None:
    messages = (
        {"role": "system", "content": TEXT},
        {"role": "user", "content": "When?"},
        {"role": "assistant", "content": ""},
    )
    assert items_from([Example(("d",), messages=messages, fields={"start": None})])[0].reference == ""
    with pytest.raises(UserError, match="no reference answer"):
        items_from([Example(("d",), messages=messages)])
