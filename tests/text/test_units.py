"""Collecting again reads only what is new or changed, and gives the corpus that collecting from scratch would."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from crawl.site import Site, page
from integrations.api_server import api_server
from treadle.core.driver import Driver, Silent
from treadle.core.errors import UserError
from treadle.core.workspace import Workspace
from treadle.record.record import PROJECTIONS
from treadle.record.suppression import SuppressionList
from treadle.stages.collect import CollectSettings, collect
from treadle.text.known_files import KnownFiles
from treadle.text.takeover import FILE


class Said(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class Place:
    """A project's folder with its record, and records that begin anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fresh = 0
        self.workspace = Workspace(folder / ".treadle", projections=PROJECTIONS)

    def collect(self, *sources: dict[str, Any], forget: SuppressionList | None = None) -> tuple[str, tuple[int, ...]]:
        """The corpus's digest; how many pieces were read, how many taken over, and documents gone."""
        return self._collected(self.workspace, sources, forget)

    def check(
        self, *sources: dict[str, Any], counts: tuple[int, ...] | None, forget: SuppressionList | None = None
    ) -> None:
        """Collect; the digest is that of a collection from scratch, and so much was read for it."""
        digest, found = self._collected(self.workspace, sources, forget)
        self._fresh += 1
        with Workspace(self.folder / f"fresh-{self._fresh}", projections=PROJECTIONS) as fresh:
            fresh.runs.keys = self.workspace.keys
            again = None
            if forget is not None:
                shutil.copytree(forget.path(), copy := fresh.store.new_folder(), dirs_exist_ok=True)
                again = SuppressionList(fresh.store.put(copy), fresh.store)
            assert self._collected(fresh, sources, again)[0] == digest
        assert counts is None or found == counts

    def _collected(
        self, workspace: Workspace, sources: tuple[dict[str, Any], ...], forget: SuppressionList | None
    ) -> tuple[str, tuple[int, ...]]:
        said = Said()
        driver = Driver(workspace.runs, self.folder, seed=1, listener=said)
        corpus = collect(driver, CollectSettings.model_validate({"sources": list(sources)}), forget)
        told = [line for line in said.lines if line.startswith("of these")]
        return corpus.digest, tuple(int(number) for number in re.findall(r"\d+", told[0])) if told else ()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.workspace.close()


