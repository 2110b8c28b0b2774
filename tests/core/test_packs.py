"""Many small objects in one file: each is found, checked, mended and erased as if it lay by itself."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from stores import Kind, damage, everything, make_old, remove, stored_at
from treadle.core import pack as pack_module
from treadle.core import packs as packs_module
from treadle.core.artifacts import Artifact, Builder
from treadle.core.digest import blake3_bytes
from treadle.core.errors import Corrupt, UserError
from treadle.core.pack import Pack
from treadle.core.store import Store
from treadle.core.taking import MANY
from treadle.core.verify import verify
from treadle.core.workspace import Workspace

from .conftest import Writer

PACKED = ["packed", "packed-encrypted"]


@pytest.fixture
def store(store_kind: Kind, tmp_path: Path) -> Store:
    return store_kind.open(tmp_path / "store")


def put(store: Store, files: dict[str, bytes]) -> Artifact:
    with Builder(Artifact, store) as builder:
        for name, data in files.items():
            (builder.path / name).write_bytes(data)
        return builder.commit()


def some(count: int, start: int = 0) -> dict[str, bytes]:
    return {f"{number}": f"text {number} ".encode() * 20 for number in range(start, start + count)}


def packs(store: Store) -> list[Path]:
    return sorted((store.root / "objects" / "packs").glob("*"))


def inodes(store: Store) -> int:
    return sum(1 for path in (store.root / "objects").rglob("*") if path.is_file())


def test_many_small_files_take_one_inode_and_few_take_their_own(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    few = put(store, some(MANY - 1))
    assert inodes(store) == MANY
    many = put(store, some(MANY * 2) | {"large": random.Random(1).randbytes(pack_module.LARGEST)})
    assert inodes(store) == MANY + 3  # a pack, the large one, the manifest
    assert (store.root / "format").read_text() == "2\n"
    assert len(packs(store)) == 1
    assert len(Pack(packs(store)[0])) == MANY + 1  # what was there is not there again
    for artifact in (few, many):
        for entry in artifact.entries():
            with artifact.open(entry.path) as file:
                assert blake3_bytes(file.read()) == entry.digest
    assert put(store, some(MANY * 2) | {"again": b"text 0 " * 20}) != many
    assert len(packs(store)) == 1
    assert list(store.audit()) == []


def test_a_store_without_packs_keeps_its_number(tmp_path: Path) -> None:
    with Workspace(tmp_path / "store") as workspace:
        put(workspace.store, some(3))
        assert (workspace.root / "format").read_text() == "1\n"
        put(workspace.store, some(MANY))
        assert (workspace.root / "format").read_text() == "2\n"
    with Workspace(tmp_path / "store"):
        pass


@pytest.mark.parametrize("store_kind", PACKED, indirect=True)
def test_one_object_opens_without_the_rest(store: Store) -> None:
    files = some(300)
    artifact = put(store, files)
    digests = {entry.path: entry.digest for entry in artifact.entries()}
    place = stored_at(store, digests["7"])
    assert place.start is not None
    with Path(place.path).open("r+b") as file:  # everything else in the pack is gone
        data = file.read()
        file.seek(0)
        file.write(bytes(place.start) + data[place.start : place.start + place.length])
        file.write(bytes(len(data) - place.start - place.length))
    assert store.read(digests["7"]) == files["7"]
    with pytest.raises(Corrupt):
        store.read(digests["8"])


@pytest.mark.parametrize("store_kind", PACKED, indirect=True)
def test_what_is_erased_is_gone_from_the_disk_and_the_rest_stays(store: Store, store_kind: Kind) -> None:
    files = some(50)
    artifact = put(store, files)
    digests = {entry.path: entry.digest for entry in artifact.entries()}
    old = stored_at(store, digests["3"])
    with Path(old.path).open("rb") as file:
        file.seek(old.start or 0)
        bytes_there = file.read(old.length)
    shown = artifact.path()  # a plain copy, which goes as well
    assert (shown / "3").read_bytes() == files["3"]
    other = store_kind.open(store.root)
    assert other.has_object(digests["3"])
    assert store.delete({digests["3"], digests["4"]}) == old.length + stored_length(old, files["4"])
    found = everything(store.root)
    assert bytes_there not in found
    assert files["3"] not in found
    assert (
        bytes.fromhex(digests["3"][3:]) not in (store.root / "objects").joinpath("packs", packs(store)[0]).read_bytes()
    )
    assert not other.has_object(digests["3"])  # another process sees it at once
    assert [other.read(digests[name]) for name in ("0", "49")] == [files["0"], files["49"]]
    assert list(store.audit()) == []
    store.delete(set(digests.values()) | {artifact.digest})
    assert packs(store) == []
    assert list(store.objects()) == []


def stored_length(like: object, data: bytes) -> int:
    return len(data) + (52 if getattr(like, "encrypted", False) else 0)


@pytest.mark.parametrize("store_kind", PACKED, indirect=True)
def test_what_is_found_in_a_pack_is_young_again(store: Store) -> None:
    artifact = put(store, some(30))
    entries = [entry.digest for entry in artifact.entries()]
    for digest in (*entries, artifact.digest):
        make_old(store, digest)
    before = time.time() - 60
    put(store, {"0": some(1)["0"]})
    assert store.delete({entries[0]}, older_than=before) == 0
    assert store.has_object(entries[0])
    make_old(store, entries[0])
    assert store.delete({entries[0]}, older_than=before) > 0
    make_old(store, entries[1], 1000)
    store.delete({entries[2]})
    assert dict(store.objects())[entries[1]].modified == 1000  # written anew, and as old as before


@pytest.mark.parametrize("store_kind", PACKED, indirect=True)
def test_damaged_objects_are_mended_in_their_pack(store: Store, tmp_path: Path) -> None:
    files = some(20)
    artifact = put(store, files)
    digests = {entry.path: entry.digest for entry in artifact.entries()}
    for name in ("3", "7"):
        damage(store, digests[name], 9)
    assert sorted(name for name, _ in store.audit()) == sorted([digests["3"], digests["7"]])
    batch = []
    for name in ("3", "7"):
        (tmp_path / name).write_bytes(files[name])
        batch.append((tmp_path / name, digests[name]))
    store.adopt(batch)
    assert list(store.audit()) == []
    assert store.read(digests["7"]) == files["7"]
    assert not (tmp_path / "3").exists()


@pytest.mark.parametrize("store_kind", PACKED, indirect=True)
@pytest.mark.parametrize("where", ["index", "tail", "cut", "head", "kind", "added", "count"])
def test_a_damaged_pack_is_named_and_mended(store: Store, store_kind: Kind, where: str, tmp_path: Path) -> None:
    artifact = put(store, some(25))
    path = Path(stored_at(store, artifact.entries()[0].digest).path)
    path.chmod(0o644)
    data = path.read_bytes()
    tail = len(data) - 48
    data = {
        "index": data[: tail - 30] + b"?" + data[tail - 29 :],
        "tail": data[:-20] + b"?" + data[-19:],
        "cut": data[: tail - 100],
        "head": b"T" + data[1:],
        "kind": data[:14] + bytes([data[14] ^ 1]) + data[15:],
        "added": data[:tail] + bytes(8) + data[tail:],
        "count": data[:tail] + b"\xff" * 8 + data[tail + 8 :],
    }[where]
    path.write_bytes(data)
    fresh = store_kind.open(store.root)
    named = dict(fresh.audit())
    assert f"packs/{path.name}" in named
    assert fresh.read(artifact.entries()[3].digest)
    fresh.mend()
    assert list(fresh.audit()) == []
    assert fresh.has(artifact.digest)
    assert len(list(fresh.objects())) == 26


@pytest.mark.parametrize("store_kind", PACKED, indirect=True)
@pytest.mark.parametrize("index", ["entry", "check", "count", "end"])
@pytest.mark.parametrize("head", ["digest", "length", "large"])
def test_a_damaged_index_and_a_damaged_record_lose_nothing(
    store: Store, store_kind: Kind, index: str, head: str
) -> None:
    artifact = put(store, some(25))
    first = sorted((stored_at(store, entry.digest).start or 0, entry.digest) for entry in artifact.entries())[4]
    path = Path(stored_at(store, first[1]).path)
    change(path, {"entry": -48 - 5, "check": -20, "count": -41, "end": -1}[index])
    change(path, first[0] - {"digest": 30, "length": 1, "large": 4}[head])
    fresh = store_kind.open(store.root)
    assert f"packs/{path.name}" in dict(fresh.audit())
    assert fresh.has(artifact.digest)
    assert fresh.read(first[1])
    fresh.mend()
    fresh = store_kind.open(store.root)
    assert fresh.has(artifact.digest)
    assert all(fresh.read(entry.digest) == some(25)[entry.path] for entry in artifact.entries())
    assert list(fresh.audit()) == []
    assert len(list(fresh.objects())) == 26


@pytest.mark.parametrize("store_kind", PACKED, indirect=True)
@pytest.mark.parametrize("where", ["object", "object and index", "everything but the objects"])
def test_what_cannot_be_placed_is_kept_beside_until_it_is_here(
    store: Store, store_kind: Kind, where: str, tmp_path: Path
) -> None:
    artifact = put(store, some(25))
    places = {entry.path: stored_at(store, entry.digest) for entry in artifact.entries()}
    path, third = Path(places["3"].path), places["3"].start or 0
    if where == "everything but the objects":  # from one record on nobody can say where the next begins
        data = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(data[: third - 36] + b"\xff" * 36 + data[third:-1200])
    else:
        change(path, third + 7, *([-60] if "index" in where else [0]))
    before = path.read_bytes()
    fresh = store_kind.open(store.root)
    fresh.mend()
    (kept,) = (each for each in packs(store) if each.name.endswith(".damaged"))
    assert kept.read_bytes() == before
    assert f"packs/{kept.name}" in dict(fresh.audit())
    with pytest.raises(Corrupt, match="damaged"):
        fresh.delete({artifact.digest})
    fresh.mend()  # a second time nothing changes
    assert kept.exists()
    for name, data in some(25).items():
        (tmp_path / name).write_bytes(data)
    if where == "everything but the objects":
        fresh.adopt([(tmp_path / entry.path, entry.digest) for entry in artifact.entries()])
        assert fresh.has(artifact.digest)
        return
    assert sum(not fresh.has_object(entry.digest) for entry in artifact.entries()) == 1
    fresh.adopt([(tmp_path / "3", next(entry.digest for entry in artifact.entries() if entry.path == "3"))])
    fresh.mend()
    assert list(fresh.audit()) == []
    assert not kept.exists()
    assert fresh.has(artifact.digest)


@pytest.mark.parametrize("store_kind", PACKED, indirect=True)
def test_garbage_collection_leaves_a_pack_that_hides_what_is_in_it(store: Store, store_kind: Kind) -> None:
    artifact = put(store, some(25))
    path = Path(stored_at(store, artifact.entries()[0].digest).path)
    change(path, -60)
    before = path.read_bytes()
    fresh = store_kind.open(store.root)
    assert fresh.delete({artifact.entries()[3].digest}, older_than=time.time() + 60) == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("store_kind", PACKED, indirect=True)
@pytest.mark.parametrize("at", [0, 13, 14, 15])
def test_a_changed_first_byte_hides_nothing_from_an_erasure(store: Store, store_kind: Kind, at: int) -> None:
    artifact = put(store, some(25))
    gone, stays = artifact.entries()[3], artifact.entries()[4]
    path = Path(stored_at(store, gone.digest).path)
    change(path, at)
    fresh = store_kind.open(store.root)
    assert [name for name, _ in fresh.audit()] == [f"packs/{path.name}"]
    assert fresh.delete({gone.digest}) > 0
    assert some(25)[gone.path] not in everything(store.root)
    again = store_kind.open(store.root)
    assert not again.has_object(gone.digest)
    assert again.read(stays.digest) == some(25)[stays.path]
    assert list(again.audit()) == []


@pytest.mark.parametrize("store_kind", PACKED, indirect=True)
@pytest.mark.parametrize("places", [(-60,), (-60, 0)])
def test_an_erasure_refuses_where_a_pack_hides_what_is_in_it(
    store: Store, store_kind: Kind, places: tuple[int, ...]
) -> None:
    artifact = put(store, some(25))
    loose = put(store, {"alone": b"by itself"}).entries()[0].digest
    path = Path(stored_at(store, artifact.entries()[0].digest).path)
    change(path, *places)
    fresh = store_kind.open(store.root)
    with pytest.raises(Corrupt, match=path.name):
        fresh.delete({artifact.entries()[3].digest, loose})
    assert fresh.has_object(loose)
    assert fresh.delete({loose}, older_than=time.time() + 60) > 0  # garbage collection takes what it sees
    path.unlink()
    store_kind.open(store.root).delete({artifact.entries()[3].digest})


def change(path: Path, *places: int) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    for at in places:
        data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("store_kind", PACKED, indirect=True)
def test_many_packs_become_few(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [put(store, some(5, start=number * 3)) for number in range(12)]
    assert len(packs(store)) > 12
    store.tidy()
    assert len(packs(store)) == 1
    assert all(store.has(artifact.digest) for artifact in made)
    assert list(store.audit()) == []
    monkeypatch.setattr(packs_module, "FULL", 2000)
    store.delete({made[0].digest})
    assert len(packs(store)) > 2  # one that is too large is cut
    assert list(store.audit()) == []


def test_full_packs_are_followed_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.core.taking.FULL", 10_000)
    store = Store(tmp_path / "store")
    artifact = put(store, some(MANY * 2))
    assert len(packs(store)) > 4
    assert all(path.stat().st_size < 20_000 for path in packs(store))
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in packs(store))
    assert store.has(artifact.digest)


@pytest.mark.parametrize("store_kind", PACKED, indirect=True)
def test_a_copy_by_itself_stands_in_for_a_damaged_one_in_a_pack(
    store: Store, store_kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = put(store, {"a": b"whole"})
    digest = blake3_bytes(b"whole")
    damage(store, digest, 3)
    place = Path(store.loose.place(digest))
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(b"whole")
    assert store.read(digest) == b"whole"
    assert artifact.path("a").read_bytes() == b"whole"
    place.write_bytes(b"while")
    with pytest.raises(Corrupt):
        store_kind.open(store.root).view(artifact.digest)


@pytest.mark.parametrize("store_kind", PACKED, indirect=True)
def test_kills_while_packing_and_deleting(store_kind: Kind, tmp_path: Path) -> None:
    root, chance = tmp_path / "store", random.Random(5)
    for _ in range(4):
        writer = Writer("many", root, 10_000)
        writer.first()
        time.sleep(chance.random() * 0.3)
        lines = [line.split() for line in writer.kill()]
        gone = {digest for what, digest in lines if what == "deleted"}
        doubtful = {digest for what, digest in lines if what == "deleting"} - gone
        there = {digest for what, digest in lines if what == "put"} - gone - doubtful
        with Workspace(root, cipher=store_kind.cipher) as workspace:
            store = workspace.store
            assert all(store.has(digest) for digest in there)
            assert not any(store.has_object(digest) for digest in gone)
            for digest in doubtful:  # asked again, it ends
                names = {entry.digest for entry in store.entries(digest)} if store.has_object(digest) else set()
                store.delete({digest, *names})
                assert not any(store.has_object(name) for name in names)
            with workspace.exclusive():
                pass
            assert verify(workspace).ok
            store.delete({name for name, _ in store.objects()})
            assert packs(store) == []


def test_unicode_names_and_empty_files(store: Store, tmp_path: Path) -> None:
    names = ["ünï 日本 🧵", "e\u0301", "\u00e9", " lead ", "new\nline", "-x", "~", "\u202egnp", "a" * 200]
    files = {name: name.encode() for name in names} | {"empty": b"", "empty too": b""}
    artifact = put(store, files)
    folder = artifact.path()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    mine = tmp_path / "mine"
    mine.mkdir()
    for name, data in files.items():
        (mine / name).write_bytes(data)
    assert store.add(mine) == artifact.digest
    assert store.size(blake3_bytes(b"")) == 0
    with artifact.open("empty") as file:
        assert file.read() == b""
    assert list(store.audit()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="making a file system takes root")
def test_a_full_disk_is_said_and_nothing_is_half_there(store_kind: Kind, tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    if os.system(f"mount -t tmpfs -o size=3m tmpfs {root}"):
        pytest.skip("no file system can be mounted here")
    try:
        store = store_kind.open(root / "store")
        kept = put(store, some(20))
        large = {f"{number}": random.Random(number).randbytes(60_000) for number in range(60)}
        with pytest.raises(OSError, match="No space left"):
            put(store, large)
        store.close()
        again = store_kind.open(root / "store")
        again.clear_temporary()
        assert list(again.audit()) == []
        assert again.has(kept.digest)
        assert put(again, some(21)).entries()
        again.close()
    finally:
        os.system(f"umount -l {root}")


def test_a_store_that_cannot_be_written_is_said_in_one_line(store_kind: Kind, tmp_path: Path) -> None:
    root = tmp_path / "store"
    with Workspace(root, cipher=store_kind.cipher) as workspace:
        kept = put(workspace.store, some(5))
    if os.geteuid() == 0:  # root may write everywhere but on what is mounted to be read
        if os.system(f"mount --bind {root} {root} && mount -o remount,ro,bind {root}"):
            pytest.skip("nothing can be mounted here")
    else:
        root.chmod(0o555)
    try:
        with pytest.raises(UserError, match=r"^cannot write .* be writable"):
            Workspace(root, cipher=store_kind.cipher)
        store = store_kind.open(root)
        assert store.read(kept.entries()[0].digest) == some(5)["0"]
        with pytest.raises(OSError, match=r"Read-only|Permission"):
            store.put_bytes(b"more")
    finally:
        if os.geteuid() == 0:
            os.system(f"umount -l {root}")
        else:
            root.chmod(0o755)


def test_removing_and_putting_again(store: Store) -> None:
    artifact = put(store, some(4))
    for entry in artifact.entries():
        remove(store, entry.digest)
    assert not store.has(artifact.digest)
    assert put(store, some(4)) == artifact
    assert store.has(artifact.digest)
