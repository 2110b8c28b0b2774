"""The report: whole, self-contained, and safe whatever the texts say."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from treadle.text import chart
from treadle.text.accounting import Accounting, Dropped, Note, read_accounting
from treadle.text.comparison import Comparison, Membership, changed_words
from treadle.text.dataset import Example
from treadle.text.document import Document
from treadle.text.excerpts import excerpt_around
from treadle.text.explore import Material, SplitShape, render_report
from treadle.text.overview import Expected, Lengths, Overview, Tally, overview_of
from treadle.text.rule_log import RULES_FILE, LogRow, RuleLog, read_rule_log
from treadle.text.rules import rule_info
from treadle.text.text_map import lay_out
from treadle.text.transform import load_transforms, run_transforms
from treadle.text.triggers import trigger_of

EVIL = "<script>alert('x')</script>\"'&\u202e\x00"
WORDS = [
    ["kettle", "boil", "water", "steam", "cup"],
    ["bicycle", "chain", "wheel", "brake", "road"],
    ["printer", "paper", "ink", "jam", "tray"],
]


class Reader(HTMLParser):
    """What stands in a page: tags with attributes, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def saying(number: int) -> str:
    words = WORDS[number % 3]
    return " ".join(words[(number * 7 + place) % 5] for place in range(4 + number % 9)) + f" and the number {number}."


def test_scores_of_the_classifier_are_drawn_against_the_other_measures() -> None:
    plain = [Document(f"d{n}", "site", f"d{n}", saying(n)) for n in range(40)]
    scored = [replace(each, fields={"quality": n / 40}) for n, each in enumerate(plain)]
    page = render_report(Material(title="t", collected=overview_of([scored])))
    assert "words against classifier score" in page
    assert page.count("classifier score</") >= 2
    without = [replace(each, fields={"quality": said}) for each, said in zip(plain, ["high", True] * 20, strict=True)]
    assert "classifier score" not in render_report(Material(title="t", collected=overview_of([without])))
    some = render_report(Material(title="t", collected=overview_of([[*plain, *scored[:30]]])))
    assert "words against classifier score" in some
    assert "NaN" not in some


def documents(source: str = "python_docs", count: int = 40, **changes: Any) -> list[Document]:
    return [
        Document(
            f"doc:{n}",
            source,
            f"m.{n}",
            saying(n),
            license="MIT" if n % 2 else None,
            time=f"20{10 + n % 9}-03-01",
            **changes,
        )
        for n in range(count)
    ]


def accounting(**changes: Any) -> dict[str, Any]:
    sample = {
        "document": "doc:1",
        "locator": "m.1",
        "reason": "0.5 symbols a word, more than 0.1",
        "text": "short ### text",
        "mark": [6, 9],
    }
    member = {"document": "doc:9", "locator": "m.9", "rule": "deduplicate_near.similar", "similarity": 0.91}
    return {
        "in": 1_240,
        "kept": 1_200,
        "dropped": {"filter.max_symbols": 30, "deduplicate.exact": 9},
        "quarantined": [{"source": "a.jsonl", "offset": 77, "reason": "not UTF-8"}],
        "notes": {"redact.email": 12, "redact.documents": 7},
        "samples": {"filter.max_symbols": [sample]},
        "duplicates": {
            "clusters": 4,
            "dropped": 9,
            "largest": [{"document": "doc:8", "locator": "m.8", "size": 6, "members": [member]}],
        },
        **changes,
    }


def example(name: str, group: str) -> Example:
    messages = ({"role": "user", "content": f"What is {name}?"}, {"role": "assistant", "content": f"It is {name}."})
    return Example((f"doc:{name}",), messages=messages, group=group)


def shape(examples: Sequence[Example]) -> SplitShape:
    found = SplitShape()
    for each in examples:
        found.add(each)
    return found


def report(**changes: Any) -> str:
    given: dict[str, Any] = {
        "title": "docs-assistant",
        "stages": {"collect": accounting()},
        "collected": overview_of([documents()], look=False),
        "kept": overview_of([documents(count=30)]),
        "splits": {
            "train": shape([example(f"t{n}", "json") for n in range(30)]),
            "test": shape([example(f"e{n}", "gzip") for n in range(5)]),
        },
        "tokens": {"train": list(range(20, 50)), "test": [30, 40, 50, 60, 70]},
        "ref": "dataset@v1",
        "touched": {"redact.email": 7, "filter.max_symbols": 30},
        **changes,
    }
    return render_report(Material(**given))


