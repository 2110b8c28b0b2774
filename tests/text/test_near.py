"""Near duplicates: sketches follow the S-curve, pairs are exact, and nothing depends on shards or executors."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.core.errors import UserError
from treadle.core.executors import InProcess, Pool
from treadle.text import transform
from treadle.text.accounting import Accounting, read_accounting
from treadle.text.document import Document, document_id
from treadle.text.duplicates import read_duplicates
from treadle.text.minhash import PLACES, band_keys, bands_and_rows, s_curve, sketches
from treadle.text.rule_log import RuleRows
from treadle.text.shingles import jaccard, mix, sets_of, shingles, word_hashes
from treadle.text.transform import load_transforms, run_transforms

WORDS = [f"w{number}" for number in range(2_000)]
PINNED = ["2e7e7c58b14a7ad2", "fd704d4397b4ff0a", "88b6b651e32ad376", "d0bfdaa2644ad25b", "66ae2982733d7229",
          "29a6761dd6801e1e", "9ccfe0fe331ba0d3"]  # fmt: skip
PINNED_KEYS = ["73905a74783135c6", "8d07106765eb286e", "bdb5c41ed435436c", "f5a1040c39a641e7"]


def documents(*texts: str, **fields: Any) -> list[Document]:
    return [
        Document(document_id("t", str(n), text.encode()), "t", str(n), text, fields=dict(fields))
        for n, text in enumerate(texts)
    ]


def run(made: list[Document], step: Any, **options: Any) -> tuple[list[Document], Accounting]:
    accounting = Accounting()
    shards = run_transforms([made], load_transforms([step], None), accounting, **options)
    return [document for shard in shards for document in shard], accounting.close()


def likenesses(seed: int, count: int) -> list[str]:
    """Texts of which some are others with a few words changed, some short, and some empty."""
    draw = random.Random(seed)
    texts: list[str] = []
    for _ in range(count):
        if texts and draw.random() < 0.4:
            words = draw.choice(texts).split()
            for _ in range(draw.randint(0, 3)):
                if words:
                    words[draw.randrange(len(words))] = draw.choice(WORDS)
        else:
            words = draw.choices(WORDS, k=draw.choice((0, 2, 8, 60, 150)))
        texts.append(" ".join(words))
    return texts


# -- shingles


def test_words_are_pinned() -> None:
    """What these texts hash to is part of every digest that came from them."""
    hashes, starts = shingles(["The quick brown Fox jumps; over the LAZY dog", "Straße, ÉTÉ и 東京", "", "one two"])
    assert starts.tolist() == [0, 5, 6, 6, 7]
    assert [f"{number:016x}" for number in hashes.tolist()] == PINNED
    assert [f"{number:016x}" for number in band_keys(hashes, starts, 2, 3)[:, 1].tolist()] == PINNED_KEYS


def test_case_and_punctuation_divide_and_scripts_without_spaces_are_cut() -> None:
    def count(text: str) -> int:
        return len(word_hashes([text])[0])

    assert (count("a-b_c d.e"), count("don\u2019t"), count("東京は"), count("été déjà"), count(" \u3000—\n")) == (
        5, 2, 3, 2, 0,
    )  # fmt: skip
    same = word_hashes(["TOKYO Été", "tokyo ÉTÉ"])[0]
    assert same[:2].tolist() == same[2:].tolist()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=8))
def test_a_text_hashes_the_same_alone_and_among_others(texts: list[str]) -> None:
    hashes, starts = shingles(texts)
    for place, text in enumerate(texts):
        alone, _ = shingles([text])
        assert hashes[starts[place] : starts[place + 1]].tolist() == alone.tolist()


# -- sketches


def test_repeats_change_no_sketch() -> None:
    """Nor how many hashes are drawn for what leaves places empty."""
    sets = [mix(np.arange(first, first + size, dtype=np.uint64)) for first, size in ((0, 3), (50, 90), (200, 5000))]
    repeated = [np.tile(each, times) for each, times in zip(sets, (40_000, 2_000, 3), strict=True)]

    def sketched(each: list[np.ndarray]) -> list[list[int]]:
        return sketches(np.concatenate(each), np.cumsum([0, *map(len, each)]), 126).tolist()

    drawn: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("treadle.text.minhash.mix", lambda numbers: drawn.append(len(numbers)) or mix(numbers))
        assert sketched(repeated) == sketched(sets)
    assert max(drawn) < 100_000


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400), st.integers(0, 400), st.integers(0, 2**32))
def test_places_agree_as_often_as_the_sets_overlap(common: int, apart: int, seed: int) -> None:
    """Over 30 pairs of sets, within five standard deviations of what Jaccard's similarity says."""
    rng = np.random.default_rng(seed)
    pairs, places = 30, 126
    own = rng.integers(0, 2**63, (pairs, common + 2 * apart), dtype=np.uint64)
    sets = [part for row in own for part in (row[: common + apart], np.delete(row, slice(common, common + apart)))]
    starts = np.arange(2 * pairs + 1) * (common + apart)
    sketch = sketches(mix(np.concatenate(sets)), starts, places)
    agreed = float((sketch[0::2] == sketch[1::2]).mean())
    expected = common / (common + 2 * apart)
    # Places of one pair are not independent where a set has few members, so pairs are what is counted.
    deviation = (expected * (1 - expected) / min(pairs * places, pairs * (common + 2 * apart))) ** 0.5
    assert abs(agreed - expected) <= 5 * deviation + 1e-9


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.8, 0.9])
def test_candidates_follow_the_s_curve(similarity: float) -> None:
    rng = np.random.default_rng(round(similarity * 10))
    pairs, size = 400, 180
    bands, rows = bands_and_rows(0.8)
    common = round(size * similarity)
    apart = (size - common) // 2
    own = rng.integers(0, 2**63, (pairs, common + 2 * apart), dtype=np.uint64)
    sets = [part for row in own for part in (row[: common + apart], np.delete(row, slice(common, common + apart)))]
    keys = band_keys(mix(np.concatenate(sets)), np.arange(2 * pairs + 1) * (common + apart), bands, rows)
    found = float((keys[0::2] == keys[1::2]).any(axis=1).mean())
    expected = s_curve(common / (common + 2 * apart), bands, rows)
    assert abs(found - expected) <= 5 * (expected * (1 - expected) / pairs) ** 0.5 + 0.01


