"""``treadle export dvc``: a ``.dvc`` pointer, and the objects behind it where DVC looks for them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import yaml

from treadle.core.artifacts import Artifact
from treadle.core.errors import UserError
from treadle.exporting import Exported
from treadle.integrations.dvc_repository import LAYOUT, Repository, md5_of


def export_dvc(artifact: Artifact, name: str, out: Path, *, remote: str | None = None) -> Exported:
    """A version becomes a .dvc file in a DVC repository, which dvc pull (or dvc checkout) then fetches.

    --out is a folder of a DVC repository. Its files go to the default remote where that is a folder (--remote names
    another), otherwise to the cache.

    \b
    Example:
      treadle export dvc dataset@v1 --out ../data-repo
    """
    if not out.is_dir():
        raise UserError(f"export dvc: {out} is no folder; make it, and run dvc init in it or above it")
    repository = Repository(out)
    folder = repository.remote(remote)
    if remote is not None and folder is None:
        raise UserError(f"export dvc: remote {remote!r} is no folder; leave --remote out, then dvc push")
    place = folder or repository.cache
    view, entries, written = artifact.path(), [], 0
    for entry in artifact.entries():
        path = view / entry.path
        md5 = md5_of(path)
        written += _keep(place, md5, path)
        entries.append({"md5": md5, "relpath": entry.path})
    listing = json.dumps(sorted(entries, key=lambda each: each["relpath"])).encode()
    tree = hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"
    written += _keep(place, tree, listing)
    pointer = out / f"{name}.dvc"
    named = {"md5": tree, "size": artifact.size, "nfiles": len(entries), "hash": "md5", "path": name}
    value = {"outs": [named], "meta": {"treadle": artifact.digest}}
    _write(pointer, yaml.safe_dump(value, sort_keys=False).encode())
    _ignore(out / ".gitignore", f"/{name}")
    return Exported(pointer, len(entries), written, f"dvc {'pull' if folder else 'checkout'} {pointer.name}")


def _keep(place: Path, md5: str, source: Path | bytes) -> int:
    """Put one object where DVC looks for it; the bytes that were written, 0 where it was there."""
    target = place / LAYOUT / md5[:2] / md5[2:]
    if target.is_file():
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    _write(target, source)
    target.chmod(0o444)
    return target.stat().st_size


def _write(target: Path, source: Path | bytes) -> None:
    """Whole or not at all."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if isinstance(source, bytes):
            temporary.write_bytes(source)
        else:
            shutil.copyfile(source, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise UserError(f"export dvc: cannot write {target}: {error.strerror}; make it writable") from None
    finally:
        temporary.unlink(missing_ok=True)


def _ignore(path: Path, line: str) -> None:
    """What DVC checks out is not for Git."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if line not in lines:
        _write(path, ("\n".join([*lines, line]) + "\n").encode())
