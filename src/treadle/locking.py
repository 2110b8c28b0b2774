"""``treadle.lock``: the digests that a commit was built with, beside ``treadle.yaml``, for Git to keep.

One line a thing, sorted, a blank line between two, so that changes of different things merge without a conflict. It is
made by ``treadle lock`` and kept up by every turn that ends well. ``treadle checkout`` makes what it names current
again: nothing is trained, but the champion is moved by the gates alone.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.core.artifacts import Artifact
from treadle.core.driver import Driver
from treadle.core.errors import Refused, UserError
from treadle.core.runs import Run
from treadle.lm.model import Model
from treadle.project import Project
from treadle.record.gate import judged
from treadle.record.record import Record
from treadle.record.release import Release
from treadle.record.turn import TurnInputs
from treadle.record.version import Version
from treadle.text.dataset import Dataset

FILE = "treadle.lock"
FORMAT = 1
THINGS = ("champion", "dataset", "model", "release")
_HEAD = "# What this commit was built with. Written by Treadle; treadle checkout makes it current again."
_LINE = re.compile(r"([a-z]+): (?:(\S+) )?(b3:[0-9a-f]{64})\Z")


@dataclass(frozen=True, slots=True)
class Pin:
    """One line: ``champion``, ``dataset``, ``model`` or ``release``; the version's name at the time, and the digest,
    which alone counts."""

    thing: str
    ref: str | None
    digest: str

    def line(self) -> str:
        """As written."""
        return f"{self.thing}: {self.ref + ' ' if self.ref else ''}{self.digest}"

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return {"thing": self.thing, "ref": self.ref, "digest": self.digest}


def pins(record: Record) -> list[Pin]:
    """What is current: champion and its release, the latest candidate that was judged, and its dataset."""
    versions = record.versions
    champion = versions.alias("model", "champion")
    turn = next((turn for turn in reversed(record.turns.all()) if turn.candidate), None)
    model = versions.resolve(turn.candidate) if turn and turn.candidate else versions.latest("model")
    dataset = _dataset(record, model) if model else versions.latest("dataset")
    served = versions.served() if champion else None
    found = [_pin("champion", champion), _pin("dataset", dataset), _pin("model", model)]
    return [pin for pin in found if pin] + ([Pin("release", None, served)] if served else [])


def _pin(thing: str, version: Version | None) -> Pin | None:
    return Pin(thing, version.ref, version.digest) if version else None


def _dataset(record: Record, model: Version) -> Version | None:
    judgment = judged(record.ledger, model.digest)
    if judgment is None or not record.store.has(judgment.release):
        return record.versions.latest("dataset")
    return record.versions.find("dataset", Release(judgment.release, record.store).read().dataset)


def write_lock(project: Project) -> list[Pin]:
    """Write ``treadle.lock``; ``UserError`` when nothing has been made yet."""
    found = pins(project.record)
    if not found:
        raise UserError("lock: there is nothing to pin yet; run: treadle run")
    text = "\n\n".join([f"{_HEAD}\nformat: {FORMAT}", *(pin.line() for pin in found)]) + "\n"
    path = project.folder / FILE
    if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text:
        temporary = path.with_name(f".{FILE}.{os.getpid()}")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            raise UserError(f"lock: cannot write {path}: {error.strerror}; make the folder writable") from None
    return found


def keep_lock(project: Project) -> None:
    """Bring the file up to date where there is one, in a work tree of Git."""
    in_git = any((folder / ".git").exists() for folder in (project.folder, *project.folder.parents))
    if in_git and (project.folder / FILE).is_file():
        write_lock(project)


def read_lock(path: Path) -> list[Pin]:
    """The pins in a file; ``UserError`` for what is none, with the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"checkout: {path}: {error.strerror}; treadle lock writes one") from None
    except UnicodeDecodeError:
        raise UserError(f"checkout: {path} is no text; check it out of Git again") from None
    if any(line.startswith(("<<<<<<<", ">>>>>>>")) for line in lines):
        raise UserError(f"checkout: {path} holds a merge conflict; keep one side of each line, then check out")
    found: dict[str, Pin] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("format: "):
            if line != f"format: {FORMAT}":
                raise UserError(f"checkout: {path} is of {line}; this Treadle reads format {FORMAT}, use a newer one")
            continue
        match = _LINE.match(line)
        if match is None or match[1] in found:
            raise UserError(f"checkout: {path}, line {number}: expected one `THING: VERSION b3:...` for each thing")
        found[match[1]] = Pin(match[1], match[2], match[3])
    if not found:
        raise UserError(f"checkout: {path} pins nothing; treadle lock writes it")
    return list(found.values())


