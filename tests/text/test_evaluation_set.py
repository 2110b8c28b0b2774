"""Evaluation sets from outside: what gives them away goes, under their name, and is quoted in short."""

from __future__ import annotations

import pytest

from treadle.text.dataset import Example
from treadle.text.document import Document
from treadle.text.evaluation_set import keep_apart, leaks, set_of_documents, set_of_examples

LONG = "a train leaves the station at noon and meets another that left two hours before it did on the same track"


def document(name: str, text: str = "", **fields: object) -> Document:
    return Document(f"doc:{name}", "evals", name, text, fields=fields)


def chat(name: str, *said: str) -> Example:
    roles = ("user", "assistant") * len(said)
    messages = tuple({"role": role, "content": text} for role, text in zip(roles, said, strict=False))
    return Example((f"doc:{name}",), messages=messages, group=name)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (LONG, "same_text"),
        (LONG.replace("noon", "midnight").replace("a train", "The train"), "near_text"),
        (
            "Some words before. " + " ".join(LONG.split()[3:17]) + " and then it all went another way entirely",
            "shared_words",
        ),
        ("Well: how many eggs are left over? Who knows, nobody counted all of them yesterday.", "holds_text"),
        ("a train leaves the station in the evening", ""),
        ("42", ""),
    ],
)
def test_rules(text: str, rule: str) -> None:
    tests = set_of_documents(
        "sums", [document("1", LONG), document("2", "How many eggs are left over?"), document("3", "42")]
    )
    found = leaks(tests, [Example(("doc:a",), text=text, label="x"), chat("b", "What is it?", text, "Thanks.", "Yes.")])
    assert [each for each, _ in found.values()] == ([rule, rule] if rule else [])


def test_a_short_answer_gives_nothing_away_and_a_question_does() -> None:
    asked = {"messages": [{"role": "user", "content": LONG}, {"role": "assistant", "content": "42"}]}
    tests = set_of_documents("sums", [document("1", "ignored", **asked)])
    found = leaks(tests, [chat("a", "What is six times seven?", "42"), chat("b", f"Tell me: {LONG}", "I cannot.")])
    assert found == {1: ("near_text", 0)}
    assert len(tests) == 1


def test_every_set_is_reported_and_the_test_split_stays() -> None:
    mail = f"Write to jane.roe@example.org. {LONG}"
    sets = [
        set_of_documents("sums", [document("1", mail), document("2", "nobody has ever said these words here")]),
        set_of_examples("earlier-test", [Example(("doc:e",), text=LONG), Example(("doc:f",), text="x")]),
    ]
    splits = {
        "train": [Example(("doc:1",), text=mail), Example(("doc:2",), text="something else that is fine")],
        "validation": [Example(("doc:3",), text=LONG)],
        "test": [Example(("doc:4",), text=LONG)],
    }
    apart = keep_apart(splits, sets)
    assert {name: [each.documents[0] for each in found] for name, found in apart.splits.items()} == {
        "train": ["doc:2"], "validation": [], "test": ["doc:4"],
    }  # fmt: skip
    assert [drop.rule for drop in apart.dropped] == ["decontaminate.sums.same_text", "decontaminate.sums.shared_words"]
    assert apart.met == {"sums": 1, "earlier-test": 1}
    reason = apart.dropped[0].reason
    assert "train has the same words as an item of sums" in reason
    assert "jane.roe" not in reason
    assert len(reason) < 120
