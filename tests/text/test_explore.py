"""The report: whole, self-contained, and safe whatever the texts say."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import vl_convert

from treadle.text import chart
from treadle.text.dataset import Example
from treadle.text.document import Document
from treadle.text.explore import Overview, overview_of, render_report

EVIL = "<script>alert('x')</script>\"'&\u202e\x00"


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


def documents(source: str = "python_docs", count: int = 40) -> list[Document]:
    return [
        Document(
            f"doc:{n}",
            source,
            f"m.{n}",
            "x" * (n * n + 1),
            license="MIT" if n % 2 else None,
            time=f"20{10 + n % 9}-03-01",
        )
        for n in range(count)
    ]


def accounting(**changes: Any) -> dict[str, Any]:
    sample = {"document": "doc:1", "locator": "m.1", "reason": "fewer than 20 characters", "text": "short"}
    return {
        "in": 1_240,
        "kept": 1_200,
        "dropped": {"filter.min_chars": 30, "deduplicate.exact": 9},
        "quarantined": [{"source": "a.jsonl", "offset": 77, "reason": "not UTF-8"}],
        "notes": {"redact.email": 12},
        "samples": {"filter.min_chars": [sample]},
        **changes,
    }


def example(name: str, group: str) -> Example:
    messages = ({"role": "user", "content": f"What is {name}?"}, {"role": "assistant", "content": f"It is {name}."})
    return Example((f"doc:{name}",), messages=messages, group=group)


def report(**changes: Any) -> str:
    splits = {
        "train": [example(f"t{n}", "json") for n in range(30)],
        "test": [example(f"e{n}", "gzip") for n in range(5)],
    }
    given: dict[str, Any] = {
        "title": "docs-assistant",
        "stages": {"collect": accounting()},
        "collected": overview_of([documents()]),
        "kept": overview_of([documents(count=30)]),
        "splits": splits,
        "tokens": {"train": list(range(20, 50)), "test": [30, 40, 50, 60, 70]},
        **changes,
    }
    return render_report(**given)


def test_what_a_person_wants_to_know_is_there() -> None:
    reader = read(report())
    for words in (
        "1,240 in = 1,200 kept + 39 dropped + 1 quarantined",
        "filter.min_chars",
        "fewer than 20 characters",
        "deduplicate.exact",
        "python_docs",
        "not recorded",
        "not UTF-8",
        "email",
        "What is t0?",
        "json 30",
        "tokens in a train example",
    ):
        assert words in reader.said, words
    assert len([tag for tag, _ in reader.tags if tag == "svg"]) >= 8


def test_the_page_needs_nothing_else() -> None:
    page = report()
    reader = read(page)
    assert not {tag for tag, _ in reader.tags} & {"script", "link", "img", "iframe", "object", "embed", "image"}
    for _, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            assert name not in attributes
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    addresses = set(re.findall(r"https?://[^\s\"<]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_hostile_text_stays_text() -> None:
    hostile = accounting(
        dropped={EVIL: 3},
        samples={EVIL: [{"document": EVIL, "locator": EVIL, "reason": EVIL, "text": EVIL}]},
        quarantined=[{"source": EVIL, "offset": 1, "reason": EVIL}],
        notes={f"redact.{EVIL}": 2},
    )
    splits = {"train": [example(EVIL, EVIL)], "test": [Example((EVIL,), text=EVIL, label=EVIL, group=EVIL)]}
    page = report(title=EVIL, stages={EVIL: hostile}, collected=overview_of([documents(EVIL)]), splits=splits)
    reader = read(page)
    assert "script" not in {tag for tag, _ in reader.tags}
    assert "\u202e" not in page
    assert "\x00" not in page
    assert "alert('x')" in reader.said


def test_pictures_take_the_pages_colors_and_can_be_drawn() -> None:
    page = report()
    drawn = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    for svg in drawn:
        used = set(re.findall(r'(?:fill|stroke)="(#[0-9a-f]{6})"', svg))
        assert used
        assert used <= {chart.INK, chart.FAINT, chart.ACCENT, chart.SECOND, chart.THIRD, chart.WARN}
        assert vl_convert.svg_to_png(svg)[:4] == b"\x89PNG"
    assert "prefers-color-scheme:dark" in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_an_empty_dataset_is_a_page_too() -> None:
    nothing = {"in": 0, "kept": 0, "dropped": {}, "quarantined": []}
    page = render_report(
        title="empty", stages={"collect": nothing}, collected=Overview(), splits={"train": []}, tokens={}
    )
    assert "0 in = 0 kept" in page
    assert render_report(title="bare", stages={}, collected=Overview()).startswith("<!doctype html>")


def test_many_values_become_one_bar() -> None:
    svg = chart.bars({f"source-{n:03}": 1000 - n for n in range(100)}, title="many")
    assert "86 others" in svg
    assert "source-013" in svg
    assert "source-014" not in svg


def test_one_value_is_a_histogram() -> None:
    assert "<svg" in chart.histogram({"one": [5.0]}, title="one", unit="characters")
    assert "<svg" in chart.histogram({"zero": [0.0, 0.0]}, title="zero", unit="characters")
    assert chart.histogram({"none": []}, title="none", unit="characters") == ""