def test_bands_and_rows_come_from_the_threshold() -> None:
    assert bands_and_rows(0.8) == (21, 6)
    for percent in range(10, 101, 5):
        bands, rows = bands_and_rows(percent / 100)
        assert bands * rows <= PLACES
        assert s_curve(percent / 100, bands, rows) >= 0.99
    with pytest.raises(UserError, match="too low"):
        bands_and_rows(0.01)


# -- the transform


@pytest.fixture(scope="module")
def mixed() -> list[Document]:
    return documents(*likenesses(1, 500))


def gone_by_force(made: list[Document], threshold: float = 0.8) -> set[int]:
    """Numbers of the documents that go: each is compared with every one that stays before it."""
    sets = list(sets_of([document.text for document in made]))
    stays: list[int] = []
    for number, mine in enumerate(sets):
        if all(jaccard(mine, sets[other]) < threshold for other in stays):
            stays.append(number)
    return set(range(len(made))) - set(stays)


def test_it_finds_what_comparing_each_with_each_finds(mixed: list[Document]) -> None:
    kept, accounting = run(mixed, "deduplicate_near")
    gone = gone_by_force(mixed)
    assert len(gone) > 50
    assert [document.id for document in kept] == [each.id for n, each in enumerate(mixed) if n not in gone]
    assert accounting.dropped == {"deduplicate_near.similar": len(gone)}


