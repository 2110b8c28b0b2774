"""The big list of naughty strings through every form and onto every page of a real browser: shown, never run.

The browser is told to ignore our content security policy, so that nothing but the escaping stands in the way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from console.browser.conftest import Enter, Place, Visitor, copied, entering, running
from console.conftest import interaction
from small_project import Project
from treadle.console.rendering import visible
from treadle.project import open_project
from treadle.record.interaction import Given
from treadle.stages.improve import give_feedback

OURS = (
    "<script>canary('script')</script>",
    "<img src=x onerror=canary('img')>",
    "<svg/onload=canary('svg')>",
    "</textarea><script>canary('textarea')</script>",
    "</title></pre></q></dd></option></select><script>canary('closed')</script>",
    "' autofocus onfocus=canary('single') x='",
    '" autofocus onfocus=canary("double") hx-on:load=canary("htmx") style="color:red" x="',
    "javascript:canary('address')",
    "<a href=javascript:canary('link') id=nav-status>go</a>",
    "<div hx-get=/runs hx-trigger=load hx-target=body id=main>htmx</div>",
    "<iframe srcdoc='<script>parent.canary(1)</script>'></iframe>",
    "{{ 7 * 7 }} {% raw %} ${canary('template')} #{canary}",
    "a\u202eb\u0000c\u200bd\u2028e\x1b[31mf\x7f",
    "\ufdfa" * 20,
    "Z̮̞̠͙͔ͅḀ̗̞͈̻̗Ḷ͙͎̯̹̞͓G̻O̭̗̮" * 9,
)
PERSON = "<img src=x onerror=canary('name')>"
CANARY = "window.canary = where => console.error(`a script ran: ${where}`)"
ANSWERS = 12  # with dozens of strings each
SOUND = """scripts => {
    const kinds = "img, iframe, object, embed, style, base, audio, video, math, marquee";
    const wrong = [...document.querySelectorAll(kinds)];
    for (const each of document.querySelectorAll("*")) {
        for (const { name, value } of each.attributes)
            if (`${name} ${value}` !== "formaction /compare/runs" &&
                /^(on|style$|srcdoc$|formaction$|xlink|hx-(on|vals|trigger))/.test(name)) wrong.push(each);
        for (const name of ["href", "action", "src"])
            if (each.hasAttribute(name) && new URL(each.getAttribute(name), location).origin !== location.origin)
                wrong.push(each);
        if (each.matches("script") && !scripts.includes(new URL(each.src).pathname)) wrong.push(each);
    }
    return wrong.map(each => each.outerHTML.slice(0, 200));
}"""
SCRIPTS = ["/static/htmx.min.js", "/static/console.js"]


@pytest.fixture(scope="module")
def strings(shared_data: Path) -> list[str]:
    """All of them, and what the list lacks."""
    found: list[str] = json.loads((shared_data / "8-nasty-inputs" / "blns.json").read_text())
    assert len(found) > 500
    return [*OURS, *(text for text in found if text.strip())]


@pytest.fixture(scope="module")
def markup(strings: list[str]) -> list[str]:
    """Those that would mean something in HTML, JavaScript, SQL or a template."""
    return [text for text in strings if set(text) & set("<>\"'`{}\\&%")]


def bundles(strings: list[str], most: int) -> Iterator[str]:
    """As many at a time as fit into a length."""
    held = ""
    for each in strings:
        text = " ".join(each.split())[:most]
        if held and len(held) + 1 + len(text) > most:
            yield held
            held = ""
        held = f"{held} {text}".strip()
    yield held


@pytest.fixture(scope="module")
def hostile(built: Project, strings: list[str], markup: list[str], tmp_path_factory: Any) -> Iterator[Place]:
    """A console in whose project everything that can be a string is one of them; people's names too."""
    project = copied(built, tmp_path_factory.mktemp("hostile") / "copy")
    with open_project(project.folder) as opened:
        record = opened.record
        release = record.versions.served()
        assert release is not None
        for number, text in enumerate(markup):  # for the list, where each question begins a line
            record.recorder.interaction(interaction(release, text, number))
        for start in range(ANSWERS):
            some = strings[start::ANSWERS]
            row = interaction(
                release,
                "",
                start,
                messages=tuple(
                    {"role": ("user", "assistant")[place % 2], "content": t} for place, t in enumerate(some)
                ),
                answer=some[0],
                alternatives=tuple(some[:3]),
                confidence=(0.5, 0.3, 0.2),
                given=(Given(None, "k3:" + "0" * 40, some[1], some[2]),),
                metadata={some[3][:60]: some[4]},
                parameters={some[5][:60]: some[6], "stop": some[:8]},
                purpose=some[7],
            )
            record.recorder.interaction(row)
            give_feedback(record, row.id, "thumbs", 0.0, None, " ".join(some), "user", "api")
            give_feedback(record, row.id, "correction", None, "\n".join(some), some[8], "user", "api")
        settings: dict[str, Any] = {"version": 1, "key": "k", "inputs": {}, "seed": 1, "progress": lambda *_: None}
        run = record.runs.start("prepare.clean", parameters={"such": OURS}, folder=project.folder, **settings)
        record.runs.finish(run, "failed", seconds=0.1, error="\n".join(markup)[:20_000])
    with running(project, PERSON, "ann") as place:
        yield place


