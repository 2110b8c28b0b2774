"""Which release a request gets."""

from __future__ import annotations

from typing import Any

import pytest
from toy_engine import ToyEngine, ToyTokenizer

from treadle.serve.errors import ApiError
from treadle.serve.gateway import ServedRelease, Serving
from treadle.serve.table import Table

OLD, NEW = "b3:" + "0" * 64, "b3:" + "1" * 64


def serving(number: int, digest: str, *aliases: str) -> Serving:
    tokenizer = ToyTokenizer()
    release = ServedRelease(f"docs@v{number}", digest, aliases=aliases)
    return Serving(release, ToyEngine(tokenizer), tokenizer)


def table(share: float, **more: Any) -> Table:
    return Table(serving(1, OLD, "champion"), serving(2, NEW, "challenger"), share, **more)


def test_one_alone_is_drawn_with_certainty() -> None:
    alone = Table(serving(1, OLD, "champion"))
    for name in (None, "docs"):
        chosen = alone.choose(name, None)
        assert (chosen.serving, chosen.share) == (alone.champion, 1.0)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_the_canary_is_drawn_as_often_as_its_share_says(share: float) -> None:
    both, n = table(share), 20_000
    chosen = [both.choose(None, None) for _ in range(n)]
    drawn = sum(each.serving is both.canary for each in chosen)
    assert abs(drawn - n * share) < 6 * (n * share * (1 - share)) ** 0.5
    assert {each.share for each in chosen if each.serving is both.canary} == {share}
    assert {each.share for each in chosen if each.serving is both.champion} == {round(1 - share, 9)}


def test_a_person_stays_on_a_side_and_more_follow_when_the_share_grows() -> None:
    people = [f"k3:{number:040x}" for number in range(20_000)]
    before: set[str] = set()
    for share in (0.1, 0.3, 0.5):
        both = table(share)
        drawn = {person for person in people if both.choose("docs", person).serving is both.canary}
        assert drawn == {person for person in people if both.choose(None, person).serving is both.canary}
        assert before < drawn
        assert abs(len(drawn) - len(people) * share) < 6 * (len(people) * share * (1 - share)) ** 0.5
        before = drawn


def test_another_canary_draws_other_people() -> None:
    people = [f"k3:{number:040x}" for number in range(2_000)]
    first = table(0.5)
    second = Table(first.champion, serving(3, "b3:" + "2" * 64), 0.5)
    sides = [[each.choose(None, person).serving is each.canary for person in people] for each in (first, second)]
    same = sum(a == b for a, b in zip(*sides, strict=True))
    assert abs(same - 1_000) < 6 * 500**0.5


@pytest.mark.parametrize(
    ("name", "found"),
    [("docs@v1", OLD), ("docs@champion", OLD), (OLD, OLD), ("docs@v2", NEW), ("docs@challenger", NEW), (NEW, NEW)],
)
def test_who_asks_by_name_gets_that_one(name: str, found: str) -> None:
    chosen = table(0.5, spare=serving(3, "b3:" + "2" * 64, "previous")).choose(name, "k3:0")
    assert (chosen.serving.release.digest, chosen.share) == (found, None)


@pytest.mark.parametrize("name", ["docs@v3", "docs@previous", "b3:" + "2" * 64, "other", "docs@", ""])
def test_what_does_not_answer_cannot_be_asked_for(name: str) -> None:
    with pytest.raises(ApiError, match="does not exist") as refused:
        table(0.5, spare=serving(3, "b3:" + "2" * 64, "previous")).choose(name, None)
    assert refused.value.status == 404


def test_nothing_answers() -> None:
    for name in (None, "docs", "docs@v1"):
        with pytest.raises(ApiError, match="No model") as refused:
            Table().choose(name, None)
        assert (refused.value.status, refused.value.code) == (503, "no_model")
