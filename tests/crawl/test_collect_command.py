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
    assert json.loads(call("collect", "--json")[1]) == found
    assert "nothing to do" in call("plan", "--until", "collect")[1]
    assert site.asked == []
    code, out = call("collect", "--refresh")
    assert "crawling, asked for" in out and "4 in = 3 kept + 1 dropped + 0 quarantined" in out
    assert site.statuses == {304: 1, 200: 2, 404: 2}
    code, out = call("collect", "--refresh")
    assert "gather cached" in " ".join(out.split())


def test_watching_takes_in_what_changed_and_ends_when_it_is_told(site: Site, call: Call, tmp_path: Path) -> None:
    (tmp_path / "treadle.yaml").write_text(FILE.format(url=site.url, every="1s"))
    command = [sys.executable, "-m", "treadle", "collect", "--watch", "--interval", "1"]
    with (tmp_path / "out").open("w") as out:
        running = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=subprocess.STDOUT)
        try:
            _wait(lambda: "3 in = 2 kept" in (tmp_path / "out").read_text())
            site.pages["/a"] = page("a, changed", "/b")
            site.pages["/b"] = page("b")
            _wait(lambda: "4 in = 3 kept" in (tmp_path / "out").read_text())
        finally:
            running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
    code, _ = call("collect", "--watch", "--json")
    assert code == 2


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 100
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.1)
