"""The mirror to a real MLflow server, which is killed and started again in between, read back by MLflow's client."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import treadle
from importing.peers import call, peer
from small_project import Project
from treadle.core.experiment import Experiment
from treadle.project import open_project
from treadle.record import beside
from treadle.record.run_view import points, whole

LARGEST = 1.7976931348623157e308  # what MLflow's database keeps infinity as
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Server:
    """``mlflow server`` over SQLite, on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.python = peer("mlflow-server", "mlflow==3.17.2") / "python"
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        self.url, self.folder = f"http://127.0.0.1:{self.port}", folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(self.python), "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
            )
        end = time.monotonic() + 180
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except OSError:
                assert time.monotonic() < end, (self.folder / "server.log").read_text()[-2000:]
                time.sleep(0.2)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def read(self, project: str) -> Any:
        script = Path(__file__).with_name("read_mlflow.py")
        return json.loads(call(self.python, str(script), self.url, project, project, cwd=self.folder))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    (tmp_path / "mlflow").mkdir()
    made = Server(tmp_path / "mlflow")
    made.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.url)
    monkeypatch.setenv(beside.VARIABLE, "1")  # the test says when
    yield made
    made.kill()


def start(project: Project, name: str, **how: Any) -> Experiment:
    return treadle.start_run(name, folder=project.folder, system=None, **how)


def log(run: Experiment, first: int, last: int) -> None:
    run.log_many((step, {"loss": 1 / (step + 1), "lr": 1e-3 * step}) for step in range(first, last))


def expected(project: Project) -> list[dict[str, Any]]:
    """What MLflow's client has to say of the runs, from the record."""
    found = []
    with open_project(project.folder) as opened:
        record = opened.record
        for run in record.runs.find():
            shown = whole(record, run)
            histories: dict[str, list[list[Any]]] = {}
            for point in points(record, run.id):
                moment = round(datetime.fromisoformat(point["time"]).timestamp() * 1000)
                for name, value in point["values"].items():
                    histories.setdefault(name, []).append([point["step"] or 0, moment, min(float(value), LARGEST)])
            found.append(
                {
                    "id": run.id,
                    "status": {"done": "FINISHED", "failed": "FAILED"}[run.status],
                    "params": {name: text(value) for name, value in shown["parameters"].items()},
                    "metrics": shown["metrics"],
                    "tags": {name: text(value) for name, value in shown["tags"].items()},
                    "points": {name: sorted(history) for name, history in histories.items()},
                    "started": round(datetime.fromisoformat(run.started).timestamp() * 1000),
                }
            )
    return found


def text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def compare(server: Server, project: Project) -> None:
    """Every run is there once, and equal."""
    there = {run["tags"]["treadle.run_id"]: run for run in server.read("helper")["runs"]}
    wanted = expected(project)
    assert len(server.read("helper")["runs"]) == len(wanted)
    for run in wanted:
        theirs = there[run["id"]]
        assert theirs["status"] == run["status"]
        assert theirs["params"] == run["params"]
        assert {name: theirs["metrics"][name] for name in run["metrics"]} == run["metrics"]
        own = {name: value for name, value in theirs["tags"].items() if not name.startswith(("treadle.", "mlflow."))}
        assert own == run["tags"]
        assert (theirs["started"], theirs["ended"] >= theirs["started"]) == (run["started"], True)
        for name, history in run["points"].items():
            assert sorted(theirs["points"][name])[: len(history)] == history
            assert len(theirs["points"][name]) - len(history) in (0, 1)  # the final value, where it is another one


def test_a_server_that_was_away(server: Server, project: Project) -> None:
    one = start(project, "one", params={"lr": 1e-3, "opt": "adamw", "net": 3}, tags={"team": "search", "n": 2}, seed=5)
    log(one, 0, 1200)
    (told,) = project.json("mirror")
    assert (told["error"], told["waiting"]) == (None, 0)
    server.kill()
    log(one, 1200, 1500)
    one.tag(late="yes")
    (told,) = project.json("mirror", check=1)
    assert "does not answer" in told["error"]
    assert told["waiting"] > 0
    one.summary(best=0.5, loss=0.25)
    one.finish()
    with pytest.raises(ZeroDivisionError), start(project, "two", params={"lr": 0.1}, tags={"team": "ads"}) as two:
        log(two, 0, 10)
        two.log(10, loss=math.inf)
        raise ZeroDivisionError
    assert project.json("status")["mirrors"][0]["error"]
    server.start()
    (told,) = project.json("mirror", "mlflow")
    assert (told["error"], told["waiting"], told["told"]) == (None, 0, [])
    compare(server, project)
    project.json("mirror", "--all")
    compare(server, project)


def test_deliveries_that_are_killed(server: Server, project: Project) -> None:
    project.json("mirror")
    for number in range(4):
        with start(project, f"run-{number}", params={"n": number}, tags={"even": number % 2 == 0}) as run:
            log(run, 0, 2500)
    for number in range(8):
        process = project.start("mirror")
        time.sleep(0.6 + 0.35 * number)
        process.kill()
        process.communicate()
        if number == 4:
            server.kill()
            server.start()
    (told,) = project.json("mirror")
    assert (told["error"], told["waiting"], told["told"]) == (None, 0, [])
    compare(server, project)


def test_datasets_versions_and_what_was_erased(server: Server, project: Project) -> None:
    with start(project, "fit", params={"lr": 1.0}, tags={"who": "Quillfeather"}) as run:
        run.tag(team="search")
        data = run.input(run.artifact(project.file, kind="dataset", name="data"))
        model = run.artifact(project.data, kind="model", name="model")
        other = run.artifact(Path(__file__), kind="model", name="other")
    with open_project(project.folder) as opened:
        versions = opened.record.versions
        first, second = (versions.register("model", each.digest, run.id) for each in (model, other))
        versions.point("champion", first, reason="a test")
        versions.point("champion", second, reason="a test")
    (told,) = project.json("mirror")
    assert (told["error"], told["told"]) == (None, [])
    found = server.read("helper")
    (theirs,) = found["runs"]
    assert theirs["inputs"] == [["dataset/helper", data.digest[3:35]]]
    by_digest = {each["tags"]["treadle.digest"]: each["version"] for each in found["versions"]}
    assert by_digest == {model.digest: "1", other.digest: "2"}
    assert found["aliases"] == {"champion": "2", "previous": "1"}
    project.json("mirror", "--all")
    assert server.read("helper")["aliases"] == {"champion": "2", "previous": "1"}
    assert len(server.read("helper")["versions"]) == 2
    assert project.json("forget", "Quillfeather", "--no-rebuild")["done"]
    with open_project(project.folder) as opened:
        suppression = opened.record.erasures.suppression()
        assert suppression is not None
        opened.record.erasures.record(
            "era-x", "k3:x", "deleting", suppression.digest, objects=[model.digest, data.digest]
        )
    (told,) = project.json("mirror")
    assert told["error"] is None
    assert ["by its digest" in line for line in told["told"]] == [True]
    found = server.read("helper")
    assert [each["version"] for each in found["versions"]] == ["2"]
    assert found["runs"][0]["tags"]["team"] == "search"
    assert "who" not in found["runs"][0]["tags"]
    project.json("mirror", "--all")
    assert [each["version"] for each in server.read("helper")["versions"]] == ["2"]
    assert b"Quillfeather" not in (server.folder / "server.log").read_bytes()
