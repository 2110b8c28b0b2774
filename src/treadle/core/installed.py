"""What is installed, looked for again only when a folder that Python imports from has changed: among some hundred
packages, looking takes longer than most commands."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

_Places = tuple[tuple[str, int], ...]


def entries(group: str) -> Sequence[EntryPoint]:
    """The entry points of a group of ours."""
    return _entries(_places()).get(group, ())


def version_of(package: str) -> str | None:
    """Of a package; None where it is not there."""
    return _version_of(package, _places())


@lru_cache(256)
def name_and_version(distribution: Distribution) -> tuple[str, str]:
    """As its metadata say, which take milliseconds to read."""
    return distribution.name, distribution.version


def _places() -> _Places:
    """Where packages are, and when each place changed last."""
    told = ((place, _changed(place)) for place in sys.path)
    return tuple((place, changed) for place, changed in told if changed and _holds_any(place, changed))


def _changed(place: str) -> int:
    try:
        return Path(place).stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(256)
def _holds_any(place: str, _: int) -> bool:
    return next(iter(metadata.distributions(path=[place])), None) is not None


@lru_cache(1)
def _entries(_: _Places) -> Mapping[str, Sequence[EntryPoint]]:
    found = metadata.entry_points()
    return {group: tuple(found.select(group=group)) for group in found.groups if group.startswith("treadle.")}


@lru_cache(256)
def _version_of(package: str, _: _Places) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