def zipped(**members: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.md"), text)
        archive.writestr(zipfile.ZipInfo(".DS_Store"), "x")
    return target.getvalue()


def test_files_that_did_not_change_are_not_read_again(place: Place) -> None:
    data = place.folder / "data"
    data.mkdir()
    source = {"type": "files", "path": "data", "ignore": ["skip.*", ".DS_Store"]}
    (data / "rows.jsonl").write_text('{"text": "one"}\nbroken\n{"text": "two"}\n')
    (data / "pack.zip").write_bytes(zipped(a="first", b="second"))
    (data / "page.html").write_text("<p>A page about tea, its leaves and its water.</p>")
    (data / "same.jsonl").write_text('{"text": "one"}\n')
    (data / "skip.md").write_text("x")
    place.check(source, counts=(9, 0, 0))
    assert place.collect(source)[1] == ()  # remembered
    (data / "new.md").write_text("new")
    place.check(source, counts=(2, 8, 0))  # what is ignored is counted each time, unread
    with (data / "rows.jsonl").open("a") as file:
        file.write('{"text": "three"}\n')
    place.check(source, counts=(5, 6, 0))
    (data / "pack.zip").unlink()
    place.check(source, counts=(1, 7, 2))
    (data / "page.html").rename(data / "renamed.html")
    place.check(source, counts=(2, 6, 1))
    place.check({**source, "path": "dat[a]/*"}, counts=(1, 7, 0))  # other words for the same files
    place.check({**source, "license": "CC0-1.0"}, counts=(8, 0, 0))


def test_files_with_times_that_were_read_before(place: Place) -> None:
    data = place.folder / "data"
    data.mkdir()
    source = {"type": "files", "path": "data", "fields": {"text": "text", "time": "at"}}
    (data / "a.jsonl").write_text('{"text": "one", "at": "2026-01-31"}\n')
    place.check(source, counts=(1, 0, 0))
    (data / "b.jsonl").write_text('{"text": "two"}\n')
    place.check(source, counts=(1, 1, 0))


def test_two_sources_that_overlap(place: Place) -> None:
    for name in ("a", "b", "c"):
        (place.folder / f"{name}.md").write_text(name)
    both = ({"type": "files", "path": "*.md"}, {"type": "files", "path": "[ab].md"})
    place.check(*both, counts=(5, 0, 0))
    (place.folder / "b.md").write_text("changed")
    place.check(*both, counts=(2, 3, 1))
    place.check(both[1], both[0], counts=None)


def test_rows_of_a_query(place: Place) -> None:
    pytest.importorskip("sqlalchemy")
    run = database(place.folder / "shop.db")
    run("CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT, changed TEXT)")
    for number in range(20):
        run(f"INSERT INTO notes VALUES ({number}, 'note {number}', '2024-05-{number + 1:02}')")
    run("INSERT INTO notes VALUES (50, NULL, '2024-05-03')")
    source = {
        "type": "sql",
        "url": "sqlite:///shop.db",
        "query": "SELECT id, body, changed FROM notes",
        "key": "id",
        "watermark": "changed",
        "fields": {"text": "body"},
    }
    place.check(source, counts=(21, 0, 0))
    run("UPDATE notes SET body = 'other', changed = '2024-07-01' WHERE id = 4")
    run("INSERT INTO notes VALUES (60, 'late, with an early date', '2024-05-01')")
    run("DELETE FROM notes WHERE id = 7")
    run("INSERT INTO notes VALUES (61, 'without a date', NULL)")
    place.check(source, counts=(4, 18, 2))  # the row that is quarantined, and one without a date, are read each time
    run("UPDATE notes SET body = 'without a date, changed' WHERE id = 61")
    run("DELETE FROM notes WHERE id = 8")
    place.check(source, counts=(2, 19, 2))
    whole = {name: value for name, value in source.items() if name != "watermark"}
    place.check(whole, counts=(21, 0, 0))
    run("UPDATE notes SET body = 'again' WHERE id = 2")
    place.check(whole, counts=(21, 0, 1))


def test_files_of_a_repository(place: Place) -> None:
    repository = place.folder / "repository"

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", str(repository), *who, *arguments], check=True, capture_output=True)

    repository.mkdir()
    git("init", "-q", "-b", "main")
    for name in ("a", "b", "c"):
        (repository / f"{name}.py").write_text(f"def {name}():\n    return 1\n")
    (repository / "empty.py").write_text("")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    source = {"type": "git", "url": "repository"}
    place.check(source, counts=(4, 0, 0))
    (repository / "b.py").write_text("def b():\n    return 2\n")
    (repository / "a.py").unlink()
    git("add", ".")
    git("commit", "-q", "-m", "two")
    place.check(source, counts=(1, 2, 2))
    (repository / "LICENSE").write_text((Path(__file__).parents[2] / "LICENSE").read_text())
    git("add", ".")
    git("commit", "-q", "-m", "three")
    place.check(source, counts=None)  # the license of every file
    (repository / ".gitattributes").write_text("c.py linguist-vendored\n")
    git("add", ".")
    git("commit", "-q", "-m", "four")
    place.check(source, counts=None)


def test_pages_of_a_site(place: Place) -> None:
    with Site() as site:
        site.pages = {"/": page("home", "/a", "/b", "http://elsewhere.example/"), "/a": page("a"), "/b": page("b")}
        source = {
            "type": "website",
            "start": site.url,
            "contact": "crawler@example.org",
            "every": "0s",
            "crawl": {"delay": 0, "attempts": 1},
        }
        place.check(source, counts=(4, 0, 0))
        site.pages["/a"] = page("a, changed", "/c")
        site.pages["/c"] = page("c")
        site.forget()
        place.check(source, counts=(2, 3, 1))
        assert site.statuses[304] >= 2
        del site.pages["/b"]
        place.check(source, counts=None)


def test_issues_and_their_notes(place: Place) -> None:
    base = "/api/v4/projects/tea/pot/issues"

    def issue(number: int, day: int, **more: Any) -> dict[str, Any]:
        web = f"https://gitlab.com/tea/pot/-/issues/{number}"
        about = {"iid": number, "title": f"Title {number}", "state": "opened", "web_url": web, "user_notes_count": 1}
        times = {"created_at": f"2024-05-{number:02}T10:00:00Z", "updated_at": f"2024-05-{day:02}T10:00:00Z"}
        return {**about, **times, "description": "text", "labels": [], "author": {"username": "ann"}, **more}

    def note(number: int, body: str) -> dict[str, Any]:
        times = {"created_at": "2024-05-09T10:00:00Z", "updated_at": "2024-05-09T10:00:00Z"}
        return {"id": number, "body": body, "system": False, "author": {"username": "bob"}, **times}

    with api_server() as server:
        source = {"type": "gitlab_issues", "project": "tea/pot", "url": server.url}
        server.rows[base] = [issue(number, 10) for number in (1, 2, 3)]
        for number in (1, 2, 3):
            server.rows[f"{base}/{number}/notes"] = [note(number, "said")]
        place.check(source, counts=(6, 0, 0))
        server.rows[base][1:] = [issue(2, 20)]
        server.rows[f"{base}/2/notes"].append(note(22, "said more"))
        server.asked.clear()
        assert place.collect(source)[1] == (3, 2, 2)
        assert [path for path, _ in server.asked if path.endswith("/notes")] == [f"{base}/2/notes"]
        server.rows[base][0] = issue(1, 21, title="Another")
        place.check(source, counts=(2, 3, 1))


def database(path: Path) -> Callable[[str], None]:
    def run(statement: str) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement)

    return run


