"""Links between pages resolve, with their anchors; the picture is well-formed and says what it shows."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.pages import PAGES, ROOT

_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
_SVG = "{http://www.w3.org/2000/svg}"


def slugs(page: Path) -> set[str]:
    """The anchors that GitHub gives to headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
        found.add(plain.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for match in _LINK.finditer(text):
        link = match[1] or match[2]
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in slugs(target), f"{page.name} links to {link}"


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        for match in _LINK.finditer(page.read_text()):
            target = (page.parent / (match[1] or match[2]).partition("#")[0]).resolve()
            if target.is_file():
                waiting.append(target)
    assert set(PAGES) <= reached


def test_the_picture_has_a_title_and_a_dark_side() -> None:
    path = ROOT / "docs" / "loop.svg"
    tree = ElementTree.parse(path).getroot()
    assert tree.get("role") == "img"
    named = {each.get("id") for each in tree if each.tag in (f"{_SVG}title", f"{_SVG}desc") and each.text}
    assert set((tree.get("aria-labelledby") or "").split()) == named
    assert "prefers-color-scheme: dark" in path.read_text()
    shown = " ".join(each.text or "" for each in tree.iter(f"{_SVG}text"))
    for stage in ("collect", "prepare", "develop", "track", "deploy", "monitor", "govern", "improve"):
        assert stage in shown
