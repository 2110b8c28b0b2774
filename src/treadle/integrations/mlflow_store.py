"""An MLflow store read as it lies on the disk: SQLite (``sqlite:///mlflow.db``) or files (``mlruns``), without MLflow.

Nothing is changed there. What MLflow has no word for, or keeps elsewhere (S3), is left to the caller to name.
"""

from __future__ import annotations

import math
import sqlite3
import urllib.parse
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from treadle.core.errors import UserError

_STATES = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_LARGEST = 1.7976931348623157e308  # how MLflow's tables write infinity, which is no figure either
_LATEST = 253_402_300_800_000  # the end of the year 9999 in milliseconds

Point = tuple[int, int, str, float]  # time, step, name, value


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One run; times in milliseconds since 1970, None where it has none."""

    id: str
    experiment: str
    name: str
    status: str
    started: int | None
    ended: int | None
    user: str
    artifacts: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: tuple[Point, ...] = ()  # in the order they were logged
    damaged: int = 0  # points that cannot be read


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version of a registered model: where its files are said to lie, and the aliases that point at it."""

    name: str
    number: int
    source: str
    run: str
    aliases: tuple[str, ...] = ()


class MlflowStore(Protocol):
    """What both kinds of store give."""

    def runs(self) -> Iterator[StoredRun]:
        """Runs that were not deleted, oldest first."""
        ...

    def versions(self) -> Iterator[StoredVersion]:
        """Versions of registered models, by name and number."""
        ...

    def folder(self, source: str) -> Path | None:
        """The folder on this machine that a version's source names; None where there is none."""
        ...


def open_store(uri: str) -> MlflowStore:
    """``sqlite:///PATH``, ``file:///PATH`` or a path of either; ``UserError`` when it is none."""
    for prefix in ("sqlite:///", "file://"):
        if uri.startswith(prefix):
            uri = uri.removeprefix(prefix)
            break
    else:
        if "://" in uri:
            raise UserError(
                f"import mlflow: {uri.partition('://')[0]}:// is not read; give the store itself: sqlite:///mlflow.db"
                " or the folder mlruns"
            )
    path = Path(urllib.parse.unquote(uri)).expanduser()
    if path.is_dir():
        found = path / "mlruns" if (path / "mlruns").is_dir() else path
        if not (found / "models").is_dir() and not any(found.glob("*/meta.yaml")):
            raise UserError(
                f"import mlflow: {path} holds no experiments; give the folder mlruns, or sqlite:///mlflow.db"
            )
        return _Files(found)
    if path.is_file():
        return _Sqlite(path)
    raise UserError(f"import mlflow: nothing at {path}; give sqlite:///mlflow.db or the folder mlruns")


