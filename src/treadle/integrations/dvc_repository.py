"""A DVC repository, read without DVC: pointers (``.dvc``, ``dvc.lock``), its cache, and remotes that are folders.

Every file is found by its MD5 and hashed again before it is used, so what comes out is what the pointer names.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from treadle.core.errors import Corrupt, UserError

LAYOUT = Path("files/md5")
_MD5 = re.compile(r"[0-9a-f]{32}\Z")
_BLOCK = 1 << 20  # bytes
_MOST_POINTERS = 10_000


@dataclass(frozen=True, slots=True)
class Tracked:
    """One file that DVC tracks: its path in the repository, its MD5, and whether that was taken the old way, with the
    line ends of Unix (DVC 2)."""

    path: str
    md5: str
    old: bool


class Repository:
    """The repository around a place. ``UserError`` where there is none."""

    def __init__(self, place: Path) -> None:
        self.root = _root(place)
        self.config = _config(self.root)
        cache = self._folder(self.config.get("cache", {}).get("dir"), self.root / ".dvc" / "cache")
        self.cache: Path = cache or self.root / ".dvc" / "cache"

    def remote(self, name: str | None = None) -> Path | None:
        """The folder of a remote, or of the default one; None when there is none or it is no folder.

        ``UserError`` for a name that is not configured.
        """
        name = name or self.config.get("core", {}).get("remote")
        if name is None:
            return None
        found = self.config.get(f'remote "{name}"')
        if found is None:
            raise UserError(f"dvc: {self.root} has no remote {name!r}; dvc remote list shows them")
        return self._folder(found.get("url"), None)

    def _folder(self, url: str | None, otherwise: Path | None) -> Path | None:
        """A path in the configuration is relative to the folder that holds it."""
        if url is None:
            return otherwise
        if "://" in url:
            return None
        return (self.root / ".dvc" / Path(url).expanduser()).resolve()

    # -- what is tracked

    def files(self, place: Path) -> list[Tracked]:
        """What a ``.dvc`` file, a ``dvc.lock``, a tracked path or a folder of the repository stands for, by path."""
        pointers = [place] if place.suffix == ".dvc" or place.name == "dvc.lock" else self._pointers(place)
        found: dict[str, Tracked] = {}
        for pointer in pointers:
            for out in _outs(pointer):
                base = (pointer.parent / out.get("wdir", ".")).resolve()
                for tracked in self._out(out, base, pointer):
                    found[tracked.path] = tracked
        inside = place.resolve().relative_to(self.root).as_posix()
        if pointers != [place] and inside != ".":
            found = {path: t for path, t in found.items() if path == inside or path.startswith(inside + "/")}
        if not found:
            raise UserError(f"dvc: {place} tracks no file; give a .dvc file, a dvc.lock, or a path that DVC tracks")
        return [found[path] for path in sorted(found)]

    def _pointers(self, place: Path) -> list[Path]:
        """Pointers that may speak of a path: in a folder those below it, and those above it."""
        beside = place.with_name(place.name + ".dvc")
        if beside.is_file():
            return [beside]
        found = []
        for pattern in ("*.dvc", "dvc.lock"):
            for path in self.root.rglob(pattern):
                if path.is_file() and ".dvc" not in path.relative_to(self.root).parts[:-1]:
                    found.append(path)
                if len(found) > _MOST_POINTERS:
                    raise UserError(f"dvc: more than {_MOST_POINTERS} pointers in {self.root}; name one .dvc file")
        return sorted(found)

    def _out(self, out: dict[str, Any], base: Path, pointer: Path) -> Iterator[Tracked]:
        md5, name = out.get("md5"), out.get("path")
        if not isinstance(name, str):
            raise UserError(f"dvc: {pointer} has an output without a path; it is damaged, or of an unknown kind")
        if not isinstance(md5, str):
            raise UserError(f"dvc: {pointer} names {name} without an MD5 (a cloud version?); dvc add it to a cache")
        path = (base / name).resolve()
        if not path.is_relative_to(self.root):
            raise UserError(f"dvc: {pointer} names {name}, which is outside of the repository")
        inside, old = path.relative_to(self.root).as_posix(), out.get("hash") != "md5"
        if not md5.endswith(".dir"):
            yield Tracked(inside, _checked(md5, pointer), old)
            return
        for entry in self._listing(_checked(md5.removesuffix(".dir"), pointer), pointer, old):
            yield Tracked(f"{inside}/{entry[0]}", entry[1], old)

    def _listing(self, md5: str, pointer: Path, old: bool) -> Iterator[tuple[str, str]]:
        data = self.locate(Tracked(f"the listing of {pointer.name}", md5, old), ".dir").read_bytes()
        try:
            entries = [(str(entry["relpath"]), str(entry["md5"])) for entry in json.loads(data)]
        except (ValueError, KeyError, TypeError):
            raise Corrupt(f"dvc: the listing that {pointer} names is damaged; dvc pull it again") from None
        for path, digest in entries:
            parts = PurePosixPath(path)
            if parts.is_absolute() or ".." in parts.parts or "\\" in path or str(parts) != path or path == ".":
                raise Corrupt(f"dvc: the listing that {pointer} names holds {path!r}, a path outside of its folder")
            yield path, _checked(digest, pointer)

    # -- where it lies

    def locate(self, tracked: Tracked, suffix: str = "") -> Path:
        """A copy whose bytes are those that were tracked: in the cache, the remote, or the work tree.

        ``Corrupt`` when one is there and its bytes are others, ``UserError`` when there is none.
        """
        name = tracked.md5[2:] + suffix
        places = [self.cache / LAYOUT / tracked.md5[:2] / name, self.cache / tracked.md5[:2] / name]
        remote = self.remote()
        if remote is not None:
            places += [remote / LAYOUT / tracked.md5[:2] / name, remote / tracked.md5[:2] / name]
        places.append(self.root / tracked.path)
        damaged = None
        for path in places:
            if path.is_file():
                if _is(path, tracked):
                    return path
                damaged = damaged or path
        if damaged is not None and damaged != places[-1]:
            raise Corrupt(
                f"dvc: {damaged} is not {tracked.path} as it was tracked: its MD5 is another; dvc pull it again"
            )
        raise UserError(
            f"dvc: {tracked.path} is in no cache and in no remote that is a folder; run dvc pull there first"
        )


def md5_of(path: Path) -> str:
    """The MD5 of a file, in hexadecimal; DVC's name for it, no proof against an enemy."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _is(path: Path, tracked: Tracked) -> bool:
    if md5_of(path) == tracked.md5:
        return True
    if not tracked.old:
        return False
    data = path.read_bytes().replace(b"\r\n", b"\n")
    return hashlib.md5(data, usedforsecurity=False).hexdigest() == tracked.md5


