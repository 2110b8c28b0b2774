"""A real Chromium in front of a real ``treadle console``, and a project with people's words in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    Response,
    sync_playwright,
)

import debian
from console.conftest import interaction
from small_project import Project
from treadle.project import open_project
from treadle.record.record import Record
from treadle.stages.improve import give_feedback

PEOPLE = ("ann", "ben")
ASKED = (
    ("Where do I find the kettle's filter?", "Behind the lid; pull it up."),
    ("My lamp flickers. What now?", "Tighten the bulb, then try another socket."),
    ("Wie entkalke ich den Wasserkocher?", "Mit Essig, eine Stunde lang; danach zweimal spülen."),
    ("كيف أعيد ضبط جهاز التوجيه؟", "اضغط الزر الصغير عشر ثوان."),
    ("プリンターの紙詰まりはどう直しますか?", "後ろのふたを開けて、紙をゆっくり引きます。"),
    ("Can I charge the bicycle over night?", "Yes.\n\n1. Plug it in.\n2. Wait for green.\n3. Unplug it."),
    ("drill " * 60, "Which drill?"),
    ("What does `for x in xs: print(x)` do?", "```python\nfor x in xs:\n    print(x)\n```\nIt prints each x."),
    ("A-word-without-end-" * 30, "https://example.org/" + "a-path-without-end/" * 30),
    ("Is the stove safe? 🔥", "Only outside. 🏕️"),
    ("Tell me about my order", ""),
    ("How heavy is the tent?", "2.4 kg"),
    ("Can you read this: a < b && c > d?", "Yes: a < b && c > d."),
    ("Does the radio need an aerial?", "No."),
    ("The camera's date is wrong", "Open its menu and set the date."),
)  # fmt: skip


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Chromium without a window. Of a module, not of the session: while Playwright runs, nothing else in this process
    can start an event loop."""
    path = debian.program("chromium", "chromium", "chromium-browser", "google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox"] if os.geteuid() == 0 else [],
        )
        yield browser
        browser.close()


@dataclass
class Place:
    """A console that runs, with the links it printed."""

    project: Project
    url: str
    links: dict[str, str]


@dataclass
class Visitor:
    """One person's tab, and everything that went wrong in it."""

    page: Page
    base: str
    wrong: list[str] = field(default_factory=list)
    refusals: set[int] = field(default_factory=set)

    @classmethod
    def arriving(cls, context: BrowserContext, base: str) -> Visitor:
        """A tab that takes note of errors, failed and foreign requests, and dialogs."""
        self = cls(context.new_page(), base)
        page = self.page
        page.on("console", self.hears)
        page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
        page.on("request", self.asks)
        page.on("requestfailed", self.fails)
        page.on("response", self.answered)
        page.on("dialog", self.dismisses)
        return self

    def hears(self, said: ConsoleMessage) -> None:
        """An error on the console; Chromium calls it one, too, when a page is answered 4xx as it should."""
        if said.type in ("error", "warning") and not any(f"status of {code} " in said.text for code in self.refusals):
            self.wrong.append(f"console: {said.text}")

    def asks(self, request: Request) -> None:
        """Nothing may be asked of anybody else."""
        if urlsplit(request.url)[:2] != urlsplit(self.base)[:2]:
            self.wrong.append(f"foreign: {request.url}")

    def fails(self, request: Request) -> None:
        """A request without an answer; aborted is what was still under way when the page was left."""
        if request.failure != "net::ERR_ABORTED":
            self.wrong.append(f"failed: {request.url} {request.failure}")

    def answered(self, answer: Response) -> None:
        """An answer that is no page."""
        if answer.status >= 400 and answer.status not in self.refusals:
            self.wrong.append(f"{answer.status}: {answer.url}")

    def dismisses(self, dialog: Dialog) -> None:
        """Nothing here opens a dialog."""
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, path: str, status: int = 200) -> Page:
        """Go to a page of the console."""
        if status >= 400:
            self.refusals.add(status)
        answer = self.page.goto(self.base + path)
        assert answer is not None
        assert answer.status == status, f"{path}: {answer.status}"
        return self.page

    def press(self, key: str) -> None:
        """A key on the keyboard."""
        self.page.keyboard.press(key)

    def walk_to(self, target: str, most: int = 60) -> int:
        """Press Tab until that has the focus; how often it took."""
        for pressed in range(1, most + 1):
            self.press("Tab")
            if self.page.evaluate("target => document.activeElement.matches(target)", target):
                return pressed
        raise AssertionError(f"{most} times Tab did not lead to {target}")


@contextmanager
def running(project: Project, *people: str) -> Iterator[Place]:
    """``treadle console`` over a project."""
    asked = [part for person in people or PEOPLE for part in ("--as", person)]
    command = [sys.executable, "-m", "treadle", "-C", str(project.folder), "console", "--port", "0", "--json", *asked]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        try:
            line = server.stdout.readline()
            assert line, server.stderr.read()
            told = json.loads(line)
            yield Place(project, told["url"], told["links"])
        finally:
            server.terminate()
            said = server.stderr.read()
        assert server.wait(30) == 0, said
    assert said == "", said


Enter = Callable[..., Visitor]


@contextmanager
def entering(chromium: Browser, place: Place) -> Iterator[Enter]:
    """Lets people in by their links; every tab must have stayed without trouble."""
    visitors: list[Visitor] = []
    with ExitStack() as stack:

        def enter(name: str = "ann", **settings: Any) -> Visitor:
            context = stack.enter_context(chromium.new_context(reduced_motion="reduce", **settings))
            visitor = Visitor.arriving(context, place.url)
            visitors.append(visitor)
            visitor.page.goto(place.links[name])
            visitor.page.wait_for_url(place.url + "/")
            return visitor

        yield enter
    assert [trouble for visitor in visitors for trouble in visitor.wrong] == []


def talk(record: Record) -> list[str]:
    """Varied questions with their answers, and people's opinions of most of them; their ids."""
    release = record.versions.served()
    assert release is not None
    ids = []
    for number, (question, answer) in enumerate(ASKED):
        row = interaction(release, question, number + 50, answer=answer)
        record.recorder.interaction(row)
        give_feedback(record, row.id, "thumbs", 0.0, None, f"not {number}" if number % 3 else None, "user", "api")
        if number % 5 == 0:
            give_feedback(record, row.id, "correction", None, f"Better: {answer}", None, "user", "api")
        ids.append(row.id)
    return ids


def copied(built: Project, folder: Path) -> Project:
    """A copy of the built project in which people talked."""
    shutil.copytree(built.folder.parent, folder, symlinks=True)
    project = Project(folder / built.folder.name)
    with open_project(project.folder) as opened:
        talk(opened.record)
    return project


@pytest.fixture
def place(built: Project, tmp_path: Path) -> Iterator[Place]:
    """A console over a copy, to do in it what a test likes."""
    with running(copied(built, tmp_path / "copy")) as place:
        yield place


@pytest.fixture
def enter(chromium: Browser, place: Place) -> Iterator[Enter]:
    """Lets people into that console."""
    with entering(chromium, place) as enter:
        yield enter
