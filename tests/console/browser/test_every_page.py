"""Every page in light and dark, on a desk and on a phone: no errors, nothing from elsewhere, usable by everybody."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

import treadle
from console.browser.conftest import Enter, Place, Visitor, copied, entering, running
from small_project import Project
from treadle.project import open_project
from treadle.record.interaction_index import InteractionFilter

DESK = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
PAGES = (
    *("/", "/runs", "/runs?step=develop.&sort=longest&q=budget", "/runs?q=nothing-has-this", "/runs/TRAINED"),
    *("/runs/OWN", "/compare/runs?run=TRAINED,OWN,FAILED", "/runs?where=metrics.loss+>+0&sort=lowest&by=metrics.loss"),
    *("/runs/FAILED", "/compare", "/compare?a=model@v1&b=model@v2", "/interactions", "/interactions?rating=corrected"),
    *("/interactions?text=nothing+has+this", "/interactions/RATED", "/interactions/LONG", "/interactions/FOREIGN"),
    *("/lineage", "/lineage?ref=@champion&limit=5", "/lineage?ref=RATED&limit=5", "/lineage?ref=DOCUMENT&limit=5"),
    *("/lineage?ref=TRAINED", "/review", "/review?at=LONG", "/approvals", "/approvals/1", "/approvals/2"),
)
AXE = Axe().axe_script
REFUSED = {"/nowhere": 404, "/runs/run-nothing": 404, "/lineage?ref=what": 400, "/runs?status=odd": 400}
REFUSED |= {"/runs?where=metrics.loss+<": 400}


@pytest.fixture(scope="module")
def looked_at(built: Project, chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A console for tests that only look."""
    project = copied(built, tmp_path_factory.mktemp("looked") / "copy")
    with open_project(project.folder) as opened:
        runs = opened.record.runs
        settings: dict[str, Any] = {"version": 1, "key": "k", "inputs": {}, "seed": 1, "progress": lambda *_: None}
        run = runs.start("prepare.clean", parameters={"a": 1}, folder=project.folder, **settings)
        runs.finish(run, "failed", seconds=0.1, error="the disk is full\n" + "/a/very/long/path" * 30)
    tags = {"team": "search", "quite-a-long-name-of-a-tag": "a value " * 20}
    with treadle.start_run("fit", params={"lr": 1e-4}, tags=tags, folder=project.folder, capture=True) as own:
        sys.stdout.write("epoch 1\n" + "/a/very/long/path" * 30 + "\n")
        own.log_many((step, {"loss": 1 / (step + 1), "system.cpu_percent": 40.0 + step}) for step in range(20))
        own.note("the schedule is the one of last week " * 10)
    with running(project, "looker", "keys", "theme") as place:
        yield place


@pytest.fixture(scope="module")
def enter(chromium: Browser, looked_at: Place) -> Iterator[Enter]:
    with entering(chromium, looked_at) as enter:
        yield enter


@pytest.fixture(scope="module")
def looker(enter: Enter) -> Visitor:
    """Somebody who looks at every page."""
    return enter("looker", viewport=DESK)


@pytest.fixture(scope="module")
def names(looked_at: Place) -> dict[str, str]:
    """What the capital words in the addresses stand for."""
    with open_project(looked_at.project.folder) as opened:
        record = opened.record
        record.interactions.catch_up()
        rows = record.interactions.page(InteractionFilter(origin="traffic"), limit=15).rows
        texts = {row.id: str((record.interactions.get(row.id) or row).messages[0]["content"]) for row in rows}  # type: ignore[union-attr,index]
        runs = record.runs
        return {
            "TRAINED": runs.find(step="develop.train")[0].id,
            "OWN": runs.find(step="experiment.fit")[0].id,
            "FAILED": runs.find(status="failed")[0].id,
            "RATED": rows[0].id,
            "LONG": next(name for name, text in texts.items() if text.startswith("A-word")),
            "FOREIGN": next(name for name, text in texts.items() if text.startswith("كيف")),
            "DOCUMENT": "doc:../data/chats.jsonl:10",
        }


