"""Rebuilding: the recorded steps behind an artifact run again, from their recorded inputs, in a fresh folder.

Each step gets exactly the artifacts that it took then, read from the project's store, so every verdict stands for
itself; where all are equal, the whole chain is. The record of the project is read and not written to.

Not covered: actions, which are done once, and runs of the user's own code, which Treadle cannot start; what they made
is taken as it is. A step of another version than today's is not run again: its code is no longer there.
"""

from __future__ import annotations

import importlib
import math
import os
import pkgutil
import tempfile
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import treadle.stages
from treadle.core.artifacts import Artifact
from treadle.core.driver import Driver, Listener
from treadle.core.errors import TreadleError, UserError
from treadle.core.runs import RunRecord
from treadle.core.steps import Input, Step
from treadle.core.workspace import Workspace
from treadle.project import Project
from treadle.record.record import Record
from treadle.record.reference import resolve
from treadle.record.run_view import whole
from treadle.stages.track.names import DocumentNames

Verdict = Literal["equal", "within tolerance", "different", "failed", "not rebuilt"]


@dataclass(frozen=True)
class Rebuilt:
    """One step: ``outputs`` maps a name to [as recorded, as made now]; ``detail`` says why, in words."""

    step: str
    run: str
    verdict: Verdict
    detail: str = ""
    outputs: dict[str, list[str]] = field(default_factory=dict)

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "step": self.step,
            "run": self.run,
            "verdict": self.verdict,
            "detail": self.detail,
            "outputs": self.outputs,
        }


@dataclass(frozen=True)
class Rebuild:
    """All steps behind one artifact, the first of them first."""

    digest: str
    steps: tuple[Rebuilt, ...]

    @property
    def ok(self) -> bool:
        """Every step that could be run again gave the same, or came within its tolerance."""
        verdicts = {step.verdict for step in self.steps}
        return not verdicts & {"different", "failed"} and bool(verdicts & {"equal", "within tolerance"})

    def public(self) -> dict[str, Any]:
        """The shape that ``treadle rebuild --json`` promises."""
        return {"ok": self.ok, "digest": self.digest, "steps": [step.public() for step in self.steps]}


def rebuild(project: Project, ref: str, listener: Listener | None = None) -> Rebuild:
    """Run every step behind ``ref`` again and compare; ``UserError`` for what no step made."""
    record = project.record
    found = resolve(record, ref, DocumentNames(record).locate)
    if found.kind != "artifact":
        raise UserError(f"{ref} is a {found.kind}; rebuild takes an artifact, such as model@v1 or b3:...")
    history = _history(record, found.id)
    if not history:
        raise UserError(f"{ref} was made by no run of this project, so there is nothing to rebuild it from")
    known = built_in_steps()
    with (
        tempfile.TemporaryDirectory(prefix="treadle-rebuild-") as folder,
        Workspace(Path(folder) / "store", cipher=record.store.cipher) as fresh,
    ):
        fresh.runs.keys = record.workspace.keys  # people have the same keyed digests as in the recorded steps
        done = [_again(project, run, known, fresh, listener) for run in history]
    return Rebuild(found.id, tuple(done))


def _history(record: Record, digest: str) -> list[RunRecord]:
    """The runs behind an artifact, each after those that made what it took."""
    ordered: dict[str, RunRecord] = {}
    waiting: list[tuple[str, bool]] = [(digest, False)]
    seen: set[str] = set()
    while waiting:
        wanted, ready = waiting.pop()
        run = record.runs.producer(wanted)
        if run is None or run.id in ordered:
            continue
        if ready:
            ordered[run.id] = run
        elif wanted not in seen:
            seen.add(wanted)
            waiting.append((wanted, True))
            waiting += [(each, False) for each in _taken(run)]
    return list(ordered.values())


def _taken(run: RunRecord) -> Iterator[str]:
    for value in run.inputs.values():
        yield from (value if isinstance(value, list) else [value] if value else [])


