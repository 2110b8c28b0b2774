"""Block-lists of addresses and lists of words: what stands on them, and what only looks like it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from treadle.core.errors import UserError
from treadle.core.executors import Pool
from treadle.text.accounting import Accounting, Dropped
from treadle.text.bad_words import BadWords
from treadle.text.block_list import BlockList
from treadle.text.document import Document
from treadle.text.rules import rule_info
from treadle.text.transform import Piece, TransformContext, load_transforms, run_transforms


def at(address: str, **fields: Any) -> Document:
    return Document(f"doc:{address}", "website", address, "text", fields=fields)


def fate(pieces: Any) -> str | None:
    (piece,) = pieces
    return f"{piece.rule}: {piece.reason}".partition(" is on")[0] if isinstance(piece, Dropped) else None


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://bad.test/x", "blocklist.host: 'bad.test'"),
        ("HTTP://www.BAD.test:8080/", "blocklist.host: 'bad.test'"),
        ("https://a.b.bad.test./", "blocklist.host: 'bad.test'"),
        ("https://notbad.test/", None),
        ("https://bad.test.example/", None),
        ("https://host.test/ads/1.html", "blocklist.page: 'host.test/ads'"),
        ("https://host.test/ads?x=1", "blocklist.page: 'host.test/ads'"),
        ("https://host.test/adsl", None),
        ("https://host.test/", None),
        ("https://m\u00fcll.test/", "blocklist.host: 'xn--mll-hoa.test'"),
        ("https://host.test/Casino-online", "blocklist.word: 'casino'"),
        ("https://host.test/casinos", None),
        ("https://listed.test/", "blocklist.host: 'listed.test'"),
        ("https://sunk.test/", "blocklist.host: 'sunk.test'"),
        ("https://[bad/", None),
        ("bad.test", None),
    ],
)
def test_an_address_on_the_list(tmp_path: Path, address: str, expected: str | None) -> None:
    (tmp_path / "hosts.txt").write_text("\ufeff# ours\n\nlisted.test \n0.0.0.0 sunk.test\n*.star.test\n")
    transform = BlockList(
        hosts=["bad.test", "m\u00fcll.test"], pages=["https://www.host.test/ads/"], words=["Casino"],
        files=["hosts.txt"], context=TransformContext(tmp_path),
    )  # fmt: skip
    assert fate(transform([at(address)])) == expected
    assert fate(transform([at("a.jsonl:1", url=address)])) == expected
    assert fate(transform([at("a.jsonl:1", url=7)])) is None


def judged(text: str, **settings: Any) -> Piece:
    fields = settings.pop("fields", {})
    (piece,) = BadWords(**settings)([Document("doc:1", "t", "1", text, fields=fields)])
    return piece


WORDS = {"en": ["darn", "holy cow", "holy"], "de": ["mist"], "ja": ["\u99ac\u9e7f"]}


@pytest.mark.parametrize(
    ("text", "language", "marked"),
    [
        ("Well, DARN it.", "", "DARN"),
        ("Oh holy-cow, no", "en", "holy-cow"),
        ("holy water", "en", "holy"),
        ("a darning needle", "", None),
        ("So ein Mist!", "de", "Mist"),
        ("A mist came up. Darn.", "de", "mist"),
        ("A mist came up.", "en", None),
        ("\u3053\u306e\u99ac\u9e7f\u8005", "ja", "\u99ac\u9e7f"),
        ("Mist im Feld", "fr", "Mist"),  # a language without a list is judged by all of them
        ("", "", None),
    ],
)
def test_a_word_on_the_list_and_where_it_stands(text: str, language: str, marked: str | None) -> None:
    piece = judged(text, words=WORDS, fields={"language": language})
    if marked is None:
        assert isinstance(piece, Document)
        return
    assert isinstance(piece, Dropped)
    assert piece.span is not None
    assert (piece.rule, text[slice(*piece.span)]) == ("badwords.max_count", marked)
    assert "Raffel" in piece.reason


def test_counts_and_shares_have_limits() -> None:
    text = "darn darn tea tea tea tea tea tea tea tea"
    for settings, rule in [
        ({"max_count": 1}, "badwords.max_count"), ({"max_count": 2}, None), ({"max_share": 0.2}, None),
        ({"max_share": 0.1}, "badwords.max_share"), ({"max_count": 5, "max_share": 0.1}, "badwords.max_share"),
    ]:  # fmt: skip
        piece = judged(text, words=WORDS, **settings)
        assert getattr(piece, "rule", None) == rule
    reason = getattr(judged(text, words=WORDS, max_share=0.1), "reason", "")
    assert reason == "0.2 of the words listed, more than 0.1 (C4 (Raffel et al. 2020, 2.2))"


def test_a_list_that_changed_is_another_key_and_a_sample_marks_the_word(tmp_path: Path) -> None:
    steps = [{"badwords": {"files": {"en": "words.txt"}}}, {"blocklist": {"files": ["hosts.txt"]}}]
    (tmp_path / "words.txt").write_text("darn\n")
    (tmp_path / "hosts.txt").write_text("bad.test\n")
    loaded = load_transforms(steps, tmp_path)
    documents = [at("https://bad.test/"), at("https://good.test/"),
                 Document("doc:3", "t", "3", "Well, darn it, said somebody.")]  # fmt: skip
    for map_ in (map, Pool(2).map):
        accounting = Accounting()
        (kept,) = run_transforms([documents], loaded, accounting, map_)
        assert [each.id for each in kept] == ["doc:https://good.test/"]
        assert accounting.dropped == {"badwords.max_count": 1, "blocklist.host": 1}
        (sample,) = accounting.samples["badwords.max_count"]
        assert sample.mark is not None
        assert sample.text[slice(*sample.mark)] == "darn"
    keys = [each.key() for each in loaded]
    (tmp_path / "words.txt").write_text("darn\ncup\n")
    again = [each.key() for each in load_transforms(steps, tmp_path)]
    assert again[0] != keys[0]
    assert again[1] == keys[1]
    with pytest.raises(UserError, match="changed meanwhile"):
        loaded[0].start()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"blocklist": {}}, "lists nothing"),
        ({"blocklist": {"files": ["absent.txt"]}}, "no list"),
        ({"blocklist": {"files": ["latin.txt"]}}, "latin.txt is not UTF-8 at byte 1"),
        ({"blocklist": {"hosts": ["not a host"]}}, "is no host or page"),
        ({"blocklist": {"words": ["a-b"]}}, "letters and digits only"),
        ({"badwords": {}}, "lists nothing"),
        ({"badwords": {"files": {"en": "absent.txt"}}}, "no list"),
        ({"badwords": {"words": {"English": ["x"]}}}, "is no language"),
        ({"badwords": {"words": {"en": ["..."]}}}, "is no entry"),
        ({"badwords": {"words": {"en": ["x"]}, "max_share": 2}}, "share from 0 to 1"),
        ({"badwords": {"words": {"en": ["x"]}, "max_count": -1}}, "0 or more"),
    ],
)
def test_a_mistake_in_a_list_is_told(tmp_path: Path, step: dict[str, Any], words: str) -> None:
    (tmp_path / "latin.txt").write_bytes(b"\xe9.test\n")
    with pytest.raises(UserError) as caught:
        load_transforms([step], tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_report_knows_who_published_them() -> None:
    assert rule_info("blocklist.host").url == "https://arxiv.org/abs/2306.01116"
    assert rule_info("badwords.max_share").url == "https://arxiv.org/abs/1910.10683"