@functools.cache
def plain() -> str:
    return report()


def test_what_a_person_wants_to_know_is_there() -> None:
    reader = read(plain())
    for words in (
        "1,240 in = 1,200 kept + 39 dropped + 1 quarantined",
        "filter.max_symbols",
        "0.5 symbols a word",
        "deduplicate.exact",
        "python_docs",
        "not recorded",
        "not UTF-8",
        "What is t0?",
        "json 30",
        "tokens in a train example",
        "printer paper",
        "4 clusters; 9 documents left out.",
        "m.9",
        "In 7 documents.",
        "mean word length",
    ):
        assert words in reader.said, words


def test_what_came_beside_the_collected_is_in_the_sum() -> None:
    collected = accounting(**{"in": 506, "kept": 502, "dropped": {}})
    prepared = accounting(**{"in": 514, "kept": 502, "dropped": {"filter.max_symbols": 12}, "quarantined": []})
    page = report(stages={"collect": collected, "prepare": prepared})
    assert "<b>506</b><span>documents in</span>" in page
    assert "<b>12</b><span>added to them</span>" in page
    assert "<b>502</b><span>documents kept</span>" in page
    assert "added to them" not in report(stages={"collect": collected, "prepare": {**prepared, "in": 502}})


def test_a_number_leads_to_its_rule_the_rule_to_its_source_and_to_the_documents() -> None:
    page = plain()
    reader = read(page)
    ids = [attributes["id"] for _, attributes in reader.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    inside = [
        str(attributes["href"])[1:]
        for tag, attributes in reader.tags
        if tag == "a" and str(attributes.get("href")).startswith("#")
    ]
    assert {"rule-redact.email", "rule-filter.max_symbols", "quarantined", "map-of-the-texts"} <= set(inside)
    assert set(inside) <= set(ids)
    card = page[page.index('id="rule-filter.max_symbols"') :]
    assert card.index("Rae et al. 2021") < card.index("short <mark>###</mark> text")
    assert "https://arxiv.org/abs/2112.11446" in card
    assert "treadle explore dataset@v1 --rule filter.max_symbols" in card
    assert "treadle explore dataset@v1 --rule redact.email" in page
    assert "--rule deduplicate.exact" not in page, "nobody noted which documents"


def test_the_page_needs_nothing_else() -> None:
    page = plain()
    reader = read(page)
    assert not {tag for tag, _ in reader.tags} & {"img", "iframe", "object", "embed", "image", "base", "form"}
    assert [tag for tag, _ in reader.tags if tag == "script"] == ["script"]
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert "src" not in attributes
        if tag == "link":
            assert attributes["href"] == "data:,"
        elif "href" in attributes:
            assert tag == "a"
            assert re.match(r"#|https://(arxiv\.org|doi\.org|www\.unicode\.org)/", str(attributes["href"]))
    assert "@import" not in page
    assert "url(" not in page


def test_hostile_text_stays_text() -> None:
    hostile = accounting(
        dropped={EVIL: 3},
        samples={EVIL: [{"document": EVIL, "locator": EVIL, "reason": EVIL, "text": EVIL, "mark": [2, 9]}]},
        quarantined=[{"source": EVIL, "offset": 1, "reason": EVIL}],
        notes={f"redact.{EVIL}": 2},
        duplicates={"largest": [{"locator": EVIL, "size": 2, "members": [{"locator": EVIL, "similarity": 1}]}]},
    )
    splits = {
        "train": shape([example(EVIL, EVIL)]),
        "test": shape([Example((EVIL,), text=EVIL, label=EVIL, group=EVIL)]),
    }
    texts = overview_of([[Document(f"d{n}", EVIL, EVIL, f"{EVIL} {saying(n)}", license=EVIL) for n in range(20)]])
    members = Membership(1, 1, 1, 1, (EVIL,), (EVIL,))
    page = report(
        title=EVIL,
        stages={EVIL: hostile},
        kept=texts,
        splits=splits,
        ref=EVIL,
        touched={EVIL: 3},
        comparison=Comparison(EVIL, EVIL, members),
    )
    reader = read(page)
    assert [tag for tag, _ in reader.tags if tag == "script"] == ["script"]
    assert page.count("alert(") == page.count("&lt;script&gt;alert(") + page.count("&gt;alert(&#x27;x") - page.count(
        "&lt;script&gt;alert(&#x27;x"
    )
    assert "\u202e" not in page
    assert "\x00" not in page


def test_every_drawing_is_well_formed_and_says_what_it_is() -> None:
    drawings = re.findall(r"<svg .*?</svg>", plain(), re.DOTALL)
    assert len(drawings) >= 5
    for drawing in drawings:
        root = ElementTree.fromstring(drawing.replace("\xa0", " "))
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"]


def test_an_empty_dataset_is_a_page_too() -> None:
    nothing = {"in": 0, "kept": 0, "dropped": {}, "quarantined": []}
    page = render_report(
        Material(title="empty", stages={"collect": nothing}, collected=Overview(), splits={"train": SplitShape()})
    )
    assert "0 in = 0 kept" in page
    assert render_report(Material(title="bare", collected=Overview())).startswith("<!doctype html>")


def test_nothing_about_a_person_is_shown() -> None:
    secret = [
        Document(
            f"doc:{n}", "mail", f"m{n}", f"The kettle of Quillfeather{n} broke, write to q{n}@example.org", subject="s"
        )
        for n in range(30)
    ]
    page = report(kept=overview_of([secret]))
    assert "quillfeather" not in page.casefold()
    assert "example.org" not in page
    assert "about a person; its text is not shown" in page
    assert "kettle" in page, "what several of them say is no secret"


def test_many_values_become_one_bar() -> None:
    table = chart.bars({f"source-{n:03}": 1000 - n for n in range(100)}, title="many")
    assert "86 others" in table
    assert "source-013" in table
    assert "source-014" not in table
    assert chart.bars({}, title="none") == ""
    assert chart.curves({"none": []}, title="none", unit="") == ""
    assert "<svg" in chart.curves({"one": chart.histogram_of([5.0])}, title="one", unit="tokens")


def test_lengths_take_no_memory_and_are_right_to_a_tenth() -> None:
    lengths = Lengths()
    for n in range(1, 20_001):
        lengths.add(n)
    assert len(lengths.bins) < 150
    for share in (0.25, 0.5, 0.9):
        assert lengths.quantile(share) == pytest.approx(share * 20_000, rel=0.1)


def test_a_tally_gives_up_what_is_rare() -> None:
    tally = Tally(most=100)
    for n in range(1_000):
        tally.add((f"rare{n}", "often"))
    assert tally.counts["often"] == 1_000
    assert len(tally.counts) <= 101
    assert tally.counts.total() + tally.given_up == 2_000


def test_the_sample_is_spread_and_the_same_in_any_order() -> None:
    many = documents(count=15_000)
    first = overview_of([many], expected=Expected(36_000, 1))
    again = overview_of([many[::-1]], expected=Expected(36_000, 1))
    assert first.documents == 15_000
    assert 4_500 < first.sampled < 5_500
    assert first.words.counts == again.words.counts
    assert first.languages == again.languages


def test_texts_with_the_same_words_lie_together() -> None:
    texts = [[WORDS[n % 3][(n * 7 + k * k) % 5] for k in range(12)] for n in range(90)]
    drawn = lay_out(texts)
    assert drawn is not None
    again = lay_out(texts)
    assert again == drawn
    for n in range(90):
        x, y = drawn.places[n]
        nearest = min(
            (m for m in range(90) if m != n), key=lambda m: abs(drawn.places[m][0] - x) + abs(drawn.places[m][1] - y)
        )
        assert nearest % 3 == n % 3
    assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y in drawn.places)
    assert lay_out(texts[:3]) is None
    assert lay_out([[]] * 20) is None