def _again(
    project: Project, run: RunRecord, known: Mapping[str, Step[Any]], fresh: Workspace, listener: Listener | None
) -> Rebuilt:
    record, step = project.record, known.get(run.step)
    missing = [each for each in _taken(run) if not record.store.has(each)]
    if run.facts["kind"] != "step":
        return Rebuilt(run.step, run.id, "not rebuilt", f"it is an {run.facts['kind']}; what it made is taken as it is")
    if step is None:
        return Rebuilt(run.step, run.id, "not rebuilt", "this Treadle has no such step")
    if step.version != run.facts["version"]:
        versions = f"it was version {run.facts['version']}, this Treadle has version {step.version}"
        return Rebuilt(run.step, run.id, "not rebuilt", versions)
    if missing:
        return Rebuilt(run.step, run.id, "not rebuilt", f"its input {missing[0][:11]} is no longer in the store")
    driver = Driver(fresh.runs, project.folder, seed=run.facts["seed"], listener=listener)
    try:
        driver.run(step, *_inputs(step, run, record), **run.parameters)
    except (TreadleError, OSError) as error:
        return Rebuilt(run.step, run.id, "failed", str(error))
    now = fresh.runs.find(step=run.step, limit=1)[0]
    outputs = {name: [digest, now.outputs[name]] for name, digest in run.outputs.items()}
    verdict, detail = _compared(step, run, now)
    if verdict != "equal":
        detail = "; ".join(filter(None, (detail, _changed(record, run))))
    return Rebuilt(run.step, run.id, verdict, detail, outputs)


def _inputs(step: Step[Any], run: RunRecord, record: Record) -> list[Input]:
    """The artifacts that the run took, as the kinds that the step's hints name."""
    hints = typing.get_type_hints(step.function)
    found: list[Input] = []
    for name in step.signature.inputs:
        kind, value = _kind(hints[name]), run.inputs.get(name)
        if isinstance(value, list):
            found.append(tuple(kind(digest, record.store) for digest in value))
        else:
            found.append(kind(value, record.store) if value else None)
    return found


def _kind(hint: Any) -> type[Artifact]:
    if isinstance(hint, type) and issubclass(hint, Artifact):
        return hint
    return next((_kind(each) for each in typing.get_args(hint) if each not in (type(None), Ellipsis)), Artifact)


def _compared(step: Step[Any], before: RunRecord, now: RunRecord) -> tuple[Verdict, str]:
    if before.outputs == now.outputs:
        return "equal", "the same bytes"
    apart = _apart(before.metrics, now.metrics)
    if apart is None:
        return "different", "other bytes, and no figures to compare"
    detail = f"other bytes; its figures are at most {apart:.2g} apart, as a share"
    if step.tolerance and apart <= step.tolerance:
        return "within tolerance", f"{detail}, {step.tolerance:g} is allowed"
    return "different", f"{detail}, " + (
        f"{step.tolerance:g} is allowed" if step.tolerance else "it should be the same"
    )


def _apart(before: Mapping[str, float], now: Mapping[str, float]) -> float | None:
    """The largest difference of a figure, as a share of the larger; None where there is none in both."""
    shared = before.keys() & now.keys()
    pairs = [(before[name], now[name]) for name in shared if "second" not in name]  # how long it took is no result
    return max((abs(a - b) / max(abs(a), abs(b), math.ulp(1.0)) for a, b in pairs), default=None)


def _changed(record: Record, run: RunRecord) -> str:
    """What is another in the surroundings and may be why."""
    threads = (whole(record, run)["threads"] or {}).get("available")
    here = len(os.sched_getaffinity(0))
    return f"it had {threads} threads then and has {here} now" if threads and threads != here else ""


def built_in_steps() -> dict[str, Step[Any]]:
    """Every step of the stages, by name."""
    found: dict[str, Step[Any]] = {}
    for each in pkgutil.walk_packages(treadle.stages.__path__, f"{treadle.stages.__name__}."):
        for value in vars(importlib.import_module(each.name)).values():
            if isinstance(value, Step):
                found[value.name] = value
    return found
