"""Hostile strings through every form and onto every page: shown as text, never as markup; control characters; size."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from console.conftest import Content, Opened, interaction
from treadle.console.rendering import visible
from treadle.core.journal import Journal
from treadle.record.note import keep_note
from treadle.stages.improve import give_feedback

CONTROLS = "".join(map(chr, range(32))) + "\x7f\x80\x9f\u200b\u202e\u2066\ufeff\U000e0041" + "end"
OURS = {"/static/htmx.min.js", "/static/console.js"}


@pytest.fixture(scope="module")
def strings(shared_data: Path) -> list[str]:
    """The big list of naughty strings, and what it lacks."""
    found: list[str] = json.loads((shared_data / "8-nasty-inputs" / "blns.json").read_text())
    assert len(found) > 500
    return [
        *found,
        CONTROLS,
        "a\ud800b",
        "</textarea><script>alert(1)</script>",
        "{{ 7 * 7 }}{% for %}",
        "'\"><svg/onload=x>",
    ]


def bundles(strings: list[str], most: int) -> Iterator[str]:
    """All of them, several at a time, within a length."""
    held = ""
    for each in strings:
        if len(held) + len(each) + 1 > most and held:
            yield held
            held = ""
        held += each[:most] + "\n"
    yield held


def harmless(html: str, told: str = "") -> Content:
    """The page, after looking whether anything on it is more than text."""
    page = Content(html)
    for tag, attributes in page.tags:
        assert tag not in ("iframe", "object", "embed", "style", "base", "marquee", "img", "video", "audio"), told
        assert tag != "script" or attributes["src"].partition("?")[0] in OURS, told
        assert tag != "meta" or set(attributes) <= {"charset", "name", "content", "http-equiv"}, told
        for name, value in attributes.items():
            if (name, value) == ("formaction", "/compare/runs"):  # ours, and the same for everybody
                continue
            assert not name.startswith(("on", "hx-on", "style", "srcdoc", "formaction", "xlink", "hx-vals")), told
            if name in ("href", "src", "action", "hx-get", "hx-post"):
                assert re.match(r"[/#?]", value), (told, value)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html), told
    return page


def shown(text: str, page: Content) -> None:
    """The text stands on the page (or in a field) as it is, with what cannot be seen written out."""
    wanted = " ".join(visible(text).split())
    fields = " ".join(value for _, attributes in page.tags for value in attributes.values())
    assert wanted in " ".join(page.text.split()) or wanted in " ".join(fields.split()), text


def test_recorded_texts_are_shown_as_text(opened: Opened, strings: list[str]) -> None:
    record, browser = opened.record, opened.browser()
    release = record.versions.served()
    assert release is not None
    texts = [text.encode("utf-8", "replace").decode() for text in bundles(strings, 3_000)]
    rows = []
    for number, text in enumerate(texts):
        row = interaction(release, text, number, answer=text, alternatives=(text,), confidence=(0.6, 0.4))
        record.recorder.interaction(row)
        give_feedback(record, row.id, "correction", None, text, text, "user", "api")
        give_feedback(record, row.id, "thumbs", 0.0, None, text, "user", "api")
        rows.append(row)
    opened.console.house.written()
    for row, text in zip(rows, texts, strict=True):
        page = harmless(browser.get(f"/interactions/{row.id}").text, text)
        shown(text, page)
        item = harmless(browser.get(f"/review?at={row.id}").text, text)
        shown(text, item)
        given = browser.json(f"/interactions/{row.id}")
        assert given["interaction"]["answer"] == text
        assert given["feedback"][0]["comment"] == text
    for rating in ("", "down", "corrected"):
        page = harmless(browser.get(f"/interactions?rating={rating}").text)
    assert "How" in page.text or page.text
    assert len(texts) > 5


def test_what_people_send_is_shown_as_text(opened: Opened, strings: list[str]) -> None:
    record, browser = opened.record, opened.browser()
    token = browser.csrf
    texts = list(bundles([text for text in strings if "\ud800" not in text], 1_900))
    row = record.interactions.page(limit=1).rows[0].id
    for text in texts:
        sent = browser.post(f"/interactions/{row}/feedback", token, label="correct", correction=text, comment=text)
        assert sent.status_code == 303, sent.text
        assert browser.post(f"/interactions/{row}/case", token, reference=text).status_code == 303
        assert browser.post("/review", token, action="correct", interaction=row, correction=text).status_code == 303
        assert browser.post("/approvals/2", token, decision="reject", reason=text, report="x").status_code == 409
    page = harmless(browser.get(f"/interactions/{row}").text)
    kept = record.interactions.feedback(row)
    assert len([each for each in kept if each.kind == "correction"]) >= len(texts)
    for each in kept:
        shown(each.correction or "", page)
    for case in record.recorder.cases():
        assert case.reference
    assert len(list(record.recorder.cases())) == len(texts)


def test_reasons_and_names_are_shown_as_text(opened: Opened, strings: list[str]) -> None:
    version = opened.record.versions.all("model")[1]
    seen = opened.browser().json("/approvals/2")["seen"]
    texts = list(bundles([text for text in strings if text.strip() and "\ud800" not in text], 1_500))
    for number, text in enumerate(texts):
        note = keep_note(opened.record.store, text)
        opened.record.approvals.record(version.ref, "reject", f"k3:{number:040x}", note, seen["report"])
    browser = opened.browser("<script>alert(1)</script>" + CONTROLS)
    for path in ("/approvals", "/approvals/2", "/"):
        page = harmless(browser.get(path).text)
        for text in texts[-15:]:
            shown(text, page)
        shown("<script>alert(1)</script>" + CONTROLS, page)


def test_settings_metrics_and_errors_are_shown_as_text(opened: Opened, strings: list[str]) -> None:
    runs, browser = opened.record.runs, opened.browser()
    text = "\n".join(text for text in strings if "\ud800" not in text)[:60_000]
    settings: dict[str, Any] = {"version": 1, "key": "k", "inputs": {}, "seed": 1, "progress": lambda *_: None}
    hostile = {f"<b>{number}": each for number, each in enumerate(strings) if "\ud800" not in each}
    run = runs.start("prepare.<i>x", parameters=hostile, folder=opened.project.folder, **settings)
    run.log(1, **{"<script>": 1.0})
    run.log(2, **{"<script>": 2.0})
    run.summary(**{"<img src=x>": 0.5})
    runs.finish(run, "failed", seconds=0.1, error=text)
    page = harmless(browser.get(f"/runs/{run.id}").text)
    shown("<img src=x>", page)
    shown("<script>", page)
    shown(text[:2_000], page)
    for path in ("/runs", "/", f"/compare?a={run.id}&b={run.id}"):
        harmless(browser.get(path).text)
    assert browser.json(f"/runs/{run.id}")["parameters"] == hostile


WIDE = (("/runs", "q"), ("/lineage", "ref"), ("/compare", "a"), ("/interactions", "text"), ("/runs", "step"))
NARROW = (("/runs", "metric"), ("/interactions", "release"), ("/interactions", "user"), ("/review", "at"))
NARROW += (("/interactions", "since"), ("/interactions", "before"), ("/runs", "status"), ("/lineage", "way"))


@pytest.mark.parametrize(("places", "most"), [(WIDE, 190), (NARROW, 60)])
def test_hostile_addresses_are_answered_as_text(
    looked_at: Opened, strings: list[str], places: tuple[tuple[str, str], ...], most: int
) -> None:
    browser = looked_at.browser()
    for number, text in enumerate(bundles(strings, most)):
        for path, name in (places[number % len(places)], places[(number * 3 + 1) % len(places)]):
            more = {"b": "model@v1"} if path == "/compare" else {"sort": "metric"} if name == "metric" else {}
            answer = browser.get(f"{path}?{urlencode({name: text, **more}, errors='replace')}")
            assert answer.status_code in (200, 400, 404), (path, name, text)
            harmless(answer.text, text)


def test_hostile_paths_are_answered_as_text(looked_at: Opened, strings: list[str]) -> None:
    browser = looked_at.browser()
    for each in strings:
        answer = browser.get("/runs/" + urlencode({"": each}, errors="replace")[1:])
        assert answer.status_code in (400, 404) or each in (".", "..", ""), each
        harmless(answer.text, each)


def test_a_hostile_name_at_the_door(opened: Opened, strings: list[str]) -> None:
    for text in list(bundles([each for each in strings if each.strip() and "\ud800" not in each], 100))[:40]:
        browser = opened.browser(text)
        harmless(browser.get("/approvals").text, text)


def test_large_texts_are_refused_with_a_word(opened: Opened) -> None:
    browser = opened.browser()
    row = opened.record.interactions.page(limit=1).rows[0].id
    path, token = f"/interactions/{row}/feedback", browser.csrf
    before = len(opened.record.interactions.feedback(row))
    for fields, status, said in (
        ({"label": "correct", "correction": "x" * 100_001}, 400, "100,001 characters; at most 100,000"),
        ({"label": "good", "comment": "x" * 10_001}, 400, "10,001 characters; at most 10,000"),
        ({"label": "correct", "correction": "x" * 10_000_000}, 413, "larger than 1,500 kB"),
        ({"label": "correct", "correction": " \n "}, 400, "a correction needs a text"),
        ({"label": "odd"}, 400, "label"),
        ({}, 400, "Say good, bad"),
    ):
        answer = browser.post(path, token, **fields)  # type: ignore[arg-type]
        assert answer.status_code == status
        assert said.lower() in answer.text.lower()
    assert browser.post(f"/interactions/{row}/case", token, reference="").status_code == 400
    assert browser.post("/approvals/2", token, decision="reject", reason="x" * 2_001).status_code == 400
    assert len(opened.record.interactions.feedback(row)) == before
    whole = "é" * 100_000
    assert browser.post(path, token, label="correct", correction=whole).status_code == 303
    assert opened.record.interactions.feedback(row)[-1].correction == whole


def test_a_large_answer_can_be_read(opened: Opened) -> None:
    release = opened.record.versions.served()
    assert release is not None
    text = "word " * 200_000
    row = interaction(release, "short", 1, answer=text)
    opened.record.recorder.interaction(row)
    page = harmless(opened.browser().get(f"/interactions/{row.id}").text)
    assert "word word" in page.text


def test_what_is_kept_follows_the_file(opened: Opened) -> None:
    browser = opened.browser()
    row = opened.record.interactions.page(limit=1).rows[0].id
    text = "Write to jane.roe@example.org"
    assert (
        browser.post(f"/interactions/{row}/feedback", label="correct", correction=text, comment=text).status_code == 303
    )
    said = opened.record.interactions.feedback(row)[-1]
    assert said.correction == said.comment == "Write to [EMAIL]"
    assert said.source == "console"
    assert browser.post(f"/interactions/{row}/case", reference=text).status_code == 303
    assert next(opened.record.recorder.cases()).reference == "Write to [EMAIL]"
    release = opened.record.versions.served()
    assert release is not None
    bare = interaction(release, "", 1, messages=None, answer=None, given=(), metadata=None, parameters={}, store=False)
    opened.record.recorder.interaction(bare)
    page = browser.page(f"/interactions/{bare.id}")
    assert page.by_id("correction") is None
    refused = browser.post(f"/interactions/{bare.id}/feedback", label="correct", correction="x")
    assert refused.status_code == 400
    assert "no text is kept of this interaction" in refused.text.lower()
    assert browser.post(f"/interactions/{bare.id}/feedback", label="good").status_code == 303


def test_what_cannot_be_seen_is_written_out() -> None:
    assert visible("a\x00\x1b[31m\x7f") == "a␀␛[31m␡"
    assert visible("x\u202ey\u2066z\U000e0041\ud800") == "x⟨U+202E⟩y⟨U+2066⟩z⟨U+E0041⟩⟨U+D800⟩"
    assert visible("a\r\nb\tc\nd\re") == "a\nb\tc\nd␍e"
    for kept in ("héllo wörld", "שלום", "👩\u200d👩\u200d👧", "क\u200dष", "\u0645\u06cc\u200c\u062e\u0648", "日本語"):
        assert visible(kept) == kept


def test_the_journal_is_never_read_through(looked_at: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that are asked for with a million interactions behind them must not read them all."""
    browser = looked_at.browser()
    browser.get("/")
    looked_at.console.house.improved()

    def refuse(_self: Journal, stream: str, **_: object) -> Iterator[dict[str, Any]]:
        raise AssertionError(f"{stream} was read through")

    monkeypatch.setattr(Journal, "read", refuse)
    answer = looked_at.record.interactions.page(limit=1).rows[0].id
    paths = ("/", "/runs", "/interactions?text=kettle", f"/interactions/{answer}", "/lineage?ref=model@v1&way=down")
    for path in (*paths, "/review", "/approvals/2", "/compare?a=model@v1&b=model@v2", "/lineage?ref=" + answer):
        assert browser.get(path).status_code == 200, path
