"""Nothing that was put can be read without the key; keys change; plain objects stay readable; kills lose nothing."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from stores import KEY, KINDS, Kind, damage, everything, stored_at
from treadle.core import taking
from treadle.core.artifacts import Artifact, Builder
from treadle.core.cipher import Cipher
from treadle.core.digest import blake3_bytes
from treadle.core.encrypting import encrypt
from treadle.core.errors import UserError
from treadle.core.store import Store
from treadle.core.verify import verify
from treadle.core.workspace import Workspace

from .conftest import Writer

SECRET = b"nobody else may read this line "
FILES = {f"{number}": SECRET + b"%d" % number for number in range(6)} | {"large": SECRET * 30_000, "empty": b""}
NEW = bytes(reversed(KEY))
ENCRYPTED = ["encrypted", "packed-encrypted"]


def put(store: Store, files: dict[str, bytes]) -> Artifact:
    with Builder(Artifact, store) as builder:
        for name, data in files.items():
            (builder.path / name).write_bytes(data)
        return builder.commit()


def same(store: Store, digest: str, files: dict[str, bytes]) -> bool:
    folder = store.view(digest)
    return {path.name: path.read_bytes() for path in folder.iterdir()} == files


@pytest.mark.parametrize("store_kind", ENCRYPTED, indirect=True)
def test_nothing_that_stays_can_be_read_without_the_key(store_kind: Kind, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for name, data in FILES.items():
        (mine / name).write_bytes(data)
    plain = Store(tmp_path / "plain")
    with Workspace(tmp_path / "store", cipher=store_kind.cipher) as workspace:
        store = workspace.store
        digest = store.add(mine)
        assert digest == put(store, FILES).digest == plain.add(mine)
        store.put_bytes(SECRET + b"a note")
        view = store.view(digest)
        assert view.is_relative_to(store.root / "tmp")
        assert (view / "large").stat().st_mode & 0o222 == 0
        assert same(store, digest, FILES)
        with store.open(blake3_bytes(FILES["large"])) as file:
            file.seek(-5, 2)
            assert file.read() == FILES["large"][-5:]
        assert store.size(blake3_bytes(FILES["large"])) == len(FILES["large"])
        assert {name for name, _ in plain.objects()} < {name for name, _ in store.objects()}
        assert verify(workspace).ok
    assert not view.exists()
    assert SECRET not in everything(tmp_path / "store")
    assert (tmp_path / "store" / "format").read_text() == "2\n"


def test_copies_that_a_killed_process_showed_are_swept_away(tmp_path: Path) -> None:
    cipher = Cipher([KEY])
    dead = tmp_path / "store" / "tmp" / "dead" / "views" / "x"
    with Workspace(tmp_path / "store", cipher=cipher) as workspace:
        put(workspace.store, FILES)
    dead.mkdir(parents=True)
    (dead / "file").write_bytes(SECRET)
    with Workspace(tmp_path / "store", cipher=cipher):
        assert not dead.exists()


@pytest.mark.parametrize("store_kind", ENCRYPTED, indirect=True)
def test_without_the_key_it_is_one_line(store_kind: Kind, tmp_path: Path) -> None:
    root = tmp_path / "store"
    with Workspace(root, cipher=store_kind.cipher) as workspace:
        artifact = put(workspace.store, FILES)
    key = Cipher([KEY]).key_id.hex()
    with pytest.raises(UserError, match=f"is encrypted under the key {key}; name its key in treadle.yaml"):
        Workspace(root)
    with pytest.raises(UserError, match=f"under the key {key}, which `encryption` in treadle.yaml does not give"):
        Workspace(root, cipher=Cipher([NEW]))
    for store in (Store(root), Store(root, Cipher([NEW]))):
        for ask in (
            store.read,
            store.check,
            store.open,
            store.view,
            store.has,
            lambda _, store=store: [*store.audit()],
        ):
            with pytest.raises(UserError) as caught:
                ask(artifact.digest)
            assert "\n" not in str(caught.value)
        assert store.has_object(artifact.digest)  # what is there can be told without a key


def test_what_was_plain_stays_readable_and_is_encrypted_on_request(tmp_path: Path) -> None:
    root = tmp_path / "store"
    old = put(Store(root), FILES)
    old.path()
    with Workspace(root, cipher=Cipher([KEY])) as workspace:
        store = workspace.store
        assert same(store, old.digest, FILES)
        before = {name for name, _ in store.objects()}
        assert put(store, FILES) == old  # there already, in the plain
        new = put(store, {"new": SECRET + b"new"})
        assert SECRET in everything(root)
        kept = root / "cache" / "checkpoints" / "replies"
        kept.mkdir(parents=True)
        (kept / "reply").write_bytes(SECRET)
        modified = stored_at(store, blake3_bytes(FILES["0"])).modified
        done = encrypt(store)
        assert done.public()["ok"]
        assert done.objects == len(before)
        assert SECRET not in b"".join(
            path.read_bytes() for path in root.rglob("*") if path.is_file() and "tmp" not in path.parts
        )
        assert {name for name, _ in store.objects()} > before
        assert stored_at(store, blake3_bytes(FILES["0"])).modified == pytest.approx(modified, abs=1e-3)
        assert encrypt(store).objects == 0
        assert same(Store(root, Cipher([KEY])), old.digest, FILES)
        assert same(store, new.digest, {"new": SECRET + b"new"})
        assert verify(workspace).ok
        assert encrypt(store, off=True).objects == len(before) + 2
    with Workspace(root) as workspace:
        assert same(workspace.store, old.digest, FILES)
        assert verify(workspace).ok


@pytest.mark.parametrize("store_kind", ENCRYPTED, indirect=True)
def test_keys_change(store_kind: Kind, tmp_path: Path) -> None:
    root = tmp_path / "store"
    artifact = put(Store(root, Cipher([KEY])), FILES)
    both = Store(root, Cipher([NEW, KEY]))
    assert same(both, artifact.digest, FILES)
    later = put(both, {"later": SECRET})
    count = len(list(both.objects()))
    assert encrypt(both).objects == count - 2
    assert sorted(path.name for path in (root / "encrypted").iterdir()) == [Cipher([NEW]).key_id.hex()]
    with Workspace(root, cipher=Cipher([NEW])) as workspace:
        assert same(workspace.store, artifact.digest, FILES)
        assert same(workspace.store, later.digest, {"later": SECRET})
        assert verify(workspace).ok
    with pytest.raises(UserError):
        Workspace(root, cipher=Cipher([KEY]))


def test_packs_are_encrypted_and_decrypted_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "MANY", 1)
    root = tmp_path / "store"
    artifact = put(Store(root), FILES)
    store = Store(root, Cipher([KEY]))
    encrypt(store)
    assert SECRET not in everything(root)
    assert same(store, artifact.digest, FILES)
    encrypt(store, off=True)
    assert same(Store(root), artifact.digest, FILES)
    assert list(Store(root).audit()) == []


@pytest.mark.parametrize("store_kind", ["plain", "packed"], indirect=True)
def test_what_is_damaged_stays_and_is_named(store_kind: Kind, tmp_path: Path) -> None:
    root = tmp_path / "store"
    artifact = put(Store(root), FILES)
    store = Store(root, Cipher([KEY]))
    digest = blake3_bytes(FILES["3"])
    mend = damage(store, digest, 4)
    done = encrypt(store)
    assert not done.public()["ok"]
    assert [digest] == [name for name, _ in store.audit()]
    mend()
    assert encrypt(store).problems == {}
    assert same(store, artifact.digest, FILES)


def test_without_a_key_there_is_nothing_to_encrypt_with(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="openssl rand -hex 32"):
        encrypt(Store(tmp_path / "store"))


@pytest.mark.parametrize("store_kind", ENCRYPTED, indirect=True)
def test_kills_while_everything_is_written_anew(store_kind: Kind, tmp_path: Path) -> None:
    root, chance = tmp_path / "store", random.Random(9)
    store = (KINDS["packed"] if store_kind.packed else KINDS["plain"]).open(root)
    files = {f"{number}": SECRET * 20 + b"%d" % number for number in range(600)}
    artifact = put(store, files)
    for number in range(4):
        writer = Writer("encrypt", root, "on" if number % 2 == 0 else "off")
        writer.first()
        time.sleep(chance.random() * 0.06)
        writer.kill()
        with Workspace(root, cipher=store_kind.cipher) as workspace:
            assert list(workspace.store.audit()) == []
            assert workspace.store.has(artifact.digest)
    with Workspace(root, cipher=store_kind.cipher) as workspace:
        encrypt(workspace.store)
        assert same(workspace.store, artifact.digest, files)
    assert SECRET not in everything(root)
