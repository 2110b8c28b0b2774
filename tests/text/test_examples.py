"""Makers of examples: the rules they drop by, and that none can lose a document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from treadle.core.errors import UserError
from treadle.text.accounting import Dropped
from treadle.text.dataset import Example
from treadle.text.docstrings import docstring_qa
from treadle.text.document import Document, document_id
from treadle.text.examples import chat, classification, group_of, load_maker, make_examples


def document(name: str, text: str = "", **fields: Any) -> Document:
    return Document(document_id("test", name, text.encode()), "test", name, text, fields=fields)


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_built_in_makers_come_in_by_the_door() -> None:
    for name, function in (("docstring_qa", docstring_qa), ("chat", chat), ("classification", classification)):
        assert load_maker(name)[0] is function
    with pytest.raises(UserError, match="did you mean 'chat'"):
        load_maker("chatt")


def test_a_maker_from_the_projects_folder(tmp_path: Path) -> None:
    (tmp_path / "shouting.py").write_text(
        "from treadle.text.dataset import Example\n"
        "def shout(documents, *, mark: str = '!'):\n"
        "    for document in documents:\n"
        "        yield Example((document.id,), text=document.text.upper() + mark, label='loud')\n"
    )
    maker, version = load_maker("shouting:shout", tmp_path)
    made = make_examples([document("a", "hello")], maker, settings={"mark": "?"})
    assert [example.text for example in made.examples] == ["HELLO?"]
    assert version
    with pytest.raises(UserError, match="no setting 'marks'; did you mean 'mark'"):
        make_examples([document("a", "hello")], maker, settings={"marks": "?"})


def test_a_maker_cannot_lose_a_document() -> None:
    def forgetful(documents: Sequence[Document]) -> Iterator[Example | Dropped]:
        yield Example((documents[0].id,), text="x", label="y")

    with pytest.raises(UserError, match="neither used nor dropped 1 documents"):
        make_examples([document("a", "x"), document("b", "y")], forgetful)


def test_a_maker_cannot_invent_a_document() -> None:
    def inventive(documents: Sequence[Document]) -> Iterator[Example | Dropped]:
        yield Example(("doc:" + "0" * 64,), text="x", label="y")

    with pytest.raises(UserError, match="expected ids it was given"):
        make_examples([document("a", "x")], inventive)


def test_chat_takes_conversations_and_pairs() -> None:
    whole = document("a", messages=[turn("user", "Hi"), turn("assistant", "Hello"), turn("user", "Bye")])
    pair = document("b", question="Why?", answer="Because.", language="en")
    made = make_examples([whole, pair], chat, settings={"system_prompt": "Be kind."})
    assert made.examples[0].messages == (turn("system", "Be kind."), turn("user", "Hi"), turn("assistant", "Hello"))
    assert made.examples[1].answer == "Because."
    assert made.examples[1].fields == {"language": "en", "locator": "b"}


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({}, "no_messages"),
        ({"messages": []}, "no_messages"),
        ({"messages": "Hi"}, "no_messages"),
        ({"messages": [["user", "Hi"]]}, "not_a_conversation"),
        ({"messages": [{"content": "Hi"}]}, "not_a_conversation"),
        ({"messages": [turn("robot", "42"), turn("assistant", "42")]}, "other_role"),
        ({"messages": [turn("user", "Hi"), turn("tool", "42"), turn("assistant", "42")]}, "bad_tool_call"),
        ({"messages": [turn("user", "Hi"), {"role": "assistant", "tool_calls": [{}]}]}, "bad_tool_call"),
        ({"messages": [turn("user", "Hi"), turn("assistant", "  ")]}, "empty_message"),
        ({"messages": [turn("user", "Hi"), {"role": "assistant", "content": ["Hello"]}]}, "empty_message"),
        ({"messages": [turn("user", "Hi")]}, "no_answer"),
        ({"messages": [turn("assistant", "Hello")]}, "no_answer"),
        ({"messages": [turn("user", "Hi"), turn("assistant", "x" * 200_001)]}, "too_long"),
        ({"messages": [turn("user", "Hi")] * 201}, "too_long"),
    ],
)
def test_chat_drops_by_named_rules(fields: dict[str, Any], rule: str) -> None:
    made = make_examples([document("a", **fields)], chat)
    assert made.accounting.dropped == {f"examples.{rule}": 1}
    assert (made.accounting.read, made.accounting.kept) == (1, 0)


def test_classification_drops_what_cannot_be_learned() -> None:
    documents = [document(f"good{n}", f"fine {n}", label="good", customer="c1") for n in range(6)]
    documents += [document(f"bad{n}", f"poor {n}", label=2, customer=f"c{n}") for n in range(5)]
    documents += [document("rare", "odd", label="odd"), document("none", "what"), document("empty", " ", label="good")]
    made = make_examples(documents, classification, by="customer")
    assert made.accounting.dropped == {"examples.rare_label": 1, "examples.no_label": 1, "examples.no_text": 1}
    assert {example.label for example in made.examples} == {"good", "2"}
    assert {example.group for example in made.examples} == {"c0", "c1", "c2", "c3", "c4"}


def test_groups() -> None:
    by_module = document("json.decoder.x", module="json.decoder")
    assert group_of(by_module, "module") == "json"
    assert group_of(by_module, "customer") == by_module.id
    assert group_of(by_module, None) == by_module.id
    person = Document("doc:" + "1" * 64, "s", "l", "t", subject="k3:abc")
    assert group_of(person, "subject") == "k3:abc"


def test_chat_keeps_what_was_liked_less() -> None:
    asked, good, bad = turn("user", "Hi?"), turn("assistant", "Hello."), turn("assistant", "What?")
    [made] = make_examples([document("a", messages=[asked, good], rejected=[asked, bad])], chat).examples
    assert made.rejected == (asked, bad)
    for broken in ([asked], [turn("king", "x")], "What?", [asked, turn("assistant", " ")]):
        [made] = make_examples([document("a", messages=[asked, good], rejected=broken)], chat).examples
        assert made.rejected == ()


def test_a_field_to_split_by_that_nobody_has() -> None:
    pairs = [document(f"d{n}", question=f"Who is {n}?", answer="Me.", grp=f"g{n % 2}") for n in range(6)]
    with pytest.raises(UserError, match=r"split\.by: no example has a field 'groop'; did you mean 'grp'\?"):
        make_examples(pairs, chat, by="groop")
    with pytest.raises(UserError, match="no example has a field 'zzz'; known: answer, grp, question"):
        make_examples(pairs, chat, by="zzz")
    with pytest.raises(UserError, match="no example says whose it is; name the column with `fields: "):
        make_examples(pairs, chat, by="subject")
    some = [*pairs, document("d7", question="And now?", answer="Not me.")]
    made = make_examples(some, chat, by="grp")
    assert made.accounting.notes == {"split.no_group": 1}
    assert {example.group for example in made.examples} == {"g0", "g1", some[6].id}
    assert make_examples(pairs, chat, by="grp").accounting.notes == {}
    assert make_examples(pairs, chat).accounting.notes == {}
