"""A table of feedback becomes feedback on interactions: from CSV, JSON lines and SQL, each row once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from importing.test_logs import chat, write
from small_project import Project
from treadle.core.errors import UserError
from treadle.core.verify import verify
from treadle.erasing import forget
from treadle.importing.feedback import import_feedback
from treadle.importing.logs import import_logs
from treadle.project import open_project
from treadle.record.feedback import Feedback

Fresh = Callable[[], Project]
FIELDS = {"interaction": "request", "thumbs": "rating", "correction": "wanted", "user": "who", "comment": "why"}
HEAD = ("request", "rating", "wanted", "who", "why")
TABLE = (
    ("chatcmpl-0", "up", "", "amy", "right"),
    ("chatcmpl-1", "down", "With tape, said bob@example.org.", "bob@example.org", ""),
    ("chatcmpl-2", "", "With string.", "cleo", "Ask bob@example.org"),
    ("chatcmpl-77", "up", "", "dan", ""),
    ("chatcmpl-2", "perhaps", "", "dan", ""),
    ("chatcmpl-2", "", "", "dan", "nothing"),
)


@pytest.fixture
def logged(fresh: Fresh, tmp_path: Path) -> Project:
    """A project with three imported answers."""
    project = fresh()
    with open_project(project.folder) as opened, opened.record.workspace.exclusive():
        import_logs(opened, [write(tmp_path / "log.jsonl", *(chat(number) for number in range(3)))])
    return project


def imported(
    project: Project, place: str, fields: Any = None, **settings: Any
) -> tuple[dict[str, Any], list[Feedback]]:
    """What the import said, and all feedback."""
    with open_project(project.folder) as opened, opened.record.workspace.exclusive():
        said = import_feedback(opened, place, fields or FIELDS, **settings).public()
        rows = list(opened.record.recorder.all_feedback())
        assert verify(opened.record.workspace).ok
    assert said["in"] == said["kept"] + sum(said["dropped"].values()) + len(said["quarantined"])
    return said, rows


def csv_file(path: Path) -> str:
    path.write_text("\n".join(",".join(f'"{cell}"' for cell in row) for row in (HEAD, *TABLE)) + "\n")
    return str(path)


def json_file(path: Path) -> str:
    return write(path, *({key: cell or None for key, cell in zip(HEAD, row, strict=True)} for row in TABLE))


def database(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE ratings ({', '.join(HEAD)})")
        connection.executemany("INSERT INTO ratings VALUES (?, ?, ?, ?, ?)", TABLE)
        connection.commit()
    return f"sqlite:///{path}"


def from_any(kind: str, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    if kind == "sql":
        return database(tmp_path / "app.db"), {"query": "SELECT * FROM ratings ORDER BY rowid"}
    return (csv_file(tmp_path / "f.csv") if kind == "csv" else json_file(tmp_path / "f.jsonl")), {}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "sql"])
def test_rows_are_joined_to_answers(kind: str, logged: Project, tmp_path: Path) -> None:
    if kind == "sql":
        pytest.importorskip("sqlalchemy")
    place, settings = from_any(kind, tmp_path)
    said, rows = imported(logged, place, **settings)
    assert (said["in"], said["kept"], said["dropped"]) == (6, 3, {"feedback.says_nothing": 1})
    numbers = [piece["source"].split()[-1] for piece in said["quarantined"]]
    assert numbers == ["4", "5"]
    assert "no such interaction" in said["quarantined"][0]["reason"]
    assert sorted((row.kind, row.value) for row in rows) == [
        *(("correction", None), ("correction", None), ("thumbs", 0.0), ("thumbs", 1.0)),
    ]
    assert {row.source for row in rows} == {"import"}
    texts = " ".join(f"{row.correction} {row.comment} {row.user}" for row in rows)
    assert "With string." in texts
    assert "bob@example" not in texts
    again, same = imported(logged, place, **settings)
    assert again["dropped"] == {"feedback.imported_before": 3, "feedback.says_nothing": 1}
    assert same == rows


def test_one_database_row_equals_one_csv_row(logged: Project, tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    imported(logged, csv_file(tmp_path / "f.csv"))
    place, settings = from_any("sql", tmp_path)
    assert imported(logged, place, **settings)[0]["kept"] == 0


def test_a_person_is_forgotten_and_stays_out(logged: Project, tmp_path: Path) -> None:
    place = csv_file(tmp_path / "f.csv")
    imported(logged, place)
    with open_project(logged.folder) as opened, opened.record.workspace.exclusive():
        assert forget(opened, "cleo", rebuild=False).feedback == 1
    said, rows = imported(logged, place)
    assert said["dropped"]["feedback.erased"] == 1
    assert "With string." not in [row.correction for row in rows]
    stored = b"".join(path.read_bytes() for path in (logged.folder / ".treadle").rglob("*") if path.is_file())
    assert b"With string." not in stored


def test_times_and_ids(logged: Project, tmp_path: Path) -> None:
    with open_project(logged.folder) as opened:
        known = next(iter(opened.record.recorder.interactions()))
    fields = {"interaction": "i", "score": "s", "time": "t"}
    rows = [{"i": known.id, "s": 0.25, "t": "2026-11-02T10:00:00+02:00"}, {"i": known.id, "s": 7, "t": 1}]
    said, found = imported(logged, write(tmp_path / "f.jsonl", *rows, {"i": known.id, "s": 1, "t": "noon"}), fields)
    assert (found[0].time, found[0].value, found[0].interaction) == ("2026-11-02T08:00:00.000Z", 0.25, known.id)
    assert [piece["reason"].partition(":")[0] for piece in said["quarantined"]] == ["score", "time"]


def test_corrections_that_nobody_can_see_are_no_feedback(logged: Project, tmp_path: Path) -> None:
    texts = ("\u200b", "\u00a0\u2800\n", "  ", "A\u0301\u200b")
    place = write(tmp_path / "f.jsonl", *({"i": "chatcmpl-0", "c": text} for text in texts))
    said, found = imported(logged, place, {"interaction": "i", "correction": "c"})
    assert [row.correction for row in found] == ["A\u0301\u200b"]
    assert [piece["source"].split()[-1] for piece in said["quarantined"]] == ["1", "2"]
    assert {piece["reason"] for piece in said["quarantined"]} == {
        "correction: there is no character in it that can be seen"
    }
    assert said["dropped"] == {"feedback.says_nothing": 1}  # an empty cell


def test_feedback_from_the_future_is_quarantined(logged: Project, tmp_path: Path) -> None:
    rows = [{"i": "chatcmpl-0", "c": "Glue.", "t": time} for time in ("2031-01-01", 99999999999999, 1_700_000_000)]
    place = write(tmp_path / "f.jsonl", *rows)
    said, found = imported(logged, place, {"interaction": "i", "correction": "c", "time": "t"})
    assert [row.time for row in found] == ["2023-11-14T22:13:20.000Z"]
    assert [piece["source"].split()[-1] for piece in said["quarantined"]] == ["1", "2"]
    assert all("ahead of this machine's clock" in piece["reason"] for piece in said["quarantined"])


def test_what_cannot_be_read_says_what_to_do(logged: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = csv_file(tmp_path / "f.csv")
    refused = [
        (place, {"interaction": "request"}, {}, "needs interaction"),
        (place, {"interaction": "reqest", "thumbs": "rating"}, {}, "did you mean 'request'"),
        (place, {"interaction": "request", "thumb": "rating"}, {}, "did you mean 'thumbs'"),
        (str(tmp_path / "f.xls"), FIELDS, {}, "no .csv"),
        (str(tmp_path / "absent.csv"), FIELDS, {}, "No such file"),
        ("sqlite:////absent.db", FIELDS, {"query": "select 1"}, "no file"),
        ("sqlite:////absent.db", FIELDS, {}, "--query"),
        ("postgresql://me:word@127.0.0.1/x", FIELDS, {"query": "select 1"}, "env:NAME"),
        ("postgresql://me:word@127.0.0.1/${env:DB}", FIELDS, {"query": "select 1"}, "env:NAME"),
        ("postgresql://127.0.0.1/${env:DB}?password=word", FIELDS, {"query": "select 1"}, "env:NAME"),
        ("postgresql://me:${env:NO_SUCH_WORD}@127.0.0.1/x", FIELDS, {"query": "select 1"}, "is not set"),
        ("${env:NO_SUCH_URL}", FIELDS, {"query": "select 1"}, "is not set"),
    ]
    for where, fields, settings, words in refused:
        with pytest.raises(UserError, match="import feedback: ") as caught:
            imported(logged, where, fields, **settings)
        assert words in str(caught.value)


def test_a_broken_query_is_the_users_to_mend(logged: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("RATINGS", database(tmp_path / "app.db"))
    with pytest.raises(UserError, match="no such table: rating"):
        imported(logged, "${env:RATINGS}", query="SELECT * FROM rating")


def test_the_command(logged: Project, tmp_path: Path) -> None:
    place = csv_file(tmp_path / "f.csv")
    said = logged.json("import", "feedback", place, "--fields", "interaction=request,thumbs=rating")
    assert (said["in"], said["kept"]) == (6, 2)
    assert (
        "feedback.imported_before"
        in logged.call("import", "feedback", place, "--fields", "interaction=request,thumbs=rating").stdout
    )
    assert json.loads(logged.call("import", "--json").stdout)["imports"][:3] == ["model", "logs", "feedback"]
    assert "did you mean 'feedback'" in logged.call("import", "fedback", place, check=2).stderr
    assert "expected FIELD=COLUMN" in logged.call("import", "feedback", place, "--fields", "request", check=2).stderr
