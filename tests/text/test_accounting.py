"""In = kept + dropped + quarantined, and samples that show nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.core.errors import TreadleError
from treadle.text.accounting import Accounting, Dropped, Note, Quarantined, read_accounting
from treadle.text.dataset import Example
from treadle.text.document import Document
from treadle.text.drops import DroppedExample
from treadle.text.drops import account as account_for
from treadle.text.rule_log import LogRow, RuleRows

counts = st.dictionaries(st.sampled_from(["a.x", "a.y", "b.z"]), st.integers(0, 9))


def document(text: str = "some text", subject: str | None = None, number: int = 0) -> Document:
    return Document(f"doc:{number:064x}", "test", f"place/{number}", text, subject=subject)


def account(kept: int, dropped: dict[str, int], bad: int) -> Accounting:
    quarantined = [Quarantined("f", place, "why") for place in range(bad)]
    return Accounting(kept + sum(dropped.values()) + bad, kept, dict(dropped), quarantined)


def test_one_document_unaccounted_for_is_noticed() -> None:
    with pytest.raises(TreadleError, match="3 pieces came in and 2 are accounted for"):
        Accounting(read=3, kept=1, dropped={"filter.min_chars": 1}).close()


@given(st.integers(0, 50), counts, counts, st.integers(0, 5))
def test_two_stretches_of_one_line_add_up(kept: int, first: dict[str, int], second: dict[str, int], bad: int) -> None:
    after = account(kept, second, bad)
    before = account(after.read, first, bad)
    whole = before.then(after).close()
    assert (whole.read, whole.kept) == (before.read, kept)
    assert len(whole.quarantined) == 2 * bad


@given(st.integers(0, 50), counts, counts, st.integers(0, 5))
def test_two_lines_side_by_side_add_up(kept: int, first: dict[str, int], second: dict[str, int], bad: int) -> None:
    whole = account(kept, first, bad).beside(account(1, second, 0)).close()
    assert whole.read == kept + 1 + sum(first.values()) + sum(second.values()) + bad


def test_stretches_that_do_not_meet_are_refused() -> None:
    with pytest.raises(TreadleError, match="2 documents left one transform and 1 reached"):
        account(2, {}, 0).then(account(1, {}, 0))


def test_written_and_read_again_is_the_same(tmp_path: Path) -> None:
    accounting = account(2, {}, 1)
    accounting.read += 1
    accounting.drop(Dropped(document("short"), "filter.min_chars", "5 characters"))
    accounting.note(Note("redact.email", 3))
    accounting.write(tmp_path)
    assert read_accounting(tmp_path) == accounting
    value = accounting.to_json()
    assert value["in"] == 4
    assert value["dropped"] == {"filter.min_chars": 1}
    assert value["quarantined"] == [{"source": "f", "offset": 0, "reason": "why"}]


def test_samples_are_few_and_show_no_personal_data() -> None:
    accounting = Accounting()
    for number in range(20):
        text = f"write to jane.doe{number}@mail.test or call +49 151 2345 6789 " + "x" * 400
        accounting.drop(Dropped(document(text, number=number), "filter.max_chars", "too long"))
    samples = accounting.samples["filter.max_chars"]
    assert len(samples) == 5
    assert all("[EMAIL]" in sample.text and "[PHONE]" in sample.text for sample in samples)
    assert all("jane" not in sample.text and "6789" not in sample.text for sample in samples)
    assert all(len(sample.text) <= 201 for sample in samples)


def test_a_text_about_a_person_is_not_sampled_at_all() -> None:
    accounting = Accounting()
    accounting.drop(Dropped(document("Jane likes tea", subject="k3:1"), "filter.min_chars", "short"))
    accounting.drop(Dropped(document("Jane likes tea"), "suppress.erased", "erased", private=True))
    assert accounting.samples["filter.min_chars"][0].text == ""
    assert accounting.samples["suppress.erased"] == []
    assert accounting.dropped == {"filter.min_chars": 1, "suppress.erased": 1}


@pytest.mark.parametrize("place", range(150, 330, 7))
def test_an_excerpt_never_ends_inside_a_finding(place: int) -> None:
    text = "a" * place + " jane.doe@mail.test " + "b" * 300
    accounting = Accounting()
    accounting.drop(Dropped(document(text), "r.r", "why"))
    shown = accounting.samples["r.r"][0].text
    assert not any(part in shown for part in ("jane", "doe", "@"))


def test_a_document_that_keeps_one_example_and_lost_another_is_logged_as_changed() -> None:
    documents = {each.id: each for each in (document(number=0), document(number=1))}
    both, only = sorted(documents)
    before = [Example((both,), text="kept"), Example((both,), text="leaks"), Example((only,), text="leaks too")]
    dropped = [DroppedExample(each, "decontaminate.same_answer", "why") for each in before[1:]]
    log = RuleRows()
    found = account_for(documents, before, before[:1], dropped, log)
    assert (found.kept, found.dropped) == (1, {"decontaminate.same_answer": 1})
    assert set(log) == {
        LogRow(both, "decontaminate.same_answer", "changed"),
        LogRow(only, "decontaminate.same_answer", "dropped"),
    }
