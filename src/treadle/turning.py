"""Turns as they are written down, and the loop that starts the next one by itself.

    one pass of `watch`:  go on with a turn that was interrupted
                          see how the canary does, and decide when it can be decided
                          measure what the champion answers; raise alerts
                          when a rule in the file says so, begin the next turn with the feedback so far

Each of these finds by the record how far it is, so a pass may be killed anywhere and the next one goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from treadle.core.driver import Driver, Listener, Silent, StepResult
from treadle.core.errors import TreadleError, UserError
from treadle.core.ledger import now
from treadle.cycle import Turn, begin, policy_of
from treadle.evals.task import load_task
from treadle.locking import keep_lock
from treadle.project import Project
from treadle.record.gate import judged
from treadle.record.release import Release
from treadle.record.turn import Outcome, TurnInputs
from treadle.record.version import Version
from treadle.stages.govern.promotion import Conclusion, conclude
from treadle.stages.improve import Improved, gathered, improve
from treadle.stages.improve.corrections import harvest
from treadle.stages.monitor import monitor
from treadle.text.handles import Profile

LOOK_SECONDS = 1.0  # between two looks at a canary
_OUTCOMES: dict[str, Outcome] = {
    "promoted": "promoted",
    "unchanged": "unchanged",
    "waiting": "waiting",
    "canary": "canary",
    "refused": "refused",
}


def turn(
    project: Project, *, until: str | None = None, listener: Listener | None = None, planning: bool = False
) -> Turn:
    """One turn, or as far as the stage ``until``. A whole one is written down when something really runs."""
    this = begin(project, listener=listener, planning=planning)
    go(this, until)
    return this


def go(this: Turn, until: str | None = None) -> None:
    """As `Turn.go`; a whole turn leaves a row when it begins and one when it ends."""
    if until is not None or this.driver.planning:
        this.go(until)
        return
    with _written_down(this):
        this.go()


def begin_next(project: Project, reasons: tuple[str, ...], listener: Listener | None = None) -> None:
    """Begin the next turn with all feedback so far; from the champion or the base, as the file says.

    Raises ``UserError`` when a turn is going on.
    """
    record, file = project.record, project.file
    if record.turns.open() is not None:
        raise UserError("a turn is going on; treadle run goes on with it")
    until = now()
    driver = Driver(record.runs, project.folder, seed=file.seed, listener=listener)
    task = load_task(file.task, project.folder)
    corrections = harvest(driver, record, file.improve.corrections, labeled=task.labeled, until=until)
    champion = record.versions.alias("model", "champion")
    goes_on = file.improve.train_from == "champion" and task.fit is None
    start = champion.digest if champion and goes_on else None
    made = record.runs.producer(champion.digest) if champion else None
    split = made.inputs.get("dataset") if made else None
    if champion and split is None:  # it came from outside; what it was judged on stays a test
        judgment = judged(record.ledger, champion.digest)
        split = Release(judgment.release, record.store).read().dataset if judgment else None
    record.turns.begin(reasons, TurnInputs(corrections.digest if corrections else None, start, split), until)


@contextmanager
def _written_down(this: Turn) -> Iterator[None]:
    turns, driver = this.project.record.turns, this.driver
    driver.listener = _Begins(this, driver.listener)
    try:
        yield
    except TreadleError as error:
        if turns.open() is not None:
            failed = [result for _, results in driver.stages for result in results if result.status == "failed"]
            where = f"{failed[-1].step} failed: {type(error).__name__}" if failed else type(error).__name__
            _end(this, "failed", where)
        raise
    if turns.open() is not None:
        _end(this, _OUTCOMES.get(this.governed.decision, "failed"), this.governed.reason)


def _end(this: Turn, outcome: Outcome, detail: str) -> None:
    turns = this.project.record.turns
    going, tracked = turns.open(), getattr(this, "tracked", None)
    if going is not None:
        turns.end(going.number, outcome, detail, tracked.model.ref if tracked and tracked.model else None)
        if outcome not in ("failed", "refused"):
            keep_lock(this.project)


class _Begins(Silent):
    """A listener that writes down the beginning of a turn before its first step, and passes everything on."""

    def __init__(self, this: Turn, listener: Listener) -> None:
        self._turns = this.project.record.turns
        self._listener = listener

    def stage(self, name: str) -> None:
        """Pass it on."""
        self._listener.stage(name)

    def started(self, step: str, reason: str) -> None:
        """The first one begins the turn, with what the turn before it took."""
        latest = self._turns.latest()
        if latest is None or latest.ended is not None:
            taken, until = (latest.inputs, latest.until) if latest else (TurnInputs(), "")
            self._turns.begin(("asked for",), taken, until)
        self._listener.started(step, reason)

    def progress(self, step: str, done: float, total: float | None, unit: str, note: str) -> None:
        """Pass it on."""
        self._listener.progress(step, done, total, unit, note)

    def finished(self, result: StepResult) -> None:
        """Pass it on."""
        self._listener.finished(result)

    def say(self, line: str) -> None:
        """Pass it on."""
        self._listener.say(line)


@dataclass
class Pass:
    """What one pass of `watch` did: ``did`` in words; ``turn`` where one ran; ``due`` and what held it back."""

    did: list[str] = field(default_factory=list)
    turn: Turn | None = None
    improved: Improved = field(default_factory=Improved)
    conclusion: Conclusion | None = None

    @property
    def ok(self) -> bool:
        """Nothing was refused or failed."""
        refused = self.conclusion is not None and self.conclusion.decision == "refused"
        return not refused and (self.turn is None or self.turn.ok)

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "ok": self.ok,
            "did": self.did,
            "due": list(self.improved.due),
            "held_back": self.improved.held_back,
            "decision": self.conclusion.decision if self.conclusion else None,
            "turn": self.turn.public() if self.turn else None,
        }


def watch_once(project: Project, listener: Listener, *, patient: bool) -> Pass:
    """One pass; the caller holds the project's lock. ``patient``: stay with a canary until it is decided."""
    done, record = Pass(), project.record
    listener.stage("watch")
    going = record.turns.open()
    if going is not None:
        done.did.append(f"went on with turn {going.number}")
        done.turn = _turn(project, listener)
    elif record.versions.alias("model", "champion") is None and record.turns.latest() is None:
        done.did.append("began turn 1: nothing has been promoted yet")
        done.turn = _turn(project, listener)
    elif record.canaries.open() is None:
        _measure(project, listener)
        done.improved = gathered(project.file.improve, record)
        if done.improved.due and not done.improved.held_back:
            improve(Driver(record.runs, project.folder, seed=project.file.seed, listener=listener),
                    project.file.improve, record)  # fmt: skip
            begin_next(project, done.improved.due, listener)
            latest = record.turns.latest()
            done.did.append(f"began turn {latest.number if latest else 0}: {', '.join(done.improved.due)}")
            listener.say(f"turn {latest.number if latest else 0} begins: {', '.join(done.improved.due)}")
            done.turn = _turn(project, listener)
    done.conclusion = _canary(project, listener, patient=patient)
    if done.conclusion is not None:
        done.did.append(f"canary: {done.conclusion.decision}: {done.conclusion.reason}")
        if done.conclusion.decision == "promoted":
            keep_lock(project)
    return done