def _checked(md5: str, pointer: Path) -> str:
    if not _MD5.match(md5):
        raise Corrupt(f"dvc: {pointer} names {md5[:40]!r} where an MD5 should be")
    return md5


def _root(place: Path) -> Path:
    start = place.resolve()
    for folder in (start, *start.parents):
        if (folder / ".dvc").is_dir():
            return folder
    raise UserError(f"dvc: {place} is in no DVC repository; expected a folder .dvc in it or above it")


def _config(root: Path) -> dict[str, dict[str, str]]:
    """Both files, the local one last; sections as ``remote "name"``."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read([root / ".dvc" / "config", root / ".dvc" / "config.local"], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise UserError(
            f"dvc: {root / '.dvc'}: the configuration cannot be read: {str(error).splitlines()[0]}"
        ) from None
    return {name.strip("'"): dict(parser[name]) for name in parser.sections()}


def _outs(pointer: Path) -> Iterator[dict[str, Any]]:
    """The outputs that a pointer names; each with the ``wdir`` that its path starts from."""
    try:
        value = yaml.load(pointer.read_bytes(), _Plain)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise UserError(f"dvc: {pointer}: {error.strerror}; give a .dvc file, a dvc.lock or a tracked path") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise UserError(f"dvc: {pointer} is not YAML; check it out again") from None
    value = value if isinstance(value, dict) else {}
    holders = value.get("stages") if pointer.name == "dvc.lock" else {"": value}
    for holder in (holders if isinstance(holders, dict) else {}).values():
        outs = holder.get("outs") if isinstance(holder, dict) else None
        for out in outs if isinstance(outs, list) else ():
            if isinstance(out, dict):
                yield {"wdir": str(holder.get("wdir") or "."), **out}


class _Plain(yaml.SafeLoader):
    """Every scalar stays a text: an MD5 of digits alone is no number."""


_Plain.yaml_implicit_resolvers = {}
