"""Each rule on both sides of its limit."""

from __future__ import annotations

import pytest

from treadle.text.accounting import Dropped
from treadle.text.document import Document
from treadle.text.filters import RULES, Filter

CASES = [
    ("min_chars", 5, "12345", "1234"),
    ("max_chars", 5, "12345", "123456"),
    ("min_words", 2, "two words", "one"),
    ("max_words", 2, "two words", "now three words"),
    ("min_mean_word_length", 3.0, "the cat", "a b c"),
    ("max_mean_word_length", 10.0, "short words", "extraordinarily"),
    ("min_letter_words", 0.5, "a 1", "a 1 2"),
    ("max_symbols", 0.5, "a b # c", "# ... c"),
    ("min_stop_words", 2, "the end of it", "the the the"),
    ("max_bullet_lines", 0.5, "- a\nb", "- a\n- b\nc"),
    ("max_ellipsis_lines", 0.5, "a...\nb", "a...\nb…\nc"),
    ("max_duplicate_lines", 0.5, "a\na", "a\na\na"),
]


@pytest.mark.parametrize(("setting", "limit", "good", "bad"), CASES)
def test_a_rule_keeps_and_drops_at_its_limit(setting: str, limit: float, good: str, bad: str) -> None:
    kept, dropped = Filter(**{setting: limit})([Document("doc:1", "t", "1", good), Document("doc:2", "t", "2", bad)])  # type: ignore[arg-type]
    assert isinstance(kept, Document)
    assert isinstance(dropped, Dropped)
    assert dropped.rule == f"filter.{setting}"
    assert dropped.reason


def test_every_rule_has_a_case_a_setting_and_a_source() -> None:
    assert {case[0] for case in CASES} == {rule.setting for rule in RULES}
    assert all(rule.source for rule in RULES)


def test_the_first_rule_broken_names_the_drop() -> None:
    (dropped,) = Filter(min_words=5, min_chars=50)([Document("doc:1", "t", "1", "short")])
    assert isinstance(dropped, Dropped)
    assert dropped.rule == "filter.min_chars"


def test_an_empty_text_is_no_division_by_zero() -> None:
    limits = {rule.setting: 0 for rule in RULES if rule.setting.startswith("max_")}
    (kept,) = Filter(**limits)([Document("doc:1", "t", "1", "")])  # type: ignore[arg-type]
    assert isinstance(kept, Document)