def test_shards_and_executors_do_not_matter(mixed: list[Document], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(mixed, "deduplicate_near")
    assert run(mixed, "deduplicate_near", map=Pool(2).map) == expected
    for size in (1, 7, 499):
        monkeypatch.setattr(transform, "SHARD_DOCUMENTS", size)
        kept, accounting = run(mixed, "deduplicate_near", map=InProcess().map)
        assert (kept, accounting) == expected


def test_first_or_longest_with_the_similarity() -> None:
    base = " ".join(WORDS[:100])
    made = documents(base, f"{base} and more of it", "something else " * 9)
    kept, accounting = run(made, "deduplicate_near")
    assert kept == [made[0], made[2]]
    similarity = 96 / 100
    assert accounting.samples["deduplicate_near.similar"][0].reason == (
        f"{similarity:.3f} of its runs of words are those of {made[0].id}"
    )
    kept, _ = run(made, {"deduplicate_near": {"keep": "longest"}})
    assert kept == [made[1], made[2]]


def test_what_somebody_labeled_differently_stays() -> None:
    base = " ".join(WORDS[:100])
    made = documents(base, label="good") + documents("", f"{base} no", label="bad")[1:]
    assert run(made, "deduplicate_near")[0] == made


def test_clusters_are_kept_in_a_table_and_shown(tmp_path: Path) -> None:
    base = " ".join(WORDS[:100])
    made = documents(base, f"{base} x", "alone", f"y {base}")
    _, accounting = run(made, "deduplicate_near")
    accounting.write(tmp_path)
    rows = list(read_duplicates(tmp_path))
    assert [(row.kept, row.document) for row in rows] == [(made[0].id, made[1].id), (made[0].id, made[3].id)]
    assert [row.similarity for row in rows] == [round(96 / 97, 4)] * 2
    again = read_accounting(tmp_path)
    assert again == accounting
    shown = again.to_json()["duplicates"]
    assert (shown["clusters"], shown["dropped"]) == (1, 2)
    assert [member["locator"] for member in shown["largest"][0]["members"]] == ["1", "3"]


def test_settings_out_of_range_are_told_before_anything_runs() -> None:
    for wrong in ({"threshold": 1.5}, {"threshold": 0}, {"words": 0}, {"keep": "last"}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            load_transforms([{"deduplicate_near": wrong}], None)


# -- lines


def test_lines_that_earlier_documents_have_are_taken_out() -> None:
    menu = "Home | About | Contact us | Imprint"
    made = documents(
        f"{menu}\nFirst text here.\n{menu}",
        f"{menu}\nSecond text, quite another.\n}}\nFirst text here.",
        f"  {menu.replace(' ', '  ')}\n\n",
        "}",
    )
    kept, accounting = run(made, {"deduplicate_lines": {"min_chars": 10}})
    assert [document.text for document in kept] == [made[0].text, "Second text, quite another.\n}", "}"]
    assert accounting.dropped == {"deduplicate_lines.nothing_left": 1}
    assert accounting.notes == {"deduplicate_lines.lines": 3, "deduplicate_lines.documents": 2}


def test_paragraphs(monkeypatch: pytest.MonkeyPatch) -> None:
    made = documents(
        "One paragraph\nof two lines.\n\nAnother paragraph here.", "New.\n \n\nOne paragraph\nof two lines."
    )
    step = {"deduplicate_lines": {"unit": "paragraph"}}
    expected = run(made, step)
    assert [document.text for document in expected[0]] == [made[0].text, "New."]
    monkeypatch.setattr(transform, "SHARD_DOCUMENTS", 1)
    assert run(made, step) == expected


def test_the_documents_that_lost_lines_are_logged() -> None:
    made = documents("Home | About | Contact us | Imprint", "Home | About | Contact us | Imprint\nSecond text.")
    accounting = Accounting(log=(log := RuleRows()))
    transforms = load_transforms(["deduplicate_lines", {"c4": {"min_num_sentences": 0}}], None)
    kept = [each for shard in run_transforms([made], transforms, accounting) for each in shard]
    assert len(kept) == 2
    for note, count in accounting.notes.items():
        assert {row.document for row in log if row.rule == note} or not count, note


def test_a_long_text_that_repeats_itself_takes_little_memory() -> None:
    hashes, starts = shingles(["a@" * 100_000])
    expected = sketches(np.unique(hashes), np.array([0, 1]), PLACES)
    tracemalloc.start()
    try:
        assert (sketches(hashes, starts, PLACES) == expected).all()
        assert tracemalloc.get_traced_memory()[1] < 40 * len(hashes) * 8
    finally:
        tracemalloc.stop()
