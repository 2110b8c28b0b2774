"""``treadle explore`` over a project that was really prepared, and its page in a real Chromium."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

import debian
from docs.conftest import Treadle, write_reviews
from docs.test_json import differences, promised
from treadle.project import open_project


@pytest.fixture(scope="module")
def project(treadle: Treadle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reviews, of which three come twice and four give an address."""
    folder = tmp_path_factory.mktemp("explored")
    write_reviews(folder / "reviews.jsonl")
    lines = (folder / "reviews.jsonl").read_text().splitlines()
    asked = [
        json.dumps({"review": f"write to me{n}@example.org, the lamp broke at {n}", "sentiment": "bad"})
        for n in range(4)
    ]
    (folder / "reviews.jsonl").write_text("\n".join([*lines, *lines[10:13], *asked]) + "\n")
    made = treadle(folder, "init", "reviews", "--template", "classifier", "--data", "reviews.jsonl")
    assert made.returncode == 0, made.stderr
    ran = treadle(folder, "-C", "reviews", "run", "--until", "prepare")
    assert ran.returncode == 0, ran.stderr
    return folder / "reviews"


@pytest.fixture(scope="module")
def page(project: Path, treadle: Treadle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The file and what ``--json`` said of it."""
    out = tmp_path_factory.mktemp("page") / "explore.html"
    done = treadle(project, "explore", "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def test_what_it_says(page: tuple[Path, dict[str, Any]]) -> None:
    out, said = page
    assert not differences(promised("explore"), said)
    assert out.stat().st_size == said["bytes"]
    assert said["stages"]["collect"]["in"] == 89
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_from_a_number_to_the_documents(page: tuple[Path, dict[str, Any]], project: Path, treadle: Treadle) -> None:
    text = page[0].read_text()
    for rule, count, fate in (("deduplicate.exact", 3, "dropped"), ("redact.email", 4, "changed")):
        assert f'href="#rule-{rule}"' in text
        assert f"treadle explore {page[1]['ref']} --rule {rule}<" in text
        done = treadle(project, "explore", page[1]["ref"], "--rule", rule, "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert not differences(promised("explore --rule"), found)
        assert {(hit["fate"], bool(hit["locator"])) for hit in found["documents"]} == {(fate, True)}
        assert len({hit["document"] for hit in found["documents"]}) == count
    assert "@example.org" not in text
    wrong = treadle(project, "explore", "--rule", "filter.nothing")
    assert wrong.returncode == 2
    assert "no document was touched by a rule 'filter.nothing'" in wrong.stderr


def test_two_versions(page: tuple[Path, dict[str, Any]], project: Path, treadle: Treadle, tmp_path: Path) -> None:
    with open_project(project) as opened:
        digest = opened.record.runs.find(step="collect.gather", limit=1)[0].outputs["corpus"]
    out = tmp_path / "two.html"
    done = treadle(project, "explore", str(digest), page[1]["digest"], "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    members = json.loads(done.stdout)["compared"]["members"]
    assert (members["added"], members["removed"], members["shared"], members["changed"]) == (0, 3, 84, 4)
    assert "What changed" in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("model@v9",), "model@v9"),
        (("nonsense",), "is no reference"),
        (("--out", "no/such/folder/x.html"), "name a file in a folder"),
        (("--rule", "x", "--out", "y.html"), "give one REF and no --out"),
    ],
)
def test_mistakes_are_one_line(project: Path, treadle: Treadle, arguments: tuple[str, ...], said: str) -> None:
    done = treadle(project, "explore", *arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_browser_has_nothing_to_complain_of(page: tuple[Path, dict[str, Any]]) -> None:
    path = debian.program("chromium", "chromium", "chromium-browser", "google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for script in (True, False):
            context = browser.new_context(offline=True, java_script_enabled=script, reduced_motion="reduce")
            heard = _listening(context.new_page())
            _look(heard, page[0].as_uri(), script=script)
            assert heard.wrong == []
            assert heard.asked == [page[0].as_uri()]
            context.close()
        browser.close()


@dataclass
class _Heard:
    """A tab, what went wrong in it, and what it asked for."""

    tab: Page
    wrong: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


def _listening(tab: Page) -> _Heard:
    heard = _Heard(tab)
    tab.on("console", lambda said: heard.wrong.append(said.text))
    tab.on("pageerror", lambda error: heard.wrong.append(str(error)))
    tab.on("request", lambda request: heard.asked.append(request.url))
    return heard


def _look(heard: _Heard, address: str, *, script: bool) -> None:
    tab = heard.tab
    tab.goto(address)
    assert tab.get_by_role("heading", name="Map of the texts").is_visible()
    if script:
        _use(tab)
    else:
        assert tab.locator(".map circle title").count() > 20
        assert not tab.locator(".tools").is_visible()


def _use(tab: Page) -> None:
    """Hover, keys and search show texts; a link opens its rule."""
    picture = tab.locator(".map svg")
    picture.focus()
    tab.keyboard.press("ArrowRight")
    first = tab.locator(".tip").inner_text()
    assert first
    tab.keyboard.press("ArrowRight")
    assert tab.locator(".tip").inner_text() != first
    tab.keyboard.press("Escape")
    assert tab.locator(".tip").is_hidden()
    spot = tab.locator(".map circle").first.bounding_box()
    assert spot is not None
    tab.mouse.move(spot["x"] + 2, spot["y"] + 2)
    assert tab.locator(".tip").is_visible()
    tab.get_by_role("searchbox").fill("no text says this")
    assert tab.locator(".map circle:not(.dim)").count() == 0
    link = tab.locator('a[href^="#rule-"]').last
    link.click()
    assert tab.locator("details.rule:target").get_attribute("open") is not None
