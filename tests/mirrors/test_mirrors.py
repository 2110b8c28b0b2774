"""Mirrors follow the ledger: nothing is lost, nothing is doubled, and whoever is slow or dead holds nobody up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import treadle
from docs.test_json import differences, promised
from mirrors.collector import collector
from postgresql_server import Server
from small_project import Project
from treadle.cli.main import main
from treadle.core.errors import UserError
from treadle.core.fact import Row
from treadle.core.sink import Unavailable
from treadle.integrations.openlineage_mirror import OpenLineageMirror
from treadle.project import open_project
from treadle.record import beside, mirrors
from treadle.record.mirrors import Mirror, Mirrors


@pytest.fixture(autouse=True)
def by_hand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process delivers beside the tests, but in those that say so."""
    if "beside" not in request.node.name:
        monkeypatch.setenv(beside.VARIABLE, "1")


def log(project: Project, name: str = "fit", points: int = 3) -> str:
    with treadle.start_run(name, params={"lr": 0.1}, folder=project.folder, system=None) as run:
        for step in range(points):
            run.log(step, loss=1 / (step + 1))
    return run.id


def deliver(project: Project, **how: Any) -> list[Mirror]:
    with open_project(project.folder) as opened:
        return Mirrors(opened.record, project.folder).deliver(**how)


def said(events: Path) -> list[tuple[str, str]]:
    return [(each["job"]["name"], each["eventType"]) for each in map(json.loads, events.read_text().splitlines())]


