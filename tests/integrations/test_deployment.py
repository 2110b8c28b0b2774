"""Interactions and feedback of a Treadle project as documents: another project's, and the project's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from treadle.cli.main import main
from treadle.core.errors import UserError
from treadle.project import open_project
from treadle.record.feedback import Feedback, new_feedback_id
from treadle.record.interaction import Interaction
from treadle.record.record import Record
from treadle.text.accounting import Accounting
from treadle.text.corpus import Corpus
from treadle.text.document import Document
from treadle.text.source import SourceContext, open_source, read_sources

FILE = """\
name: helper
task: chat
collect:
  sources:
    - {source}
prepare:
  split: {{train: 0.6, validation: 0.1, test: 0.3}}
develop:
  base_model: smollm2-135m-instruct
"""
SERVED = "{type: deployment, project: ../served}"


def asked(record: Record, number: int, **more: Any) -> str:
    """One interaction in the record."""
    row: dict[str, Any] = {
        "id": f"int-{number:026}",
        "request": f"req-{number}",
        "time": f"2026-03-{number:02}T10:00:00Z",
        "release": "b3:" + "1" * 64,
        "model": "helper@v1",
        "endpoint": "/v1/chat/completions",
        "status": "ok",
        "store": True,
        "messages": ({"role": "user", "content": f"question {number}"},),
        "answer": f"answer {number}",
        "user": record.recorder.keyed("jane@example.org") if number % 2 else None,
    }
    record.recorder.interaction(Interaction(**{**row, **more}))
    return str(row["id"])


def said(record: Record, interaction: str, kind: Any, time: str = "2026-04-01T10:00:00Z", **more: Any) -> None:
    record.recorder.feedback(Feedback(new_feedback_id(), interaction, time, kind, **more))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    """A project with five interactions."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "treadle.yaml").write_text(FILE.format(source="{type: python_docs}"))
    with open_project(folder) as project:
        record = project.record
        ids = [asked(record, number) for number in (3, 1, 2)]
        asked(record, 4, release="b3:" + "2" * 64, model="helper@v2", answer=None, status="failed")
        asked(record, 5, messages=None, answer=None, store=False)
        asked(record, 6, metadata={"treadle": "smoke"})
        asked(record, 7, endpoint="/v1/classify", answer="card_lost")
        asked(record, 9, answer="half \ud800 a pair")
        said(record, ids[0], "thumbs", value=1.0)
        said(record, ids[1], "thumbs", value=1.0)
        said(record, ids[1], "thumbs", "2026-04-02T10:00:00Z", value=0.0)
        said(record, ids[2], "correction", correction="a better answer 2")
    return folder


def collected(folder: Path, **settings: Any) -> tuple[dict[str, Document], Accounting]:
    source = open_source({"type": "deployment", "project": "served", **settings}, SourceContext(folder, str.upper))
    source.refresh(lambda line: None)
    accounting = Accounting()
    documents = [document for batch in read_sources([source], accounting) for document in batch]
    return {document.locator[-1]: document for document in documents}, accounting.close()


def test_interactions_become_documents(served: Path) -> None:
    found, accounting = collected(served.parent, license="CC0-1.0")
    assert list(found) == ["1", "2", "3", "7"]
    assert accounting.dropped == {
        "deployment.no_answer": 1,
        "deployment.not_stored": 1,
        "deployment.smoke": 1,
    }
    assert [piece.reason for piece in accounting.quarantined] == ["half of a surrogate pair, which is no text"]
    first = found["1"]
    assert first.text == "question 1\nanswer 1"
    assert first.fields["messages"][-1] == {"role": "assistant", "content": "answer 1"}
    assert (first.fields["thumbs"], first.fields["interaction"]) == (0.0, first.locator)
    assert (first.origin, first.time, first.license) == ("traffic", "2026-03-01T10:00:00Z", "CC0-1.0")
    assert first.subject is not None and first.subject.startswith("K3:")
    assert (found["2"].origin, found["2"].text) == ("feedback", "question 2\na better answer 2")
    assert (found["7"].fields["label"], found["7"].text) == ("card_lost", "question 7")
    assert collected(served.parent, corrections=False)[0]["2"].text == "question 2\nanswer 2"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"since": "2026-03-02T10:00:00Z", "until": "2026-03-07"}, "23"),
        ({"release": "helper@v2"}, ""),
        ({"release": "b3:" + "1" * 64}, "1237"),
        ({"rating": "up"}, "3"),
        ({"rating": "down"}, "1"),
        ({"rating": "corrected"}, "2"),
        ({"rating": "rated"}, "123"),
        ({"rating": "unrated"}, "7"),
    ],
)
def test_filters(served: Path, settings: dict[str, Any], expected: str) -> None:
    assert "".join(collected(served.parent, **settings)[0]) == expected


def test_what_cannot_be_read(served: Path, tmp_path: Path) -> None:
    for settings, words in (
        ({"project": "nowhere"}, "there is no treadle.yaml"),
        ({"since": "soon"}, "since is 'soon'"),
        ({"rating": "good"}, "rating"),
    ):
        with pytest.raises(UserError, match=words):
            collected(tmp_path, **settings)
    new = tmp_path / "new"
    new.mkdir()
    (new / "treadle.yaml").write_text(FILE.format(source="{type: python_docs}"))
    with pytest.raises(UserError, match="nothing ran in"):
        collected(tmp_path, project="new")
    assert not (new / ".treadle").exists()


def test_collecting_follows_what_was_asked_and_erased(
    served: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "learning"
    folder.mkdir()
    (folder / "treadle.yaml").write_text(FILE.format(source=SERVED))

    def collect(project: Path = folder) -> dict[str, Any]:
        assert main(["-C", str(project), "collect", "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    assert (collect()["kept"], collect()["read"]) == (4, 0)
    with open_project(served) as project:
        asked(project.record, 8)
        said(project.record, f"int-{3:026}", "thumbs", "2026-05-01T10:00:00Z", value=0.0)
    found = collect()
    assert (found["kept"], found["read"], found["gone"]) == (5, 2, 0)
    main(["-C", str(served), "forget", "jane@example.org", "--json"])
    capsys.readouterr()
    found = collect()
    assert (found["kept"], found["gone"]) == (2, 3)
    assert documents(folder) == {"2", "8"}


def test_a_projects_own_record(served: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (served / "treadle.yaml").write_text(FILE.format(source="{type: deployment}"))
    assert main(["-C", str(served), "collect", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 4
    with open_project(served) as project:
        digest = project.record.runs.find(step="collect.gather", limit=1)[0].outputs["corpus"]
        (batch,) = Corpus(digest, project.record.store).documents()
        assert {document.subject for document in batch} == {None, project.record.recorder.keyed("jane@example.org")}
    assert main(["-C", str(served), "verify"]) == 0


def documents(folder: Path) -> set[str]:
    with open_project(folder) as project:
        digest = project.record.runs.find(step="collect.gather", limit=1)[0].outputs["corpus"]
        corpus = Corpus(digest, project.record.store)
        return {document.locator[-1] for batch in corpus.documents() for document in batch}
