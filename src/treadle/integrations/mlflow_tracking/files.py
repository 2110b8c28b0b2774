"""Files of runs and of logged models: taken in one by one, and made an artifact together.

A path is that of the place a run or a model was told of: ``1/<run>/artifacts/a/b.txt``, or
``1/models/<model>/artifacts/MLmodel``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from treadle.core.artifacts import Artifact, Entry, manifest_bytes
from treadle.core.errors import Corrupt, UserError
from treadle.core.uploads import together
from treadle.integrations.mlflow_tracking import model_cards
from treadle.integrations.mlflow_tracking.fields import Fields
from treadle.integrations.mlflow_tracking.problem import Problem, absent, invalid
from treadle.integrations.mlflow_tracking.run_view import FILES
from treadle.integrations.mlflow_tracking.tracker import Tracker

_RUN, _MODEL = "run/", "model/"
logger = logging.getLogger("treadle.listen")


class RunFiles(Artifact):
    """What was uploaded for a run."""

    kind: ClassVar[str] = "files"


@dataclass(frozen=True, slots=True)
class Place:
    """Whose a path is, and the rest of it."""

    owner: str
    path: str


def place_of(path: str) -> Place:
    """Whose a path is."""
    parts = path.strip("/").split("/")
    for number in range(1, len(parts)):
        if parts[number] != "artifacts":
            continue
        before, rest = parts[number - 1], "/".join(parts[number + 1 :])
        if number > 1 and parts[number - 2] == "models":
            return Place(_MODEL + before, rest)
        return Place(_RUN + before, rest)
    raise absent(f"{path[:200]!r} is no place of a run or a model: expected EXPERIMENT/RUN/artifacts/PATH")


def take(tracker: Tracker, place: Place, file: Path, digest: str) -> None:
    """Take a file in; once this returns it survives the death of this process."""
    with tracker.lock:
        _heard(tracker, place.owner)
        try:
            tracker.uploads.add(place.owner, place.path, file, digest, entries(tracker, place.owner))
        except UserError as error:
            raise invalid(str(error)) from None


def _heard(tracker: Tracker, owner: str) -> None:
    """Refuse files for what is not there; whoever sends one is alive."""
    kind, _, name = owner.partition("/")
    if kind == "run":
        tracker.run(name, active=True)
    else:
        run = model_cards.read(tracker, name).get("source_run")
        if run:
            tracker.run(run, active=True)


def entries(tracker: Tracker, owner: str) -> list[Entry]:
    """Every file of an owner, in an artifact or not yet."""
    return together(_settled(tracker, owner), tracker.uploads.waiting(owner).entries)


def _settled(tracker: Tracker, owner: str) -> Iterable[Entry]:
    kind, _, name = owner.partition("/")
    if kind == "run":
        digest = tracker.run(name).run.outputs.get(FILES)
    else:
        digest = model_cards.read(tracker, name).get("artifact")
    if not digest:
        return ()
    try:
        return tracker.record.store.entries(digest)
    except Corrupt:
        raise absent("these artifacts were erased, or are damaged; treadle verify tells") from None


def found(tracker: Tracker, place: Place) -> Entry:
    """One file."""
    for entry in entries(tracker, place.owner):
        if entry.path == place.path:
            return entry
    raise absent(f"No such artifact: '{place.path[:200]}'")


def settle(tracker: Tracker, owner: str) -> None:
    """Make an artifact of all that an owner has sent and that is there; for one that is gone, of nothing."""
    with tracker.lock:
        waiting = tracker.uploads.waiting(owner)
        if not waiting.names:
            return
        there = _is_there(tracker, owner)
        found = [entry for entry in waiting.entries if there and tracker.record.store.has_object(entry.digest)]
        if found:
            _keep(tracker, owner, together(_settled(tracker, owner), found))
        if len(found) < len(waiting.entries):
            why = "a restore did not bring them back" if there else "it is gone"
            logger.warning("uploads for %s let go: %d; %s", owner, len(waiting.entries) - len(found), why)
        tracker.uploads.settle(waiting)


def _is_there(tracker: Tracker, owner: str) -> bool:
    kind, _, name = owner.partition("/")
    try:
        if kind == "run":
            tracker.run(name)
        else:
            model_cards.read(tracker, name)
    except Problem:
        return False
    return True


def settle_run(tracker: Tracker, run: str) -> None:
    """The same for a run."""
    settle(tracker, _RUN + run)


def settle_model(tracker: Tracker, model: str) -> None:
    """The same for a logged model."""
    settle(tracker, _MODEL + model)


def _keep(tracker: Tracker, owner: str, found: list[Entry]) -> None:
    digest = tracker.record.store.put_bytes(manifest_bytes(found))
    kind, _, name = owner.partition("/")
    if kind == "run":
        artifact = RunFiles(digest, tracker.record.store)
        tracker.reported.tell(tracker.run(name).run, outputs={FILES: artifact})
    else:
        model_cards.keep(tracker, name, digest)


def delete(tracker: Tracker, place: Place) -> None:
    """A new artifact without a file or a folder; the record keeps the one before."""
    settle(tracker, place.owner)
    with tracker.lock:
        _heard(tracker, place.owner)
        before = list(_settled(tracker, place.owner))
        left = [entry for entry in before if not _under(entry.path, place.path)]
        if len(left) < len(before):
            _keep(tracker, place.owner, left)


def _under(path: str, folder: str) -> bool:
    return not folder or path == folder or path.startswith(folder + "/")


def listing(found: Iterable[Entry], path: str) -> list[dict[str, Any]]:
    """What lies right under a path; one that is a file has nothing under it."""
    prefix = path.strip("/") + "/" if path.strip("/") else ""
    shown: dict[str, dict[str, Any]] = {}
    for entry in sorted(found, key=lambda each: each.path):
        if entry.path.startswith(prefix):
            name, slash, _ = entry.path[len(prefix) :].partition("/")
            told = {"path": prefix + name, "is_dir": bool(slash)}
            shown.setdefault(name, told if slash else told | {"file_size": entry.size})
    return list(shown.values())


def list_of_run(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """What lies under a path of a run."""
    run = tracker.run(fields.needed("run_id", "run_uuid", most=256))
    uri = tracker.place_of_run(run.experiment, run.id)
    return {"root_uri": uri, "files": listing(entries(tracker, _RUN + run.id), fields.text("path", most=4_096))}


def list_of_model(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """What lies under a path of a logged model."""
    model = fields.needed("model_id", most=100)
    content = model_cards.read(tracker, model)
    uri = tracker.place_of_model(content["experiment"], model)
    path = fields.text("artifact_directory_path", most=4_096)
    return {"root_uri": uri, "files": listing(entries(tracker, _MODEL + model), path)}


def list_at(tracker: Tracker, path: str) -> dict[str, Any]:
    """What lies under a path of the proxy; names are those right under it."""
    place = place_of(path)
    inside = listing(entries(tracker, place.owner), place.path)
    return {"files": [each | {"path": each["path"].rpartition("/")[2]} for each in inside]}


class Settling:
    """Makes artifacts of what waits, once an owner has sent nothing for ``seconds``."""

    def __init__(self, tracker: Tracker, seconds: float = 2.0) -> None:
        self._tracker = tracker
        self._seconds = seconds
        self._seen: dict[str, tuple[int, float]] = {}
        self._told: set[str] = set()

    def look(self, *, at_once: bool = False) -> None:
        """Called every now and then, from one thread. What fails for one owner is told once, and tried again."""
        owners = self._tracker.uploads.owners()
        self._seen = {owner: seen for owner, seen in self._seen.items() if owner in owners}
        for owner in owners:
            count = len(self._tracker.uploads.waiting(owner).names)
            before, since = self._seen.get(owner, (-1, 0.0))
            if before != count:
                since = time.monotonic()
                self._seen[owner] = (count, since)
            if at_once or time.monotonic() - since >= self._seconds:
                try:
                    settle(self._tracker, owner)
                except Exception as error:  # the files of the others are settled all the same
                    if owner not in self._told:
                        logger.error("files of %s wait: %s %s", owner, type(error).__name__, error)  # noqa: TRY400
                    self._told.add(owner)
                else:
                    self._told.discard(owner)
