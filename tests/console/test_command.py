"""``treadle console``: a real process, its links, a second person, and its end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import httpx
import pytest

from console.conftest import Opened
from small_project import Project
from treadle.console import running
from treadle.console.running import address, listening
from treadle.core.errors import UserError


def test_the_console_from_its_start_to_its_end(project: Project) -> None:
    process = project.start("console", "--port", "0", "--as", "ann", "--json")
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert list(told["links"]) == ["ann"]
        assert told["links"]["ann"].startswith(told["url"] + "/enter?link=")
        assert told["url"].startswith("http://127.0.0.1:")
        with httpx.Client(base_url=told["url"], trust_env=False) as ann:
            assert ann.get("/").status_code == 401
            assert ann.get(told["links"]["ann"]).status_code == 200
            page = ann.get("/")
            assert page.status_code == 200
            assert "server" not in page.headers
            assert httpx.get(told["links"]["ann"], trust_env=False).status_code == 403

        more = project.json("console", "--link", "--as", "ben")
        assert more["url"] == told["url"]
        with httpx.Client(base_url=told["url"], trust_env=False) as ben:
            assert ben.get(more["links"]["ben"]).status_code == 200
            assert "You are in as ben" in ben.get("/approvals").text
        refused = project.call("console", check=2)
        assert f"runs at {told['url']}" in refused.stderr
        assert "treadle console --link" in refused.stderr
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=30)[0]
    assert process.returncode == 0, rest
    none = project.call("console", "--link", check=2)
    assert "no console of this project runs; start one with: treadle console" in none.stderr
    assert project.json("verify")["ok"]


def test_names_are_checked(project: Project) -> None:
    for name in (" ", "x" * 101):
        assert "expected a name" in project.call("console", "--as", name, check=2).stderr


def test_a_taken_port(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} on 127.0.0.1 is in use"):
            listening(port)
        monkeypatch.setattr(running, "PORT", port)
        with listening(None) as other:  # nobody asked for that port
            assert other.getsockname()[1] != port
            assert other.getsockname()[0] == "127.0.0.1"


def test_a_console_that_was_killed_is_not_believed_in(project: Project, opened: Opened) -> None:
    state = opened.record.workspace.state
    code = (
        "import os, sys; from treadle.core.workspace import Workspace; from pathlib import Path\n"
        "with Workspace(Path(sys.argv[1])) as w:\n"
        "  w.state.take_lease('console'); w.state.set('console.url', 'http://127.0.0.1:1'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(opened.record.workspace.root)], check=True, timeout=60)
    assert state.get("console.url") == "http://127.0.0.1:1"
    assert address(state) is None


def test_without_the_extra_it_says_how_to_get_it(project: Project) -> None:
    code = (
        "import sys; sys.modules['starlette'] = None\n"
        "from treadle.cli.main import main; sys.exit(main(['-C', sys.argv[1], 'console']))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(project.folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "run: pip install 'treadle[console]'" in done.stderr
