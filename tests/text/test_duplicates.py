"""What first came under a key, and who went as whose duplicate: the same from memory as from disk."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from treadle.core.errors import UserError
from treadle.text import duplicates, first_seen
from treadle.text.duplicates import Duplicate, Duplicates, read_duplicates
from treadle.text.first_seen import FirstSeen
from treadle.text.scratch import Scratch


def some(count: int, seed: int) -> list[Duplicate]:
    """Duplicates in a few clusters of very different sizes."""
    chance = random.Random(seed)
    clusters = [int(chance.paretovariate(0.7)) % 40 for _ in range(count)]
    return [
        Duplicate(f"doc:{cluster:02}", f"doc:{seed}-{number}", f"doc:{cluster:02}", "near.text", round(number / 997, 4))
        for number, cluster in enumerate(clusters)
    ]


def filled(rows: list[Duplicate]) -> Duplicates:
    """All of them, with locators that tell them apart; one is no valid text."""
    made = Duplicates()
    for row in rows:
        made.add(row, f"kept {row.kept}\udcff", f"at {row.document}")
    return made


def test_the_first_under_a_key_stays_whatever_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_seen, "_IN_MEMORY", 2_000)
    seen, known, chance = FirstSeen(), dict[bytes, bytes](), random.Random(3)
    for number in range(500):
        key, value = bytes([chance.randrange(90)]), str(number).encode() if number % 3 else b""
        assert seen.keep(key, value) == known.get(key)
        known.setdefault(key, value)
    assert seen._far is not None, "some of it was on disk"


def test_the_largest_clusters_are_shown_with_their_first_members() -> None:
    rows = some(400, seed=1)
    sizes = {name: sum(row.cluster == name for row in rows) for name in {row.cluster for row in rows}}
    shown = filled(rows).to_json()
    assert (shown["clusters"], shown["dropped"]) == (len(sizes), 400)
    expected = sorted(sizes, key=lambda name: (-sizes[name], name))[:20]
    assert [(each["document"], each["size"]) for each in shown["largest"]] == [(n, sizes[n] + 1) for n in expected]
    for each in shown["largest"]:
        mine = [row.document for row in rows if row.cluster == each["document"]][:5]
        assert [member["document"] for member in each["members"]] == mine
        assert each["locator"] == f"kept {each['document']}\udcff"


def test_an_account_goes_on_from_one_that_was_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_ROWS", 100)
    monkeypatch.setattr(duplicates, "_PART", 20)
    earlier, later = some(250, seed=1), some(130, seed=2)
    (tmp_path / "first").mkdir()
    first = filled(earlier)
    first.write(tmp_path / "first")
    both = Duplicates.from_json(first.to_json()).and_then(filled(later))
    both.know_again(read_duplicates(tmp_path / "first"))
    both.write(tmp_path)
    assert list(read_duplicates(tmp_path)) == [*earlier, *later]
    at_once = filled([*earlier, *later]).to_json()
    assert both.to_json()["dropped"] == at_once["dropped"] == 380
    assert both.to_json()["largest"][:5] == at_once["largest"][:5]
    assert filled(earlier).and_then(filled(later)).to_json() == at_once


def test_no_duplicates_make_no_file(tmp_path: Path) -> None:
    none = Duplicates().and_then(Duplicates.from_json(None))
    assert not none
    none.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_in_one_line() -> None:
    scratch = Scratch("PRAGMA max_page_count = 20", "CREATE TABLE t (b BLOB)")
    with pytest.raises(UserError, match=r"temporary files: database or disk is full; make room"):
        scratch.run_many("INSERT INTO t VALUES (?)", [(bytes(9_000),)] * 40)
