"""``treadle runs``, as people type it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import treadle
from treadle import project, tracking
from treadle.cli.main import main
from treadle.core.verify import verify
from treadle.tracking import open_record

Runs = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runs(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Two runs, and the command over them."""
    for lr in (0.1, 0.2):
        with treadle.start_run("fit", params={"lr": lr}, tags={"who": "Jane Q"}, folder=tmp_path, system=None) as run:
            run.log(1, loss=lr * 10)
            run.note("looks fine")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(["runs", *arguments])
        out, error = capsys.readouterr()
        return code, out, error

    return call


def test_search_and_order(runs: Runs) -> None:
    code, out, _ = runs("--where", "metrics.loss < 1.5", "--json")
    assert code == 0
    assert [run["parameters"] for run in json.loads(out)] == [{"lr": 0.1}]
    code, out, _ = runs("--sort", "metrics.loss", "--desc", "--limit", "1", "--json")
    assert [run["metrics"] for run in json.loads(out)] == [{"loss": 2.0}]
    code, out, _ = runs("--step", "experiment.fit", "--status", "done")
    assert out.count("experiment.fit") == 2


def test_a_mistake_is_one_line(runs: Runs) -> None:
    code, out, error = runs("--where", "metrics.loss <")
    assert (code, out) == (2, "")
    assert error == "treadle: --where, column 15: expected a number, a text or null, got the end\n"


def test_a_plot(runs: Runs, tmp_path: Path) -> None:
    code, _, _ = runs("--plot", "out.html")
    assert code == 0
    assert (tmp_path / "out.html").read_text().startswith("<!doctype html>")
    code, _, error = runs("--where", "metrics.loss > 100", "--plot", "none.html")
    assert code == 2
    assert "nothing to plot" in error
    assert not (tmp_path / "none.html").exists()
    code, _, error = runs("--plot", "nowhere/out.html")
    assert (code, "cannot write" in error) == (2, True)


def test_one_run(runs: Runs) -> None:
    identifier = json.loads(runs("--limit", "1", "--json")[1])[0]["id"]
    shown = json.loads(runs(identifier, "--json")[1])
    assert shown["tags"] == {"who": "Jane Q"}
    assert shown["notes"] == ["looks fine"]
    assert shown["points"] == [{"step": 1, "loss": 2.0}]
    assert {"branch", "diff", "command", "threads", "commit", "seed", "machine"} <= shown.keys()
    code, out, _ = runs(identifier)
    assert code == 0
    assert "looks fine" in out
    assert runs("run-none")[0] == 2


def test_a_run_that_has_ended_gets_tags_and_a_note(runs: Runs) -> None:
    _, out, _ = runs("--where", "params.lr = 0.1", "--json")
    (run,) = json.loads(out)
    tags = (
        "--tag",
        "kept=true",
        "--tag",
        "rank=2",
        "--tag",
        "by=Jane Q",
        "--tag",
        "who=John",
        "--tag",
        "api_key=s3cr3t1234",
    )
    code, out, _ = runs(run["id"], *tags, "--note", "the old schedule", "--json")
    assert code == 0
    shown = json.loads(out)
    assert shown["tags"] == {"kept": True, "rank": 2, "by": "Jane Q", "who": "John", "api_key": "[secret]"}
    assert shown["notes"] == ["looks fine", "the old schedule"]
    assert (shown["status"], shown["metrics"]) == ("done", run["metrics"])
    _, out, _ = runs("--where", "tags.kept = true and tags.who = 'John' and tags.rank > 1", "--json")
    assert [each["id"] for each in json.loads(out)] == [run["id"]]
    with open_record(Path()) as record:
        assert verify(record.workspace).ok


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--note", "x"], "name it: treadle runs RUN"),
        (["run-nothing", "--note", "x"], "there is no run 'run-nothing'"),
        (["RUN", "--note", " "], "the note is empty"),
        (["RUN", "--tag", "kept"], "expected NAME=VALUE"),
        (["RUN", "--tag", "=1"], "begin with a letter"),
    ],
)
def test_what_cannot_be_said_of_a_run(runs: Runs, arguments: list[str], says: str) -> None:
    run = json.loads(runs("--limit", "1", "--json")[1])[0]["id"]
    code, out, error = runs(*[each.replace("RUN", run) for each in arguments])
    assert (code, out) == (2, "")
    assert says in error
    assert "looks fine" in runs(run)[1]


def test_where_there_is_no_project_its_settings_are_not_loaded(runs: Runs) -> None:
    assert runs()[0] == 0
    assert tracking.FILE == project.FILE
    code = "import sys; from treadle.cli.main import main; main(['runs']); print('treadle.project' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout.splitlines()[-1] == "False"
