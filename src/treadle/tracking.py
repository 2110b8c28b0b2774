"""Runs of the user's own code: ``with treadle.start_run("name", params={...}) as run: run.log(step, loss=...)``.

The record is that of the project around the folder. Where there is no ``treadle.yaml``, it is a ``.treadle`` folder
there or above, or a new one; ``treadle runs`` finds it the same way.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.core.experiment import Experiment
from treadle.core.system_metrics import SECONDS
from treadle.core.texts import LIMIT, Texts
from treadle.core.workspace import Workspace
from treadle.record.record import PROJECTIONS, Record

STORE = ".treadle"
FILE = "treadle.yaml"  # `project.FILE`; that module, which knows all settings, is loaded only where there is a project


def start_run(
    name: str = "run",
    *,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    seed: int | None = None,
    folder: str | Path = ".",
    system: float | None = SECONDS,
    capture: bool = False,
) -> Experiment:
    """Begin a run of your own code, for a ``with`` block. It may run beside a cycle and beside other runs.

    ``system``: seconds between samples of processor and memory, None for none. ``capture``: keep what is printed.
    """
    where, opened = Path(folder).resolve(), ExitStack()
    try:
        record = opened.enter_context(_shared(where))
        run = Experiment(
            record.runs,
            name,
            where,
            params=params or {},
            tags=tags or {},
            seed=seed,
            resolve=lambda ref: _artifact(record, ref),
            closing=opened.close,
        )
    except BaseException:
        opened.close()
        raise
    run.watch(system=system, capture=capture)
    return run


def annotate(record: Record, run: str, *, note: str | None = None, tags: Mapping[str, Any] | None = None) -> None:
    """Say more of a run, whether it goes on or has ended: a remark, tags; a later value replaces an earlier one.

    ``UserError`` where there is no such run, a tag's name is none, or the remark is empty.
    """
    if record.runs.get(run) is None:
        raise UserError(f"there is no run {run!r}; treadle runs lists them")
    if note is not None and not note.strip():
        raise UserError("the note is empty; write what is to be remembered")
    if note is not None and len(note) > LIMIT:
        raise UserError(f"the note has {len(note):,} characters, at most {LIMIT:,} are kept; store it as an artifact")
    texts = Texts(record.workspace.keys)
    said = texts.tags(tags or {})
    kept = record.runs.keep_text(note) if note is not None else None
    record.runs.note(run, tags=said, note=kept, texts=texts.keep(record.store))


@contextmanager
def open_record(start: Path) -> Iterator[Record]:
    """The record of the project around a folder, or of the ``.treadle`` folder there or above where there is none.

    ``UserError`` where there is neither.
    """
    folder = record_folder(start)
    if (folder / FILE).is_file():
        from treadle.project import open_project

        with open_project(folder) as project:
            yield project.record
    else:
        with _alone(folder) as record:
            yield record


def record_folder(start: Path) -> Path:
    """The folder around ``start`` that has a record; ``UserError`` where there is none."""
    for folder in (start, *start.parents):
        if (folder / FILE).is_file() or (folder / STORE / "format").is_file():
            return folder
    from treadle.project import find_folder  # it says what is missing

    return find_folder(start)


@contextmanager
def _alone(folder: Path) -> Iterator[Record]:
    """The record of a folder without ``treadle.yaml``."""
    from treadle.record.beside import Beside

    with Workspace(folder / STORE, None, PROJECTIONS) as workspace:
        record = Record(workspace, folder.name)
        workspace.closing.callback(Beside(record, folder).close)
        yield record


_open: dict[tuple[int, Path], tuple[Record, ExitStack, list[None]]] = {}
_lock = threading.Lock()


@contextmanager
def _shared(folder: Path) -> Iterator[Record]:
    """One record for all runs of this process in one folder; closed with the last of them."""
    key = (os.getpid(), folder)
    with _lock:
        if key not in _open:
            made = ExitStack()
            opened = made.enter_context(open_or_make_record(folder))
            opened.runs.sweep()
            _open[key] = (opened, made, [])
        record, made, users = _open[key]
        users.append(None)
    try:
        yield record
    finally:
        with _lock:
            users.pop()
            if not users:
                del _open[key]
                made.close()


@contextmanager
def open_or_make_record(folder: Path) -> Iterator[Record]:
    """As `open_record`, with a new ``.treadle`` folder where there is no record yet."""
    places = (folder, *folder.parents)
    if any((each / FILE).is_file() or (each / STORE / "format").is_file() for each in places):
        with open_record(folder) as record:
            yield record
        return
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name one that is there")
    with _alone(folder) as record:
        yield record


def _artifact(record: Record, ref: str) -> tuple[str, str]:
    """Digest and kind of what a reference leads to."""
    from treadle.record.reference import resolve
    from treadle.stages.track.names import DocumentNames

    found = resolve(record, ref, DocumentNames(record).locate)
    if found.kind != "artifact":
        raise UserError(f"{ref}: a run takes artifacts, such as dataset@v1 or b3:..., and this is a {found.kind}")
    return found.id, found.of
