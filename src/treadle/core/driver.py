"""The driver: decides for each step whether it runs or is remembered, runs it, and writes down what happened.

The same calls in planning mode run nothing and give the decisions with their reasons.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from treadle.core.artifacts import Artifact
from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.errors import TreadleError
from treadle.core.executors import Executor, InProcess
from treadle.core.runs import Run, RunRecord, Runs
from treadle.core.steps import Call, Elsewhere, Input, Step, bind, execute, output_names, result_of

R = TypeVar("R")
_INPUT = "\0"  # marks a change of an input
_COMPARED = 50  # runs of a step that a call is compared with, for the reason
Status = Literal["done", "cached", "failed", "skipped"]


@dataclass(frozen=True)
class StepResult:
    """One line of ``treadle run --json``; ``reason`` says why it ran or would run."""

    step: str
    status: Status
    seconds: float = 0.0
    run: str | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    reason: str = ""

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "step": self.step,
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "run": self.run,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "reason": self.reason,
        }


class Listener(Protocol):
    """Whoever watches a turn: a terminal, a log."""

    def stage(self, name: str) -> None:
        """A stage begins."""
        ...

    def started(self, step: str, reason: str) -> None:
        """A step begins."""
        ...

    def progress(self, step: str, done: float, total: float | None, unit: str, note: str) -> None:
        """A step tells how far it is."""
        ...

    def finished(self, result: StepResult) -> None:
        """A step ended, or was remembered."""
        ...

    def say(self, line: str) -> None:
        """One line of what a stage found."""
        ...


class Silent:
    """Watches nothing."""

    def stage(self, name: str) -> None:
        """Ignored."""

    def started(self, step: str, reason: str) -> None:
        """Ignored."""

    def progress(self, step: str, done: float, total: float | None, unit: str, note: str) -> None:
        """Ignored."""

    def finished(self, result: StepResult) -> None:
        """Ignored."""

    def say(self, line: str) -> None:
        """Ignored."""


class Driver:
    """Runs steps and actions of one project, one at a time."""

    def __init__(
        self,
        runs: Runs,
        folder: Path,
        *,
        seed: int,
        listener: Listener | None = None,
        executor: Executor | None = None,
        planning: bool = False,
    ) -> None:
        self.runs = runs
        self.folder = folder
        self.seed = seed
        self.listener: Listener = listener or Silent()
        self.executor: Executor = executor or InProcess()
        self.planning = planning
        self.places: dict[str, Any] = {}  # by the setting that names it: where steps of that place run
        self.stages: list[tuple[str, list[StepResult]]] = []

    def stage(self, name: str) -> None:
        """What follows belongs to this stage."""
        self.stages.append((name, []))
        self.listener.stage(name)

    @contextmanager
    def working_on(self, executor: Executor) -> Iterator[None]:
        """Steps run shards there until the end of ``with``, which closes it."""
        before, self.executor = self.executor, executor
        try:
            yield
        finally:
            self.executor = before
            executor.close()

    # -- steps

    def run(self, step: Step[R], /, *inputs: Input, **settings: Any) -> R:
        """The artifacts of a step: remembered where its key was seen before, made now otherwise."""
        call = bind(step, inputs, settings, self.seed)
        remembered = None if call.pending else self._remembered(call.key())
        if remembered is not None:
            outputs = self._outputs(step, remembered)
            self._report(
                StepResult(
                    step.name,
                    "cached",
                    0.0,
                    remembered.id,
                    remembered.inputs,
                    remembered.outputs,
                    "nothing changed",
                )
            )
            return result_of(step, outputs)
        reason = self._reason(call)
        if self.planning:
            self._report(StepResult(step.name, "skipped", reason=reason))
            return result_of(step, [kind("", self.runs.store) for kind in step.signature.outputs])
        return result_of(step, list(self._execute(call, reason).values()))

    def _execute(self, call: Call, reason: str) -> dict[str, Artifact]:
        name = call.step.name
        run = self.runs.start(
            name,
            version=call.step.version,
            key=call.key(),
            parameters=call.settings,
            inputs=call.input_digests(),
            seed=self.seed,
            progress=self._progress_of(name),
            folder=self.folder,
            executor=self.executor,
        )
        run.place = self.places.get(call.step.place or "")
        if run.place is not None:
            self.runs.note(run.id, tags={"on": run.place.about})
        there = run.place if isinstance(run.place, Elsewhere) else None
        work = there.execute if there is not None else execute
        return self._finish(name, run, lambda: work(call, run), call.input_digests(), reason)

    def _finish(
        self,
        name: str,
        run: Run,
        work: Callable[[], dict[str, Artifact]],
        inputs: dict[str, Any],
        reason: str,
    ) -> dict[str, Artifact]:
        began = time.monotonic()
        try:
            self.listener.started(name, reason)
            outputs = work()
        except BaseException as error:
            seconds = time.monotonic() - began
            text = str(error) if isinstance(error, TreadleError) else traceback.format_exc()
            with suppress(TreadleError, OSError):  # a full disk; the run counts as crashed then
                self.runs.finish(run, "failed", seconds=seconds, error=text or type(error).__name__)
            self._report(StepResult(name, "failed", seconds, run.id, inputs, {}, type(error).__name__))
            raise
        seconds = time.monotonic() - began
        self.runs.finish(run, "done", seconds=seconds, outputs=outputs)
        named = {key: artifact.digest for key, artifact in outputs.items()}
        self._report(StepResult(name, "done", seconds, run.id, inputs, named, reason))
        return outputs

    def _remembered(self, key: str) -> RunRecord | None:
        for record in self.runs.find(key=key, status="done"):
            if all(self.runs.store.has(digest) for digest in record.outputs.values()):
                return record
        return None

    def _outputs(self, step: Step[Any], record: RunRecord) -> list[Artifact]:
        kinds = zip(output_names(step), step.signature.outputs, strict=True)
        return [kind(record.outputs[name], self.runs.store) for name, kind in kinds]

    def _reason(self, call: Call) -> str:
        """Why it is not remembered, against the call most like it among the last that were done."""
        before = self.runs.find(step=call.step.name, status="done", limit=_COMPARED)
        if not before:
            return "never ran"
        last = min(before, key=lambda record: len(_changes(call, record)))
        changes = _changes(call, last)
        if last.facts["version"] != call.step.version:
            return f"the step is version {call.step.version}, was {last.facts['version']}"
        settings = [change for change in changes if not change.startswith(_INPUT)]
        if settings:
            return "settings changed: " + ", ".join(settings[:3])
        if changes:
            return "new input: " + ", ".join(change.removeprefix(_INPUT) for change in changes)
        if call.step.signature.wants_seed and last.facts["seed"] != call.seed:
            return f"the seed is {call.seed}, was {last.facts['seed']}"
        if not all(self.runs.store.has(digest) for digest in last.outputs.values()):
            return "its result is no longer in the store"
        return "a package it depends on changed: " + ", ".join(call.step.packages)

    # -- actions

    def act(
        self,
        name: str,
        work: Callable[[Run], dict[str, Artifact]],
        /,
        *,
        inputs: Sequence[Artifact] = (),
        **parameters: Any,
    ) -> dict[str, Artifact] | None:
        """An effect on the world: recorded, done once per request (name, parameters and inputs); None when planning.

        An action that was already done for the same request is not done again; the artifacts it left are returned.
        """
        digests = {f"{artifact.kind}_{index}": artifact.digest for index, artifact in enumerate(inputs)}
        pending = any(artifact.pending for artifact in inputs)
        request = blake3_bytes(canonical_json({"action": name, "inputs": digests, "parameters": parameters}))
        before = None if pending else self._remembered(request)
        if before is not None:
            self._report(StepResult(name, "cached", 0.0, before.id, before.inputs, before.outputs, "done before"))
            return {key: Artifact(digest, self.runs.store) for key, digest in before.outputs.items()}
        if self.planning:
            self._report(StepResult(name, "skipped", reason="an action, done once per request"))
            return None
        run = self.runs.start(
            name,
            version=1,
            key=request,
            parameters=parameters,
            inputs=digests,
            seed=self.seed,
            progress=self._progress_of(name),
            folder=self.folder,
            kind="action",
        )
        return self._finish(name, run, lambda: work(run), digests, "an action")

    # -- telling

    def _progress_of(self, name: str) -> Callable[[float, float | None, str, str], None]:
        return lambda done, total, unit, note: self.listener.progress(name, done, total, unit, note)

    def _report(self, result: StepResult) -> None:
        if not self.stages:
            self.stage("")
        self.stages[-1][1].append(result)
        self.listener.finished(result)


def _changes(call: Call, record: RunRecord) -> list[str]:
    """What is different from a run of the same step: settings as ``name: old -> new``, inputs by name."""
    names = sorted(call.settings.keys() | record.parameters.keys())
    absent = object()
    changes = []
    for name in names:
        before, now = record.parameters.get(name, absent), call.settings.get(name, absent)
        if before is absent or now is absent or before != now:
            left, right = ("none" if value is absent else _short(value) for value in (before, now))
            changes.append(f"{name}: {left} -> {right}")
    digests = call.input_digests()
    return changes + [_INPUT + name for name, value in digests.items() if _unlike(value, record.inputs.get(name))]


def _unlike(now: Any, before: Any) -> bool:
    return "" in (now if isinstance(now, list) else [now]) or now != before


def _short(value: Any) -> str:
    text = canonical_json(value).decode()
    return text if len(text) <= 40 else text[:37] + "..."
