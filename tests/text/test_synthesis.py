"""What a teacher is asked, how its answers are read, and what of them is no good."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from treadle.core.errors import UserError
from treadle.text.accounting import Dropped
from treadle.text.dataset import Example
from treadle.text.document import Document
from treadle.text.labeled_reply import LONGEST, Malformed, read_reply
from treadle.text.prompt_template import PromptTemplate, read_template, shipped_template
from treadle.text.synthesis import Asked, Kind, Material, Wanted, example_of, form_of, plan, read_answer, with_rejected

PAIR = ("Question", "Answer")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Question: a\nAnswer: b", [("a", "b")]),
        ("\nQuestion: a?\r\nAnswer: b\nand c\n\nQuestion: d?\nAnswer: e\n", [("a?", "b\nand c"), ("d?", "e")]),
        ("Question: a, as in `Answer: x`?\nAnswer: b", [("a, as in `Answer: x`?", "b")]),
        ("", ["the reply is empty"]),
        ("Here you are", ["it does not begin with `Question:`"]),
        ("Well.\nQuestion: a\nAnswer: b", ["it does not begin with `Question:`", ("a", "b")]),
        ("question: a\nanswer: b", ["it does not begin with `Question:`"]),
        ("Question: a\nQuestion: b\nAnswer: c", ["a `Question:` without `Answer:`", ("b", "c")]),
        ("Question:\nAnswer: b", ["`Question:` has no words"]),
        ("Question: a\nAnswer: ", ["`Answer:` has no words"]),
        ("Question: a\nAnswer: b\nAnswer: c", ["more than one `Answer:` for a `Question:`"]),
    ],
)
def test_replies_are_read_strictly(text: str, found: list[object]) -> None:
    pieces = read_reply(text, PAIR)
    assert [piece.reason if isinstance(piece, Malformed) else piece for piece in pieces] == found


def test_what_was_cut_off_is_not_used() -> None:
    whole, last = read_reply("Question: a\nAnswer: b\nQuestion: c\nAnswer: hal", PAIR, cut=True)
    assert whole == ("a", "b")
    assert isinstance(last, Malformed)
    assert last.reason == "it was cut off at max_tokens"


def test_a_reply_too_long_to_look_at_is_not_whole() -> None:
    *_, last = read_reply("Question: a\nAnswer: b" + " c" * LONGEST, PAIR)
    assert isinstance(last, Malformed)


def test_places_are_filled_once() -> None:
    template = PromptTemplate(name="t", version=1, prompt="{document} and {count}")
    (message,) = template.messages({"document": "{count} {system} \\1", "count": "2"})
    assert message == {"role": "user", "content": "{count} {system} \\1 and 2"}
    assert template.digest != PromptTemplate(name="t", version=2, prompt="{document} and {count}").digest


@pytest.mark.parametrize("task", ["chat", "classify"])
@pytest.mark.parametrize("kind", ["instructions", "paraphrases", "hard_negatives"])
def test_shipped_templates_show_replies_that_their_parser_takes(kind: Kind, task: str) -> None:
    form = form_of(kind, task)
    if form is None:
        assert (kind, task) == ("instructions", "classify")
        return
    template = shipped_template(form.template)
    assert set(form.needs) <= set(re.findall(r"{([a-z]+)}", template.prompt)) <= {*form.needs, "count"}
    for shown in template.shown:
        assert set(shown.values) == {*form.needs, "count"}
        records = read_reply(shown.reply, form.labels)
        assert not any(isinstance(each, Malformed) for each in records)
        assert len(records) == int(shown.values["count"])


def test_ones_own_template_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"

    def refused(text: str | None) -> str:
        if text is not None:
            path.write_text(text)
        with pytest.raises(UserError) as caught:
            read_template(path, ("text",), ("count",), "here")
        return str(caught.value)

    assert "there is no file" in refused(None)
    assert "{language}, which nothing fills; expected {count}, {text}" in refused(
        "name: mine\nversion: 1\nprompt: say it in {language}, {text}\n"
    )
    assert "has no {text}" in refused("name: mine\nversion: 1\nprompt: say it\n")
    assert refused("name: mine\nversion: one\nprompt: say it\n").startswith("mine.yaml:2: version")
    path.write_text("name: mine\nversion: 3\nprompt: say {count} times {text}\n")
    assert read_template(path, ("text",), ("count",), "here").version == 3


def wanted(kind: Kind, task: str, *, count: int = 100, per: int = 2, grounded: float = 0.6) -> Wanted:
    form = form_of(kind, task)
    assert form is not None
    return Wanted(kind, count, per, shipped_template(form.template), grounded)


def notes(count: int) -> dict[str, Document]:
    texts = [f"Note {n}: " + " ".join(f"word{n}x{m}" for m in range(30)) for n in range(count)]
    return {
        f"doc:{n}": Document(
            f"doc:{n}", "notes", f"note {n}", text, license="MIT", subject="her", retain_until="2030-01-01"
        )
        for n, text in enumerate(texts)
    }


def test_documents_are_drawn_alike_and_none_of_a_test() -> None:
    documents = notes(20)
    material = Material(documents, [], frozenset({"doc:3", "doc:4"}))
    asked = plan(wanted("instructions", "chat"), "chat", material, 17)
    assert {each.parents for each in asked} == {(name,) for name in documents if name not in ("doc:3", "doc:4")}
    few = plan(wanted("instructions", "chat", count=5), "chat", material, 17)
    assert [each.parents for each in few] == [each.parents for each in asked[:5]]
    assert [each.parents for each in plan(wanted("instructions", "chat"), "chat", material, 18)] != [
        each.parents for each in asked
    ]
    short = Document("doc:s", "notes", "short", "Only a few words")
    assert plan(wanted("instructions", "chat"), "chat", Material({"doc:s": short}, [], frozenset()), 1) == []


def test_an_answer_becomes_documents_that_keep_what_their_parent_was_under() -> None:
    (asked,) = plan(wanted("instructions", "chat", count=1), "chat", Material(notes(1), [], frozenset()), 1)
    text = "\n".join(
        f"Question: q {n}\nAnswer: {said}"
        for n, said in enumerate(["word0x1 word0x2 perhaps", "made up altogether, word0x1", "word0x3", "word0x4"])
    )
    found = list(read_answer(asked, text, cut=False, refused="", made_by={"template": "b3:t"}))
    assert [each.rule if isinstance(each, Dropped) else each.text for each in found] == [
        "q 0\nword0x1 word0x2 perhaps",
        "synthesize.ungrounded",
        "q 2\nword0x3",
        "synthesize.surplus",
    ]
    document = found[0]
    assert isinstance(document, Document)
    assert (document.origin, document.parents, document.license) == ("synthetic", ("doc:0",), "MIT")
    assert (document.subject, document.retain_until) == ("her", "2030-01-01")
    assert document.fields["synthetic"] == {"template": "b3:t", "kind": "instructions"}
    example = example_of(document, "a group")
    assert example.documents == (document.id, "doc:0")
    assert (example.question, example.answer, example.group) == ("q 0", "word0x1 word0x2 perhaps", "a group")
    (refused,) = read_answer(asked, "", cut=False, refused="it answered 400", made_by={})
    assert isinstance(refused, Dropped)
    assert (refused.rule, refused.reason) == ("synthesize.refused", "it answered 400")


def test_hard_negatives_of_a_classifier_lean_to_the_nearest_label() -> None:
    texts = {"late ferry": "travel", "late train": "travel", "late bill for the train": "money", "soup": "food"}
    documents = {f"doc:{n}": Document(f"doc:{n}", "s", str(n), text) for n, text in enumerate(texts)}
    examples = [Example((f"doc:{n}",), text=text, label=label) for n, (text, label) in enumerate(texts.items())]
    asked = plan(wanted("hard_negatives", "classify"), "classify", Material(documents, examples, frozenset()), 1)
    others = {each.values["text"]: each.values["other"] for each in asked}
    assert others["late train"] == "money"
    assert others["late bill for the train"] == "travel"
    train = next(each for each in asked if each.values["text"] == "late train")
    made, same = list(read(train, "Text: a train that cost me hours\nText: Late train."))
    assert isinstance(made, Document)
    assert (example_of(made, "g").text, example_of(made, "g").label) == ("a train that cost me hours", "travel")
    assert isinstance(same, Dropped)
    assert same.rule == "synthesize.unchanged"


def test_a_wrong_answer_goes_to_its_question() -> None:
    examples = [
        Example(("doc:0",), messages=({"role": "user", "content": asked}, {"role": "assistant", "content": "Yes."}))
        for asked in ("Is it far?", "Is it near?", "Is it far?")
    ]
    material = Material(notes(1), examples, frozenset())
    asked = plan(wanted("hard_negatives", "chat"), "chat", material, 1)
    assert len(asked) == 2  # nobody is asked the same twice
    made = [read(each, f"Answer: Not {each.values['question']}")[0] for each in asked]
    assert all(isinstance(each, Document) for each in made)
    negatives = [example_of(each, "g") for each in made if isinstance(each, Document)]
    taught, used = with_rejected(examples, negatives)
    assert [each.fields.get("rejected", [{}])[-1].get("content") for each in taught] == [
        "Not Is it far?",
        "Not Is it near?",
        None,
    ]
    assert used == {each.documents[0] for each in negatives}
    assert {each.documents[1] for each in taught[:2]} == used


def test_paraphrases_keep_the_rest_of_a_conversation() -> None:
    messages = (
        {"role": "system", "content": "Help."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "How far is it?"},
        {"role": "assistant", "content": "Two miles."},
    )
    call = ({"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]})
    examples = [Example(("doc:0",), messages=messages), Example(("doc:1",), messages=call)]
    material = Material(notes(2), examples, frozenset())
    (asked,) = plan(wanted("paraphrases", "chat"), "chat", material, 1)
    assert asked.messages[-1]["content"].startswith("How far is it?")
    (made,) = read(asked, "Question: What is the distance?")
    assert isinstance(made, Document)
    said = [message["content"] for message in example_of(made, "g").messages]
    assert said == ["Help.", "Hi", "Hello", "What is the distance?", "Two miles."]


def read(asked: Asked, text: str) -> list[Document | Dropped]:
    return list(read_answer(asked, text, cut=False, refused="", made_by={}))
