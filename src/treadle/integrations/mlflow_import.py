"""``treadle import mlflow``: runs, metrics and registered models of an existing store."""

from __future__ import annotations

import re
import shutil
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from treadle.core.artifacts import Artifact
from treadle.core.errors import TreadleError, UserError
from treadle.core.intake import Odd
from treadle.core.runs import Run
from treadle.importing.admission import iso
from treadle.importing.import_run import account, import_run
from treadle.importing.outside import Brought
from treadle.importing.past_runs import PastRun, plain, record_past
from treadle.integrations.mlflow_store import MlflowStore, StoredRun, StoredVersion, notes_of, open_store
from treadle.lm.model import Model
from treadle.project import Project
from treadle.record.version import IMPORTED, Version, Versions
from treadle.text.accounting import Accounting, Quarantined

_STATUS: dict[str, Literal["done", "failed", "crashed"]] = {"FINISHED": "done", "FAILED": "failed", "KILLED": "failed"}
_GIVEN_UP = 86_400.0  # seconds after which a run that never ended counts as crashed
RUNNING, BEFORE = "mlflow.still_running", "mlflow.imported_before"


def import_mlflow(project: Project, place: str) -> Brought:
    """An MLflow store (sqlite:///mlflow.db, or the folder mlruns) becomes runs and model versions.

    Runs keep parameters, metrics with their steps, status and times; registered models keep names, numbers and aliases.
    Nothing is loaded or unpickled, and nothing is changed there. Runs that still go on are left for the next import.

    \b
    Example:
      treadle import mlflow sqlite:///mlflow.db
    """
    store, accounting = open_store(place), Accounting()
    versions: list[Version] = []

    def work(run: Run) -> dict[str, Artifact]:
        _runs(project, store, accounting)
        for stored in store.versions():
            accounting.read += 1
            version = _version(project, store, stored, accounting)
            versions.extend([version] if version else [])
        return account(run, accounting)

    done = import_run(project, "import.mlflow", work, once=False)
    counted = accounting.to_json()
    told = {name: counted[name] for name in ("in", "kept", "dropped", "quarantined")}
    lines = [accounting.line()]
    lines += [f"dropped {count:>7,}  {rule}" for rule, count in sorted(accounting.dropped.items())]
    lines += [f"quarantined {piece.source}: {piece.reason}" for piece in accounting.quarantined[:20]]
    if len(accounting.quarantined) > 20:
        lines.append(f"... and {len(accounting.quarantined) - 20:,} more quarantined; --json names all")
    lines += [f"{version.ref}  {version.digest[:11]}" for version in versions]
    return Brought(done.run, {**told, "versions": [version.ref for version in versions]}, tuple(lines))


def _runs(project: Project, store: MlflowStore, accounting: Accounting) -> None:
    found: list[PastRun] = []
    damaged = 0
    for stored in store.runs():
        accounting.read += 1
        if stored.status not in _STATUS and time.time() - (stored.started or 0) / 1000 < _GIVEN_UP:
            accounting.dropped[RUNNING] = accounting.dropped.get(RUNNING, 0) + 1
        else:
            found.append(_past(stored))
            damaged += stored.damaged
    new, left_out = record_past(project, found)
    accounting.kept += new
    if len(found) > new:
        accounting.dropped[BEFORE] = len(found) - new
    if damaged:
        accounting.notes["mlflow.damaged_point"] = damaged
    if left_out:
        accounting.notes["mlflow.not_a_finite_number"] = left_out


def _past(stored: StoredRun) -> PastRun:
    kept, texts = plain(stored.params)
    began, ended = stored.started or 0, stored.ended
    origin = {"mlflow.run_id": stored.id, "mlflow.start_time": _iso(began), "mlflow.end_time": _iso(ended)}
    return PastRun(
        origin=f"mlflow {stored.id}",
        began=began,
        seconds=max(0.0, (ended - began) / 1000) if ended else None,
        status=_STATUS.get(stored.status, "crashed"),
        parameters={**kept, **origin},
        points=stored.points,
        user=stored.user,
        commit=stored.tags.get("mlflow.source.git.commit"),
        note=notes_of(stored, texts),
    )


def _iso(moment: int | None) -> str:
    return iso(datetime.fromtimestamp(moment / 1000, UTC)) if moment else "not recorded"


def _version(project: Project, store: MlflowStore, stored: StoredVersion, accounting: Accounting) -> Version | None:
    """The version and its aliases; quarantined where its files are not on this machine."""
    record = project.record
    name = re.sub(r"[^A-Za-z0-9._-]", "-", stored.name).lstrip("._-")[:64] or "model"
    if name == record.name:  # the project's own champion is moved by its gates alone
        name += "-mlflow"
    folder = store.folder(stored.source)
    place = f"{stored.name} version {stored.number}"
    if folder is None:
        reason = "its files are in no folder of this machine; download them, or import the model's folder"
        accounting.quarantined.append(Quarantined(place, 0, reason))
        return None
    versions = Versions(record.ledger, record.store, name)
    before = len(versions.all("model"))
    try:
        done = import_run(project, "import.model", lambda run: {"model": _copy(run, folder)}, name=name,
                          number=stored.number, source=stored.run)  # fmt: skip
        version = versions.register("model", done.outputs["model"], done.run, stored.number)
    except UserError as error:
        accounting.quarantined.append(Quarantined(place, 0, str(error)))
        return None
    for alias in stored.aliases:
        tag = re.sub(r"[^a-z0-9_-]", "-", alias.lower())
        if versions.alias("model", tag) != version:
            versions.point(tag, version, reason=IMPORTED)
    if len(versions.all("model")) > before:
        accounting.kept += 1
    else:
        accounting.dropped[BEFORE] = accounting.dropped.get(BEFORE, 0) + 1
    return version


def _copy(run: Run, folder: Path) -> Artifact:
    """The files as they are; nothing in them is run. What did not change since an earlier import is not read again."""
    if any(folder.iterdir()):
        with suppress(Odd):
            return Model(run.store.add(folder), run.store)
    with run.create(Model) as model:
        shutil.copytree(folder, model.path, dirs_exist_ok=True, symlinks=False, ignore=_links)
        if not any(model.path.iterdir()):
            raise UserError(f"{folder} is empty")
        try:
            return model.commit()
        except TreadleError as error:
            raise UserError(f"{folder}: {error}") from None


def _links(folder: str, names: list[str]) -> list[str]:
    """Links could lead out of the model's folder."""
    return [name for name in names if (Path(folder) / name).is_symlink()]
