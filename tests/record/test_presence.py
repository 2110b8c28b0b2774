"""A third party checks an exported proof with nothing but Python's standard library and openssl."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from blake3 import blake3

from treadle.core.artifacts import Artifact, Builder
from treadle.core.digest import canonical_json
from treadle.core.errors import Corrupt, UserError
from treadle.core.head import Head
from treadle.core.keys import Keys
from treadle.core.ledger import Fact
from treadle.core.merkle import Frontier, leaf_hash
from treadle.core.proof import inclusion
from treadle.core.workspace import Workspace
from treadle.record.presence import check_script, export, find_row
from treadle.record.record import PROJECTIONS, Record


@dataclass
class Exported:
    """A record, a proof of its first model with a consistency proof, and the earlier head that somebody kept."""

    record: Record
    folder: Path
    kept: Path
    key: Path
    file: Path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp("presence")
    with Workspace(root / "store", projections=PROJECTIONS) as workspace:
        record = Record(workspace, "demo")
        with Builder(Artifact, workspace.store) as builder:
            for number in range(30):
                (builder.path / f"part-{number}.txt").write_text(f"part {number} " * number * 20)
            made = builder.commit()
        body = {"digest": made.digest, "kind": "model", "bytes": 1, "documents": 0, "run": "run-1"}
        workspace.ledger.append(Fact("artifact", body))
        version = record.versions.register("model", made.digest, None)
        earlier = workspace.ledger.head()
        record.versions.point("champion", version, reason="better")
        record.approvals.record(version.ref, "approve", "k3:" + "0" * 40, None)
        for number in range(90):
            workspace.ledger.append(Fact("note", {"number": number}))
        export(record, "model@v1", root / "proof", earlier)
        (root / "kept.json").write_bytes(earlier.encode(workspace.keys.public))
        shutil.copy(root / "proof" / "key.pem", root / "key.pem")
        file = made.path("part-29.txt")
        shutil.copy(file, root / "part.txt")
        yield Exported(record, root / "proof", root / "kept.json", root / "key.pem", root / "part.txt")


def check(folder: Path, *arguments: object, script: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", str(script or folder / "check.py"), str(folder), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def whole(exported: Exported, folder: Path) -> subprocess.CompletedProcess[str]:
    options = ("--key", exported.key, "--earlier", exported.kept, "--file", exported.file)
    return check(folder, *options, script=exported.folder / "check.py")


def test_the_script_is_short_and_needs_nothing_installed() -> None:
    text = check_script().decode()
    assert len(text.splitlines()) <= 80
    assert max(map(len, text.splitlines())) <= 120
    (imports,) = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
    assert set(imports.removeprefix("import ").split(", ")) <= sys.stdlib_module_names


def test_it_proves_presence_consistency_and_the_files(exported: Exported) -> None:
    assert sorted(path.name for path in exported.folder.iterdir()) == sorted(
        ["row.json", "proof.json", "key.pem", "check.py", "manifest.json"]
        + [f"{name}.{kind}" for name in ("head", "earlier") for kind in ("txt", "sig")]
    )
    done = check(exported.folder)
    assert done.returncode == 0, done.stderr
    assert '"kind":"version"' in done.stdout
    done = whole(exported, exported.folder)
    assert done.returncode == 0, done.stderr
    assert "it continues the ledger of 3 rows" in done.stdout
    assert "part.txt is one of them" in done.stdout


def test_every_byte_counts(exported: Exported, tmp_path: Path) -> None:
    chance, tried = random.Random(8), 0
    names = ["row.json", "proof.json", "head.txt", "head.sig", "earlier.txt", "earlier.sig", "manifest.json"]
    for name in names:
        for way in ("truncate", "flip", "flip", "empty", "missing"):
            folder = tmp_path / f"{name}-{tried}"
            shutil.copytree(exported.folder, folder)
            data = bytearray((folder / name).read_bytes())
            if way == "flip":
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            kept = {"truncate": data[:-1], "flip": data, "empty": b"", "missing": b""}[way]
            (folder / name).write_bytes(kept)
            if way == "missing":
                (folder / name).unlink()
            done = whole(exported, folder)
            # A changed number of the format is no forgery; everything else is noticed.
            harmless = name == "proof.json" and way == "flip" and _proves_the_same(exported.folder, folder)
            assert harmless or done.returncode == 1, f"{name} {way}: {done.stdout}"
            assert harmless or "NOT proven" in done.stderr, done.stderr
            tried += 1
    assert tried == 35


def _proves_the_same(one: Path, other: Path) -> bool:
    def read(folder: Path) -> dict[str, object]:
        found = json.loads((folder / "proof.json").read_bytes())
        return {name: found.get(name) for name in ("path", "consistency")}

    try:
        return read(one) == read(other)
    except ValueError:
        return False


Forge = Callable[[Path, Exported], None]


def another_row(folder: Path, exported: Exported) -> None:
    row = json.loads((folder / "row.json").read_bytes())
    row["body"]["digest"] = "b3:" + "0" * 64
    (folder / "row.json").write_bytes(canonical_json(row))


def another_place(folder: Path, exported: Exported) -> None:
    row = json.loads((folder / "row.json").read_bytes())
    row["seq"] += 1
    (folder / "row.json").write_bytes(canonical_json(row))


def swapped_path(folder: Path, exported: Exported) -> None:
    proof = json.loads((folder / "proof.json").read_bytes())
    proof["path"][0], proof["path"][1] = proof["path"][1], proof["path"][0]
    (folder / "proof.json").write_bytes(canonical_json(proof))


def longer_path(folder: Path, exported: Exported) -> None:
    proof = json.loads((folder / "proof.json").read_bytes())
    proof["path"].append("00" * 32)
    (folder / "proof.json").write_bytes(canonical_json(proof))


def another_key(folder: Path, exported: Exported) -> None:
    (folder / "key.pem").write_bytes(Keys(folder / "others").public_pem)


def older_as_latest(folder: Path, exported: Exported) -> None:
    for kind in ("txt", "sig"):
        shutil.copy(folder / f"earlier.{kind}", folder / f"head.{kind}")


def another_history(folder: Path, exported: Exported) -> None:
    """The earlier head is signed by the same key, over rows that were rewritten since."""
    keys = exported.record.workspace.keys
    head = Head.signed(3, "ab" * 32, keys)
    (folder / "earlier.txt").write_bytes(head.message())
    (folder / "earlier.sig").write_bytes(bytes.fromhex(head.signature))


def another_manifest(folder: Path, exported: Exported) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"].pop()
    (folder / "manifest.json").write_bytes(canonical_json(manifest))


@pytest.mark.parametrize(
    "forge",
    [
        another_row,
        another_place,
        swapped_path,
        longer_path,
        another_key,
        older_as_latest,
        another_history,
        another_manifest,
    ],
    ids=lambda forge: forge.__name__,
)
def test_a_forgery_is_caught(forge: Forge, exported: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "proof"
    shutil.copytree(exported.folder, folder)
    forge(folder, exported)
    done = check(folder)
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith(("NOT proven", "Could not", "Error", "Signature")), done.stderr
    assert "NOT proven" in done.stderr


def test_a_folder_forged_as_a_whole_needs_the_true_key_to_be_caught(exported: Exported, tmp_path: Path) -> None:
    keys, folder = Keys(tmp_path / "keys"), tmp_path / "proof"
    shutil.copytree(exported.folder, folder)
    for name in ("earlier.txt", "earlier.sig", "manifest.json"):
        (folder / name).unlink()
    row = canonical_json({"body": {"forged": True}, "kind": "version", "seq": 1, "time": "", "version": 1})
    head = Head.signed(1, leaf_hash(row).hex(), keys)
    path = inclusion(0, 1, lambda height, index: leaf_hash(row))
    (folder / "row.json").write_bytes(row)
    (folder / "proof.json").write_bytes(canonical_json({"format": 1, "path": path, "seq": 1, "size": 1}))
    (folder / "head.txt").write_bytes(head.message())
    (folder / "head.sig").write_bytes(bytes.fromhex(head.signature))
    (folder / "key.pem").write_bytes(keys.public_pem)
    assert check(folder).returncode == 0  # it says with which key: that is for the reader to compare
    assert check(folder, "--key", exported.key).returncode == 1


def test_what_the_third_party_brings_is_compared(exported: Exported, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    keys = exported.record.workspace.keys
    for head in (Head.signed(3, "ab" * 32, keys), Head.signed(2, "ab" * 32, keys)):
        other.write_bytes(head.encode(keys.public))
        assert check(exported.folder, "--earlier", other).returncode == 1
    for nothing in ('{"size": 3}', "", "{}", "null", "0", "[]"):
        other.write_text(nothing)
        assert check(exported.folder, "--earlier", other).returncode == 1
    later = Head.signed(5, "ab" * 32, keys).encode(keys.public)  # the latest that they kept is what counts
    other.write_bytes(exported.kept.read_bytes() + b"\n" + later + b"\n")
    assert check(exported.folder, "--earlier", other).returncode == 1
    before = Head.signed(2, "ab" * 32, keys).encode(keys.public)
    other.write_bytes(before + b"\n" + exported.kept.read_bytes() + b"\n")
    assert check(exported.folder, "--earlier", other).returncode == 0
    other.write_text("not of the artifact")
    assert "is no file of the artifact" in check(exported.folder, "--file", other).stderr
    for wrong in (("--key",), ("--what", "x"), ("--key", tmp_path / "missing.pem")):
        assert check(exported.folder, *wrong).returncode == 1
    done = subprocess.run([sys.executable, "-I", "-S", exported.folder / "check.py"], capture_output=True, text=True)
    assert done.returncode == 1


def test_its_blake3_is_blake3(tmp_path: Path) -> None:
    script = tmp_path / "check.py"
    script.write_bytes(check_script())
    sizes = [0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 3072, 5000, 16 * 1024, 16 * 1024 + 1]
    for size in sizes:
        (tmp_path / f"{size}.bin").write_bytes(random.Random(size).randbytes(size))
    names = [str(tmp_path / f"{size}.bin") for size in sizes]
    code = "import runpy, sys; digest = runpy.run_path(sys.argv[1])['digest']; print(*map(digest, sys.argv[2:]))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, script, *names], capture_output=True, text=True)
    assert done.stdout.split() == ["b3:" + blake3(Path(name).read_bytes()).hexdigest() for name in names]


@pytest.mark.parametrize("before", [1, 2, 3, 4, 5, 7, 8, 31, 32, 33, 64, 90, 95, "all"])
def test_any_earlier_head_is_continued(before: int | str, exported: Exported, tmp_path: Path) -> None:
    record, tree = exported.record, Frontier()
    for row in record.ledger.rows():
        if before == "all" or row.seq <= int(before):
            tree.append(leaf_hash(row.canonical()))
    head = Head.signed(tree.size, tree.root().hex(), record.workspace.keys)
    export(record, str(random.Random(tree.size).randint(1, record.ledger.size())), tmp_path / "proof", head)
    (tmp_path / "kept.json").write_bytes(head.encode(record.workspace.keys.public))
    done = check(tmp_path / "proof", "--earlier", tmp_path / "kept.json")
    assert done.returncode == 0, done.stderr


def test_references_lead_to_their_rows(exported: Exported, tmp_path: Path) -> None:
    record = exported.record
    digest = record.versions.all("model")[0].digest
    kinds = {
        "model@v1": "version",
        "model/demo@v1": "version",
        "@champion": "alias",
        "approval:model@v1": "approval",
        digest: "artifact",
        digest[:14]: "artifact",
        "row:1": "project",
        "1": "project",
    }
    for ref, kind in kinds.items():
        (row,) = [row for row in record.ledger.rows() if row.seq == find_row(record, ref)]
        assert row.kind == kind, ref
    for ref in ("model@v9", "nonsense", "release:model@v1", "approval:nonsense", "era-1", "run-1", "b3:0000", "int-1"):
        with pytest.raises(UserError):
            find_row(record, ref)
    with pytest.raises(UserError, match="has no row 100000"):
        export(record, "100000", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(UserError, match="is there already"):
        export(record, "1", exported.folder)


def test_nothing_is_exported_since_a_head_of_another_history(exported: Exported, tmp_path: Path) -> None:
    keys = exported.record.workspace.keys
    with pytest.raises(Corrupt, match="is not of this history"):
        export(exported.record, "1", tmp_path / "proof", Head.signed(3, "ab" * 32, keys))
    with pytest.raises(UserError, match="with this project's signature"):
        export(exported.record, "1", tmp_path / "proof", Head(3, "ab" * 32, "00" * 64))
    assert list(tmp_path.iterdir()) == []