@pytest.fixture(scope="module")
def enter(chromium: Browser, hostile: Place) -> Iterator[Enter]:
    with entering(chromium, hostile) as enter:
        yield enter


@pytest.fixture(scope="module")
def visitor(enter: Enter) -> Visitor:
    """Somebody with a hostile name, in a browser without our policy."""
    visitor = enter(PERSON, bypass_csp=True)
    visitor.page.add_init_script(CANARY)
    visitor.refusals.add(400)
    return visitor


def sound(visitor: Visitor) -> Page:
    """The page, after looking whether anything on it is more than text."""
    page = visitor.page
    expect(page.locator(".person")).to_have_text(PERSON)
    assert page.evaluate(SOUND, SCRIPTS) == [], page.url
    wrong, visitor.wrong[:] = list(visitor.wrong), []
    assert wrong == [], page.url
    return page


def view(visitor: Visitor, path: str) -> Any:
    """The JSON of a page."""
    return visitor.page.request.get(visitor.base + path, headers={"Accept": "application/json"}).json()


def test_the_canary_would_sing(visitor: Visitor) -> None:
    page = visitor.open("/runs")
    with page.expect_console_message(lambda said: "a script ran" in said.text):
        page.evaluate("document.querySelector('h1').innerHTML = '<img src=data: onerror=canary(1)><b style=color:red>'")
    assert "console: a script ran: 1" in visitor.wrong
    found = page.evaluate(SOUND, SCRIPTS)
    assert {each[:2] for each in found} == {"<i", "<b"}
    visitor.wrong.clear()


def test_what_was_recorded_is_shown_as_it_is(visitor: Visitor, strings: list[str]) -> None:
    rows = view(visitor, "/interactions?rating=corrected")["rows"]
    shown: list[str] = []
    for name in (row["row"]["id"] for row in rows):
        messages = view(visitor, f"/interactions/{name}")["interaction"]["messages"]
        if len(messages) < 2:
            continue
        page = visitor.open(f"/interactions/{name}")
        texts = page.locator(".message:not(.given, .assistant) .text").all_text_contents()
        assert texts == [visible(message["content"]) for message in messages]
        shown += [message["content"] for message in messages]
        sound(visitor)
    assert sorted(shown) == sorted(strings)


def test_each_page_shows_them(visitor: Visitor, markup: list[str]) -> None:
    path, questions = "/interactions", []
    while path:
        page = visitor.open(path)
        questions += page.locator(".question").all_text_contents()
        sound(visitor)
        older = page.locator("#older")
        path = (older.get_attribute("href") or "") if older.count() else ""
    known = {visible(" ".join(text.split())[:140]) for text in markup}
    shown = {text for text in questions if not text.startswith("int-…")}  # a page gives up after a moment
    assert len(shown & known) >= 3

    failed = view(visitor, "/runs?status=failed")["runs"][0]["id"]
    answer = view(visitor, "/interactions?rating=corrected")["rows"][0]["row"]["id"]
    for path in (
        "/",
        "/runs",
        f"/runs/{failed}",
        f"/lineage?ref={answer}",
        "/lineage?ref=@champion&way=down",
        "/review",
    ):
        visitor.open(path)
        sound(visitor)
    visitor.page.set_viewport_size({"width": 390, "height": 844})
    for path in (f"/runs/{failed}", f"/interactions/{answer}", "/interactions", f"/review?at={answer}"):
        page = visitor.open(path)
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth"), path
    visitor.page.set_viewport_size({"width": 1280, "height": 800})
    other = Visitor.arriving(visitor.page.context, visitor.base)
    other.refusals.add(404)  # beside data a browser asks for /favicon.ico
    page = other.open(f"/interactions/{answer}?format=json")
    assert page.evaluate("document.contentType") == "application/json"
    assert other.wrong == []
    page.close()


