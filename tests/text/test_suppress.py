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
        document("signed \u201cJane Doe\u201d"),
        document("Jane Doe\u2019s card, Jane_Doe's too"),
        document("**Jane Doe**, Jane\u2011Doe, #jane/doe"),
        document("Ja\u00adne D\u200boe"),
        document("\uff2a\uff41\uff4e\uff45\u3000\uff24\uff4f\uff45"),
        document("Ja\u0301ne Do\u00eb"),
        document("_j.doe@mail.test_ or j.doe\uff20mail.test"),
        document('{"to": "\\nj.doe@mail.test", "x": "j.doe\\u0040mail.test"}'),
        document("?to=j.doe%40mail.test"),
        document("&quot;Jane&nbsp;Doe&quot;"),
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


@pytest.mark.parametrize(
    ("name", "text", "other"),
    [
        ("山田太郎", "昨日山田太郎さんが", "山田一郎"),
        ("김철수", "김철수는 갔다", "김철순는"),
        ("สมชาย ใจดี", "คุณสมชายใจดีมา", "สมชายมา"),
        ("\u0410\u043d\u043d\u0430 Kim", "\u00ab\u0410\u043d\u043d\u0430 Kim\u00bb", "\u0410\u043d\u043d\u0430"),
    ],
)  # fmt: skip
def test_names_in_every_script(name: str, text: str, other: str) -> None:
    matcher = Matcher(Suppression(frozenset({entry(name)}), (len(identifier_words(name)),)), KEYED)
    assert matcher.matches(document(text))
    assert not matcher.matches(document(other))


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
