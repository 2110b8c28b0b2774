"""A whole project with a champion and a second version that waits, and browsers without a screen in front of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from small_project import Project, make_project
from tiny_models import write_model
from treadle.console.app import Console, create_console
from treadle.project import open_project
from treadle.record.interaction import Given, Interaction, Seconds, Tokens, new_interaction_id
from treadle.record.record import Record
from treadle.stages.improve import give_feedback

BASE = "http://127.0.0.1:8010"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two real turns: v1 is the champion, v2 passed its gates and waits for a person. Then forty questions."""
    root = tmp_path_factory.mktemp("console")
    project = make_project(root / "built", write_model(root / "tiny"))
    project.edit("[log_likelihood, perplexity, rouge_l], baselines: [base]", "[rouge_l, token_f1], baselines: []")
    project.edit("    - quality: {metric: log_likelihood, beats: base}\n", "")
    project.edit("quality: {metric: log_likelihood,", "quality: {metric: rouge_l,")
    project.call("run")
    project.edit("tokens: 3000", "tokens: 4000")
    project.edit("promote: auto", "promote: ask")
    project.call("run")
    with open_project(project.folder) as opened:
        ask(opened.record, 40)
    return project


def ask(record: Record, count: int, text: Callable[[int], str] = "How do I clean my kettle, {}?".format) -> list[str]:
    """Put so many questions into the record, as the server writes them, with some opinions; their ids."""
    release = record.versions.served()
    assert release is not None
    rows = [interaction(release, text(number), number) for number in range(count)]
    for number, row in enumerate(rows):
        record.recorder.interaction(row)
        if number % 4 == 0:
            give_feedback(record, row.id, "thumbs", float(number % 8 == 0), None, None, "user", "api")
    return [row.id for row in rows]


def interaction(release: str, text: str, number: int, **changed: Any) -> Interaction:
    """One row, minutes ago."""
    moment = datetime.now(UTC) - timedelta(minutes=200 - number)
    fields: dict[str, Any] = {
        "messages": ({"role": "user", "content": text},),
        "answer": f"Open its menu and choose that. {text}",
        "given": (Given(None, "k3:" + "0" * 40, text, text),),
        "tokens": Tokens(30, 12, 4),
        "seconds": Seconds(0.001, 0.05, 0.4),
        "tokens_per_second": 30.0,
        "user": "k3:" + "1" * 40,
        "parameters": {"temperature": 0, "stop": [text]},
        "metadata": {"page": text},
        "store": True,
    }
    return Interaction(
        id=new_interaction_id(),
        request="req-1",
        time=moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z",
        release=release,
        model="model/helper@v1",
        endpoint="/v1/chat/completions",
        status="ok",
        finish_reason="stop",
        **{**fields, **changed},
    )


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """A copy of the built project, to do with as a test likes."""
    shutil.copytree(built.folder.parent, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy" / built.folder.name)


class Content(HTMLParser):
    """What a page is made of: its texts, and every tag with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(html)
        self.close()

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def by_id(self, identifier: str) -> dict[str, str] | None:
        return next((attributes for _, attributes in self.tags if attributes.get("id") == identifier), None)

    def field(self, name: str) -> str:
        """The value of a hidden field."""
        found = [each["value"] for each in self.all("input") if each.get("name") == name]
        assert found, f"no field {name}"
        return found[0]


@dataclass
class Browser:
    """One person's browser: keeps cookies, follows nothing by itself, sends forms as a page would."""

    http: TestClient
    prefix: str = ""

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.http.get(self.prefix + path, **more)

    def page(self, path: str, status: int = 200) -> Content:
        answer = self.get(path)
        assert answer.status_code == status, answer.text[:2000]
        return Content(answer.text)

    def json(self, path: str, status: int = 200) -> Any:
        answer = self.get(path, headers={"Accept": "application/json"})
        assert answer.status_code == status, answer.text[:2000]
        return answer.json()

    @property
    def csrf(self) -> str:
        return self.page("/review").field("csrf")

    def post(self, path: str, /, csrf: str | None = None, **fields: str) -> httpx.Response:
        """Send a form as the console's own page would."""
        data = {"csrf": self.csrf if csrf is None else csrf, **fields}
        return self.http.post(self.prefix + path, data=data, headers={"Origin": str(self.http.base_url).rstrip("/")})

    def enter(self, link: str) -> httpx.Response:
        return self.http.get(link)


@dataclass
class Opened:
    """A console over a project."""

    console: Console
    project: Project

    @property
    def record(self) -> Record:
        return self.console.project.record

    def stranger(self) -> Browser:
        """A browser of somebody who has not come in."""
        return Browser(TestClient(self.console, base_url=BASE, follow_redirects=False))

    def browser(self, name: str | None = "ann") -> Browser:
        """The browser of somebody who has."""
        browser = self.stranger()
        assert browser.enter(self.console.link(name)).status_code == 200
        return browser


@pytest.fixture
def opened(project: Project) -> Iterator[Opened]:
    """A console over a copy, by itself on loopback."""
    with ExitStack() as stack:
        console = create_console(project.folder)
        stack.callback(console.close)
        console.project.record.interactions.catch_up()
        yield Opened(console, project)


@pytest.fixture(scope="session")
def looked_at(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """A console for tests that only look."""
    folder = tmp_path_factory.mktemp("looked") / "copy"
    shutil.copytree(built.folder.parent, folder, symlinks=True)
    console = create_console(folder / built.folder.name)
    console.project.record.interactions.catch_up()
    yield Opened(console, Project(folder / built.folder.name))
    console.close()


def text_of(html: str) -> str:
    """The text of a page with single spaces."""
    return re.sub(r"\s+", " ", Content(html).text)
