"""Kinds whose artifacts Treadle opens by itself, and the file that shows that a folder has the format of its kind."""

from __future__ import annotations

import json
from pathlib import Path

from treadle.core.errors import UserError

_FILES = {
    "corpus": "documents-*.parquet",
    "evaluation": "scores.json",
    "index": "similarity.json",
    "profile": "profile.json",
    "release": "release.json",
    "segment": "rows.jsonl",
    "suppression": "entries.json",
    "tokens": "tokens.json",
}
_PARQUET = b"PAR1"


def has_format(kind: str) -> bool:
    """Whether a folder that calls itself this kind is looked at first."""
    return kind in _FILES


def check_format(kind: str, folder: Path) -> None:
    """``UserError`` when a folder calls itself one of these kinds without being one: later commands would open it."""
    pattern = _FILES.get(kind)
    if pattern is None:
        return
    files = sorted(folder.glob(pattern))
    if not files or not all(_is_whole(path) for path in files):
        raise UserError(
            f"kind {kind!r} is for what Treadle wrote as such, a folder with {pattern}; call yours model,"
            " dataset, data, report or another word"
        )


def _is_whole(path: Path) -> bool:
    if path.suffix == ".parquet":
        with path.open("rb") as file:
            begins = file.read(len(_PARQUET)) == _PARQUET
            file.seek(max(0, path.stat().st_size - len(_PARQUET)))
            return begins and file.read() == _PARQUET
    try:
        with path.open(encoding="utf-8") as lines:
            value = json.loads(lines.readline() if path.suffix == ".jsonl" else lines.read())
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)
