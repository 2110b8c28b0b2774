"""``treadle plan`` and ``treadle collect`` over a website: when the network is asked, and when it is not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crawl.site import Site, page
from treadle.cli.main import main

FILE = """\
name: helper
task: chat
collect:
  sources:
    - type: website
      start: {url}
      contact: crawler@example.org
      license: CC-BY-4.0
      every: {every}
      crawl: {{delay: 0, attempts: 1}}
develop:
  base_model: smollm2-135m-instruct
"""
Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """A command in a project over the site."""
    site.pages = {"/": page("home", "/a", "http://elsewhere.example/"), "/a": page("a")}
    (tmp_path / "treadle.yaml").write_text(FILE.format(url=site.url, every="7d"))
    monkeypatch.chdir(tmp_path)

    def called(*arguments: str) -> tuple[int, str]:
        code = main(list(arguments))
        return code, capsys.readouterr().out

    return called


def test_the_network_is_asked_only_when_it_should_be(site: Site, call: Call) -> None:
    code, out = call("plan", "--until", "collect")
    assert (code, site.asked) == (0, [])
    assert "website would be fetched: it was not crawled yet" in out
    code, out = call("collect", "--json")
    found: dict[str, Any] = json.loads(out)
    assert (code, found["in"], found["kept"], found["dropped"]) == (0, 3, 2, {"website.out_of_scope": 1})
    site.forget()
    site.pages["/a"] = page("a, changed", "/b")
    site.pages["/b"] = page("b")
    again = json.loads(call("collect", "--json")[1])
    assert again == {**found, "read": 0, "unchanged": 3}
    assert (found["read"], found["unchanged"], found["gone"]) == (3, 0, 0)
    assert "nothing to do" in call("plan", "--until", "collect")[1]
    assert site.asked == []
    code, out = call("collect", "--refresh")
    assert "crawling, asked for" in out and "4 in = 3 kept + 1 dropped + 0 quarantined" in out
    assert site.statuses == {304: 1, 200: 2, 404: 2}
    code, out = call("collect", "--refresh")
    assert "gather cached" in " ".join(out.split())


def test_watching_takes_in_what_changed_and_ends_when_it_is_told(site: Site, call: Call, tmp_path: Path) -> None:
    (tmp_path / "treadle.yaml").write_text(FILE.format(url=site.url, every="1s"))
    command = [sys.executable, "-m", "treadle", "collect", "--watch", "--every", "1s"]
    with (tmp_path / "out").open("w") as out:
        running = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=subprocess.STDOUT)
        try:
            _wait(lambda: "3 in = 2 kept" in (tmp_path / "out").read_text())
            site.pages["/a"] = page("a, changed", "/b")
            site.pages["/b"] = page("b")
            _wait(lambda: "4 in = 3 kept" in (tmp_path / "out").read_text())
            assert "2 read, 2 unchanged and taken over, 1 documents gone" in (tmp_path / "out").read_text()
        finally:
            running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
    assert call("collect", "--watch", "--every", "soon")[0] == 2


def test_watching_goes_on_while_a_source_cannot_be_reached(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.md").write_text("a")
    (tmp_path / "treadle.yaml").write_text(
        "name: helper\ntask: chat\ncollect: {sources: [{type: files, path: data}]}\n"
        "develop: {base_model: smollm2-135m-instruct}\n"
    )
    command = [sys.executable, "-m", "treadle", "collect", "--watch", "--every", "1s", "--json"]
    told = tmp_path / "out"

    def rounds() -> list[dict[str, Any]]:
        return [json.loads(line) for line in told.read_text().splitlines()]

    with told.open("w") as out:
        running = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=subprocess.DEVNULL)
        try:
            _wait(lambda: len(rounds()) >= 2)
            (tmp_path / "data").rename(tmp_path / "away")
            _wait(lambda: "error" in rounds()[-1])
            (tmp_path / "away" / "b.md").write_text("b")
            (tmp_path / "away").rename(tmp_path / "data")
            _wait(lambda: rounds()[-1].get("read") == 1)
        finally:
            running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0
    first = rounds()[0]
    assert (first["changed"], first["in"], first["read"], rounds()[1]["changed"]) == (True, 1, 1, False)
    assert any("nothing matches data" in each.get("error", "") for each in rounds())
    assert [each["unchanged"] for each in rounds() if each.get("read") == 1] == [0, 1]


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.1)
