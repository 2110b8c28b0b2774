"""A step runs when its result would be another one, and never twice for the same; what happened is on record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from treadle.core.artifacts import Artifact
from treadle.core.driver import Driver, Silent, StepResult
from treadle.core.errors import Refused, TreadleError, UserError
from treadle.core.runs import LEASE, Run
from treadle.core.steps import Step, bind, step
from treadle.core.verify import verify
from treadle.core.workspace import Workspace

from .conftest import Place

calls: list[str] = []


class Text(Artifact):
    kind: ClassVar[str] = "text"


class Count(Artifact):
    kind: ClassVar[str] = "count"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    calls.clear()
    yield


@step(version=1, name="tests.write")
def write(*, text: str = "a", run: Run) -> Text:
    calls.append("write")
    with run.create(Text) as made:
        (made.path / "text").write_text(text)
        return made.commit()


@step(version=1, name="tests.shout", packages=("blake3",))
def shout(text: Text, *, times: int = 1, marks: tuple[str, ...] = ("!",), run: Run) -> Text:
    calls.append("shout")
    with run.create(Text) as made:
        (made.path / "text").write_text(text.path("text").read_text().upper() * times + marks[0])
        return made.commit()


@step(version=1, name="tests.count")
def count(texts: tuple[Text, ...], before: Count | None, *, seed: int, run: Run) -> tuple[Count, Text, Text]:
    calls.append("count")
    run.summary(seed=seed)
    with run.create(Count) as first, run.create(Text) as second, run.create(Text) as third:
        (first.path / "n").write_text(str(len(texts)))
        (second.path / "s").write_text(str(seed))
        (third.path / "t").write_text("t")
        return first.commit(), second.commit(), third.commit()


def driver(workspace: Workspace, **more: Any) -> Driver:
    made = Driver(workspace.runs, workspace.root, seed=more.pop("seed", 7), **more)
    made.stage("test")
    return made


def turn(made: Driver, *, text: str = "a", times: int = 1) -> list[StepResult]:
    written = made.run(write, text=text)
    loud = made.run(shout, written, times=times)
    made.run(count, (written, loud), None)
    return made.stages[-1][1]


def statuses(results: list[StepResult]) -> list[str]:
    return [result.status for result in results]


def test_what_was_done_is_remembered(workspace: Workspace) -> None:
    first = turn(driver(workspace))
    assert statuses(first) == ["done", "done", "done"]
    assert calls == ["write", "shout", "count"]
    second = turn(driver(workspace))
    assert statuses(second) == ["cached", "cached", "cached"]
    assert calls == ["write", "shout", "count"]
    assert [result.outputs for result in first] == [result.outputs for result in second]
    assert [result.run for result in first] == [result.run for result in second]
    assert list(first[2].outputs) == ["count", "text_1", "text_2"]
    assert len(workspace.runs.find()) == 3
    assert verify(workspace).ok


def test_a_changed_setting_runs_that_step_and_what_depends_on_it(workspace: Workspace) -> None:
    turn(driver(workspace))
    assert statuses(turn(driver(workspace), times=2)) == ["cached", "done", "done"]
    assert statuses(turn(driver(workspace), text="b")) == ["done", "done", "done"]
    assert statuses(turn(driver(workspace))) == ["cached", "cached", "cached"]


def test_another_road_to_the_same_result_is_cut_short(workspace: Workspace) -> None:
    turn(driver(workspace), text="a")
    turn(driver(workspace), text="A")  # shouts the same
    assert [call for call in calls if call == "shout"] == ["shout", "shout"]


@pytest.mark.parametrize(("text", "times"), [("a", 1), ("a", 2), ("b", 1)])
def test_a_plan_says_what_the_run_then_does(workspace: Workspace, text: str, times: int) -> None:
    turn(driver(workspace))
    planned = turn(driver(workspace, planning=True), text=text, times=times)
    rows = workspace.ledger.size()
    turn(driver(workspace, planning=True), text=text, times=times)
    assert workspace.ledger.size() == rows
    done = turn(driver(workspace), text=text, times=times)
    assert [(r.step, r.reason, r.status == "cached") for r in planned] == [
        (r.step, r.reason, r.status == "cached") for r in done
    ]


def test_a_plan_of_nothing_yet_needs_no_artifacts(workspace: Workspace) -> None:
    planned = turn(driver(workspace, planning=True))
    assert [(result.status, result.reason) for result in planned] == [("skipped", "never ran")] * 3
    assert calls == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"times": 3}, "settings changed: times: 1 -> 3"),
        ({"marks": ["?", "!"]}, 'settings changed: marks: ["!"] -> ["?","!"]'),
    ],
)
def test_reasons_name_the_setting(workspace: Workspace, change: dict[str, Any], reason: str) -> None:
    written = driver(workspace).run(write)
    driver(workspace).run(shout, written)
    again = driver(workspace)
    again.run(shout, written, **change)
    assert again.stages[-1][1][0].reason == reason


def test_reasons_compare_with_the_call_that_is_most_alike(workspace: Workspace) -> None:
    """A step that is called twice in a turn is not told that its input is that of the other call."""
    made = driver(workspace)
    one, other = made.run(write, text="one"), made.run(write, text="other")
    made.run(shout, one, times=1)
    made.run(shout, other, times=1)
    again = driver(workspace)
    again.run(shout, one, times=2)
    assert again.stages[-1][1][0].reason == "settings changed: times: 1 -> 2"
    again.run(shout, again.run(write, text="third"), times=1)
    assert again.stages[-1][1][-1].reason == "new input: text"


def test_reasons_name_version_seed_packages_and_loss(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(made: Driver) -> str:
        return made.stages[-1][1][-1].reason

    turn(driver(workspace))
    newer = driver(workspace)
    newer.run(Step(write.function, "tests.write", 2, ()), text="a")
    assert reason(newer) == "the step is version 2, was 1"
    seeded = driver(workspace, seed=8)
    assert statuses(turn(seeded)) == ["cached", "cached", "done"]
    assert reason(seeded) == "the seed is 8, was 7"
    lost = driver(workspace)
    outputs = workspace.runs.find(step="tests.shout")[0].outputs
    workspace.store.delete(set(outputs.values()))
    lost.run(shout, lost.run(write))
    assert reason(lost) == "its result is no longer in the store"
    monkeypatch.setattr("treadle.core.steps.version_of", lambda name: "999")
    packaged = driver(workspace)
    packaged.run(shout, packaged.run(write))
    assert reason(packaged) == "a package it depends on changed: blake3"


@pytest.mark.parametrize("lost", ["manifest", "file"])
def test_a_result_that_is_gone_is_made_again(workspace: Workspace, lost: str) -> None:
    first = driver(workspace).run(write)
    digest = first.digest if lost == "manifest" else first.entries()[0].digest
    workspace.store.delete({digest})
    again = driver(workspace).run(write)
    assert again == first
    assert again.path("text").read_text() == "a"
    assert calls == ["write", "write"]
    assert verify(workspace).ok


# -- what goes wrong


@step(version=1, name="tests.fail")
def fail(*, how: str, run: Run) -> Text:
    (run.scratch / "half").write_text("half")
    run.log(step=1, loss=2.0)
    run.summary(loss=2.0)
    if how == "defect":
        raise ZeroDivisionError("token: sk-" + "a" * 30)
    if how == "refused":
        raise Refused("the gate said no, password=hunter2hunter2")
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "exit":
        raise SystemExit(3)
    raise UserError("there is no such file")


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("defect", ZeroDivisionError, "ZeroDivisionError"),
        ("refused", Refused, "the gate said no"),
        ("interrupt", KeyboardInterrupt, "KeyboardInterrupt"),
        ("exit", SystemExit, "SystemExit"),
        ("user", UserError, "there is no such file"),
    ],
)
def test_a_step_that_fails_is_on_record_as_failed(
    workspace: Workspace, how: str, error: type[BaseException], text: str
) -> None:
    made = driver(workspace)
    with pytest.raises(error):
        made.run(fail, how=how)
    (record,) = workspace.runs.find()
    assert record.status == "failed"
    assert record.metrics == {"loss": 2.0}
    assert record.outputs == {}
    (row,) = workspace.ledger.rows("run.finished")
    stored = workspace.store.read(row.body["error"]).decode()
    assert text in stored
    assert "sk-a" not in stored
    assert "hunter2" not in stored
    assert made.stages[-1][1][0].status == "failed"
    assert list((workspace.root / "tmp").rglob("half")) == []
    assert workspace.state.dead_leases() == []
    with pytest.raises(error):  # a failure is not remembered
        driver(workspace).run(fail, how=how)
    assert verify(workspace).ok


def test_interrupting_what_watches_leaves_no_run_running(workspace: Workspace) -> None:
    class Impatient(Silent):
        def started(self, step: str, reason: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        driver(workspace, listener=Impatient()).run(write)
    assert [record.status for record in workspace.runs.find()] == ["failed"]


def test_the_first_error_is_told_even_when_it_cannot_be_recorded(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise UserError("cannot write: the disk is full")

    monkeypatch.setattr(workspace.runs, "finish", full)
    with pytest.raises(ZeroDivisionError):
        driver(workspace).run(fail, how="defect")


def test_a_killed_run_is_crashed_after_the_next_command(place: Place) -> None:
    writer = place.writer("run")
    identifier = writer.first()
    with place.open() as workspace:
        with workspace.exclusive():
            pass
        assert [record.status for record in workspace.runs.find()] == ["running"]  # it lives, and nobody touches it
        writer.kill()
        with workspace.exclusive():
            pass
        (record,) = workspace.runs.find()
        assert (record.id, record.status) == (identifier, "crashed")
        with workspace.exclusive():
            pass
        assert len(list(workspace.ledger.rows("run.finished"))) == 1
        assert list((place.root / "tmp").rglob("run-*")) == []
        assert verify(workspace).ok


def test_a_run_without_a_lease_is_swept_as_well(workspace: Workspace) -> None:
    run = _start(workspace)
    workspace.state.drop_lease(LEASE + run.id)
    assert workspace.runs.sweep() == [run.id]
    assert workspace.runs.sweep() == []


def test_a_run_that_ended_while_we_looked_is_not_crashed(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _start(workspace)
    original = workspace.state.dead_leases

    def dead(prefix: str = "") -> list[str]:
        found = original(prefix)
        workspace.runs.finish(run, "done", seconds=1.0)  # just after the leases were read
        return [*found, LEASE + run.id]

    monkeypatch.setattr(workspace.state, "dead_leases", dead)
    assert workspace.runs.sweep() == []
    assert [record.status for record in workspace.runs.find()] == ["done"]


def _start(workspace: Workspace) -> Run:
    return workspace.runs.start(
        "tests.start",
        version=1,
        key="k",
        parameters={},
        inputs={},
        seed=1,
        progress=lambda *_: None,
        folder=workspace.root,
    )


def test_a_running_step_has_a_heartbeat(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.core.runs.HEARTBEAT_SECONDS", 0.01)
    with place.open() as workspace:
        run = _start(workspace)

        def beat() -> float:
            return float(workspace.database.query("SELECT beat FROM leases")[0][0])

        first = beat()
        while beat() <= first:
            time.sleep(0.005)
        workspace.runs.finish(run, "done", seconds=0.1)
        assert workspace.database.query("SELECT * FROM leases") == []


def test_a_step_must_give_what_it_declares(workspace: Workspace) -> None:
    @step(version=1, name="tests.liar")
    def liar(*, run: Run) -> Count:
        return write.function(run=run)  # type: ignore[no-any-return]

    with pytest.raises(TreadleError, match="where it declares Count"):
        driver(workspace).run(liar)

    @step(version=1, name="tests.none")
    def nothing() -> int:
        return 1

    with pytest.raises(TreadleError, match="must return an artifact"):
        driver(workspace).run(nothing)


def test_calls_are_checked_against_the_signature(workspace: Workspace) -> None:
    text = driver(workspace).run(write)
    with pytest.raises(UserError, match="has no setting 'tmes'; did you mean 'times'"):
        bind(shout, (text,), {"tmes": 1}, 1)
    with pytest.raises(UserError, match="needs the setting 'how'"):
        bind(fail, (), {}, 1)
    with pytest.raises(TreadleError, match="needs the artifact 'text'"):
        bind(shout, (), {}, 1)
    with pytest.raises(TreadleError, match="takes 1 artifacts, got 2"):
        bind(shout, (text, text), {}, 1)
    with pytest.raises(UserError, match="finite number"):
        bind(write, (), {"text": float("inf")}, 1)
    with pytest.raises(TreadleError, match="a setting must be JSON, not set"):
        bind(write, (), {"text": {1}}, 1)


def test_keys_depend_on_what_decides_the_result_and_on_nothing_else(workspace: Workspace) -> None:
    text = driver(workspace).run(write)
    key = bind(shout, (text,), {"times": 2}, 1).key()
    assert bind(shout, (text,), {"marks": ("!",), "times": 2}, 99).key() == key  # it asks for no seed
    assert bind(shout, (text,), {"times": 3}, 1).key() != key
    assert bind(Step(shout.function, "tests.shout", 2, ("blake3",)), (text,), {"times": 2}, 1).key() != key
    assert bind(Step(shout.function, "tests.shout", 1, ()), (text,), {"times": 2}, 1).key() != key
    assert bind(Step(shout.function, "tests.other", 1, ("blake3",)), (text,), {"times": 2}, 1).key() != key
    assert bind(count, ((text,), None), {}, 1).key() != bind(count, ((text,), None), {}, 2).key()
    assert bind(count, ((text,), None), {}, 1).key() != bind(count, ((text, text), None), {}, 1).key()


# -- actions


@step(version=1, name="tests.weigh")
def weigh(*, weights: dict[int, float], run: Run) -> Text:
    with run.create(Text) as made:
        (made.path / "text").write_text(str(sum(weights.values())))
        return made.commit()


def test_settings_with_numbers_as_keys_verify(workspace: Workspace) -> None:
    """Sorted as numbers they stand in another order than as texts, which is what they are read as."""
    driver(workspace).run(weigh, weights={3: 0.5, 20: 0.5, 100: 1.0})
    (row,) = workspace.ledger.rows("run.started")
    assert row.body["parameters"] == {"weights": {"100": 1.0, "20": 0.5, "3": 0.5}}
    assert verify(workspace).ok


def test_an_action_is_done_once_per_request(workspace: Workspace) -> None:
    done: list[str] = []
    made = driver(workspace)
    text = made.run(write)

    def act(name: str) -> dict[str, Artifact]:
        outputs = made.act("deploy", lambda run: done.append(name) or {"text": text}, inputs=(text,), name=name)
        assert outputs is not None
        return outputs

    assert act("a") == act("a") == {"text": text}
    act("b")
    assert done == ["a", "b"]
    planned = driver(workspace, planning=True)
    assert planned.act("deploy", lambda run: pytest.fail("it was only a plan"), inputs=(text,), name="c") is None
    with pytest.raises(ZeroDivisionError):
        made.act("deploy", lambda run: {"x": text} if 1 // 0 else {}, name="d")
    assert made.act("deploy", lambda run: {"x": text}, name="d") == {"x": text}  # what failed may be tried again
    assert [(r.facts["kind"], r.status) for r in workspace.runs.find(step="deploy")] == [
        ("action", "done"),
        ("action", "failed"),
        ("action", "done"),
        ("action", "done"),
    ]


def test_metrics_over_time_lie_in_the_journal(workspace: Workspace) -> None:
    run = _start(workspace)
    for number in range(5):
        run.log(step=number, loss=1.0 / (number + 1))
    points = [row for row in workspace.journal.read("metrics") if row["id"] == run.id]
    assert [(point["step"], point["values"]["loss"]) for point in points] == [(n, 1.0 / (n + 1)) for n in range(5)]
    workspace.runs.finish(run, "done", seconds=0.0)


def test_the_surroundings_of_a_run_are_on_record(workspace: Workspace) -> None:
    driver(workspace).run(write)
    (record,) = workspace.runs.find()
    assert set(record.public()) == {
        "id",
        "step",
        "status",
        "started",
        "seconds",
        "parameters",
        "metrics",
        "inputs",
        "outputs",
    }
    assert b'"blake3"' in workspace.store.read(record.facts["environment"])
    assert record.facts["actor"].startswith("k3:")
    assert record.facts["seed"] == 7
    assert workspace.runs.producer(record.outputs["text"]) == record
    assert workspace.runs.get("run-none") is None
