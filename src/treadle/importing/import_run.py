"""The run that every import leaves behind."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from treadle.core.artifacts import Artifact
from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.errors import TreadleError
from treadle.core.runs import Run
from treadle.project import Project
from treadle.record.note import keep_note
from treadle.record.report import Report
from treadle.text.accounting import Accounting

KIND = "import"


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: its run, the artifacts it gave, and whether the same import had been done before."""

    run: str
    outputs: dict[str, str]
    before: bool = False


def import_run(
    project: Project,
    name: str,
    work: Callable[[Run], dict[str, Artifact]],
    /,
    *,
    note: str | None = None,
    inputs: dict[str, str] | None = None,
    once: bool = True,
    **parameters: Any,
) -> Imported:
    """Do ``work`` as a run of kind ``import``; with ``once``, what was done for the same parameters is not done again.

    Parameters go into the ledger, so they are names, numbers and digests; a ``note`` is cited by its digest.
    """
    runs = project.record.runs
    key = blake3_bytes(canonical_json({"import": name, "parameters": parameters, "inputs": inputs or {}}))
    for before in runs.find(key=key, status="done") if once else ():
        if all(runs.store.has(digest) for digest in before.outputs.values()):
            return Imported(before.id, before.outputs, before=True)
    kept = keep_note(runs.store, note)
    run = runs.start(
        name,
        version=1,
        key=key,
        parameters=parameters | ({"note": kept} if kept else {}),
        inputs=inputs or {},
        seed=project.file.seed,
        progress=lambda *_: None,
        folder=project.folder,
        kind=KIND,
    )
    began = time.monotonic()
    try:
        outputs = work(run)
    except BaseException as error:
        text = str(error) if isinstance(error, TreadleError) else traceback.format_exc()
        with suppress(TreadleError, OSError):  # a full disk; the run counts as crashed then
            runs.finish(run, "failed", seconds=time.monotonic() - began, error=text or type(error).__name__)
        raise
    runs.finish(run, "done", seconds=time.monotonic() - began, outputs=outputs)
    return Imported(run.id, {name: artifact.digest for name, artifact in outputs.items()})


def account(run: Run, accounting: Accounting) -> dict[str, Artifact]:
    """The accounting of an import as a report, and its sums as the run's metrics."""
    dropped = sum(accounting.dropped.values())
    quarantined = len(accounting.quarantined)
    run.summary(read=accounting.read, kept=accounting.kept, dropped=dropped, quarantined=quarantined)
    with run.create(Report) as report:
        accounting.write(report.path)
        return {"report": report.commit()}
