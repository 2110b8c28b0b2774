"""Questions and answers out of docstrings, on the documentation of this very Python."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

from treadle.text.docstrings import docstring_qa, family, question, summary, unusable
from treadle.text.document import Document, document_id
from treadle.text.examples import make_examples


def document(name: str, text: str, **fields: Any) -> Document:
    return Document(document_id("python_docs", name, text.encode()), "python_docs", name, text, fields=fields)


def test_json_dumps_as_it_ships() -> None:
    text = inspect.getdoc(json.dumps) or ""
    made = make_examples([document("json.dumps", text, module="json", kind="function")], docstring_qa)
    (example,) = made.examples
    assert example.answer == "Serialize obj to a JSON formatted str."
    assert "json.dumps" in example.question
    assert example.group == "json"
    assert example.fields == {"locator": "json.dumps", "module": "json"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Return the floor of x.\n\nThis is more.", "Return the floor of x."),
        ("dumps(obj) -> str\n\nSerialize it well.", "Serialize it well."),
        ("dumps(obj) -> str.  Serialize it well.", "Serialize it well."),
        ("dumps(obj) -- Serialize it well", "Serialize it well."),
        ("m.dumps\n\nSerialize it well", "Serialize it well."),
        ("Serialize ``obj`` to a :class:`str` object, *really*.", "Serialize obj to a str object, really."),
        ("Call :func:`~json.dumps` (e.g. Not here). Then stop.", "Call json.dumps (e.g. Not here)."),
        ("First line\nsecond line. Third.", "First line second line."),
        ("Do it:\n>>> dumps(1)", "Do it"),
        (">>> dumps(1)\n'1'", ""),
        ("dumps(obj)", ""),
        ("", ""),
    ],
)
def test_the_first_sentence(text: str, expected: str) -> None:
    assert summary(text, "m.dumps").rstrip(".") == expected.rstrip(".")


@pytest.mark.parametrize(
    ("name", "answer", "rule"),
    [
        ("json._private", "Does something useful here.", "private_name"),
        ("_json.dumps", "Does something useful here.", "private_name"),
        ("json.dumps", "", "no_summary"),
        ("json.dumps", "Dumps it.", "too_short"),
        ("json.dumps", "word " * 61, "too_long"),
        ("json.dumps", "Wraps <function f at 0x7f3a2c> in another.", "memory_address"),
        ("json.dumps", "x**2 + y**2 == z**2 -> a_b", "not_prose"),
        ("logging.FileHandler.close", "Close the file handler.", "repeats_name"),
        ("json.dumps", "Serialize obj to a JSON formatted str.", ""),
    ],
)
def test_rules(name: str, answer: str, rule: str) -> None:
    assert unusable(name, answer) == rule


def test_names_that_share_an_answer_leave_the_most_public_one() -> None:
    told = "Return the size of a file, reported by os.stat()."
    documents = [document(f"{module}.getsize", told, module=module) for module in ("ntpath", "os.path", "genericpath")]
    made = make_examples(documents, docstring_qa)
    assert [example.fields["locator"] for example in made.examples] == ["os.path.getsize"]
    assert made.accounting.dropped == {"examples.repeated_answer": 2}


def test_files_and_pages_document_no_name() -> None:
    told = "Every member of the team holds the key for one week."
    places = (("files", "guide.md"), ("files", "handbook/guide.md"), ("website", "https://example.com/guide"))
    documents = [Document(document_id(source, place, b""), source, place, told) for source, place in places]
    made = make_examples([*documents, document("keys.hold", told)], docstring_qa)
    assert [example.fields["locator"] for example in made.examples] == ["keys.hold"]
    assert made.accounting.dropped == {"examples.no_name": 3}


def test_questions_depend_on_the_id_alone_and_vary() -> None:
    made = [document(f"json.name{n}", f"Text {n}.", module="json", signature="(a, b)") for n in range(60)]
    asked = [question(each) for each in made]
    assert asked == [question(each) for each in made]
    frames = {text.replace(f"json.name{n}", "NAME") for n, text in enumerate(asked)}
    assert len(frames) == 5
    assert any("NAME(a, b)" in frame for frame in frames)


@pytest.mark.parametrize("signature", ["(x=<object object at 0x7f12>)", "(" + "a" * 80 + ")", None, 7])
def test_signatures_that_would_not_help_are_left_out(signature: Any) -> None:
    for n in range(20):
        assert question(document(f"json.f{n}", "", signature=signature)).count("(") == 0


def test_phrasings_follow_the_kind() -> None:
    assert "module" in question(document("json", "JSON.", module="json"))
    assert "do?" not in question(document("json.JSONDecoder", "", module="json"))
    held = document("json.JSONDecoder.strict", "", kind="property")
    assert "do?" not in question(held)
    topic = (
        'assert\n\nThe "assert" statement\n****************\n\nAssert statements are a way\nto insert assertions. More.'
    )
    about = document("topics/assert", topic, module="pydoc_data.topics", kind="topic")
    (example,) = make_examples([about], docstring_qa).examples
    assert "assert statement" in example.question
    assert example.answer == "Assert statements are a way to insert assertions."


@pytest.mark.parametrize(
    ("module", "group"),
    [
        ("json.decoder", "json"),
        ("_io", "io"),
        ("_pyio", "io"),
        ("_pydecimal", "decimal"),
        ("posixpath", "os"),
        ("os.path", "os"),
        ("py_compile", "py_compile"),
    ],
)
def test_families(module: str, group: str) -> None:
    assert family(module) == group
