"""`treadle backup` and `treadle restore` as they are typed, and the people who were erased in between."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import treadle
from treadle.cli.main import main
from treadle.core.fact import Fact
from treadle.core.identifiers import new_id
from treadle.project import open_project

FILE = """\
name: helper
task: chat
remotes: {team: ../team}
collect: {sources: [{type: files, path: data.jsonl}]}
develop: {base_model: somewhere}
"""
JANE = "jane.roe@example.org"
HEADS = "publish_heads: [../heads.jsonl]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "project"
    place.mkdir()
    (place / "treadle.yaml").write_text(FILE + HEADS)
    monkeypatch.chdir(tmp_path)
    say(place, "int", JANE, f"I am {JANE}")
    say(place, "int", "bob@example.org", "hello from bob")
    return place


def say(place: Path, prefix: str, user: str, text: str) -> None:
    """An interaction of theirs in a segment that is not sealed yet, as a server that still runs would leave it."""
    with open_project(place) as project:
        record = project.record
        row = {
            "id": new_id(prefix),
            "user": record.recorder.keyed(user),
            "messages": [{"role": "user", "content": text}],
            "time": "2026-01-01T00:00:00Z",
        }
        record.workspace.journal.append("interactions", row)
        record.workspace.journal._open.pop("interactions").close()


def call(capsys: pytest.CaptureFixture[str], place: Path, *arguments: object) -> tuple[int, Any, str]:
    code = main(["-C", str(place), *map(str, arguments), "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out), said.err


def texts(place: Path) -> list[str]:
    with open_project(place) as project:
        rows = project.record.workspace.journal.read("interactions")
        return [row["messages"][0]["content"] if row["messages"] else "" for row in rows]


def holds(place: Path, needle: str) -> list[str]:
    """Files with these letters in them; what was backed up is packed, and what was packed is told apart."""
    return [str(path) for path in place.rglob("*") if path.is_file() and needle.encode() in path.read_bytes()]


def test_there_and_back(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, made, _ = call(capsys, folder, "backup", tmp_path)
    assert code == 0
    assert Path(made["file"]).parent == tmp_path
    assert Path(made["file"]).name.startswith("helper-")
    assert (made["keys"], made["segments"], made["missing"], made["lacking"]) == (True, 2, [], [])
    code, again, _ = call(capsys, folder, "restore", made["file"])
    assert (code, again["lost"], again["erased_again"], again["missing"]) == (0, 0, [], 0)
    assert call(capsys, folder, "verify")[:2][0] == 0
    code, again, _ = call(capsys, folder, "restore", made["file"])
    assert (code, again["lost"], again["replaced"]) == (0, 0, None)  # the row `restored` that came after it is no loss
    with open_project(folder) as project:
        project.record.ledger.append(Fact("note", {}))
    code, said, _ = call(capsys, folder, "restore", made["file"])
    assert code == 1
    assert "use a newer backup, or restore this one with --older" in said["error"]["message"]
    code, again, _ = call(capsys, folder, "restore", made["file"], "--older")
    assert (code, again["lost"]) == (0, 2)
    code, again, _ = call(capsys, folder, "restore", made["file"])
    assert (code, again["lost"]) == (0, 2)
    code, found, _ = call(capsys, folder, "verify")
    assert code == 0
    assert [each["lost"] for each in found["restores"]] == [2]
    assert texts(folder) == [f"I am {JANE}", "hello from bob"]


def test_the_answer_to_a_lost_disk(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_project(folder) as project:
        project.record.workspace.journal.seal()
    assert call(capsys, folder, "push", "team")[0] == 0
    code, made, _ = call(capsys, folder, "backup", tmp_path / "b.zip", "--remote", "team")
    assert (code, made["lacking"]) == (0, [])
    new = tmp_path / "new"
    shutil.rmtree(folder)
    new.mkdir()
    code, again, _ = call(capsys, new, "restore", tmp_path / "b.zip")
    assert code == 0
    assert again["missing"] > 0
    assert main(["-C", str(new), "restore"]) == 0
    assert f"at least {again['missing']} objects are not here" in capsys.readouterr().out
    assert (new / "treadle.yaml").read_text() == FILE + HEADS
    code, _, _ = call(capsys, new, "pull", "team")
    assert code == 0
    assert call(capsys, new, "verify")[0] == 0
    assert texts(new) == [f"I am {JANE}", "hello from bob"]


def test_what_a_remote_lacks_is_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, folder, "push", "team")[0] == 0
    with open_project(folder) as project:
        project.record.workspace.journal.seal()
    code, made, _ = call(capsys, folder, "backup", tmp_path / "b.zip", "--remote", "team")
    assert code == 1
    assert len(made["lacking"]) == 4  # two segments, a manifest and rows each
    code, said, _ = call(capsys, folder, "backup", tmp_path / "b.zip")
    assert (code, "is there already" in said["error"]["message"]) == (2, True)


@pytest.mark.parametrize("how", ["sound", "unlisted", "damaged", "lost"])
def test_who_was_erased_since_is_erased_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    """The present ledger is there, with the list in the store or without; or only that list, or only the remote."""
    with open_project(folder) as project:
        lookup = project.record.recorder.keyed(JANE)
        project.record.workspace.state.person_key(lookup)
    call(capsys, folder, "backup", tmp_path / "b.zip")
    assert call(capsys, folder, "push", "team")[0] == 0
    assert call(capsys, folder, "forget", JANE)[1]["interactions"] == 1
    say(folder, "int", "ann@example.org", "hello from ann")
    assert call(capsys, folder, "push", "team")[0] == 0
    assert holds(folder, JANE) == []
    if how == "unlisted":  # another machine did it
        (folder / ".treadle" / "erasures.jsonl").unlink()
    if how == "damaged":
        database = folder / ".treadle" / "treadle.db"
        database.write_bytes(database.read_bytes()[:5000])
    if how == "lost":
        shutil.rmtree(folder)
        folder.mkdir()
    code, again, _ = call(capsys, folder, "restore", tmp_path / "b.zip", "--older")
    assert code == 0
    assert len(again["erased_again"]) == (how != "lost")
    if how == "lost":
        assert holds(folder / ".treadle", JANE) != []  # nobody here can know it yet
        code, _, said = call(capsys, folder, "pull", "team")
        assert code == 0
        assert "was erased since the backup was made: done again" in said
    assert holds(folder, JANE) == []
    kept = list((folder / ".treadle" / "backups").glob("*"))
    assert kept == ([Path(again["kept"])] if how in ("sound", "unlisted") else [])  # Jane was erased when it was made
    said = texts(folder)
    assert "hello from bob" in said
    assert ("hello from ann" in said) == (how != "lost")  # that was in the store's journal only
    assert not any(JANE in text for text in said)
    with open_project(folder) as project:
        assert project.record.workspace.state.person_key(lookup, create=False) is None
        suppression = project.record.erasures.suppression()
        assert suppression is not None
        assert lookup in suppression.suppressed()
        assert project.record.erasures.open() == []
    assert call(capsys, folder, "verify")[0] == 0
    assert call(capsys, folder, "restore")[1] == {"erased_again": [], "missing": 0, "unread": [], "unlisted": []}


def spoil(place: Path, how: str) -> Path:
    listed = place / ".treadle" / "erasures.jsonl"
    if how == "altered":
        listed.write_text(listed.read_text().replace("k3:", "k4:"))
    else:
        listed.unlink()
    return listed


@pytest.mark.parametrize("how", ["altered", "missing"])
def test_a_list_of_erasures_that_is_not_what_the_ledger_says_is_named_and_mended(
    folder: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    request = call(capsys, folder, "forget", JANE)[1]["request"]
    assert call(capsys, folder, "verify")[0] == 0
    listed = folder / ".treadle" / "erasures.jsonl"
    before = listed.read_bytes()
    spoil(folder, how)
    code, found, _ = call(capsys, folder, "verify")
    assert (code, [(each["kind"], each["ref"]) for each in found["problems"]]) == (1, [("erasures", request)])
    assert how in found["problems"][0]["detail"]
    assert [each["ref"] for each in treadle.verify(folder)["problems"]] == [request]
    assert call(capsys, folder, "restore")[1]["unlisted"] == []  # the ledger knows
    assert listed.read_bytes() == before
    assert call(capsys, folder, "verify")[0] == 0


@pytest.mark.parametrize("how", ["altered", "missing"])
def test_a_restore_says_that_it_cannot_know_who_was_erased(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    call(capsys, folder, "backup", tmp_path / "b.zip")
    call(capsys, folder, "push", "team")
    call(capsys, folder, "forget", JANE)
    call(capsys, folder, "push", "team")
    spoil(folder, how)
    (folder / ".treadle" / "treadle.db").unlink()
    code, again, _ = call(capsys, folder, "restore", tmp_path / "b.zip", "--older")
    assert (code, again["erased_again"], len(again["unlisted"])) == (0, [], 1)
    assert "treadle pull" in again["unlisted"][0]
    assert holds(folder / ".treadle", JANE) != []
    code, found, _ = call(capsys, folder, "verify")
    assert [each["ref"] for each in found["problems"]] == (["erasures.jsonl:1"] if how == "altered" else [])
    assert main(["-C", str(folder), "restore", str(tmp_path / "b.zip"), "--older"]) == 0
    assert ("WARNING" in capsys.readouterr().out) == (how == "altered")  # the ledger is sound by now
    call(capsys, folder, "pull", "team")
    assert holds(folder / ".treadle", JANE) == []
    assert call(capsys, folder, "verify")[0] == 0


def test_objects_that_were_erased_stay_so(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_project(folder) as project:
        project.record.workspace.journal.seal()
    call(capsys, folder, "backup", tmp_path / "b.zip", "--objects")
    call(capsys, folder, "forget", JANE)
    assert holds(folder, JANE) == []
    assert call(capsys, folder, "restore", tmp_path / "b.zip")[0] == 1
    assert holds(folder, JANE) == []
    (folder / ".treadle" / "erasures.jsonl").unlink()
    assert call(capsys, folder, "restore", tmp_path / "b.zip", "--keep-ledger")[0] == 0
    assert holds(folder, JANE) == []
    assert call(capsys, folder, "verify")[0] == 0


def test_an_interrupted_one_is_finished(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call(capsys, folder, "backup", tmp_path / "b.zip")
    call(capsys, folder, "forget", JANE)
    database = folder / ".treadle" / "treadle.db"
    database.write_bytes(database.read_bytes()[:5000])
    with monkeypatch.context() as patch:
        patch.setattr("treadle.restoring.repeat", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(["-C", str(folder), "restore", str(tmp_path / "b.zip"), "--older"]) == 130
    capsys.readouterr()
    assert holds(folder, JANE) != []
    assert len(call(capsys, folder, "restore")[1]["erased_again"]) == 1
    assert holds(folder, JANE) == []
    assert call(capsys, folder, "verify")[0] == 0


def test_a_segment_that_was_sealed_since_stays_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(capsys, folder, "backup", tmp_path / "b.zip")
    call(capsys, folder, "forget", JANE)
    assert call(capsys, folder, "restore", tmp_path / "b.zip", "--keep-ledger")[0] == 0
    assert holds(folder, JANE) == []
    assert call(capsys, folder, "verify")[0] == 0


def test_a_store_whose_key_is_not_named_is_left_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(capsys, folder, "backup", tmp_path / "b.zip")
    (folder / ".treadle" / "encrypted").mkdir()
    (folder / ".treadle" / "encrypted" / "0123456789abcdef").write_text("2\n")
    before = (folder / ".treadle" / "treadle.db").read_bytes()
    for arguments in (("--older",), ("--keep-ledger",)):
        code, said, _ = call(capsys, folder, "restore", tmp_path / "b.zip", *arguments)
        assert code != 0
        assert "is encrypted under the key 0123456789abcdef" in said["error"]["message"]
        assert (folder / ".treadle" / "treadle.db").read_bytes() == before
    assert not (folder / ".treadle" / "restore").exists()


def test_forgetting_takes_what_was_put_aside(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, folder, "backup", tmp_path / "b.zip")
    kept = Path(call(capsys, folder, "restore", tmp_path / "b.zip")[1]["kept"])
    assert kept.exists()
    copy = kept.read_bytes()
    call(capsys, folder, "forget", JANE)
    assert not kept.exists()
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(copy)  # as where another machine did that
    again = call(capsys, folder, "restore", tmp_path / "b.zip", "--older")[1]
    assert len(again["erased_again"]) == 1
    assert [str(path) for path in kept.parent.iterdir()] == [again["kept"]]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("restore", "absent.zip"), 2, "cannot read"),
        (("restore", "treadle.yaml"), 2, "is no backup, or not all of it"),
        (("restore", "--older"), 2, "go with the FILE"),
        (("backup", "treadle.yaml"), 2, "is there already"),
        (("backup", "away/"), 2, "there is no folder"),
        (("backup", "treadle.yaml/"), 2, "there is no folder"),
        (("backup", "x.zip", "--remote", "nowhere"), 2, "there is no remote at"),
    ],
)
def test_one_clear_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str
) -> None:
    found = call(capsys, folder, *arguments)
    assert found[0] == code
    assert said in found[1]["error"]["message"]
    assert found[2].count("\n") == 1
    assert not (folder / "away").exists()


def test_nothing_to_restore_into(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, folder, "backup", tmp_path / "b.zip")
    shutil.rmtree(folder / ".treadle")
    (folder / ".treadle").write_text("a file")
    code, said, _ = call(capsys, folder, "restore", tmp_path / "b.zip")
    assert code == 2
    assert "cannot write" in said["error"]["message"]
