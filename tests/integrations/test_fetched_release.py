"""A release that its server fetches: whole or not at all, once, whoever is killed, and never another's bytes."""

from __future__ import annotations

import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import command
from treadle.core import remote as remotes
from treadle.core.cipher import open_cipher
from treadle.core.errors import Corrupt, TreadleError, UserError
from treadle.core.partial import Partial
from treadle.core.remote import introduce, open_remote, place
from treadle.core.sealed_remote import SealedRemote
from treadle.core.store import Store
from treadle.core.transfer import Transfer
from treadle.record.release import ReleaseSpec
from treadle.stages.deploy.carried import CarriedRelease, read_carried
from treadle.stages.deploy.fetched import KEYS, check_sent, fetched

KEY = "5a" * 32
SPEC = ReleaseSpec("tiny", "chat", "b3:" + "11" * 32, "b3:" + "22" * 32, {}, "transformers")


def put_release(store: Store, seed: int = 1, size: int = 9 << 20) -> str:
    """A release whose weights, of so many bytes, travel in chunks; files of a few bytes beside them, one twice."""
    folder = store.new_folder()
    (folder / "model").mkdir()
    (folder / "release.json").write_text(json.dumps(SPEC.to_json()))
    (folder / "model" / "weights.bin").write_bytes(random.Random(seed).randbytes(size))
    for name in ("a.json", "b.json"):
        (folder / "model" / name).write_text('{"same": true}')
    (folder / "model" / "c.json").write_text(f'{{"seed": {seed}}}')
    return store.put(folder)


