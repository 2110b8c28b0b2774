"""A judge's verdicts: asked twice, read strictly, and compared with people's choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from teacher_server import TeacherServer
from treadle.core.errors import UserError
from treadle.evals.item import Item, Output
from treadle.evals.judging import Kappa, Pair, WinRate, judge, load_template
from treadle.evals.metric import score_rows
from treadle.lm.endpoint import EndpointTeacher, Limits
from treadle.lm.teacher import Sampling

PAIRS = [Pair(str(number), f"Question {number}?", "a long good answer", "bad") for number in range(4)]


def verdicts(reply: Callable[[str], str], pairs: Sequence[Pair] = PAIRS) -> tuple[str, ...]:
    """Of a judge behind an address."""
    with (
        TeacherServer(reply) as server,
        EndpointTeacher(server.url, "large", None, Sampling(64), Limits(timeout=10), where="judge") as teacher,
    ):
        found = judge(teacher, load_template(None), pairs)
        assert len(server.asked) == 2 * len(pairs)
    return found.verdicts


def longer(prompt: str) -> str:
    """A judge that likes long answers, wherever they stand."""
    first, second = prompt.split("Answer A:\n")[1].split("\n\nAnswer B:\n")
    return "[[A]]" if len(first) > len(second.split("\n\nWhich")[0]) else "Thinking.\n[[B]]"


def test_both_orders_have_to_agree() -> None:
    assert verdicts(longer) == ("one",) * 4
    assert verdicts(lambda _: "[[A]]") == ("swayed",) * 4  # always the first
    assert verdicts(lambda _: "equal: [[C]]") == ("tie",) * 4
    assert verdicts(lambda prompt: "[[C]]" if "A:\nbad" in prompt else "[[A]]") == ("swayed",) * 4


@pytest.mark.parametrize("reply", ["A is better", "[[A]] or [[B]]", "", "[[D]]", "[A]"])
def test_a_reply_that_is_no_verdict_is_not_guessed_at(reply: str) -> None:
    assert verdicts(lambda _: reply or " ", PAIRS[:2]) == ("unparsed", "unparsed")
    assert verdicts(lambda prompt: reply or " " if "A:\nbad" in prompt else "[[A]]", PAIRS[:2]) == ("unparsed",) * 2


def test_an_answer_cannot_fill_a_place() -> None:
    asked = load_template(None).prompts(Pair("1", "What?", "{second} {question}", "none"))
    assert "{second} {question}" in asked[0].messages[-1]["content"]


@given(st.lists(st.tuples(st.sampled_from(["one", "other"]), st.sampled_from(["one", "other", "tie"])), min_size=2))
def test_kappa_is_that_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    people, said = [first for first, _ in pairs], [second for _, second in pairs]
    items = [Item(str(place), reference=each) for place, each in enumerate(people)]
    rows = score_rows(Kappa(), items, [Output(each) for each in said])
    with np.errstate(all="ignore"):
        theirs = cohen_kappa_score(people, said) if len(set(people + said)) > 1 else 0.0
    assert Kappa().reduce(rows.sum(axis=0)) == pytest.approx(theirs)


def test_ties_win_half() -> None:
    items = [Item(str(place)) for place in range(4)]
    rows = score_rows(WinRate(), items, [Output(each) for each in ("one", "other", "tie", "swayed")])
    assert WinRate().reduce(rows.sum(axis=0)) == pytest.approx(0.5)
    assert rows[:, 0].tolist() == [1, 0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prompt: '{question} {first}'", "no {second} in it"),
        ("prompt: '{question} {first} {second}'\nfirst: 'A'\nsecond: 'AB'", "one mark holds another"),
    ],
)
def test_words_that_cannot_ask_are_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"name: mine\nversion: 1\n{text}\n")
    with pytest.raises(UserError, match=words):
        load_template(tmp_path / "mine.yaml")
