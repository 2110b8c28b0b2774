"""``treadle explore`` over a project that was really prepared, and its page in a real Chromium."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from console.browser.conftest import find_chromium
from docs.conftest import Treadle
from docs.test_json import differences, promised


@pytest.fixture(scope="module")
def page(
    tiny: tuple[Path, dict[str, Any]], treadle: Treadle, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The file and what ``--json`` said of it."""
    out = tmp_path_factory.mktemp("page") / "explore.html"
    done = treadle(tiny[0], "explore", "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def test_what_it_says(page: tuple[Path, dict[str, Any]]) -> None:
    out, said = page
    assert not differences(promised("explore"), said)
    assert out.stat().st_size == said["bytes"]
    assert said["stages"]["collect"]["in"] == 82
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_from_a_number_to_the_documents(
    page: tuple[Path, dict[str, Any]], tiny: tuple[Path, dict[str, Any]], treadle: Treadle
) -> None:
    text = page[0].read_text()
    folder = tiny[0]
    rules = {rule: n for stage in page[1]["stages"].values() for rule, n in stage["dropped"].items()}
    listed = [rule for rule in rules if f"--rule {rule}<" in text]
    for rule in listed[:1]:
        done = treadle(folder, "explore", page[1]["ref"], "--rule", rule, "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert not differences(promised("explore --rule"), found)
        assert len(found["documents"]) == rules[rule]
        assert all(hit["locator"] for hit in found["documents"])
    wrong = treadle(folder, "explore", "--rule", "filter.nothing")
    assert wrong.returncode == 2
    assert "no document was touched by a rule 'filter.nothing'" in wrong.stderr


def test_two_versions(tiny: tuple[Path, dict[str, Any]], treadle: Treadle, tmp_path: Path) -> None:
    before = next(stage for stage in tiny[1]["stages"] if stage["stage"] == "collect")
    runs = json.loads(treadle(tiny[0], "runs", "--json").stdout)
    corpus = next(run["outputs"] for run in runs if run["step"] == "collect.gather")
    digest = next(iter(corpus.values()))
    assert before
    data = json.loads(treadle(tiny[0], "explore", "--json", "--out", str(tmp_path / "one.html")).stdout)
    done = treadle(tiny[0], "explore", digest, data["digest"], "--out", str(tmp_path / "two.html"), "--json")
    assert done.returncode == 0, done.stderr
    members = json.loads(done.stdout)["compared"]["members"]
    assert members["added"] == 0
    assert members["shared"] + members["removed"] == 80
    assert "What changed" in (tmp_path / "two.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("model@v9",), "model@v9"),
        (("nonsense",), "is no reference"),
        (("--out", "no/such/folder/x.html"), "name a file in a folder"),
        (("--rule", "x", "--out", "y.html"), "give one REF and no --out"),
    ],
)
def test_mistakes_are_one_line(
    tiny: tuple[Path, dict[str, Any]], treadle: Treadle, arguments: tuple[str, ...], said: str
) -> None:
    done = treadle(tiny[0], "explore", *arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_browser_has_nothing_to_complain_of(page: tuple[Path, dict[str, Any]]) -> None:
    path = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for script in (True, False):
            context = browser.new_context(offline=True, java_script_enabled=script, reduced_motion="reduce")
            tab, wrong, asked = context.new_page(), list[str](), list[str]()
            tab.on("console", lambda said, wrong=wrong: wrong.append(said.text))
            tab.on("pageerror", lambda error, wrong=wrong: wrong.append(str(error)))
            tab.on("request", lambda request, asked=asked: asked.append(request.url))
            tab.goto(page[0].as_uri())
            assert tab.get_by_role("heading", name="Map of the texts").is_visible()
            if script:
                _use(tab)
            else:
                assert tab.locator(".map circle title").count() > 20
                assert not tab.locator(".tools").is_visible()
            assert wrong == []
            assert asked == [page[0].as_uri()]
            context.close()
        browser.close()


def _use(tab: Any) -> None:
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
    tab.mouse.move(spot["x"] + 2, spot["y"] + 2)
    assert tab.locator(".tip").is_visible()
    tab.get_by_role("searchbox").fill("no text says this")
    assert tab.locator(".map circle:not(.dim)").count() == 0
    link = tab.locator('a[href^="#rule-"]').last
    link.click()
    assert tab.locator("details.rule:target").get_attribute("open") is not None
