"""Gopher, C4 and FineWeb decide as datatrove does: against what it said, and against itself where it can be installed
(slow).
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from benchmarks.data_filters import NAMES, decisions
from benchmarks.data_filters import documents as real_texts

from importing.peers import peer
from text import english_cases as cases
from treadle.core.errors import UserError
from treadle.core.executors import Pool
from treadle.text.accounting import Accounting, Dropped, Note
from treadle.text.document import Document
from treadle.text.gopher import GopherQuality, GopherRepetition
from treadle.text.transform import load_transforms, run_transforms
from treadle.text.web_quality import C4, FineWeb


@pytest.fixture(scope="module")
def said() -> list[dict[str, Any]]:
    return list(json.loads(cases.SAID.read_text("ascii"))["decisions"])


def document(text: str, name: str = "1") -> Document:
    return Document(f"doc:{name}", "made", name, text)


def test_decisions_are_those_that_were_recorded(said: list[dict[str, Any]]) -> None:
    texts = cases.documents()
    assert list(decisions(texts)) == said
    reasons = {name: {one[name][0] for one in said} for name in NAMES}
    assert len(reasons["gopher_quality"]) >= 10
    assert len(reasons["gopher_repetition"]) >= 9
    assert reasons["c4"] == {None, "too_few_sentences", "curly_bracket", "lorem_ipsum"}
    assert reasons["fineweb"] >= {None, "empty", "line_punct_ratio", "short_line_ratio", "char_dup_ratio"}


def test_a_chain_in_prepare_names_the_rule_the_value_the_limit_and_the_source(said: list[dict[str, Any]]) -> None:
    texts = cases.documents()
    accounting = Accounting()
    batch = [document(text, str(number)) for number, text in enumerate(texts)]
    kept = [one for shard in run_transforms([batch], load_transforms(list(NAMES), None), accounting) for one in shard]
    assert Counter(accounting.dropped) == Counter(one["chain"][0] for one in said if one["chain"][0])
    assert len(kept) == sum(one["chain"][0] is None for one in said)
    sample = accounting.samples["gopher_quality.gopher_short_doc"][0]
    assert sample.reason.endswith("words, fewer than 50 (Gopher, quality (Rae et al. 2021, A.1.1))")
    accounting.close()


def test_c4_leaves_the_good_lines_and_notes_the_others() -> None:
    good = [f"This is the good line number {number}." for number in range(5)]
    text = "\n".join(
        [*good, "no end here", "Too short.", "Please enable JavaScript now.", "We use cookies on it. [3]."]
    )
    kept, *notes = C4()([document(text)])
    assert isinstance(kept, Document)
    assert kept.text == "\n".join(good)
    assert {note.name: note.count for note in notes if isinstance(note, Note)} == {
        "c4.line_javascript": 1,
        "c4.line_no_terminal_punc": 1,
        "c4.line_policy": 1,
        "c4.line_too_few_words": 1,
    }


def test_c4_by_sentence() -> None:
    (kept, *_) = C4(split_paragraph=False, min_num_sentences=2)(
        [document("One two three. Go. Four five six! And no end")]
    )
    assert isinstance(kept, Document)
    assert kept.text == "One two three. Four five six!"


@pytest.mark.parametrize(
    ("made", "rule"),
    [
        (GopherQuality(min_doc_words=None, max_doc_words=3), "gopher_long_doc"),
        (GopherQuality(min_doc_words=0, stop_words=["zebra"], min_stop_words=1), "gopher_enough_stop_words"),
        (GopherRepetition(top_n_grams=((1, 0.01),)), "top_1_gram"),
        (GopherRepetition(top_n_grams=(), dup_n_grams=((2, 0.01),)), "duplicated_2_n_grams"),
        (FineWeb(stop_chars=["xyz"]), "line_punct_ratio"),
        (FineWeb(short_line_length=500), "short_line_ratio"),
        (C4(min_num_sentences=100), "too_few_sentences"),
    ],
)
def test_settings_move_the_limits(made: Any, rule: str) -> None:
    (dropped, *_) = made(
        [document("It was the best of times. It was the worst of times, and it was theirs to have.\n")]
    )
    assert isinstance(dropped, Dropped)
    assert dropped.rule.endswith(f".{rule}")


def test_without_limits_everything_stays() -> None:
    off = {"min_doc_words": None, "max_doc_words": None, "min_avg_word_length": None, "max_avg_word_length": None}
    off |= {"max_symbol_word_ratio": None, "max_bullet_lines_ratio": None, "max_ellipsis_lines_ratio": None}
    quality = GopherQuality(**off, max_non_alpha_words_ratio=None, min_stop_words=None)  # type: ignore[arg-type]
    for text in ("", " ", "#", "- \n- ", "\ud800"):
        assert quality.finding(text) is None
    assert GopherRepetition().finding("") == ("empty", "no text")
    assert GopherRepetition().finding("  ") is None


def test_a_run_of_no_words_is_refused() -> None:
    with pytest.raises(UserError, match="gopher_repetition"):
        GopherRepetition(dup_n_grams=((0, 0.1),))
    with pytest.raises(UserError, match="min_doc_word"):
        load_transforms([{"gopher_quality": {"min_doc_word": 3}}], None)


@pytest.mark.slow
def test_a_pool_decides_the_same() -> None:
    batch = [document(text, str(number)) for number, text in enumerate(cases.documents())]
    transforms = load_transforms(list(NAMES), None)
    accounts = []
    for mapped in (map, Pool(workers=2).map):
        accounting = Accounting()
        kept = [one.text for shard in run_transforms([batch], transforms, accounting, mapped) for one in shard]
        accounts.append((kept, accounting.close().to_json()))
    assert accounts[0] == accounts[1]


@pytest.mark.slow
def test_decisions_on_every_document_are_those_of_datatrove(shared_data: Path) -> None:
    assert shared_data.is_dir()
    python = peer("datatrove", *cases.PACKAGES) / "python"
    texts = real_texts()
    theirs = cases.ask(Path(python), "decide", texts)
    wrong = [n for n, (ours, other) in enumerate(zip(decisions(texts), theirs, strict=True)) if ours != other]
    assert wrong == [], f"{len(wrong)} of {len(texts)}"
