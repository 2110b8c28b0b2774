"""Who asked to be forgotten does not get through, by subject or by name in a text."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.core.digest import keyed_digest
from treadle.text.accounting import Accounting
from treadle.text.document import Document
from treadle.text.suppress import Matcher, Suppress, Suppression, identifier_words
from treadle.text.transform import run_transforms

KEYED: Callable[[str], str] = partial(keyed_digest, b"k" * 32, "subject")


def entry(name: str) -> str:
    return KEYED(" ".join(identifier_words(name)))


LIST = Suppression(
    frozenset({KEYED("Customer-17"), entry("Jane Doe"), entry("j.doe@mail.test"), entry("Anna Maria von Stein")}),
    (1, 2, 4),
)


def document(text: str = "fine", number: int = 0, **more: object) -> Document:
    return Document(f"doc:{number:064x}", "t", str(number), text, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "about",
    [
        document(subject=KEYED("Customer-17")),
        document("I met Jane Doe."),
        document("(jane\n DOE)"),
        document('write to <J.Doe@mail.test>, "please"'),
        document("mailto:j.doe@mail.test."),
        document("Frau anna maria VON Stein!"),
        document(fields={"messages": [{"role": "user", "content": "ask Jane Doe"}]}),
        document(fields={"deep": {"x": ["Jane Doe"]}}),
        document(fields={"j.doe@mail.test": 1}),
    ],
)
def test_what_is_about_somebody_is_dropped_without_a_trace(about: Document) -> None:
    accounting = Accounting()
    kept = list(run_transforms([[about, document(number=1)]], [Suppress(LIST, KEYED)], accounting))
    assert kept == [[document(number=1)]]
    assert accounting.close().dropped == {"suppress.erased": 1}
    assert accounting.samples == {"suppress.erased": []}
    assert about.id not in str(accounting.to_json())


@pytest.mark.parametrize("text", ["Jane", "Doe Jane", "Jane M. Doe", "xj.doe@mail.test", "Jane Doer", "Customer-1"])
def test_what_is_like_a_name_is_not_one(text: str) -> None:
    assert not Matcher(LIST, KEYED).matches(document(text))


def test_an_empty_list_digests_nothing() -> None:
    def fails(_value: str) -> str:
        raise AssertionError("nobody asked")

    made = [document("Jane Doe")]
    assert list(run_transforms([made], [Suppress(Suppression(), fails)], Accounting())) == [made]


def test_it_travels_to_other_processes() -> None:
    made = [document("Jane Doe"), document("nobody", number=1)]
    again = pickle.loads(pickle.dumps(Suppress(LIST, KEYED)))
    assert list(run_transforms([made], [again], Accounting())) == [made[1:]]


@given(st.text())
def test_words_of_words_are_the_same_words(text: str) -> None:
    words = identifier_words(text)
    assert identifier_words(" ".join(words)) == words