def _turn(project: Project, listener: Listener) -> Turn:
    this = begin(project, listener=listener)
    try:
        go(this)
    except TreadleError as error:
        project.record.alerts.raise_("turn failed", type(error).__name__, None, {})
        raise
    return this


def _canary(project: Project, listener: Listener, *, patient: bool) -> Conclusion | None:
    """Look at the canary, once or until it is decided; None where there is none."""
    told = ""
    conclusion: Conclusion | None = None
    while True:
        version = candidate(project)
        if version is None:
            return conclusion
        if conclusion is None:
            listener.stage("canary")
        policy = policy_of(project)
        conclusion = conclude(project.record, policy, version)
        if conclusion.reason != told and (conclusion.decision != "canary" or _worth_telling(told, conclusion)):
            listener.say(conclusion.line(version))
            told = conclusion.reason
        if conclusion.decision != "canary" or not patient:
            return conclusion
        if not policy.serving:
            listener.say("no server runs, so nothing is tried; treadle serve, then treadle watch goes on")
            return conclusion
        time.sleep(LOOK_SECONDS)


def _worth_telling(told: str, conclusion: Conclusion) -> bool:
    return not told or "from now on" in conclusion.reason


def candidate(project: Project) -> Version | None:
    """The version that is being tried; None without a canary."""
    canary = project.record.canaries.open()
    return project.record.versions.find("model", canary.model) if canary else None


def _measure(project: Project, listener: Listener) -> None:
    """Figures and drift of the champion's answers so far."""
    record, file = project.record, project.file
    served = record.versions.served()
    if served is None or not record.store.has(served):
        return
    release = Release(served, record.store)
    profile = next(
        (
            Profile(run.outputs["profile"], record.store)
            for run in record.runs.find(step="prepare.profile_questions", status="done")
            if run.inputs.get("dataset") == release.read().dataset and record.store.has(run.outputs["profile"])
        ),
        None,
    )
    if profile is None:
        return
    driver = Driver(record.runs, project.folder, seed=file.seed, listener=listener)
    with suppress(UserError):  # a machine without the packages for it measures no drift
        monitor(driver, file.monitor, record, release, profile)
