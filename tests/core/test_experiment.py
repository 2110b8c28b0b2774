"""Runs of the user's own code: everything they say is kept, nothing of it leaks, and a killed one is a crashed one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import treadle
from treadle.core import run_facts
from treadle.core.artifacts import Artifact
from treadle.core.errors import UserError
from treadle.core.store import Store
from treadle.core.system_metrics import ProcessTree, SystemMetrics
from treadle.core.verify import verify
from treadle.record.record import Record
from treadle.record.run_view import whole
from treadle.tracking import open_record

EXPERIMENTER = Path(__file__).with_name("experimenter.py")
SECRET = "sk-" + "q" * 30


@pytest.fixture(autouse=True)
def _git_is_asked_anew() -> Iterator[None]:
    run_facts._seen.clear()
    yield
    run_facts._seen.clear()


def ledger_text(folder: Path) -> str:
    with open_record(folder) as record:
        return "\n".join(json.dumps(row.body) for row in record.ledger.rows())


def test_two_lines(tmp_path: Path) -> None:
    with treadle.start_run("fit", params={"lr": 1e-3}, folder=tmp_path) as run:
        run.log(1, loss=2.0)
        run.log(2, loss=1.5, accuracy=0.5)
    with open_record(tmp_path) as record:
        found = record.runs.get(run.id)
        assert found is not None
        assert (found.step, found.status, found.facts["kind"]) == ("experiment.fit", "done", "experiment")
        assert found.parameters == {"lr": 1e-3}
        assert found.metrics == {"loss": 1.5, "accuracy": 0.5}
        points = [point for point in whole(record, found)["points"] if point["step"] is not None]
        assert points == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5, "accuracy": 0.5}]
        assert verify(record.workspace).ok


def test_free_text_and_secrets_stay_out_of_the_ledger(tmp_path: Path) -> None:
    params = {
        "optimizer": "adamw",
        "prompt": "Dear Jane Quill, hello",
        "api_key": SECRET,
        "nested": {"deep": "two words"},
    }
    with treadle.start_run("fit", params=params, tags={"owner": "jane", "tries": 3}, folder=tmp_path) as run:
        run.note(f"Jane said the key is {SECRET}")
        run.tag(mood="quite happy")
    text = ledger_text(tmp_path)
    for hidden in ("Jane", "jane", "Quill", "happy", "two words", SECRET):
        assert hidden not in text
    assert "adamw" in text
    for path in (tmp_path / ".treadle").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
    with open_record(tmp_path) as record:
        found = record.runs.get(run.id)
        assert found is not None
        shown = whole(record, found)
        assert shown["tags"] == {"owner": "jane", "tries": 3, "mood": "quite happy"}
        assert shown["notes"] == ["Jane said the key is [secret]"]
        assert shown["parameters"] == {**params, "api_key": "[secret]"}
        assert verify(record.workspace).ok


def test_equal_texts_have_equal_stand_ins_and_unequal_objects(tmp_path: Path) -> None:
    for _ in range(2):
        with treadle.start_run("fit", tags={"team": "the blue one"}, folder=tmp_path, system=None):
            pass
    with open_record(tmp_path) as record:
        first, second = record.runs.find(step="experiment.fit")
        assert first.facts["tags"] == second.facts["tags"]
        assert first.facts["texts"] != second.facts["texts"]


def test_numbers_that_are_none_do_not_break_a_run(tmp_path: Path) -> None:
    with treadle.start_run("fit", params={"scale": float("inf")}, folder=tmp_path, system=None) as run:
        run.log(1, loss=float("nan"), other=1.0)
        run.log(2, other=float("-inf"))
        run.summary(best=float("nan"), worst=float("inf"))
    with open_record(tmp_path) as record:
        found = record.runs.get(run.id)
        assert found is not None
        assert found.metrics == {}
        assert [point.get("other") for point in whole(record, found)["points"]] == [1.0, "-inf"]


def test_many_points_in_one_call(tmp_path: Path) -> None:
    with treadle.start_run("fit", folder=tmp_path, system=None) as run:
        run.log_many((step, {"loss": 1 / (step + 1), "rate": 0.1}) for step in range(7_000))
        run.log_many([])
        run.summary(best=0.5)
    with open_record(tmp_path) as record:
        found = record.runs.get(run.id)
        assert found is not None
        assert found.metrics == {"loss": 1 / 7_000, "rate": 0.1, "best": 0.5}
        steps = [point["step"] for point in whole(record, found)["points"]]
        assert steps == list(range(7_000))


def test_artifacts_and_inputs_are_lineage(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(b"1234")
    (tmp_path / "notes.txt").write_text("hello")
    with treadle.start_run("fit", folder=tmp_path, system=None) as run:
        model = run.artifact(tmp_path / "model", kind="model", name="best")
        run.artifact(tmp_path / "notes.txt")
    with treadle.start_run("use", folder=tmp_path, system=None) as later:
        later.input(model.digest[:15])
        with pytest.raises(UserError, match="no artifact is called"):
            later.input("b3:0000")
    with open_record(tmp_path) as record:
        made, taken = record.runs.get(run.id), record.runs.get(later.id)
        assert made is not None
        assert taken is not None
        assert made.outputs["best"] == model.digest
        assert set(made.outputs) == {"best", "notes"}
        assert taken.inputs == {"model": model.digest}
        producer = record.runs.producer(model.digest)
        assert producer is not None
        assert producer.id == run.id
        assert Artifact(model.digest, record.store).path("weights.bin").read_bytes() == b"1234"
    assert (tmp_path / "model" / "weights.bin").stat().st_mode & 0o200  # the user's own file is left as it was


def test_what_did_not_change_is_not_read_again_and_links_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, linked = tmp_path / "data", tmp_path / "linked"
    data.mkdir()
    (data / "rows").write_text("1 2 3")
    linked.mkdir()
    (linked / "rows").symlink_to(data / "rows")
    os.utime(data / "rows", (1, 1))
    monkeypatch.setattr("treadle.core.intake._SETTLED", 50_000_000)
    time.sleep(0.1)  # the inode's own time cannot be set
    with treadle.start_run("fit", folder=tmp_path, system=None) as run:
        made = run.artifact(data, kind="data")
        assert run.artifact(linked, kind="data") == made
        read: list[str] = []
        monkeypatch.setattr("treadle.core.taking.copied", lambda source, *_: read.append(source))
        assert run.artifact(data, kind="data") == made
        assert read == []


def test_a_link_back_into_its_own_folder_is_not_followed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    for name in ("a", "b"):
        (top / name).mkdir(parents=True)
        (top / name / "rows").write_text(name)
    (top / "a" / "up").symlink_to(top)
    (top / "a" / "itself").symlink_to(".")
    (top / "b" / "other").symlink_to("../a")
    (top / "a" / "other").symlink_to("../b")
    (top / "latest").symlink_to("b")
    with treadle.start_run("fit", folder=tmp_path, system=None) as run:
        made = run.artifact(top, kind="data")
        names = {entry.path for entry in made.entries()}
    assert names == {
        *("a/rows", "a/other/rows"),
        *("b/rows", "b/other/rows"),
        *("latest/rows", "latest/other/rows"),
    }


@pytest.mark.parametrize("bad", ["nowhere", "link"])
def test_what_cannot_be_stored_is_said(tmp_path: Path, bad: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "gone")
    with treadle.start_run("fit", folder=tmp_path, system=None) as run:
        with pytest.raises(UserError, match="cannot be stored"):
            run.artifact(tmp_path / ("folder" if bad == "link" else bad))
        with pytest.raises(UserError, match="expected a word"):
            run.artifact(tmp_path / "folder", kind="My Model")


@pytest.mark.parametrize("name", ["", "two words", "a/b", "x" * 101, "jane@example.org"])
def test_a_name_is_no_free_text(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="expected letters"):
        treadle.start_run(name, folder=tmp_path)


def test_names_of_outputs_and_numbers_are_no_free_text(tmp_path: Path) -> None:
    (tmp_path / "Jane Roe (CV).csv").write_text("a")
    (tmp_path / "Jane Roe's letter.txt").write_text("b")
    params = {"hf-token": "abc12", "openai_key": "abcdef123", "aws_secret_access_key": "abc", "max_tokens": "24000"}
    with treadle.start_run("fit", params=params, folder=tmp_path, system=None) as run:
        run.artifact(tmp_path / "Jane Roe (CV).csv")
        letter = run.artifact(tmp_path / "Jane Roe's letter.txt")
        with pytest.raises(UserError, match="one plain word"):
            run.artifact(letter, name="letter of Jane")
        with pytest.raises(UserError, match="one plain word"):
            run.input(letter, name="letter of Jane")
        with pytest.raises(UserError, match="is no name"):
            run.summary(**{"loss (Jane)": 1.0})
        with pytest.raises(UserError, match="is no name"):
            run.log(**{"loss (Jane)": 1.0})
    text = ledger_text(tmp_path)
    assert "Jane" not in text
    assert "abc" not in text.replace(run.id, "").partition('"parameters"')[2].partition("}")[0]
    with open_record(tmp_path) as record:
        found = record.runs.get(run.id)
        assert found is not None
        assert set(found.outputs) == {"artifact", "artifact_2"}
        assert found.parameters == {**dict.fromkeys(params, "[secret]"), "max_tokens": "24000"}


@pytest.mark.parametrize("kind", ["corpus", "release", "segment", "suppression"])
def test_a_kind_that_is_opened_has_its_format(tmp_path: Path, kind: str) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "documents-1.parquet").write_text("no table at all")
    (tmp_path / "own" / "release.json").write_text("[]")
    with treadle.start_run("fit", folder=tmp_path, system=None) as run:
        with pytest.raises(UserError, match="is for what Treadle wrote"):
            run.artifact(tmp_path / "own", kind=kind)
        for own in ("model", "dataset", "weights"):
            assert run.artifact(tmp_path / "own", kind=own).kind == own


def test_an_output_has_one_row_and_may_be_erased_before_the_end(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with treadle.start_run("fit", folder=tmp_path, system=None) as run:
        made = run.artifact(tmp_path / "notes.txt")
        run._runs.store.delete({made.digest})
    with open_record(tmp_path) as record:
        found = record.runs.get(run.id)
        assert found is not None
        assert (found.status, found.outputs) == ("done", {"notes": made.digest})
        assert [row.kind for row in record.ledger.rows()].count("artifact") == 1


def test_a_run_is_closed_when_its_log_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = treadle.start_run("fit", folder=tmp_path, system=None, capture=True)

    def full(_: str) -> Artifact:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "_keep_log", full)
    with pytest.raises(OSError, match="No space"):
        run.finish()
    with open_record(tmp_path) as record:
        found = record.runs.get(run.id)
        assert found is not None
        assert found.status == "done"


def test_a_failure_is_recorded_with_its_text(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        treadle.start_run("fit", folder=tmp_path, system=None) as run,
    ):
        run.log(1, loss=3.0)
        raise ZeroDivisionError(f"with {SECRET}")
    with open_record(tmp_path) as record:
        found = record.runs.get(run.id)
        assert found is not None
        assert (found.status, found.metrics) == ("failed", {"loss": 3.0})
        row = record.ledger.last("run.finished")
        assert row is not None
        error = json.loads(record.store.read(row.body["error"]))["text"]
        assert "ZeroDivisionError: with [secret]" in error
    with pytest.raises(UserError, match="is closed"):
        run.log(2, loss=1.0)


def test_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with treadle.start_run("fit", folder=tmp_path, system=None, capture=True) as run:
        print("to people, with", SECRET)  # noqa: T201
        print("and to the log", file=sys.stderr)  # noqa: T201
    print("afterwards")  # noqa: T201
    with open_record(tmp_path) as record:
        found = record.runs.get(run.id)
        assert found is not None
        said = Artifact(found.outputs["log"], record.store).path("log.txt").read_text()
    assert said == "to people, with [secret]\nand to the log\n"
    out, error = capsys.readouterr()
    assert out == f"to people, with {SECRET}\nafterwards\n"
    assert error == "and to the log\n"


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def test_source_and_surroundings(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "try-it")
    (tmp_path / "train.py").write_text("rate = 1\n")
    git(tmp_path, "add", "train.py")
    git(tmp_path, "commit", "-qm", "first")
    (tmp_path / "train.py").write_text(f"rate = 2\ntoken = '{SECRET}'\n")
    with treadle.start_run("fit", folder=tmp_path, seed=7, system=None) as run:
        pass
    with open_record(tmp_path) as record:
        found = record.runs.get(run.id)
        assert found is not None
        shown = whole(record, found)
    assert shown["commit"].endswith("+")
    assert shown["branch"] == "try-it"
    assert "+rate = 2" in shown["diff"]
    assert SECRET not in shown["diff"]
    assert shown["seed"] == 7
    assert shown["threads"]["available"] >= 1
    assert shown["memory_bytes"] > 1 << 20
    assert "python" in shown["command"]
    assert "rate" not in ledger_text(tmp_path)


def test_surroundings_that_were_deleted_are_not_stored_again(tmp_path: Path) -> None:
    def of_a_run() -> str:
        with treadle.start_run("fit", folder=tmp_path, system=None) as run:
            pass
        with open_record(tmp_path) as record:
            found = record.runs.get(run.id)
            assert found is not None
            return str(found.facts["surroundings"])

    first = of_a_run()
    assert of_a_run() == first
    with open_record(tmp_path) as record:
        record.store.delete({first})
    second = of_a_run()
    assert second != first
    with open_record(tmp_path) as record:
        assert record.store.has_object(second)
        assert not record.store.has_object(first)


def test_surroundings_are_salted_with_each_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_facts, "LOOK_SECONDS", -1.0)
    store = Store(tmp_path / "store")
    assert run_facts.keep_surroundings(tmp_path, store) != run_facts.keep_surroundings(tmp_path, store)


def test_a_large_diff_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "data").write_text("a\n")
    git(tmp_path, "add", "data")
    git(tmp_path, "commit", "-qm", "first")
    (tmp_path / "data").write_text("b" * 50 + "\n" * 20_000)
    monkeypatch.setattr(run_facts, "DIFF_LIMIT", 1_000)
    found = run_facts.source(tmp_path)
    assert len(found.diff) == 1_000
    assert found.diff_bytes > 20_000
    assert found.revision == f"{found.commit}+"


def test_no_work_tree(tmp_path: Path) -> None:
    assert run_facts.source(tmp_path) == run_facts.Source()


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["a.py", "--lr", "1e-3"], "a.py --lr 1e-3"),
        (["a.py", "--api-key", "hunter2hunter2"], "a.py --api-key '[secret]'"),
        (["a.py", "--token=hunter2"], "a.py '--[secret]'"),
        (["a.py", "--url", "https://me:hunter2@host/x"], "a.py --url '[secret]'"),
        (["a.py", "--max-tokens", "12"], "a.py --max-tokens 12"),
        (["a.py", "hf_token=hunter2"], "a.py [secret]"),
        (["a.py", "db.db_password=hunter2 x"], "a.py db.[secret]"),
        (["a.py", "--passphrase", "hunter2"], "a.py --passphrase [secret]"),
        (["a.py", "--credential", "hunter2"], "a.py --credential [secret]"),
        (["a.py", "--aws-secret-access-key", "hunter2"], "a.py --aws-secret-access-key [secret]"),
        (["a.py", "--use-token", "--lr", "1"], "a.py --use-token --lr 1"),
    ],
)
def test_command_lines(arguments: list[str], shown: str) -> None:
    found = run_facts.command_line(arguments)
    assert "hunter2" not in found
    assert found.replace("'", "") == shown.replace("'", "")


def test_system_metrics_of_a_busy_process(tmp_path: Path) -> None:
    with treadle.start_run("fit", folder=tmp_path, system=0.05) as run:
        kept = bytearray(64 << 20)
        end = time.monotonic() + 60
        with open_record(tmp_path) as record:
            while len(record.workspace.journal.find_all("metrics", run.id)) < 3 and time.monotonic() < end:
                kept[0] = sum(range(20_000)) % 200
    with open_record(tmp_path) as record:
        found = record.runs.get(run.id)
        assert found is not None
        assert not found.metrics
        points = whole(record, found)["points"]
    assert len(points) >= 3
    assert max(point["system.cpu_percent"] for point in points) > 0
    assert max(point["system.memory_mb"] for point in points) > 64


def test_a_child_counts(tmp_path: Path) -> None:
    tree = ProcessTree(os.getpid())
    alone = tree.sample()
    child = subprocess.Popen([sys.executable, "-c", "x = bytearray(150 << 20); print(1, flush=True); input()"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    together = tree.sample()
    child.communicate(b"\n")
    assert together["memory_mb"] - alone["memory_mb"] > 140
    assert together["processes"] > alone["processes"]


def test_a_sampler_that_fails_does_not_stop_the_run() -> None:
    seen = threading.Event()

    def log(_figures: dict[str, float]) -> None:
        seen.set()
        raise OSError("disk full")

    metrics = SystemMetrics(log, 0.01)
    assert seen.wait(10)
    metrics.stop()


def experimenter(folder: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXPERIMENTER), str(folder), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_it_is_crashed_and_what_was_logged_is_there(tmp_path: Path) -> None:
    process = experimenter(tmp_path, "killed", 0)
    assert process.stdout is not None
    identifier = process.stdout.readline().strip()
    while int(process.stdout.readline()) < 200:
        pass
    process.kill()
    said = process.stdout.read().split("\n")[:-1]
    process.wait()
    process.stdout.close()
    last = int(said[-1]) if said else 200
    with open_record(tmp_path) as record:
        before = record.runs.get(identifier)
        assert before is not None
        assert before.status == "running"
        assert record.runs.sweep() == [identifier]
        found = record.runs.get(identifier)
        assert found is not None
        points = whole(record, found)["points"]
        assert points[last] == {"step": last, "loss": 1 / (last + 1)}
        assert found.status == "crashed"
        assert found.metrics == {"loss": points[-1]["loss"]}
        assert record.runs.sweep() == []
        assert verify(record.workspace).ok


def test_many_processes_at_once_and_a_command_meanwhile(tmp_path: Path) -> None:
    with open_record_made(tmp_path) as record, record.workspace.exclusive():
        processes = [experimenter(tmp_path, f"run{number}", 300) for number in range(4)]
        said = [process.communicate(timeout=120)[0].split() for process in processes]
        assert [process.returncode for process in processes] == [0] * 4
    with open_record(tmp_path) as record:
        for lines in said:
            found = record.runs.get(lines[0])
            assert found is not None
            assert found.status == "done"
            assert [point["step"] for point in whole(record, found)["points"]] == list(range(300))
        assert verify(record.workspace).ok


def open_record_made(folder: Path) -> AbstractContextManager[Record]:
    with treadle.start_run("first", folder=folder, system=None):
        pass
    return open_record(folder)


def test_runs_of_one_process_share_a_record(tmp_path: Path) -> None:
    with treadle.start_run("a", folder=tmp_path) as first:
        with treadle.start_run("b", folder=tmp_path) as second:
            second.log(1, loss=1.0)
        first.log(1, loss=2.0)
    with open_record(tmp_path) as record:
        assert [run.status for run in record.runs.find()] == ["done", "done"]
        assert verify(record.workspace).ok


def test_a_fork_does_not_close_its_parents_run(tmp_path: Path) -> None:
    code = (
        "import os, sys, treadle\n"
        "with treadle.start_run('fit', folder=sys.argv[1], system=None) as run:\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        try:\n"
        "            run.log(1, loss=1.0)\n"
        "        except treadle.UserError:\n"
        "            run.finish()\n"
        "            os._exit(7)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        "    run.log(1, loss=2.0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
    with open_record(tmp_path) as record:
        (found,) = record.runs.find()
        assert (found.status, found.metrics) == ("done", {"loss": 2.0})