def test_words_that_changed_are_told_from_chance() -> None:
    before = overview_of([[Document(f"a{n}", "s", "l", saying(n)) for n in range(300)]])
    after = overview_of([[Document(f"b{n}", "s", "l", saying(n) + (" teapot" if n % 2 else "")) for n in range(300)]])
    more, less = changed_words(before, after)
    assert [change.word for change in more] == ["teapot"]
    assert more[0].before == 0
    assert less == []
    back, gone = changed_words(after, before)
    assert back == []
    assert [change.word for change in gone] == ["teapot"]


@pytest.mark.parametrize(
    ("rule", "text", "trigger"),
    [
        ("filter.max_symbols", "Tags: ### here", "### "),
        ("filter.max_ellipsis_lines", "Whole.\nRead on ...\n", "Read on ..."),
        ("filter.max_duplicate_lines", "a\nHome\nb\nHome\nHome\nc", "Home\nHome"),
        ("filter.max_mean_word_length", "a bb Donaudampfschiff c", "Donaudampfschiff"),
        ("filter.min_letter_words", "one 222 three", "222"),
        ("filter.max_bullet_lines", "Intro\n- one\n- two", "- one\n- two"),
        ("filter.min_words", "few", None),
        ("mine.own", "few", None),
    ],
)
def test_what_triggered_a_rule_is_found(rule: str, text: str, trigger: str | None) -> None:
    span = trigger_of(rule, text)
    assert (text[slice(*span)] if span else None) == trigger


