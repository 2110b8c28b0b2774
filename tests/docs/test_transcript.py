"""What ``make demo`` printed gets into the README as a terminal would have shown it."""

from __future__ import annotations

import pytest

from docs.pages import ROOT
from docs.test_reference import script


def test_lines_are_cleaned() -> None:
    transcript = script("transcript")
    log = (
        "setup 1\rsetup 2\r\ndevelop   develop.train 5/31 steps loss 3.15\n\x1b[1mcollect\x1b[0m   82 in\n"
        f"report {transcript.ROOT}/build/x.html  \n" + "x" * 400 + "\n\n"
    )
    lines = transcript.clean(log)
    assert lines[:3] == ["setup 2", "collect   82 in", "report build/x.html"]
    assert len(lines[3]) == 360
    assert len(lines) == 4


def test_the_readme_takes_one() -> None:
    transcript = script("transcript")
    page = (ROOT / "README.md").read_text()
    filled = transcript.fill(page, ["collect   82 in"])
    assert "$ make demo\ncollect   82 in\n```\n<!-- transcript:end -->" in filled
    assert transcript.fill(filled, ["collect   82 in"]) == filled
    assert filled.partition(transcript.BEGIN)[0] == page.partition(transcript.BEGIN)[0]
    assert filled.partition(transcript.END)[2] == page.partition(transcript.END)[2]


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="transcript:begin"):
        script("transcript").fill("nothing here", ["line"])