def grave(page: Page, *rules: str) -> list[str]:
    """What axe-core, which the page has loaded, calls serious or critical by these rules or by all, with the places."""
    chosen = {"runOnly": rules} if rules else {"rules": {"target-size": {"enabled": True}}}  # the others are on
    found = page.evaluate("options => axe.run(document, options)", {"resultTypes": ["violations"], **chosen})
    assert found["passes"], "axe-core looked at nothing"
    return [
        f"{each['id']}: {node['html'][:160]} {node['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def overflow(page: Page) -> list[str]:
    """What is wider than the window, where the page can be moved sideways."""
    return page.evaluate(
        """() => document.scrollingElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll("body *")]
        .filter(each => each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML.slice(0, 120))
        .concat("the page")"""
    )


@pytest.mark.parametrize("path", [*PAGES, *REFUSED])
def test_a_page_is_sound_for_everybody(looker: Visitor, names: dict[str, str], path: str) -> None:
    where = path
    for word, name in names.items():
        where = where.replace(word, name)
    looker.page.set_viewport_size(DESK)
    page = looker.open(where, REFUSED.get(path, 200))
    expect(page.locator("h1")).to_have_count(1)
    page.evaluate(AXE)
    page.emulate_media(color_scheme="light")
    assert grave(page) == []
    assert overflow(page) == []
    page.emulate_media(color_scheme="dark")
    assert grave(page, "color-contrast") == []
    for size in (PHONE, {"width": 320, "height": 640}):  # the smaller one is also what a desk shows at 400 %
        page.set_viewport_size(size)
        assert overflow(page) == [], size
    page.set_viewport_size(PHONE)
    assert grave(page) == []
    wrong, looker.wrong[:] = list(looker.wrong), []
    assert wrong == []


def test_appearance_follows_the_system_until_somebody_chooses(enter: Enter) -> None:
    page = enter("theme", viewport=DESK, color_scheme="dark").page

    def ground() -> str:
        return str(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))

    dark = ground()
    page.emulate_media(color_scheme="light")
    light = ground()
    assert light != dark
    page.locator("#nav-runs").click()
    for chosen in (dark, light, light):  # dark, light, and what the system says
        page.locator("#appearance").click()
        expect(page).to_have_url(page.url.partition("/runs")[0] + "/runs")
        assert ground() == chosen
    page.emulate_media(color_scheme="dark")
    assert ground() == dark


def test_tab_leads_past_the_navigation_to_everything(enter: Enter) -> None:
    visitor = enter("keys", viewport=DESK)
    page = visitor.open("/")
    visitor.press("Tab")
    skip = page.get_by_role("link", name="Skip to the page")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    visitor.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    visitor.press("Tab")
    assert page.evaluate("document.querySelector('#content').contains(document.activeElement)")

    page = visitor.open("/interactions")
    reached = []
    for _ in range(120):
        visitor.press("Tab")
        found = page.evaluate("[document.activeElement.id, document.activeElement.tagName]")
        if found[1] == "BODY":
            break
        reached.append(found[0])
    wanted = [
        "nav-status",
        "nav-runs",
        "nav-answers",
        "nav-lineage",
        "nav-review",
        "nav-approvals",
        "appearance",
        "leave",
    ]
    wanted += ["text", "rating", "status", "release", "since", "until", "origin", "json"]
    named = [each for each in dict.fromkeys(reached) if each in wanted]
    assert named == wanted  # in the order in which they stand


@pytest.mark.parametrize("path", ["/", "/interactions", "/review", "/approvals/2"])
def test_focus_is_seen(looker: Visitor, path: str) -> None:
    """A picture of what has the focus differs from one without it, by more than a caret."""
    looker.page.set_viewport_size(DESK)
    page = looker.open(path)
    looked = 0
    for _ in range(16):
        looker.press("Tab")
        box = page.evaluate(
            """() => { const box = document.activeElement.getBoundingClientRect();
            return document.activeElement === document.body ? null : [box.x, box.y, box.width, box.height]; }"""
        )
        if box is None:
            break
        x, y = max(0.0, box[0] - 6), max(0.0, box[1] - 6)
        if y > DESK["height"] - 20:
            continue
        clip = {
            "x": x,
            "y": y,
            "width": min(box[2] + 12, DESK["width"] - x),
            "height": min(box[3] + 12, DESK["height"] - y),
        }
        with_focus = page.screenshot(clip=clip, caret="hide")
        page.evaluate("() => { window.focused = document.activeElement; window.focused.blur(); }")
        without = page.screenshot(clip=clip, caret="hide")
        page.evaluate("() => window.focused.focus({ focusVisible: true })")
        assert with_focus != without, page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
        looked += 1
    assert looked >= 10