def push(store: Store, digest: str, url: str) -> None:
    """As `treadle push` does, its files before its manifest."""
    remote = SealedRemote(open_remote(url, Path()), store.cipher)
    introduce(remote, writing=True)
    with Transfer(store, remote) as transfer:
        transfer.send(sorted({entry.digest for entry in store.entries(digest)}))
        transfer.send([digest])
        assert not transfer.moved.problems


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(params=["folder", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A remote of each kind."""
    return str(request.getfixturevalue("bucket") if request.param == "bucket" else tmp_path / "remote")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Killed when it asks the remote once more than so often.
FETCH = """
import itertools, os, sys
from pathlib import Path
from treadle.core.remote import FolderRemote
from treadle.stages.deploy.fetched import fetched

read, asked, most = FolderRemote.read, itertools.count(), int(sys.argv[4])
def counted(self, name, start=0, length=None):
    if next(asked) == most:
        os.kill(os.getpid(), 9)
    return read(self, name, start, length)
FolderRemote.read = counted
print("fetched" if fetched(Path(sys.argv[1]), sys.argv[2], sys.argv[3])[1] else "there")
"""


def fetching(folder: Path, url: str, digest: str, reads: int = -1) -> subprocess.Popen[str]:
    """A process of its own that fetches."""
    command = [sys.executable, "-c", FETCH, str(folder), url, digest, str(reads)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def fetch_and_die(folder: Path, url: str, digest: str, reads: int) -> int:
    """Its exit code."""
    with fetching(folder, url, digest, reads) as process:
        return process.wait(60)


def test_a_release_is_fetched_once(store: Store, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = put_release(store)
    push(store, digest, url)
    folder = tmp_path / "releases" / "one"
    carried, moved = fetched(folder, url, digest, name="tiny@v1")
    assert isinstance(carried, CarriedRelease)
    assert (carried.digest, carried.name, carried.folder) == (digest, "tiny@v1", folder)
    assert moved is not None
    assert moved.bytes > 9 << 20
    assert files(folder) == {entry.path: store.read(entry.digest) for entry in store.entries(digest)}
    assert [path.name for path in folder.parent.iterdir()] == ["one"]  # nothing that came in between is left
    # From now on nobody asks the remote.
    monkeypatch.setattr("treadle.stages.deploy.fetched.open_remote", lambda *_: pytest.fail("asked the remote"))
    assert fetched(folder, url, digest)[1] is None


@pytest.mark.parametrize("change", ["byte", "more", "fewer", "another", "link", "linked folder"])
def test_what_was_changed_is_fetched_again(store: Store, tmp_path: Path, change: str) -> None:
    digest, other, url = put_release(store), put_release(store, 2), str(tmp_path / "remote")
    push(store, digest, url)
    push(store, other, url)
    folder = tmp_path / "releases" / "one"
    before = files(fetched(folder, url, digest)[0].folder)
    weights = folder / "model" / "weights.bin"
    if change == "byte":
        weights.chmod(0o644)
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    elif change == "more":
        (folder / "model" / "more.json").write_text("{}")
    elif change == "linked folder":  # no digest looks into it
        (tmp_path / "elsewhere").mkdir()
        (folder / "model" / "more").symlink_to(tmp_path / "elsewhere")
    elif change == "fewer":
        weights.unlink()
    elif change == "another":
        shutil.rmtree(folder)
        fetched(folder, url, other)
    else:
        elsewhere = folder.rename(tmp_path / "elsewhere")
        (elsewhere / "release.json").unlink()
        folder.symlink_to(elsewhere)
    carried, moved = fetched(folder, url, digest)
    assert moved is not None
    assert files(carried.folder) == before
    assert not folder.is_symlink()
    assert [path.name for path in folder.parent.iterdir()] == ["one"]


def test_a_folder_of_something_else_is_left_alone(store: Store, tmp_path: Path) -> None:
    digest, url = put_release(store), str(tmp_path / "remote")
    push(store, digest, url)
    theirs = tmp_path / "models" / "theirs.bin"
    theirs.parent.mkdir()
    theirs.write_bytes(b"precious")
    with pytest.raises(UserError, match="holds something else than a release; name a folder of its own"):
        fetched(theirs.parent, url, digest)
    assert theirs.read_bytes() == b"precious"


def test_killed_anywhere_nothing_is_there_that_would_be_served(store: Store, tmp_path: Path) -> None:
    digest, url = put_release(store), str(tmp_path / "remote")
    push(store, digest, url)
    folder = tmp_path / "releases" / "one"
    killed = 0
    for reads in range(40):
        if fetch_and_die(folder, url, digest, reads) == 0:
            break
        killed += 1
        assert not folder.exists()
    assert killed >= 6  # at the format, the manifest, the files, the list of chunks, the chunks
    assert read_carried(folder, expected=digest).digest == digest
    assert [path.name for path in folder.parent.iterdir()] == ["one"]


def test_what_was_cut_off_goes_on(store: Store, tmp_path: Path) -> None:
    size = 32 << 20
    digest, url = put_release(store, size=size), str(tmp_path / "remote")
    push(store, digest, url)
    folder = tmp_path / "releases" / "one"
    # Two reads say that it is there, one brings the manifest, five the files and the list; then some four chunks.
    assert fetch_and_die(folder, url, digest, 8 + 8) == -signal.SIGKILL
    carried, moved = fetched(folder, url, digest)
    assert moved is not None
    assert moved.present >= 3
    assert moved.bytes < size - (1 << 20)
    assert carried.digest == digest


def test_of_several_at_once_one_fetches(store: Store, tmp_path: Path) -> None:
    digest, url = put_release(store), str(tmp_path / "remote")
    push(store, digest, url)
    folder = tmp_path / "releases" / "one"
    several = [fetching(folder, url, digest) for _ in range(3)]
    assert sorted(each.communicate(timeout=60)[0] for each in several) == ["fetched\n", "there\n", "there\n"]
    assert read_carried(folder, expected=digest).digest == digest


@pytest.mark.parametrize("kind", ["objects", "lists", "chunks"])
@pytest.mark.parametrize("wrong", ["changed", "cut", "gone"])
def test_what_is_damaged_there_is_not_served(store: Store, tmp_path: Path, kind: str, wrong: str) -> None:
    digest, url = put_release(store), tmp_path / "remote"
    push(store, digest, str(url))
    manifest = url / place("objects", digest)
    path = next(path for path in sorted((url / kind).rglob("*")) if path.is_file() and path != manifest)
    if wrong == "gone":
        path.unlink()
    elif wrong == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.write_bytes(b"!" + path.read_bytes()[1:])
    folder = tmp_path / "releases" / "one"
    with pytest.raises(Corrupt, match="the release is served once the remote has it whole"):
        fetched(folder, str(url), digest)
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["objects", "lists"])
def test_of_what_is_longer_there_no_more_is_taken_than_it_should_be(
    store: Store, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, url = put_release(store), tmp_path / "remote"
    push(store, digest, str(url))
    (chunks,) = (path for path in (url / "lists").rglob("*") if path.is_file())
    if kind == "lists":
        told = json.loads(chunks.read_bytes())
        chunks.write_text(json.dumps(told | {"chunks": told["chunks"] * 8}))
    else:
        whole = url / place("objects", next(each.digest for each in store.entries(digest) if each.size > 1 << 20))
        chunks.unlink()
        whole.parent.mkdir(parents=True, exist_ok=True)
        with whole.open("wb") as file:
            file.truncate(1 << 30)
    taken, append = 0, Partial.append

    def counted(growing: Partial, data: bytes) -> None:
        nonlocal taken
        taken += len(data)
        append(growing, data)

    monkeypatch.setattr(Partial, "append", counted)
    folder = tmp_path / "releases" / "one"
    with pytest.raises(Corrupt, match="the release is served once the remote has it whole"):
        fetched(folder, str(url), digest)
    assert taken <= 3 * (9 + 8 << 20)  # tried thrice, and the last piece is 8 MB
    assert not folder.exists()


def test_a_remote_that_cannot_be_read_is_one_line(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remotes, "_FIRST_PAUSE", 0.0)
    digest, url, folder = put_release(store), str(tmp_path / "remote"), tmp_path / "releases" / "one"
    with pytest.raises(UserError, match="there is no remote at"):
        fetched(folder, url, digest)
    push(store, put_release(store, 2), url)
    for look in (lambda: fetched(folder, url, digest), lambda: check_sent(url, Path(), digest)):
        with pytest.raises(UserError, match=rf"has no release {digest}; treadle push REMOTE {digest} sends it there"):
            look()
    push(store, digest, url)
    check_sent(url, Path(), digest)
    for given, said in (
        ({"digest": None}, "expected that of the release to fetch"),
        ({"digest": "@champion"}, "expected that of the release to fetch"),
        ({"url": "s3://key:secret@bucket/team"}, "the address holds a secret"),
        ({"url": "gopher://bucket/team"}, "no remote called 'gopher'"),
    ):
        with pytest.raises(UserError, match=said):
            fetched(folder, **{"url": url, "digest": digest, **given})
    assert not folder.exists()
    folder.parent.rmdir()
    folder.parent.write_text("a file")
    with pytest.raises(UserError, match=f"cannot write {folder}"):
        fetched(folder, url, digest)


def test_what_is_encrypted_there_is_decrypted_by_keys_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRITER_KEY", KEY)
    store = Store(tmp_path / "store", open_cipher("${env:WRITER_KEY}", Path()))
    digest, url, folder = put_release(store), str(tmp_path / "remote"), tmp_path / "releases" / "one"
    push(store, digest, url)
    monkeypatch.delenv(KEYS, raising=False)
    with pytest.raises(UserError, match=f"is encrypted; .*{KEYS}"):
        fetched(folder, url, digest)
    monkeypatch.setenv(KEYS, "77" * 32)
    with pytest.raises(TreadleError):
        fetched(folder, url, digest)
    monkeypatch.setenv(KEYS, "no key")
    with pytest.raises(UserError, match="expected keys of 32 bytes"):
        fetched(folder, url, digest)
    assert not folder.exists()
    monkeypatch.setenv(KEYS, KEY)
    assert fetched(folder, url, digest)[0].spec == SPEC
    assert not any(KEY.encode() in data for data in files(tmp_path / "releases").values())


def test_sigterm_ends_it_while_it_fetches(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container is stopped, whose first process it is: here while the bucket says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(120)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        where = ("--release-folder", str(tmp_path / "releases" / "one"), "--journal", str(tmp_path / "journal"))
        started = command.start("serve", *where, "--digest", "b3:" + "ab" * 32, "--remote", bucket, folder=tmp_path)
        with silent.accept()[0]:
            began = time.monotonic()
            started.terminate()
            said, _ = started.communicate(timeout=60)
            assert started.returncode == 130, said
    assert time.monotonic() - began < 30
    assert not (tmp_path / "releases" / "one").exists()
