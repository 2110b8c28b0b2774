"""Objects are there whole or not at all, are what they were, and stay inside their folder."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores import Kind, damage, everywhere, remove, stored_at
from treadle.core import taking
from treadle.core.artifacts import Artifact, Builder, Entry, check_path, digest_of, manifest_bytes, read_manifest
from treadle.core.cipher import HEADER, Cipher
from treadle.core.digest import blake3_bytes, blake3_file, canonical_json
from treadle.core.driver import Driver
from treadle.core.errors import Corrupt, TreadleError
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.core.store import Store
from treadle.core.verify import verify
from treadle.core.workspace import Workspace

from .conftest import Writer

NAMES = [
    "a.txt",
    "dir/b.bin",
    "dir/deep/c",
    "ünï/日本/🧵.txt",
    "e\u0301.txt",
    "\u00e9.txt",
    " lead and trail ",
    "new\nline",
    "-x",
    "~",
]
DIGEST = "b3:" + "0" * 64


@pytest.fixture
def store(store_kind: Kind, tmp_path: Path) -> Store:
    return store_kind.open(tmp_path / "store")


@pytest.fixture
def folder_store(folder_kind: Kind, tmp_path: Path) -> Store:
    return folder_kind.open(tmp_path / "store")


@pytest.fixture
def plain(tmp_path: Path) -> Store:
    """A store whose objects lie by themselves, as they are."""
    return Store(tmp_path / "store")


@pytest.fixture
def workspace(store_kind: Kind, tmp_path: Path) -> Iterator[Workspace]:
    with store_kind.workspace(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def folder_workspace(folder_kind: Kind, tmp_path: Path) -> Iterator[Workspace]:
    with folder_kind.workspace(tmp_path / "store") as opened:
        yield opened


def put(store: Store, files: dict[str, bytes]) -> Artifact:
    with Builder(Artifact, store) as builder:
        for name, data in files.items():
            path = builder.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return builder.commit()


def left_behind(root: Path) -> list[Path]:
    """Files in temporary folders, but for the copies that a living process shows."""
    found = (root / "tmp").rglob("*") if (root / "tmp").exists() else ()
    return [path for path in found if path.is_file() and "views" not in path.relative_to(root / "tmp").parts[1:2]]


def test_a_tree_comes_back_as_it_was(store: Store) -> None:
    files = {name: name.encode() * 3 for name in NAMES} | {"empty": b"", "large": random.Random(1).randbytes(3 << 20)}
    artifact = put(store, files)
    assert {entry.path for entry in artifact.entries()} == set(files)
    folder = artifact.path()
    for name, data in files.items():
        assert (folder / name).read_bytes() == data
        with artifact.open(name) as file:
            assert file.read() == data
    assert artifact.size == sum(map(len, files.values()))
    assert put(store, files) == artifact
    assert left_behind(store.root) == []
    with pytest.raises(KeyError, match="holds no 'absent'"):
        artifact.open("absent")


def test_the_digest_is_that_of_the_manifest_whatever_the_order(store: Store) -> None:
    entries = [Entry(name, 1, blake3_bytes(b"x")) for name in NAMES]
    assert digest_of(entries) == digest_of(reversed(entries))
    artifact = put(store, dict.fromkeys(NAMES, b"x"))
    assert artifact.digest == digest_of(entries) == blake3_bytes(manifest_bytes(entries))


def test_a_view_is_read_only_and_links_the_objects(plain: Store) -> None:
    artifact = put(plain, {"a/b": b"text"})
    file = artifact.path("a/b")
    assert file.stat().st_mode & 0o222 == 0
    assert file.samefile(stored_at(plain, blake3_bytes(b"text")).path)


@pytest.mark.parametrize("change", ["edit", "add", "remove", "replace", "link"])
def test_a_changed_view_is_made_anew_and_named(plain: Store, change: str) -> None:
    artifact = put(plain, {"a": b"aaa", "b": b"bbb"})
    folder = artifact.path()
    if change == "add":
        (folder / "c").write_bytes(b"not ours")
    else:
        (folder / "a").unlink()
    if change in ("edit", "replace"):
        (folder / "a").write_bytes(b"aab")
    if change == "link":
        (folder / "a").symlink_to("b")
    assert [name for name, _ in plain.changed_views()] == [artifact.digest]
    again = Artifact(artifact.digest, Store(plain.root)).path()
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {"a": b"aaa", "b": b"bbb"}
    assert list(plain.changed_views()) == []


def test_without_hard_links_views_are_copies(plain: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "not on this file system")

    monkeypatch.setattr(os, "link", refuse)
    artifact = put(plain, {"a": b"aaa"})
    file = artifact.path("a")
    assert file.read_bytes() == b"aaa"
    assert file.stat().st_mode & 0o222 == 0
    assert not file.samefile(stored_at(plain, blake3_bytes(b"aaa")).path)
    assert list(plain.changed_views()) == []


def test_an_erasure_takes_the_checkpoints_of_trainings_along(store: Store) -> None:
    kept = store.root / "cache" / "checkpoints" / "some" / "1.checkpoint"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weights")
    digest = store.put_bytes(b"a text of hers")
    store.delete({digest}, older_than=0.0)  # a collection leaves them alone
    assert kept.exists()
    store.delete({digest})
    assert not kept.exists()


def test_delete_removes_objects_and_the_views_that_show_them(store: Store) -> None:
    doomed, other = put(store, {"a": b"gone", "b": b"shared"}), put(store, {"c": b"shared"})
    doomed.path(), other.path()
    store.delete({doomed.digest, blake3_bytes(b"gone")})
    assert not store.has(doomed.digest)
    assert not (store.root / "views" / doomed.digest[3:]).exists()
    assert other.path("c").read_bytes() == b"shared"
    assert b"gone" not in everywhere(store)
    with pytest.raises(Corrupt, match="is missing from"):
        doomed.path()


# -- what does not get in, or out


def test_paths_that_leave_the_tree_are_refused(store: Store) -> None:
    for path in ("", ".", "..", "../x", "a/../b", "/etc/passwd", "a/..", "a\\b", "a\0b", "./a", "a/", "a//b", "a/./b"):
        with pytest.raises(Corrupt, match="not a path inside the artifact"):
            check_path(path)
        data = canonical_json({"files": [[path, 1, DIGEST]], "format": 1})
        digest = store.put_bytes(data)
        with pytest.raises(Corrupt):
            store.view(digest)
        assert not store.has(digest)


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b"{}",
        b'{"files":[],"format":2}',
        b'{"files":[["a",1]],"format":1}',
        b'{"files":[["a",-1,"' + DIGEST.encode() + b'"]],"format":1}',
        b'{"files":[["a",true,"' + DIGEST.encode() + b'"]],"format":1}',
        b'{"files":[["a","1","' + DIGEST.encode() + b'"]],"format":1}',
        b'{"files":[[5,1,"' + DIGEST.encode() + b'"]],"format":1}',
        b'{"files":[["a",1,"b3:../../../../etc/passwd"]],"format":1}',
        b'{"files":[["a",1,7]],"format":1}',
        b'{"files":[["a",1,"%s"],["a",1,"%s"]],"format":1}' % (DIGEST.encode(), DIGEST.encode()),
        b'{"files":[["a",1,"%s"],["a/b",1,"%s"]],"format":1}' % (DIGEST.encode(), DIGEST.encode()),
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_what_is_no_manifest_is_refused_in_one_line(manifest: bytes) -> None:
    with pytest.raises(Corrupt) as caught:
        read_manifest(manifest)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200))
def test_random_bytes_are_no_manifest(data: bytes) -> None:
    with pytest.raises(Corrupt):
        read_manifest(data)


def test_a_name_that_is_no_digest_leads_nowhere(store: Store) -> None:
    for digest in ("", "b3:", "b3:../../../etc/passwd", "b3:" + "g" * 64, "b3:" + "A" * 64, "x" * 67):
        for ask in (store.read, store.check, store.entries, store.view, store.open):
            with pytest.raises(Corrupt, match="does not name an object"):
                ask(digest)
        assert not store.has(digest)
        assert not store.has_object(digest)


@pytest.mark.parametrize("kind", ["file link", "folder link", "dangling link", "pipe", "backslash", "bytes"])
def test_only_plain_files_with_plain_names_get_in(folder_store: Store, tmp_path: Path, kind: str) -> None:
    folder = folder_store.new_folder()
    (folder / "first").write_bytes(b"plain")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    if kind == "file link":
        (folder / "x").symlink_to(tmp_path / "outside" / "secret")
    elif kind == "folder link":
        (folder / "x").symlink_to(tmp_path / "outside")
    elif kind == "dangling link":
        (folder / "x").symlink_to("nowhere")
    elif kind == "pipe":
        os.mkfifo(folder / "x")
    elif kind == "backslash":
        (folder / "a\\b").write_bytes(b"x")
    else:
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe")).write_bytes(b"x")
    with pytest.raises(TreadleError):
        folder_store.put(folder)
    assert list(folder_store.objects()) == []
    assert (folder / "first").exists()


def test_a_file_that_has_another_name_is_copied(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"first")
    folder = store.new_folder()
    os.link(tmp_path / "mine", folder / "a")
    artifact = Artifact(store.put(folder), store)
    (tmp_path / "mine").write_bytes(b"other")
    assert artifact.path("a").read_bytes() == b"first"


# -- damage


@step(version=1, name="tests.two_files")
def two_files(*, number: int, run: Run) -> Artifact:
    with run.create(Artifact) as made:
        (made.path / "a").write_bytes(b"%d" % number * 50)
        (made.path / "b").write_bytes(b"other")
        made.add_documents(["doc:" + f"{number:064x}"])
        return made.commit()


def test_one_byte_in_any_object_is_named(workspace: Workspace, store_kind: Kind) -> None:
    driver = Driver(workspace.runs, workspace.root, seed=1)
    made = [driver.run(two_files, number=number) for number in range(3)]
    for artifact in made:
        artifact.path()
    workspace.journal.append("metrics", {"id": "x"})
    workspace.journal.seal()
    objects = [name for name, _ in workspace.store.objects()]
    assert len(objects) > 10
    assert verify(workspace).ok
    for name in objects[:: 4 if store_kind.bucket else 1]:
        mend = damage(workspace.store, name, random.Random(name).randrange(1 << 20))
        found = verify(workspace)
        assert [problem.ref for problem in found.problems if problem.kind == "object"] == [name]
        with pytest.raises(Corrupt, match="its bytes changed"):
            store_kind.open(workspace.root).check(name)
        mend()
        data = workspace.store.read(name)
        remove(workspace.store, name)
        found = verify(workspace)
        assert name in [problem.ref for problem in found.problems]
        assert found.public()["ok"] is False
        workspace.store.put_bytes(data)
    for artifact in made:  # the folders that showed the damaged files are made anew
        store_kind.open(workspace.root).view(artifact.digest)
    assert verify(workspace).ok


def test_objects_put_in_by_hand_are_named(folder_workspace: Workspace) -> None:
    workspace = folder_workspace
    digest = workspace.store.put_bytes(b"left behind by a killed run")
    assert verify(workspace).ok  # an object may be there before its row
    folder = workspace.root / "objects"
    (folder / "zz").mkdir()
    (folder / "zz" / "stray").write_bytes(b"x")
    (folder / "zz" / "link").symlink_to(stored_at(workspace.store, digest).path)
    (folder / "packs").mkdir(exist_ok=True)
    (folder / "packs" / "stray").write_bytes(b"x")
    (folder / "packs" / "other.pack").write_bytes(b"x")
    named = {problem.ref for problem in verify(workspace).problems}
    assert named == {"b3:zzstray", "b3:zzlink", "packs/stray", "packs/other.pack"}


def test_an_object_cut_short_is_mended_by_putting_it_again(store: Store, store_kind: Kind) -> None:
    artifact = put(store, {"a": b"whole"})
    path = Path(stored_at(store, blake3_bytes(b"whole")).path)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-3] if not store_kind.packed else data[:60])
    assert put(store, {"a": b"whole"}) == artifact
    store.check(blake3_bytes(b"whole"))


# -- others at the same time


def test_many_processes_put_the_same_tree(heavy_kind: Kind, tmp_path: Path) -> None:
    writers = [Writer("tree", tmp_path / "store") for _ in range(4)]
    digests = {line for writer in writers for line in writer.finish()}
    assert len(digests) == 1
    store = heavy_kind.open(tmp_path / "store")
    assert len(list(Artifact(digests.pop(), store).path().iterdir())) == 200
    assert left_behind(store.root) == []
    assert list(store.audit()) == []


def test_a_killed_writer_leaves_nothing_half_there(heavy_kind: Kind, tmp_path: Path) -> None:
    root, chance = tmp_path / "store", random.Random(3)
    for _ in range(3):
        writer = Writer("put", root, 10_000, 40_000 if heavy_kind.packed else 400_000)
        writer.first()
        time.sleep(chance.random() * 0.2)
        done = writer.kill()
        with heavy_kind.workspace(root) as workspace:
            for digest in done:
                workspace.store.view(digest)
            assert list(workspace.store.audit()) == []
            with workspace.exclusive():
                assert left_behind(root) == []
            assert verify(workspace).ok
            workspace.store.delete({name for name, _ in workspace.store.objects()} - set(_named(workspace)))


def _named(workspace: Workspace) -> list[str]:
    return [row.body["environment"] for row in workspace.ledger.rows("run.started")]


def test_what_a_living_process_writes_is_not_swept_away(workspace: Workspace) -> None:
    other = Store(workspace.root)
    folder = other.new_folder()
    (folder / "a").write_bytes(b"half way")
    with workspace.exclusive():
        pass
    assert (folder / "a").exists()
    other.close()
    assert not folder.exists()
    (workspace.root / "tmp" / "dead").mkdir()
    (workspace.root / "tmp" / "dead" / "x").write_bytes(b"left")
    (workspace.root / "tmp" / "stray").write_bytes(b"left")
    with workspace.exclusive():
        assert left_behind(workspace.root) == []


def test_a_workplace_that_was_removed_by_hand_is_made_again(store: Store) -> None:
    shutil.rmtree(store.new_folder().parent)
    assert put(store, {"a": b"x"}).path("a").read_bytes() == b"x"
    store.close()


def test_a_handle_can_be_sent_to_another_process(store: Store) -> None:
    artifact = put(store, {"a": b"x"})
    copy = pickle.loads(pickle.dumps(artifact))
    assert copy == artifact
    assert copy.path("a").read_bytes() == b"x"


# -- builders


def test_document_ids_are_part_of_the_name(store: Store) -> None:
    ids = [f"doc:{number * 7919:064x}" for number in (5, 1, 300, 1)]
    with Builder(Artifact, store) as builder:
        (builder.path / "a").write_bytes(b"x")
        builder.add_documents(ids)
        artifact = builder.commit()
    assert artifact.document_ids() == tuple(sorted(set(ids)))
    assert artifact.document_count() == 3
    assert all(artifact.has_document(each) for each in ids)
    assert not artifact.has_document(f"doc:{2:064x}")
    assert not artifact.has_document(f"doc:{2**255:064x}")
    plain = put(store, {"a": b"x"})
    assert plain != artifact
    assert plain.document_ids() == ()
    assert not plain.has_document(ids[0])


def test_what_is_no_document_id_is_refused(store: Store) -> None:
    with Builder(Artifact, store) as builder, pytest.raises(TreadleError, match="is not the id of a document"):
        builder.add_documents(["doc:00ff"])
        builder.commit()


def test_a_builder_that_is_left_without_commit_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), Builder(Artifact, store) as builder:
        (builder.path / "a").write_bytes(b"x")
        raise ZeroDivisionError
    assert left_behind(store.root) == []
    with pytest.raises(TreadleError, match="was never committed"):
        _ = builder.artifact


def test_json_comes_from_verified_bytes(store: Store) -> None:
    artifact = put(store, {"a.json": json.dumps({"x": 1}).encode()})
    assert artifact.read_json("a.json") == {"x": 1}
    damage(store, artifact.entries()[0].digest, 5)
    with pytest.raises(Corrupt):
        artifact.read_json("a.json")


# -- adding what stays where it is


def user_folder(tmp_path: Path, count: int = 40) -> Path:
    folder = tmp_path / "mine"
    for number in range(count):
        path = folder / f"{number % 3}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % (number // 2) * 10)
    (folder / "large").write_bytes(random.Random(1).randbytes(3 << 20))
    (folder / "large too").write_bytes(random.Random(2).randbytes(2 << 20))
    (folder / "empty").write_bytes(b"")
    return folder


def settle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make files look as if they had not been written just now; the times of inodes cannot be set, so wait."""
    monkeypatch.setattr("treadle.core.intake._SETTLED", 50_000_000)
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    time.sleep(0.1)