@pytest.mark.parametrize("place", [0, 150, 900, 1790])
def test_the_mark_stays_on_its_trigger_when_personal_data_is_masked(place: int) -> None:
    text = ("write to ann.lee@example.org now " * 60)[:1900]
    text = text[:place] + "TRIGGER" + text[place:]
    shown, mark = excerpt_around(text, (place, place + 7), 200)
    assert mark is not None
    assert "TRIGGER" in shown[slice(*mark)] or "[EMAIL]" in shown[slice(*mark)]
    assert "example.org" not in shown
    assert len(shown) < 320


def test_a_mark_never_covers_half_a_replacement() -> None:
    text = "see ann.lee@example.org here"
    for start in range(len(text)):
        for end in range(start + 1, len(text) + 1):
            shown, mark = excerpt_around(text, (start, end), 200)
            assert shown == "see [EMAIL] here"
            assert mark is not None
            marked = shown[slice(*mark)]
            assert "[EMAIL]" in marked or not set(marked) & set("[EMAIL]"), (start, end, marked)


def test_samples_keep_their_mark_and_rules_their_documents(tmp_path: Path) -> None:
    texts = [
        "The kettle is fine and that is all of it",
        "### ### ... ### the and",
        "Write to ann@example.org and that is it",
    ]
    given = [Document(f"doc:{n}", "s", f"l{n}", text) for n, text in enumerate(texts)]
    account = Accounting()
    transforms = load_transforms([{"filter": {"max_symbols": 0.1}}, "redact"], None)
    with RuleLog(tmp_path) as account.log:
        kept = [document.id for shard in run_transforms([given], transforms, account) for document in shard]
    account.drop(Dropped(given[0], "suppress.erased", "asked for", private=True))
    account.kept, account.read = 1, 3
    account.write(tmp_path)
    assert kept == ["doc:0", "doc:2"]
    rows = list(read_rule_log(tmp_path / RULES_FILE))
    assert LogRow("doc:1", "filter.max_symbols", "dropped") in rows
    assert LogRow("doc:2", "redact.email", "changed") in rows
    assert not [row for row in rows if row.rule == "suppress.erased"]
    sample = read_accounting(tmp_path).samples["filter.max_symbols"][0]
    assert sample.mark is not None
    assert sample.text[slice(*sample.mark)].startswith("###")


def test_a_note_tells_the_log_of_its_documents(tmp_path: Path) -> None:
    account = Accounting()
    with RuleLog(tmp_path) as account.log:
        account.note(Note("mine.changed", 2, ("doc:1", "doc:2")))
    assert [row.document for row in read_rule_log(tmp_path / RULES_FILE)] == ["doc:1", "doc:2"]


def test_every_rule_has_a_source() -> None:
    from treadle.text.filters import RULES

    for name in [f"filter.{rule.setting}" for rule in RULES] + [
        "deduplicate.exact",
        "redact.iban",
        "normalize.changed",
    ]:
        info = rule_info(name)
        assert info.what
        assert info.source
    assert rule_info("redact.email").name == "redact.email"
    assert rule_info(EVIL).source
