"""What docs/architecture.md says of the record, against the record."""

from __future__ import annotations

import ast
import json
import re
import secrets
from pathlib import Path

import pytest

from docs.pages import ROOT, section
from treadle.core import backup
from treadle.core.artifacts import Entry, digest_of, manifest_bytes
from treadle.core.backup import Archive, Source
from treadle.core.digest import blake3_bytes
from treadle.core.fact import Row
from treadle.core.head import Head
from treadle.core.keys import Keys, verify_signature
from treadle.core.merkle import leaf_hash
from treadle.core.reported_runs import ReportedRuns
from treadle.core.restore import Target, restore
from treadle.core.workspace import TABLES, Workspace
from treadle.project import open_project
from treadle.record.api_key import Rules
from treadle.record.garbage import Limits, collect, find_garbage
from treadle.record.turn import TurnInputs
from treadle.text.document import document_id
from treadle.tracking import start_run

PAGE = ROOT / "docs" / "architecture.md"


def documented() -> dict[str, tuple[set[str], set[str]]]:
    """For each kind of row the fields it always has, and those it has sometimes."""
    found = {}
    for line in section(PAGE, "### Ledger").splitlines():
        match = re.match(r"\| `([a-z.]+)` \| (.*) \|$", line)
        if match:
            always, _, sometimes = match[2].partition(";")
            found[match[1]] = (set(re.findall(r"`(\w+)`", always)), set(re.findall(r"`(\w+)`", sometimes)))
    return found


def test_every_kind_of_row_is_documented() -> None:
    kinds = set()
    for path in (ROOT / "src" / "treadle").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Fact":
                assert isinstance(node.args[0], ast.Constant), path
                kinds.add(node.args[0].value)
    assert kinds == set(documented())


def test_rows_have_the_documented_fields(copied: Path) -> None:
    shown = documented()
    with open_project(copied) as project:
        record = project.record
        digest = record.runs.find(step="prepare.assemble", status="done")[0].outputs["dataset"]
        version = record.versions.register("model", digest, None)
        record.versions.point("champion", version, reason="gates passed", release=digest, gates=digest)
        record.approvals.record(version.ref, "approve", record.runs.keyed_actor(), None, "b3:0")
        record.deployments.record(digest, version.ref, "http://127.0.0.1:8000")
        record.alerts.raise_("drift", "questions differ", digest, {"n": 60})
        record.turns.begin(("asked for",), TurnInputs(), "")
        record.turns.change(1, TurnInputs(digest, digest))
        record.turns.end(1, "promoted", "gates held", version.ref)
        record.canaries.begin("can-1", digest, digest, digest, 0.1)
        record.canaries.widen("can-1", 0.5, {})
        record.ledger.append(record.canaries.decided("can-1", "promote", "not worse", {}))
        suppression = record.erasures.extend({}).digest
        record.erasures.record("era-1", "k3:0", "requested", suppression, documents=1, interactions=0, feedback=0)
        limits = Limits(older_than=0, grace=0)
        collect(record, find_garbage(record, limits), limits)
        with start_run("fit", folder=copied, tags={"team": "a b"}, system=None) as run:
            run.note("looks fine")
        told = ReportedRuns(record.runs, 60.0)
        other = told.begin("fit", "fit", tags={}, user=None, commit=None)
        told.tell(other, parameters={"lr": 1})
        told.finish(told.resume(told.finish(other, "done", 1.0, {})), "done", 2.0, {})
        record.api_keys.create("app", Rules(), seconds=None, actor=record.runs.keyed_actor())
        record.api_keys.revoke("app", actor=record.runs.keyed_actor())
        record.cards.put("experiment", "1", {"name": "reviews"})
        record.workspace.journal.append("metrics", {"id": "run-1", "time": "", "step": 1, "values": {}})
        record.workspace.journal.seal()
        seen = set()
        for row in record.ledger.rows():
            always, sometimes = shown[row.kind]
            assert always <= row.body.keys() <= always | sometimes, row.kind
            assert row.version == 1
            seen.add(row.kind)
        assert seen == set(shown) - {"gate", "refusal", "restored"}
        head = json.loads((copied / ".treadle" / "head.json").read_text())
        assert head.keys() == {"public_key", "root", "signature", "size"}
        message = f"treadle ledger 1\n{head['size']}\n{head['root']}\n".encode()
        assert verify_signature(head["public_key"], message, head["signature"])


def test_a_row_of_a_restore(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with Workspace(tmp_path / "old") as workspace:
        source = Source(workspace.root, workspace.database, workspace.keys, workspace.store, 1)
        backup.write(source, tmp_path / "b.zip")
    with Archive(tmp_path / "b.zip") as archive:
        restore(archive, Target(tmp_path / "new", tmp_path / "new" / "treadle.db", TABLES))
    with Workspace(tmp_path / "new") as workspace:
        row = workspace.ledger.last("restored")
        assert row is not None
        assert row.version == 1
        assert row.body.keys() == documented()["restored"][0]


@pytest.mark.parametrize(("kind", "module"), [("gate", "__init__"), ("refusal", "promotion")])
def test_a_row_of_a_decision(kind: str, module: str) -> None:
    source = (ROOT / "src" / "treadle" / "stages" / "govern" / f"{module}.py").read_text()
    (written,) = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and any(f"Fact('{kind}'" in ast.unparse(each) for each in node.body)
    ]
    bodies = [
        node.value for node in ast.walk(written) if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    ]
    assert {key.value for key in bodies[0].keys if isinstance(key, ast.Constant)} == documented()[kind][0]


def test_the_layout_of_the_store(tiny: tuple[Path, object]) -> None:
    store = tiny[0] / ".treadle"
    listed = re.findall(r"^    ([\w./<>,-]+)", section(PAGE, "## The record on disk"), re.MULTILINE)
    top = {name.partition("/")[0].rstrip(",") for name in listed} | {"head.lock"}
    there = {path.name for path in store.iterdir()} - {"treadle.db-wal", "treadle.db-shm"}
    assert there <= top
    assert (store / "format").read_text() == "1\n"
    for path in (store / "objects").rglob("*"):
        if path.is_file():
            assert len(path.parent.name) == 2
            assert len(path.name) == 62
            assert blake3_bytes(path.read_bytes()) == f"b3:{path.parent.name}{path.name}"


def test_formulas() -> None:
    entries = [Entry("b", 1, "b3:" + "1" * 64), Entry("a", 2, "b3:" + "2" * 64)]
    manifest = f'{{"files":[["a",2,"b3:{"2" * 64}"],["b",1,"b3:{"1" * 64}"]],"format":1}}'.encode()
    assert manifest_bytes(entries) == manifest
    assert digest_of(entries) == blake3_bytes(manifest)
    row = Row(17, "version", 1, "2026-01-31T12:00:00.000000Z", {})
    shown = next(line for line in section(PAGE, "### Ledger").splitlines() if line.startswith('{"body"'))
    assert row.canonical() == shown.encode()
    import hashlib

    assert leaf_hash(row.canonical()) == hashlib.sha256(b"\0" + shown.encode()).digest()
    parts = (b"files", b"a:1", b"raw")
    framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    assert document_id("files", "a:1", b"raw") == "doc:" + blake3_bytes(framed)[3:]


def test_a_head_is_signed_as_documented(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    root = secrets.token_hex(32)
    head = Head.signed(5, root, keys)
    assert verify_signature(keys.public, f"treadle ledger 1\n5\n{root}\n".encode(), head.signature)
