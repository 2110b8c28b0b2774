"""Shares of a mixture: exact, by named rules, the same everywhere."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from treadle.core.errors import UserError
from treadle.core.executors import Pool
from treadle.text.accounting import Accounting
from treadle.text.document import Document, document_id
from treadle.text.mixture import REPEATS, repeats_of
from treadle.text.rules import rule_info
from treadle.text.transform import load_transforms, run_transforms


def made(counts: dict[str, int]) -> list[Document]:
    draw = random.Random(1)
    return [
        Document(
            document_id(name, str(place), b""), name, str(place), "word " * draw.randint(1, 40),
            fields={"kind": place % 2},
        )
        for name, count in counts.items()
        for place in range(count)
    ]  # fmt: skip


def mixed(given: list[Document], map_: object = map, **settings: object) -> tuple[list[Document], Accounting]:
    accounting = Accounting()
    loaded = load_transforms([{"mixture": settings}], None)
    kept = [doc for shard in run_transforms([given], loaded, accounting, map_) for doc in shard]  # type: ignore[arg-type]
    assert accounting.read == len(given) == len(kept) + sum(accounting.dropped.values())
    return kept, accounting


def test_shares_are_as_the_weights_say() -> None:
    given = made({"wiki": 1500, "books": 300, "spam": 7})
    kept, accounting = mixed(given, weights={"wiki": 7, "books": 3}, count="documents")
    assert Counter(doc.source for doc in kept) == {"wiki": 700, "books": 300}
    assert accounting.dropped == {"mixture.left_out": 800, "mixture.no_weight": 7}
    assert [doc for doc in given if doc in kept] == kept  # in their order
    words, _ = mixed(given, weights={"wiki": 0.5, "books": 0.5})
    sums: Counter[str] = Counter()
    for doc in words:
        sums[doc.source] += len(doc.text.split())
    assert abs(sums["wiki"] - sums["books"]) <= 20  # half of the longest document
    by_field, _ = mixed(given, weights={"0": 1, "1": 3}, by="kind", count="documents")
    ones = Counter(doc.fields["kind"] for doc in by_field)
    assert abs(3 * ones[0] - ones[1]) <= 2
    assert "Brown et al. 2020" in rule_info("mixture.left_out").source


def test_the_same_documents_everywhere_and_others_by_another_seed() -> None:
    given = made({"wiki": 1200, "books": 300})
    settings = {"weights": {"wiki": 0.5, "books": 0.5}}
    kept, _ = mixed(given, **settings)
    assert mixed(given, Pool(2).map, **settings)[0] == kept
    assert {doc.id for doc in mixed(given[::-1], **settings)[0]} == {doc.id for doc in kept}
    assert {doc.id for doc in mixed(given, seed=1, **settings)[0]} != {doc.id for doc in kept}


def test_what_is_short_of_its_share_is_read_again() -> None:
    given = made({"wiki": 1500, "books": 300, "code": 100})
    weights = {"wiki": 6, "books": 3, "code": 1}
    kept, accounting = mixed(given, weights=weights, count="documents", repeat=4)
    assert [doc.id for doc in kept] == [doc.id for doc in given], "nothing is left out, and nothing is there twice"
    taken: Counter[str] = Counter()
    for doc in kept:
        taken[doc.source] += repeats_of(doc)
    assert taken == {"wiki": 1500, "books": 750, "code": 250}
    assert {repeats_of(doc) for doc in kept if doc.source == "books"} == {2, 3}
    assert accounting.notes == {"mixture.repeated": 400}
    assert all(REPEATS not in doc.fields for doc in kept if doc.source == "wiki")
    assert mixed(given, Pool(2).map, weights=weights, count="documents", repeat=4)[0] == kept


def test_nothing_is_read_more_often_than_allowed() -> None:
    given = made({"wiki": 1500, "books": 300})
    kept, accounting = mixed(given, weights={"wiki": 1, "books": 1}, count="documents", repeat=3)
    assert Counter(doc.source for doc in kept) == {"wiki": 900, "books": 300}
    assert {repeats_of(doc) for doc in kept if doc.source == "books"} == {3}
    assert accounting.dropped == {"mixture.left_out": 600}
    empty = [*given, Document(document_id("books", "empty", b""), "books", "empty", "")]
    assert {repeats_of(doc) for doc in mixed(empty, weights={"wiki": 1, "books": 1})[0]} == {1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": {}}, "0 weights"),
        ({"weights": {"wiki": 0.0}}, "the weight of 'wiki' is 0"),
        ({"weights": {"wiki": 1, "boks": 1}}, "no words of source 'boks' are left; of those weighted: wiki"),
        ({"weights": {"wiki": 1}, "count": "tokens"}, "count"),
        ({"weights": {"wiki": 1}, "repeat": 0}, "repeat is 0; expected 1 to 100"),
    ],
)
def test_wrong_weights_are_told(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        mixed(made({"wiki": 5, "books": 5}), **settings)
