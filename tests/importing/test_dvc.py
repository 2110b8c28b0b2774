"""What DVC tracks becomes a corpus without DVC, and what Treadle made is fetched by DVC's own program."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from importing.peers import call, peer
from small_project import Project
from treadle.core.errors import Corrupt, UserError
from treadle.integrations.dvc_repository import Repository, Tracked

Fresh = Callable[[], Project]
FILES = {"a.jsonl": b'{"text": "one"}\n{"text": "two"}\n', "sub/b.txt": "hällo\r\nyou\n".encode()}


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def keep(cache: Path, name: str, data: bytes) -> None:
    path = cache / name[:2] / name[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def repository(root: Path, *, old: bool = False, remote: bool = False) -> Path:
    """A repository as DVC 3 (or 2) leaves it: a folder ``data`` and a file ``solo.jsonl``, nothing checked out."""
    (root / ".dvc").mkdir(parents=True)
    cache = root / ".dvc" / "cache"
    if remote:
        cache = root.parent / "remote"
        (root / ".dvc" / "config").write_text("[core]\n    remote = r\n['remote \"r\"']\n    url = ../../remote\n")
    cache = cache if old else cache / "files" / "md5"
    listing = []
    for path, data in FILES.items():
        name = md5(data.replace(b"\r\n", b"\n") if old else data)
        keep(cache, name, data)
        listing.append({"md5": name, "relpath": path})
    tree = json.dumps(listing).encode()
    keep(cache, md5(tree) + ".dir", tree)
    solo = b'{"text": "solo"}\n'
    keep(cache, md5(solo), solo)
    how = "" if old else "\n  hash: md5"
    (root / "data.dvc").write_text(f"outs:\n- md5: {md5(tree)}.dir\n  nfiles: 2{how}\n  path: data\n")
    (root / "solo.jsonl.dvc").write_text(f"outs:\n- md5: {md5(solo)}\n  size: 17{how}\n  path: solo.jsonl\n")
    return root


@pytest.mark.parametrize("place", ["data.dvc", "data", "data/sub", "solo.jsonl", "."])
@pytest.mark.parametrize("kind", ["new", "old", "remote"])
def test_what_a_place_stands_for(place: str, kind: str, tmp_path: Path) -> None:
    root = repository(tmp_path / "repo", old=kind == "old", remote=kind == "remote")
    found = Repository(root / place)
    tracked = found.files(root / place)
    expected = {
        "data.dvc": ["data/a.jsonl", "data/sub/b.txt"],
        "data": ["data/a.jsonl", "data/sub/b.txt"],
        "data/sub": ["data/sub/b.txt"],
        "solo.jsonl": ["solo.jsonl"],
        ".": ["data/a.jsonl", "data/sub/b.txt", "solo.jsonl"],
    }
    assert [each.path for each in tracked] == expected[place]
    for each in tracked:
        data = found.locate(each).read_bytes()
        assert data == FILES.get(each.path.removeprefix("data/"), b'{"text": "solo"}\n')


def test_a_changed_object_is_named(tmp_path: Path) -> None:
    root = repository(tmp_path / "repo")
    name = md5(FILES["a.jsonl"])
    keep(root / ".dvc" / "cache" / "files" / "md5", name, b"other")
    found = Repository(root)
    with pytest.raises(Corrupt, match=name[2:]):
        found.locate(Tracked("data/a.jsonl", name, old=False))
    with pytest.raises(UserError, match="dvc pull"):
        found.locate(Tracked("data/x", "0" * 32, old=False))


@pytest.mark.parametrize(
    ("listing", "words"),
    [
        ([{"md5": "0" * 32, "relpath": "../../x"}], "outside"),
        ([{"md5": "0" * 32, "relpath": "/etc/passwd"}], "outside"),
        ([{"md5": "../../../secret", "relpath": "a"}], "MD5"),
        ({"a": 1}, "damaged"),
    ],
)
def test_a_listing_cannot_lead_out(listing: Any, words: str, tmp_path: Path) -> None:
    root = repository(tmp_path / "repo")
    tree = json.dumps(listing).encode()
    keep(root / ".dvc" / "cache" / "files" / "md5", md5(tree) + ".dir", tree)
    (root / "data.dvc").write_text(f"outs:\n- md5: {md5(tree)}.dir\n  hash: md5\n  path: data\n")
    with pytest.raises(Corrupt, match=words):
        Repository(root).files(root / "data.dvc")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("outs:\n- path: x\n", "without an MD5"),
        (f"outs:\n- md5: {'0' * 32}\n  path: ../x\n", "outside"),
        ("outs: [\n", "not YAML"),
        ("deps: []\n", "tracks no file"),
    ],
)
def test_a_pointer_that_names_nothing(text: str, words: str, tmp_path: Path) -> None:
    root = repository(tmp_path / "repo")
    (root / "data.dvc").write_text(text)
    with pytest.raises(UserError, match=words):
        Repository(root).files(root / "data.dvc")
    with pytest.raises(UserError, match="no DVC repository"):
        Repository(tmp_path)


def test_it_becomes_a_corpus_version(fresh: Fresh, tmp_path: Path) -> None:
    project, root = fresh(), repository(tmp_path / "repo", remote=True)
    said = project.json("import", "dvc", str(root / "data.dvc"), "--with", "license=CC-BY-4.0")
    assert (said["version"], said["in"], said["kept"]) == ("corpus/helper@v1", 3, 3)
    graph = project.json("lineage", "corpus@v1")
    assert [node["label"] for node in graph["nodes"] if node["kind"] == "document"] != []
    assert project.json("import", "dvc", str(root / "data.dvc"), "--with", "license=CC-BY-4.0")["run"] == said["run"]
    some = project.json("import", "dvc", str(root), "--with", "only=*.jsonl")
    assert (some["version"], some["kept"]) == ("corpus/helper@v2", 3)
    assert "no setting 'onyl'" in project.call("import", "dvc", str(root), "--with", "onyl=1", check=2).stderr
    assert project.json("verify")["ok"]


def test_it_is_a_source_of_every_turn(fresh: Fresh, tmp_path: Path) -> None:
    project, root = fresh(), repository(tmp_path / "repo")
    project.edit("prepare:\n", f"    - {{type: dvc, path: {root}, only: 'data/*'}}\nprepare:\n")
    assert project.json("collect")["kept"] == 73
    listing = (root / "data.dvc").read_text()
    (root / "data.dvc").write_text((root / "solo.jsonl.dvc").read_text().replace("solo.jsonl", "data/solo.jsonl"))
    assert project.json("collect")["kept"] == 71
    (root / "data.dvc").write_text(listing)
    assert project.json("collect")["kept"] == 73


def test_a_person_is_forgotten_in_it(fresh: Fresh, tmp_path: Path) -> None:
    project, root = fresh(), repository(tmp_path / "repo")
    rows = json.dumps({"text": "Zebediah Quux wrote this"}).encode() + b'\n{"text": "and nobody this"}\n'
    keep(root / ".dvc" / "cache" / "files" / "md5", md5(rows), rows)
    (root / "solo.jsonl.dvc").write_text(f"outs:\n- md5: {md5(rows)}\n  hash: md5\n  path: solo.jsonl\n")
    project.json("import", "dvc", str(root / "solo.jsonl"))
    assert project.json("forget", "Zebediah Quux", "--no-rebuild")["documents"] == 1
    assert project.json("verify")["ok"]
    again = project.json("import", "dvc", str(root / "solo.jsonl"))
    assert (again["kept"], again["dropped"]) == (1, {"suppress.erased": 1})


@pytest.mark.slow
def test_dvc_itself_fetches_what_was_exported(fresh: Fresh, tmp_path: Path) -> None:
    program = peer("dvc", "dvc") / "dvc"
    project, root, remote = fresh(), tmp_path / "repo", tmp_path / "remote"
    (root / "data" / "sub").mkdir(parents=True)
    remote.mkdir()
    for path, data in FILES.items():
        (root / "data" / path).write_bytes(data)
    call(Path("git"), "init", "-q", cwd=root)
    call(program, "init", "-q", cwd=root)
    call(program, "add", "-q", "data", cwd=root)
    said = project.json("import", "dvc", str(root / "data.dvc"))
    assert said["kept"] == 3
    (root / "data" / "a.jsonl").unlink()
    assert project.json("import", "dvc", str(root / "data"))["run"] == said["run"]
    exported = project.json("export", "dvc", "corpus@v1", "--out", str(root))
    assert exported["then"] == "dvc checkout helper-corpus.dvc"
    call(program, "checkout", "helper-corpus.dvc", cwd=root)
    _same(project, "corpus@v1", root / "helper-corpus")
    call(program, "remote", "add", "-d", "r", str(remote), cwd=root)
    again = project.json("export", "dvc", "corpus@v1", "--out", str(root))
    assert again["bytes_written"] > 0
    assert project.json("export", "dvc", "corpus@v1", "--out", str(root))["bytes_written"] == 0
    for folder in (root / "helper-corpus", root / ".dvc" / "cache"):
        call(Path("rm"), "-rf", str(folder), cwd=root)
    call(program, "pull", "helper-corpus.dvc", cwd=root)
    _same(project, "corpus@v1", root / "helper-corpus")
    assert "up to date" in call(program, "status", "helper-corpus.dvc", cwd=root)


def _same(project: Project, ref: str, folder: Path) -> None:
    from treadle.core.artifacts import Artifact
    from treadle.project import open_project

    with open_project(project.folder) as opened:
        version = opened.record.versions.resolve(ref)
        assert version
        artifact = Artifact(version.digest, opened.record.store)
        names = [entry.path for entry in artifact.entries()]
        assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == names
        for name in names:
            assert (folder / name).read_bytes() == artifact.path(name).read_bytes()


def test_an_export_without_a_repository_is_refused(fresh: Fresh, tmp_path: Path) -> None:
    project = fresh()
    project.json("collect")
    digest = project.json("runs", "--step", "collect.gather")[0]["outputs"]["corpus"]
    assert "no DVC repository" in project.call("export", "dvc", digest, "--out", str(tmp_path), check=2).stderr
    assert "no folder" in project.call("export", "dvc", digest, "--out", str(tmp_path / "x"), check=2).stderr
    assert "there is no export" in project.call("export", "dcv", digest, "--out", str(tmp_path), check=2).stderr
    root = repository(tmp_path / "repo")
    done = project.json("export", "dvc", digest, "--out", str(root))
    assert json.loads(json.dumps(done))["files"] > 1
    assert Repository(root).files(Path(done["path"]))
