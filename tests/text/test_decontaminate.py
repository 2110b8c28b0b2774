"""What gives a test away is found whatever its shape, and nothing else is."""

from __future__ import annotations

import pytest

from treadle.text.dataset import Example
from treadle.text.decontaminate import decontaminate, find_leaks
from treadle.text.document import Document
from treadle.text.drops import account

SYSTEM = {"role": "system", "content": "You explain Python's standard library in one or two sentences, and no more."}
SENTENCE = "the quick brown fox jumps over the lazy dog while thirteen other animals look on"


def qa(name: str, answer: str, question: str = "") -> Example:
    asked = {"role": "user", "content": question or f"What does {name} do?"}
    return Example((f"doc:{name}",), messages=(SYSTEM, asked, {"role": "assistant", "content": answer}), group=name)


@pytest.mark.parametrize(
    ("tested", "taught", "rule"),
    [
        ("Return the size of a file.", "return the size of a file", "same_answer"),
        ("No.", "no", "same_answer"),
        ("Guess the type of a file.", "Guess the MIME type of a file.", "near_answer"),
        (
            SENTENCE,
            f"Once upon a time {SENTENCE} until the evening came and all of them went home to sleep",
            "shared_words",
        ),
        ("Close all open files now.", "First flush, then close all open files now, then wait for it.", "holds_answer"),
        ("Return the size of a file.", "Delete the directory and all that is below it.", ""),
        ("Return it.", "First close, then return it, then wait for the end.", ""),
        ("Return the size of one file.", "Return the size of one directory instead, which is not the same.", ""),
    ],
)
def test_rules(tested: str, taught: str, rule: str) -> None:
    leaks = find_leaks([qa("a", tested)], [qa("b", taught)])
    assert leaks == ({0: (rule, 0)} if rule else {})


def test_twelve_words_are_not_thirteen() -> None:
    words = SENTENCE.split()
    around = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau"
    for length, found in ((12, False), (13, True)):
        taught = " ".join([*around.split(), *words[:length], *around.split()[::-1]])
        tested = " ".join([*words[:length], "one", "two", "three", "four", "five"])
        assert bool(find_leaks([qa("a", tested)], [qa("b", taught)])) is found


def test_a_question_can_leak_and_a_system_prompt_cannot() -> None:
    asked = f"Please tell me about {SENTENCE}"
    assert find_leaks([qa("a", "First answer here.", asked)], [qa("b", "Something else entirely.", asked)])
    assert not find_leaks([qa("a", "First answer here.")], [qa("b", "Something else entirely.")])


def test_a_run_across_two_texts_is_none() -> None:
    first, second = SENTENCE.split()[:7], SENTENCE.split()[7:14]
    assert not find_leaks(
        [qa("a", SENTENCE)],
        [qa("b", "Yes. " + " ".join(second), "Is it so? " + " ".join(first)), qa("c", "Hello you.")],
    )


def test_the_test_stays_and_the_others_give_way() -> None:
    told = "Return the size of a file."
    splits = {
        "train": [qa("t1", told), qa("t2", "Walk a directory tree from the top.")],
        "validation": [qa("v1", told), qa("v2", "Walk a directory tree from the top.")],
        "test": [qa("e1", told)],
        "holdout": [qa("h1", told), qa("h2", "Something that nobody else says at all.")],
    }
    done = decontaminate(splits)
    left = {name: [example.group for example in examples] for name, examples in done.splits.items()}
    assert left == {"train": [], "validation": ["v2"], "test": ["e1"], "holdout": ["h2"]}
    assert sorted(drop.example.group for drop in done.dropped) == ["h1", "t1", "t2", "v1"]
    assert all(drop.rule == "decontaminate.same_answer" for drop in done.dropped)
    assert "Return the size" in done.dropped[0].reason


def test_classification_compares_texts_not_labels() -> None:
    tested = Example(("doc:1",), text="I love this little kettle very much", label="good")
    other = Example(("doc:2",), text="Broke after a week and nobody answered", label="good")
    same = Example(("doc:3",), text="I love this little kettle, very much!", label="good")
    done = decontaminate({"test": [tested], "train": [other, same]})
    assert done.splits["train"] == [other]


def test_documents_are_accounted_for() -> None:
    told = "Return the size of a file."
    train, test = [qa("t1", told), qa("t2", "Walk a directory tree.")], [qa("e1", told)]
    done = decontaminate({"train": train, "test": test})
    documents = {name: Document(name, "s", name, "text") for name in ("doc:t1", "doc:t2", "doc:e1")}
    kept = [example for examples in done.splits.values() for example in examples]
    accounting = account(documents, [*train, *test], kept, done.dropped)
    assert (accounting.read, accounting.kept, accounting.dropped) == (3, 2, {"decontaminate.same_answer": 1})
