"""The sources that the page of collect shows open with the settings it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.pages import ROOT, blocks
from treadle.text.source import SourceContext, open_source

PAGE = ROOT / "docs" / "stages" / "collect.md"
SOURCES = [
    source
    for block in blocks(PAGE)
    if block.language == "yaml"
    for source in yaml.safe_load(block.text)["collect"]["sources"]
]


@pytest.mark.parametrize("source", SOURCES, ids=[source["type"] for source in SOURCES])
def test_a_source_opens_as_it_is_shown(source: dict[str, Any], tmp_path: Path) -> None:
    assert open_source(source, SourceContext(tmp_path, str)).name == source["type"]


def test_every_new_kind_is_shown() -> None:
    assert {"files", "sql", "git", "github_issues", "gitlab_issues", "confluence"} <= {one["type"] for one in SOURCES}
