"""Files that prove that a row stands in the ledger, for somebody who has nothing but them, Python and ``openssl``.

    row.json                  the row's canonical bytes, a leaf of the tree
    proof.json                the path from it to the root; with an earlier head also the path that joins the two
    head.txt .sig             the latest head: what is signed, and the signature, 64 bytes
    earlier.txt .sig          the earlier head, where one was given
    key.pem                   the public key
    manifest.json             the files of the artifact that the row names, where the store has it
    check.py                  what checks all this

What is not proven: who holds the key (compare it with one from elsewhere), and that the time in a row is right.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from treadle.core.digest import canonical_json, is_digest
from treadle.core.errors import UserError
from treadle.core.head import Head
from treadle.record.gate import judged
from treadle.record.record import Record
from treadle.record.reference import resolve
from treadle.record.version import Version

FORMAT = 1
FORMS = "model@v1, @champion, release:model@v1, approval:model@v1, b3:..., run-..., era-... or the number of a row"


@dataclass(frozen=True, slots=True)
class Presence:
    """What was exported: the row, the head it is proven against, and the size of the earlier head if there was one."""

    ref: str
    row: int
    kind: str
    size: int
    root: str
    earlier: int | None
    files: tuple[str, ...]

    def public(self) -> dict[str, Any]:
        """The shape that ``treadle prove --json`` promises."""
        names = ("ref", "row", "kind", "size", "root", "earlier")
        return {name: getattr(self, name) for name in names} | {"files": list(self.files)}


def check_script() -> bytes:
    """The script that checks an exported folder."""
    return (resources.files("treadle.record") / "presence_check.py").read_bytes()


def export(record: Record, ref: str, folder: Path, since: Head | None = None) -> Presence:
    """Prove the row that ``ref`` names in a new folder, which is there as a whole or not at all."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already; expected a new folder for the files of the proof")
    workspace, keys = record.workspace, record.workspace.keys
    seq = find_row(record, ref)
    workspace.database.sync()  # what is handed out outlives a loss of power
    head = workspace.ledger.head()
    row = next(workspace.ledger.rows(after=seq - 1), None)
    data = workspace.ledger.bytes_of(seq)
    assert row is not None
    path = [node.hex() for node in workspace.ledger.inclusion(seq, head)]
    proof: dict[str, Any] = {"format": FORMAT, "seq": seq, "size": head.size, "path": path}
    files = {"row.json": data, "key.pem": keys.public_pem, "check.py": check_script()} | _head_files("head", head)
    if since is not None:
        if not since.valid(keys) or not since.size:
            raise UserError("--since: expected a head over one row or more, with this project's signature")
        proof["earlier"] = since.size
        proof["consistency"] = [node.hex() for node in workspace.ledger.consistency(since, head)]
        files |= _head_files("earlier", since)
    digest = row.body.get("digest")
    if isinstance(digest, str) and is_digest(digest) and workspace.store.has_object(digest):
        files["manifest.json"] = workspace.store.read(digest)
    _write(folder, files | {"proof.json": canonical_json(proof)})
    earlier = since.size if since else None
    return Presence(ref, seq, row.kind, head.size, head.root, earlier, tuple(sorted([*files, "proof.json"])))


def _head_files(name: str, head: Head) -> dict[str, bytes]:
    return {f"{name}.txt": head.message(), f"{name}.sig": bytes.fromhex(head.signature)}


def _write(folder: Path, files: dict[str, bytes]) -> None:
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        temporary.replace(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(f"cannot write {folder}: {error.strerror}; name a folder that can be made") from None


def find_row(record: Record, ref: str) -> int:
    """The number of the row that a reference leads to; ``UserError`` when there is none."""
    kind, colon, of = ref.partition(":")
    if ref.isdecimal() or (kind == "row" and of.isdecimal()):
        return int(of or ref)
    if colon and kind in ("approval", "release"):
        return _of_version(record, kind, of)
    if ref.startswith("era-"):
        return _latest(record, "erasure", lambda body: bool(body["request"] == ref), f"there is no erasure {ref}")
    if ref.startswith(("b3:", "run-")):
        found = resolve(record, ref, lambda _: [])
        table, column = ("runs", "id") if found.kind == "run" else ("artifacts", "digest")
        return _first(record, f"SELECT min(seq) FROM {table} WHERE {column} = ?", found.id)
    version = record.versions.resolve(ref)
    if version is None:
        raise UserError(f"{ref!r} leads to no row of the ledger; expected {FORMS}")
    alias = ref.rpartition("@")[2]
    if re.fullmatch(r"v\d+", alias):
        sql = "SELECT seq FROM versions WHERE kind = ? AND name = ? AND number = ?"
        return _first(record, sql, version.kind, version.name, version.number)
    sql = "SELECT seq FROM aliases WHERE kind = ? AND name = ? AND alias = ?"
    return _first(record, sql, version.kind, version.name, alias)


def _of_version(record: Record, kind: str, ref: str) -> int:
    """The latest approval of a version, or the artifact row of the release it was judged in."""
    version: Version | None = record.versions.resolve(ref)
    if version is None:
        raise UserError(f"{kind}:{ref}: expected a version, such as {kind}:model@v1")
    if kind == "approval":
        missing = f"nobody has approved or rejected {version.ref}"
        return _latest(record, "approval", lambda body: bool(body["ref"] == version.ref), missing)
    judgment = judged(record.ledger, version.digest)
    if judgment is None:
        raise UserError(f"{version.ref} has no release that was judged; run: treadle run --until govern")
    return _first(record, "SELECT min(seq) FROM artifacts WHERE digest = ?", judgment.release)


def _latest(record: Record, kind: str, wanted: Callable[[dict[str, Any]], bool], missing: str) -> int:
    seq = next((row.seq for row in record.ledger.rows_back(kind) if wanted(row.body)), None)
    if seq is None:
        raise UserError(f"{missing}; expected {FORMS}")
    return seq


def _first(record: Record, sql: str, *values: object) -> int:
    rows = record.workspace.database.query(sql, values)
    if not rows or rows[0][0] is None:
        raise UserError(f"{values[-1]} has no row in the ledger; expected {FORMS}")
    return int(rows[0][0])