class _Sqlite:
    """The tables that MLflow has had since its first versions with a registry; newer columns are not asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        tables = {row[0] for row in self._ask("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"runs", "params", "metrics", "tags", "experiments"} <= tables:
            raise UserError(f"import mlflow: {path} is no MLflow database: it has no tables runs, params and metrics")
        self._tables = tables

    def _ask(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            with closing(sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
                return connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise UserError(f"import mlflow: {self._path}: {error}; give a database that MLflow wrote") from None

    def runs(self) -> Iterator[StoredRun]:
        """Runs that were not deleted, oldest first."""
        sql = (
            "SELECT r.run_uuid, e.name, r.name, r.status, r.start_time, r.end_time, r.user_id, r.artifact_uri "
            "FROM runs r LEFT JOIN experiments e ON e.experiment_id = r.experiment_id "
            "WHERE r.lifecycle_stage = 'active' ORDER BY r.start_time, r.run_uuid"
        )
        for row in self._ask(sql):
            points, damaged = self._points(row[0])
            yield StoredRun(
                id=str(row[0]),
                experiment=str(row[1] or ""),
                name=str(row[2] or ""),
                status=str(row[3] or ""),
                started=row[4],
                ended=row[5],
                user=str(row[6] or ""),
                artifacts=str(row[7] or ""),
                params=dict(self._ask("SELECT key, value FROM params WHERE run_uuid = ?", row[0])),
                tags={k: v or "" for k, v in self._ask("SELECT key, value FROM tags WHERE run_uuid = ?", row[0])},
                points=points,
                damaged=damaged,
            )

    def _points(self, run: str) -> tuple[tuple[Point, ...], int]:
        sql = "SELECT timestamp, step, key, value, is_nan FROM metrics WHERE run_uuid = ? ORDER BY timestamp, step, key"
        rows = self._ask(sql, run)
        found = [_point(row[0], row[1], row[2], math.nan if row[4] else row[3]) for row in rows]
        points = tuple(point for point in found if point is not None)
        return points, len(found) - len(points)

    def versions(self) -> Iterator[StoredVersion]:
        """Versions of registered models, by name and number."""
        if "model_versions" not in self._tables:
            return
        aliases: dict[tuple[str, int], list[str]] = {}
        if "registered_model_aliases" in self._tables:
            for alias, number, name in self._ask("SELECT alias, version, name FROM registered_model_aliases"):
                aliases.setdefault((name, int(number)), []).append(alias)
        sql = (
            "SELECT name, version, source, run_id FROM model_versions "
            "WHERE current_stage <> 'Deleted_Internal' ORDER BY name, version"
        )
        for name, number, source, run in self._ask(sql):
            found = tuple(sorted(aliases.get((name, int(number)), ())))
            yield StoredVersion(name, int(number), source or "", run or "", found)

    def folder(self, source: str) -> Path | None:
        """Runs and logged models by their tables, paths as they are."""
        scheme, kind, rest = source.partition(":/")
        identifier, _, inner = rest.lstrip("/").partition("/")
        if scheme == "runs" and kind:
            rows = self._ask("SELECT artifact_uri FROM runs WHERE run_uuid = ?", identifier)
            return _local(rows[0][0], inner) if rows else None
        if scheme == "models" and kind and "logged_models" in self._tables:
            rows = self._ask("SELECT artifact_location FROM logged_models WHERE model_id = ?", identifier)
            return _local(rows[0][0], inner) if rows else None
        return _local(source)


class _Files:
    """The folder ``mlruns``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def runs(self) -> Iterator[StoredRun]:
        """Runs that were not deleted, oldest first."""
        found = []
        for experiment in sorted(self._root.glob("*/meta.yaml")):
            name = str(_meta(experiment).get("name") or "")
            for path in experiment.parent.glob("*/meta.yaml"):
                meta = _meta(path)
                if "run_id" in meta and str(meta.get("lifecycle_stage", "active")) == "active":
                    found.append(self._run(path.parent, meta, name))
        yield from sorted(found, key=lambda run: (run.started or 0, run.id))

    def _run(self, folder: Path, meta: dict[str, Any], experiment: str) -> StoredRun:
        tags = _texts(folder / "tags")
        points, damaged = _points(folder / "metrics")
        return StoredRun(
            str(meta["run_id"]),
            experiment,
            str(meta.get("run_name") or tags.get("mlflow.runName", "")),
            _STATES.get(meta.get("status", 0), str(meta.get("status"))),
            _number(meta.get("start_time")),
            _number(meta.get("end_time")),
            str(meta.get("user_id") or tags.get("mlflow.user", "")),
            str(meta.get("artifact_uri") or ""),
            _texts(folder / "params"),
            tags,
            points,
            damaged,
        )

    def versions(self) -> Iterator[StoredVersion]:
        """Versions of registered models, by name and number."""
        for model in sorted((self._root / "models").glob("*/meta.yaml")):
            aliases = _texts(model.parent / "aliases")
            metas = [_meta(path) for path in model.parent.glob("version-*/meta.yaml")]
            for meta in sorted(metas, key=lambda meta: _number(meta.get("version")) or 0):
                number = _number(meta.get("version"))
                if number is None or meta.get("current_stage") == "Deleted_Internal":
                    continue
                named = tuple(sorted(alias for alias, version in aliases.items() if version.strip() == str(number)))
                name = str(meta.get("name") or model.parent.name)
                yield StoredVersion(name, number, str(meta.get("source") or ""), str(meta.get("run_id") or ""), named)

    def folder(self, source: str) -> Path | None:
        """Runs and logged models by their folders, paths as they are."""
        scheme, kind, rest = source.partition(":/")
        identifier, _, inner = rest.lstrip("/").partition("/")
        if scheme not in ("runs", "models") or not kind:
            return _local(source)
        pattern = "*/*/meta.yaml" if scheme == "runs" else "*/models/*/meta.yaml"
        for path in self._root.glob(pattern):
            if path.parent.name == identifier:
                meta = _meta(path)
                place = str(meta.get("artifact_uri") or meta.get("artifact_location") or path.parent / "artifacts")
                return _local(place, inner) or _local(str(path.parent / "artifacts"), inner)
        return None


def _local(uri: str, inner: str = "") -> Path | None:
    path = uri.removeprefix("file://") if uri.startswith("file://") else uri
    if "://" in path or ":/" in path.partition("/")[0] + "/":
        return None
    folder = Path(urllib.parse.unquote(path) if path != uri else path)
    if ".." in Path(inner).parts:
        return None
    return folder / inner if path and (folder / inner).is_dir() else None


def _meta(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"import mlflow: {path} cannot be read ({type(error).__name__}); mend or remove it") from None
    return value if isinstance(value, dict) else {}


def _texts(folder: Path) -> dict[str, str]:
    """Names with slashes are folders. Symbolic links are not followed: they lead to what is no part of the store."""
    if folder.is_symlink() or not folder.is_dir():
        return {}
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8", "replace") for path in files}


def _points(folder: Path) -> tuple[tuple[Point, ...], int]:
    """The points of a run's metrics, and how many lines are none."""
    lines = [
        (name, line.split()) for name, text in _texts(folder).items() for line in text.splitlines() if line.strip()
    ]
    found = [
        _point(parts[0], parts[2] if len(parts) > 2 else 0, name, parts[1]) if len(parts) > 1 else None
        for name, parts in lines
    ]
    points = sorted((point for point in found if point is not None), key=lambda point: point[:3])
    return tuple(points), len(found) - len(points)


def _point(moment: Any, step: Any, name: Any, value: Any) -> Point | None:
    """A point from what a store has for it; None where that is damaged."""
    try:
        time, figure = int(moment), float(value)
        if not 0 <= time < _LATEST:
            return None
        return time, int(step), str(name), figure if abs(figure) < _LARGEST else math.nan
    except (TypeError, ValueError, OverflowError):
        return None


def _number(value: Any) -> int | None:
    try:
        return int(value) if value is not None else None
    except (TypeError, ValueError):
        return None


def notes_of(run: StoredRun, texts: dict[str, str]) -> str:
    """What is said of a run in words, a line each: names, parameters that are texts, tags."""
    said = {"name": run.name, "experiment": run.experiment, "artifacts": run.artifacts, **texts, **run.tags}
    return "\n".join(f"{name}: {value}" for name, value in said.items())