def test_what_people_write_is_kept_and_shown(visitor: Visitor, hostile: Place, strings: list[str]) -> None:
    page = visitor.open("/interactions")
    page.locator(".question a").first.click()
    answer = page.url.rpartition("/")[2]
    everything = "\n".join(strings)
    page.get_by_text("Correct this").click()
    page.get_by_label("What the answer should have been").fill(everything)
    page.get_by_label("Comment").fill(everything[:9_000])
    page.get_by_role("button", name="Save the correction").click()
    expect(page.locator("#notice")).to_have_text("Your correction is recorded.")
    sound(visitor)
    row = view(visitor, f"/interactions/{answer}")["feedback"][-1]
    said = page.locator(".timeline .correction .said").last
    assert (said.text_content() or "").startswith(visible(row["correction"]))
    assert said.locator("q").text_content() == visible(row["comment"])
    kept = [text for text in strings if text.strip() in row["correction"]]
    assert len(kept) > len(strings) * 0.95  # all but what looks like personal data, and odd ends of line

    page.get_by_text("Make this a test case").click()
    field = page.get_by_label("The answer that is wanted from every later version")
    assert "canary" in field.input_value()  # the correction is proposed, and stays inside its field
    page.get_by_role("button", name="Keep as a test case").click()
    expect(page.locator("#notice")).to_contain_text("This is a test case now")
    sound(visitor)

    page = visitor.open("/review")
    item = page.locator("#item").get_attribute("data-interaction")
    page.get_by_label("What the answer should have been").fill(everything)
    page.get_by_role("button", name="Save the correction").click()
    expect(page.locator("#item")).not_to_have_attribute("data-interaction", item or "")
    sound(visitor)
    page.locator("#undo button").click()  # what comes back was swapped in by the script
    expect(page.locator("#item")).to_have_attribute("data-interaction", item or "")
    sound(visitor)


def test_what_is_looked_for_comes_back_as_text(visitor: Visitor, markup: list[str]) -> None:
    lists = (("/interactions", ("#text",), markup[::2], 290), ("/runs", ("#q", "#by"), markup[1::2], 190))
    for path, boxes, some, most in lists:
        page = visitor.open(path)
        texts = list(bundles(some, most))
        for place in range(0, len(texts), len(boxes)):
            filled = {
                box: text[: most if box == boxes[0] else 95] for box, text in zip(boxes, texts[place:], strict=False)
            }
            for box, text in filled.items():
                page.locator(box).fill(text)
            with page.expect_response(lambda answer, path=path: f"{path}?" in answer.url):
                page.locator(boxes[0]).press("Enter")
            for box, text in filled.items():  # swapped in by the script
                expect(page.locator(box)).to_have_attribute("value", visible(text.strip()))
            sound(visitor)
    for text in bundles(markup[::10], 290):  # refused, and quoted in the reason
        page = visitor.open("/lineage")
        page.locator("#ref").fill(text)
        page.get_by_role("button", name="Walk").click()
        expect(page.locator("#problem-said")).to_contain_text("no reference")
        sound(visitor)
    page = visitor.open("/compare")
    page.locator("#a").fill(OURS[6])
    page.locator("#b").fill(OURS[1])
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("h1")).to_have_text("Not possible")
    sound(visitor)


def test_reasons_are_shown_as_text(visitor: Visitor, hostile: Place, markup: list[str]) -> None:
    text = next(bundles(markup, 1_900))
    page = visitor.open("/approvals/2")
    page.get_by_label("Reason").fill(text)
    page.get_by_role("button", name="Refuse").click()
    expect(page.locator("#notice")).to_contain_text("v2 is refused")
    for path in ("/approvals", "/approvals/2", "/"):
        page = visitor.open(path)
        quoted = page.locator(".timeline q").first.text_content() or ""
        assert quoted.startswith(visible(OURS[0]))
        assert OURS[5] in quoted
        sound(visitor)
    assert hostile.project.json("verify")["ok"]