def test_whoever_is_forgotten_does_not_come_back_from_what_was_read(place: Place) -> None:
    for name, text in (("a", "tea"), ("b", "Jane Quillfeather wrote this"), ("c", "water"), ("d", "milk")):
        (place.folder / f"{name}.md").write_text(text)
    source = {"type": "files", "path": "*.md"}
    place.check(source, counts=(4, 0, 0))
    keyed = place.workspace.runs.keyed_person
    folder = place.workspace.store.new_folder()
    (folder / "entries.json").write_text(json.dumps({"entries": {keyed("jane quillfeather"): 2}}))
    forgotten = SuppressionList(place.workspace.store.put(folder), place.workspace.store)
    place.check(source, counts=(0, 4, 1), forget=forgotten)
    (place.folder / "c.md").write_text("other water")
    place.check(source, counts=(2, 2, 1), forget=forgotten)  # what is left out is in no corpus to take it from
    (place.folder / "d.md").write_text("other milk")
    place.check(source, counts=(2, 2, 1), forget=forgotten)
    assert b"Jane" not in (place.workspace.root / FILE).read_bytes()


def test_a_cache_that_is_lost_foreign_or_damaged(place: Place) -> None:
    for name in ("a", "b"):
        (place.folder / f"{name}.md").write_text(name)
    source = {"type": "files", "path": "*.md"}
    cache = place.workspace.root / FILE
    place.check(source, counts=(2, 0, 0))
    for number, spoil in enumerate((cache.unlink, lambda: cache.write_bytes(b"x" * 5000))):
        spoil()
        (place.folder / f"new-{number}.md").write_text("new")
        place.check(source, counts=None)
    run = database(cache)
    run("UPDATE units SET first = first + 1 WHERE first = 1")
    (place.folder / "c.md").write_text("c")
    with pytest.raises(UserError, match="damaged and is thrown away; run the same command again"):
        place.collect(source)
    place.check(source, counts=(5, 0, 0))


def test_a_file_is_hashed_again_when_anything_about_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    cache = tmp_path / "cache" / "files.json"
    first = KnownFiles(cache, str)
    digest = first.digest(path)
    first.keep(tmp_path)
    assert not cache.exists()  # too young to be trusted
    cache.parent.mkdir()
    found = path.stat()
    look = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]
    cache.write_text(json.dumps({str(path): [look, "as it was"]}))
    assert KnownFiles(cache, str).digest(path) == "as it was"
    path.write_text("two")
    os.utime(path, (1_000_000_000, 1_000_000_000))  # same size and time; only the kernel's time of change tells
    assert KnownFiles(cache, str).digest(path) not in (digest, "as it was")
    for damaged in ("[1]", "x", '{"a": 1}'):
        cache.write_text(damaged)
        assert KnownFiles(cache, str).digest(path) == KnownFiles(cache, str).digest(path)