class Torn(OpenLineageMirror):
    """Loses the connection, or its process, in the middle of a batch."""

    error: BaseException = Unavailable("gone")

    def deliver(self, batch: Sequence[Row], *, again: bool) -> list[str]:
        super().deliver(batch[: len(batch) // 2], again=again)
        raise self.error


@pytest.fixture
def torn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(mirrors, "_known", lambda: {"openlineage": Torn})
        yield


def test_each_goes_on_where_it_stopped(project: Project, events: Path) -> None:
    log(project, "one")
    (first,) = deliver(project)
    assert (first.error, first.waiting) == (None, 0)
    assert said(events) == [("helper.experiment.one", "START"), ("helper.experiment.one", "COMPLETE")]
    (nothing,) = deliver(project)
    assert nothing.sent == 0
    log(project, "two")
    deliver(project)
    assert said(events)[2:] == [("helper.experiment.two", "START"), ("helper.experiment.two", "COMPLETE")]


@pytest.mark.parametrize("error", [Unavailable("gone"), KeyError("theirs"), KeyboardInterrupt()])
def test_what_broke_off_is_neither_lost_nor_doubled(
    project: Project, events: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    runs = [log(project, f"n{number}", points=1) for number in range(6)]
    with monkeypatch.context() as patched:
        patched.setattr(mirrors, "_known", lambda: {"openlineage": Torn})
        patched.setattr(Torn, "error", error)
        for _ in range(2):
            with contextlib.suppress(KeyboardInterrupt):
                (told,) = deliver(project)
                assert told.waiting == 18
                assert told.error
    assert 0 < len(said(events)) < 12
    runs.append(log(project, "n6"))  # comes after what broke off, and is given with another batch
    (told,) = deliver(project)
    assert (told.error, told.waiting) == (None, 0)
    assert Counter(said(events)) == {(f"helper.experiment.n{n}", state): 1 for n in range(7) for state in STATES}


STATES = ("START", "COMPLETE")


def test_a_line_that_was_torn_is_written_again(project: Project, events: Path, torn: None) -> None:
    log(project)
    deliver(project)
    whole = events.read_bytes()
    events.write_bytes(whole[:-20])
    mirrors_of = {"openlineage": OpenLineageMirror}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mirrors, "_known", lambda: mirrors_of)
        deliver(project)
    lines = events.read_bytes().splitlines()
    assert [json.loads(each)["eventType"] for each in lines[1:]] == ["START", "COMPLETE"]


def test_everything_again_doubles_nothing(project: Project, events: Path) -> None:
    for number in range(3):
        log(project, f"n{number}")
    deliver(project)
    before = sorted(said(events))
    deliver(project, everything=True)
    assert sorted(said(events)) == before
    events.unlink()  # the other side lost what it had
    deliver(project, everything=True)
    assert sorted(said(events)) == before


def test_one_that_failed_is_left_alone_for_a_while(project: Project, events: Path) -> None:
    events.mkdir()
    log(project)
    (failed,) = deliver(project)
    assert "cannot be written" in str(failed.error)
    events.rmdir()
    (left,) = deliver(project, due=True)
    assert (left.sent, left.waiting) == (0, failed.waiting)
    (told,) = deliver(project)  # somebody asked
    assert (told.error, told.waiting) == (None, 0)


def test_batches_are_small(project: Project, events: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "BATCH_ROWS", 2)
    for number in range(4):
        log(project, f"n{number}")
    with monkeypatch.context() as patched:
        patched.setattr(mirrors, "_known", lambda: {"openlineage": Torn})
        deliver(project)
    deliver(project)
    assert Counter(said(events)) == {(f"helper.experiment.n{n}", state): 1 for n in range(4) for state in STATES}


def test_events_go_to_a_collector(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as server:
        monkeypatch.setenv("OPENLINEAGE_URL", server.url)
        monkeypatch.setenv("OPENLINEAGE_API_KEY", "abc")
        log(project, "one")
        server.statuses = [201, 503]
        (told,) = deliver(project)
        assert "503" in str(told.error)
        server.statuses = [201, 422]
        (told,) = deliver(project)
        assert (told.error, told.waiting) == (None, 0)
        assert told.told == ("COMPLETE of helper.experiment.one: refused with 422",)
        assert {(path, login) for path, login, _ in server.kept} == {("/api/v1/lineage", "Bearer abc")}
        (kept,) = {json.dumps(body) for _, _, body in server.kept}  # the same event twice
        assert json.loads(kept)["eventType"] == "START"


def test_a_run_beside_a_dead_neighbor(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(beside, "WAIT_SECONDS", 60.0)
    log(project)
    beside.finish()
    shown = treadle.status(project.folder)["mirrors"]
    assert [(each["name"], each["waiting"]) for each in shown] == [("openlineage", 3)]
    assert "does not answer" in shown[0]["error"]
    with open_project(project.folder) as opened:
        assert [run.status for run in opened.record.runs.find()] == ["done"]


def test_a_run_beside_one_that_never_answers(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "WAIT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        log(project)
        process = beside._going[project.folder]
        log(project)  # starts no second one
        assert list(beside._going.values()) == [process]
        beside.finish()
        assert beside._going == {}
        os.kill(process.pid, signal.SIGKILL)  # it was left to itself
        os.waitpid(process.pid, 0)
    with open_project(project.folder) as opened:
        assert [run.status for run in opened.record.runs.find()] == ["done", "done"]


def test_runs_are_mirrored_beside_the_work(project: Project, events: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "WAIT_SECONDS", 60.0)
    log(project, "one")
    log(project, "two")
    beside.finish()
    assert [name for name, _ in said(events)] == ["helper.experiment.one"] * 2 + ["helper.experiment.two"] * 2


def test_one_process_delivers_at_a_time(project: Project, events: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "_PATIENCE", 0.0)
    log(project)
    with open_project(project.folder) as opened:
        state, place = opened.record.workspace.state, str(events)
        key = mirrors._key("openlineage", place)
        state.claim_lease(key)
        with opened.record.workspace.database.transaction() as cursor:
            cursor.execute("UPDATE leases SET pid = ?, started = started + 1 WHERE name = ?", (os.getppid(), key))
        told = Mirrors(opened.record, project.folder).deliver()
        assert told[0].sent == 2 + 1  # the lease of a process that ended counts for nothing
        with opened.record.workspace.database.transaction() as cursor:
            sql = "INSERT INTO leases VALUES (?, 'elsewhere', 1, 1.0, ?)"
            cursor.execute(sql, (key, opened.record.workspace.database.clock()))
        assert "another process" in str(Mirrors(opened.record, project.folder).deliver()[0].error)


def test_what_the_command_promises(
    project: Project, events: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.folder)
    log(project)
    assert main(["mirror", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not differences(promised("mirror"), found)
    assert found[0]["sent"] == 3
    assert main(["doctor"]) == 0
    assert f"{events}: 0 rows wait" in capsys.readouterr().out
    assert main(["status"]) == 0
    assert f"openlineage at {events}: up to date" in capsys.readouterr().out


def test_points_that_are_not_here_are_waited_for(project: Project, events: Path) -> None:
    log(project)
    with open_project(project.folder) as opened:
        record = opened.record
        record.workspace.journal.seal("metrics")
        (segment,) = record.workspace.journal.sealed("metrics")
        record.store.delete({segment})
        told = Mirrors(record, project.folder).deliver()[0]
        assert "are not in this store" in str(told.error)
        suppression = record.erasures.extend({}).digest
        record.erasures.record("era-1", "k3:1", "deleting", suppression, objects=[segment])
        told = Mirrors(record, project.folder).deliver()[0]
        assert (told.error, told.waiting) == (None, 0)
    assert len(said(events)) == 2


def test_a_record_on_a_server_is_mirrored_alike(
    postgresql: Server, project: Project, events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIRRORED_LEDGER", postgresql.schema())
    project.edit("seed: 17", "seed: 17\nledger: ${env:MIRRORED_LEDGER}")
    log(project, "one")
    log(project, "two")
    (told,) = deliver(project)
    assert (told.error, told.waiting, told.sent) == (None, 0, 6)
    (told,) = deliver(project, everything=True)
    assert [name for name, _ in said(events)] == ["helper.experiment.one"] * 2 + ["helper.experiment.two"] * 2


def test_the_command(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(project.folder)
    assert main(["mirror"]) == 0
    assert "OPENLINEAGE_URL" in capsys.readouterr().out
    assert main(["mirror", "mlfow"]) == 2
    assert "did you mean 'mlflow'?" in capsys.readouterr().err
    assert main(["mirror", "wandb", "--json"]) == 2
    assert "set WANDB_API_KEY" in json.loads(capsys.readouterr().out)["error"]["message"]


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "file:///tmp/mlruns", "mlruns", "databricks", "http://["])
def test_a_tracking_uri_without_a_server(project: Project, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    log(project)
    (told,) = deliver(project)
    assert "names no server" in str(told.error)
    assert told.waiting == 3


def test_the_projects_own_server_is_no_mirror(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as server, open_project(project.folder) as opened:
        server.headers["Treadle-Project"] = opened.record.workspace.keys.project
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        log(project)
        (told,) = deliver(project)
        assert "this project's own server" in str(told.error)
        assert server.kept == []


def test_credentials_are_not_shown(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as server:
        address = server.url.replace("://", "://jane:hunter2hunter2@")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        log(project)
        (told,) = deliver(project)
    assert told.error
    assert "hunter2" not in str(told)
    monkeypatch.setenv("OPENLINEAGE_URL", address)
    with open_project(project.folder) as opened, pytest.raises(UserError, match="without user and password"):
        OpenLineageMirror.open(mirrors.Outgoing(opened.record, project.folder))


@pytest.mark.parametrize(
    "text",
    ["transport: {type: kafka}", "transport: {type: http}", "[]", "a: [", "transport: {type: http, url: ftp://x}"],
)
def test_a_configuration_that_says_nothing_usable(project: Project, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.folder / "openlineage.yml").write_text(text)
    monkeypatch.setenv("OPENLINEAGE_CONFIG", "openlineage.yml")
    (told,) = deliver(project)
    assert told.error
    assert "\n" not in told.error
    assert "OPENLINEAGE" in told.error or "OpenLineage" in told.error


def test_a_configuration_file_is_read(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.folder / "openlineage.yml").write_text("transport: {type: file, log_file_path: out/lines.jsonl}")
    monkeypatch.setenv("OPENLINEAGE_CONFIG", "openlineage.yml")
    log(project)
    deliver(project)
    assert len(said(project.folder / "out" / "lines.jsonl")) == 2