def test_an_added_folder_stays_and_is_what_putting_it_gives(store: Store, tmp_path: Path) -> None:
    folder = user_folder(tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    digest = store.add(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    (folder / "large").write_bytes(b"edited in place")
    for entry in store.entries(digest):
        store.check(entry.digest)
        assert Path(stored_at(store, entry.digest).path).stat().st_mode & 0o777 == 0o444
    (folder / "large").write_bytes(before[folder / "large"])
    assert store.put(folder) == digest
    assert left_behind(store.root) == []


def test_what_did_not_change_is_not_read_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = user_folder(tmp_path)
    settle(folder, monkeypatch)
    digest = store.add(folder)
    read: list[str] = []
    copied, read_file = taking.copied, taking.read_file
    monkeypatch.setattr(taking, "copied", lambda source, *rest: (read.append(source), copied(source, *rest))[1])
    monkeypatch.setattr(taking, "read_file", lambda source, *rest: (read.append(source), read_file(source, *rest))[1])
    assert store.add(folder) == digest
    assert read == []
    remove(store, blake3_bytes(b""))  # known, and not there
    assert store.add(folder) == digest
    assert [Path(path).name for path in read] == ["empty"]
    for cache in (store.root / "cache" / "files").iterdir():  # a shortcut that is damaged is none
        cache.write_bytes(cache.read_bytes()[:-1] + b"x")
    assert store.add(folder) == digest
    assert len(read) == 1 + 43


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_change_that_keeps_size_and_time_is_seen(
    folder_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    folder = user_folder(tmp_path)
    if moment == "after":
        settle(folder, monkeypatch)
    folder_store.add(folder)
    status = (folder / "large").stat()
    (folder / "large").write_bytes(random.Random(3).randbytes(3 << 20))
    os.utime(folder / "large", ns=(status.st_atime_ns, status.st_mtime_ns))
    entries = {entry.path: entry.digest for entry in folder_store.entries(folder_store.add(folder))}
    assert entries["large"] == blake3_file(folder / "large")


def test_links_are_not_followed_when_adding(store: Store, tmp_path: Path) -> None:
    folder = user_folder(tmp_path)
    (folder / "x").symlink_to("/etc/passwd")
    with pytest.raises(TreadleError, match="is a link"):
        store.add(folder)
    assert list(store.objects()) == []
    assert left_behind(store.root) == []


def test_deleting_waits_for_whoever_is_putting(folder_kind: Kind, tmp_path: Path) -> None:
    store = folder_kind.open(tmp_path / "store")
    digest = store.put_bytes(b"x")
    with store._writing():
        deleting = threading.Thread(target=folder_kind.open(store.root).delete, args=({digest},))
        deleting.start()
        deleting.join(0.1)
        assert deleting.is_alive()
        assert store.has_object(digest)
    deleting.join(10)
    assert not store.has_object(digest)


def test_a_full_disk_leaves_nothing_half_there(tmp_path: Path) -> None:
    """Written first, named after: what did not fit was never there."""
    code = (
        "import resource, sys; from pathlib import Path; from treadle.core.store import Store\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try:\n    Store(Path(sys.argv[1])).add(Path(sys.argv[2]))\nexcept OSError:\n    sys.exit(7)\n"
    )
    folder = user_folder(tmp_path)
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "store", folder], timeout=60)
    assert done.returncode == 7
    store = Store(tmp_path / "store")
    assert list(store.objects()) == []
    store.check(next(entry.digest for entry in store.entries(store.add(folder)) if entry.path == "large"))


def test_any_byte_of_the_head_of_what_is_encrypted(tmp_path: Path) -> None:
    """A changed number of its format is damage, and not a newer Treadle's."""
    store = Store(tmp_path / "store", Cipher([b"k" * 32]))
    digest = store.put_bytes(b"a text")
    (path,) = (tmp_path / "store").rglob("*.sealed")
    data = path.read_bytes()
    path.chmod(0o644)
    for at in range(HEADER):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(Corrupt, match="its bytes changed"):
            Store(tmp_path / "store", Cipher([b"k" * 32])).check(digest)
    path.write_bytes(data)
    Store(tmp_path / "store", Cipher([b"k" * 32])).check(digest)