def pinned(folder: Path) -> frozenset[str]:
    """Every digest in the project's file, of a merge conflict both sides; none where there is no file."""
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; what it pins must be known") from None
    return frozenset(re.findall(r"b3:[0-9a-f]{64}", text))


@dataclass(frozen=True)
class CheckedOut:
    """What was named, the version that is to be current, and the turn that judges it (None: it is champion)."""

    pins: tuple[Pin, ...]
    version: Version
    turn: int | None

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return {"pins": [pin.public() for pin in self.pins], "version": self.version.ref, "turn": self.turn}


def checkout(project: Project, path: Path) -> CheckedOut:
    """Make the champion that the file names (without one, its model) the model of the next turn. The caller holds the
    project's lock.

    ``Refused`` when something named there is not in the store; ``UserError`` while a turn goes on.
    """
    record, found = project.record, {pin.thing: pin for pin in read_lock(path)}
    missing = [f"{pin.thing} {pin.digest[:11]}" for pin in found.values() if not record.store.has(pin.digest)]
    if missing:
        raise Refused(f"checkout: not in the store: {', '.join(missing)}; treadle pull brings what another store has")
    wanted = found.get("champion") or found.get("model")
    if wanted is None:
        raise UserError(f"checkout: {path} names no model; treadle lock writes it")
    _register(project, [pin for pin in found.values() if pin.thing != "release"])
    version = record.versions.find("model", wanted.digest)
    assert version is not None
    if record.versions.alias("model", "champion") == version:
        return CheckedOut(tuple(found.values()), version, None)
    going = record.turns.open()
    if going is not None and going.inputs.model == version.digest:
        return CheckedOut(tuple(found.values()), version, going.number)
    if going is not None:
        raise UserError(f"checkout: turn {going.number} is going on; treadle run goes on with it, then check out")
    inputs = _inputs(record, version, found.get("dataset"))
    latest = record.turns.latest()
    begun = record.turns.begin((f"checkout of {version.short}",), inputs, latest.until if latest else "")
    return CheckedOut(tuple(found.values()), version, begun.number)


def _inputs(record: Record, version: Version, dataset: Pin | None) -> TurnInputs:
    """As in the turn that made it, so that its dataset is remembered; else with the split of the dataset named."""
    for turn in reversed(record.turns.all()):
        if turn.candidate == version.ref:
            return TurnInputs(turn.inputs.feedback, None, turn.inputs.split, version.digest)
    return TurnInputs(None, None, dataset.digest if dataset else None, version.digest)


def _register(project: Project, found: list[Pin]) -> None:
    """Give what this ledger has no version of (objects that were pulled) one, with the run that says so."""
    record = project.record
    unknown = [pin for pin in found if record.versions.find(_kind(pin), pin.digest) is None]
    if not unknown:
        return
    driver = Driver(record.runs, project.folder, seed=project.file.seed)
    kinds: dict[str, type[Artifact]] = {"model": Model, "dataset": Dataset}

    def work(run: Run) -> dict[str, Artifact]:
        for pin in unknown:
            record.versions.register(_kind(pin), pin.digest, run.id)
        return {pin.thing: kinds[_kind(pin)](pin.digest, record.store) for pin in unknown}

    driver.act("import.lock", work, pins={pin.thing: pin.digest for pin in unknown})


def _kind(pin: Pin) -> str:
    return "dataset" if pin.thing == "dataset" else "model"
