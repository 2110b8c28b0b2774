"""A store in a bucket (S3, a real server, by HTTP): what is there counts, what is here is a copy."""

from __future__ import annotations

import inspect
import pickle
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from faulty_proxy import FaultyProxy, ask_again_at_once
from postgresql_server import Server
from treadle.core.artifacts import Artifact, Builder
from treadle.core.bucket_store import BucketStore
from treadle.core.chunks import read_list
from treadle.core.cipher import Cipher
from treadle.core.database import Database, Lost
from treadle.core.digest import blake3_bytes
from treadle.core.encrypting import encrypt
from treadle.core.errors import Corrupt, UserError
from treadle.core.postgresql import PostgresqlDatabase
from treadle.core.remote import Unreachable, open_remote, place
from treadle.core.sqlite import SqliteDatabase
from treadle.core.store import Store

LARGE = random.Random(1).randbytes(6 << 20)  # several chunks
FILES = {"weights": LARGE, "ünï/日本 🧵.txt": b"small", "new\nline": b"x" * 100_000, "empty": b"", "config": b"{}"}


class Machines:
    """Machines with folders of their own and one bucket."""

    def __init__(self, folder: Path, url: str, cipher: Cipher | None = None) -> None:
        self.folder, self.url, self.cipher = folder, url, cipher

    def store(self, machine: str = "a") -> BucketStore:
        """The store as a new process on a machine opens it."""
        return BucketStore(Store(self.folder / machine, self.cipher), self.url, "owner")


@pytest.fixture
def in_s3(bucket: str, tmp_path: Path) -> Machines:
    return Machines(tmp_path, bucket)


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    """The same over a folder, which costs less: for what does not depend on the service."""
    return Machines(tmp_path, f"file://{tmp_path}/bucket")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long pauses between attempts."""
    ask_again_at_once(monkeypatch)


def put(store: Store, files: dict[str, bytes]) -> Artifact:
    with Builder(Artifact, store) as builder:
        for name, data in files.items():
            path = builder.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return builder.commit()


def shown(artifact: Artifact) -> dict[str, bytes]:
    folder = artifact.path()
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def digests(artifact: Artifact) -> dict[str, str]:
    return {entry.path: entry.digest for entry in artifact.entries()}


def names(store: BucketStore) -> set[str]:
    return {name for kind in ("objects", "lists", "chunks") for name in store.bucket.remote.names(f"{kind}/")}


def test_nothing_that_a_store_does_is_left_to_the_folder() -> None:
    public = {name for name, _ in inspect.getmembers(Store, inspect.isfunction) if not name.startswith("_")}
    assert {name for name in public if name not in vars(BucketStore)} == set()


def test_what_one_machine_puts_another_reads(in_s3: Machines) -> None:
    artifact = put(in_s3.store("a"), FILES)
    there = Artifact(artifact.digest, in_s3.store("b"))
    assert there.store.has(artifact.digest)
    assert shown(there) == FILES
    with there.open("weights") as file:
        assert file.read() == LARGE
    assert pickle.loads(pickle.dumps(there)).path("config").read_bytes() == b"{}"
    again = in_s3.store("c")
    assert again.size(digests(artifact)["weights"]) == len(LARGE)
    assert again.read(digests(artifact)["empty"]) == b""


def test_what_is_here_may_be_thrown_away_at_any_time(machines: Machines) -> None:
    store = machines.store()
    artifact = put(store, FILES)
    assert shown(artifact) == FILES
    for folder in ("objects", "views", "cache"):
        shutil.rmtree(store.root / folder, ignore_errors=True)
    assert store.read(digests(artifact)["config"]) == b"{}"
    assert shown(artifact) == FILES
    assert store.clear_copies(time.time() - 60) == 0
    assert store.clear_copies(time.time() + 1) > len(LARGE)
    assert list(store.local.objects()) == []
    assert shown(artifact) == FILES


def test_a_damaged_copy_is_fetched_again(machines: Machines) -> None:
    artifact = put(machines.store(), FILES)
    for name in ("config", "weights"):
        path = machines.store().local._object(digests(artifact)[name])
        path.chmod(0o644)
        path.write_bytes(b"?" + FILES[name][1:])
    assert shown(Artifact(artifact.digest, machines.store())) == FILES
    path = machines.store().local._object(artifact.digest)
    path.chmod(0o644)
    path.write_bytes(b"{}")
    assert Artifact(artifact.digest, machines.store()).has("config")


def test_what_is_damaged_there_is_named(in_s3: Machines) -> None:
    store = in_s3.store()
    artifact = put(store, FILES)
    named = digests(artifact)
    assert {problem for _, problem in store.examine([artifact.digest, *named.values()])} == {""}
    (chunk, *_) = read_list(store.bucket.remote.read(place("lists", named["weights"])))
    store.bucket.remote.write(place("objects", named["config"]), b"[]")
    store.bucket.remote.write(place("chunks", chunk.digest), b"?" * chunk.size)
    store.bucket.remote.delete(place("objects", named["empty"]))
    found = {digest: problem for digest, problem in in_s3.store().examine(named.values()) if problem}
    assert found.keys() == {named["config"], named["weights"], named["empty"]}
    assert chunk.digest in found[named["weights"]]
    other = in_s3.store("b")
    for name in ("config", "weights", "empty"):
        with pytest.raises(Corrupt, match="b3:"):
            other.read(named[name])
        with pytest.raises(Corrupt):
            store.check(named[name])
    assert not other.has(artifact.digest)
    put(store, {"config": b"{}", "empty": b""})
    for name in ("config", "empty"):
        store.check(named[name])


def test_what_is_not_there_is_said_to_be_missing(machines: Machines) -> None:
    with pytest.raises(Corrupt, match=r"object b3:0+ is missing from /"):
        machines.store().read("b3:" + "0" * 64)


def test_a_byte_in_a_large_file_costs_a_chunk_or_two(machines: Machines) -> None:
    store = machines.store()
    put(store, {"a": LARGE})
    before = names(store)
    artifact = put(store, {"a": LARGE[: 3 << 20] + b"!" + LARGE[3 << 20 :]})
    new = [name for name in names(store) - before if name.startswith("chunks/")]
    assert 1 <= len(new) <= 2
    assert len(Artifact(artifact.digest, machines.store("b")).path("a").read_bytes()) == len(LARGE) + 1


# -- deleting


def test_deleting_reaches_the_bucket_and_leaves_what_is_shared(in_s3: Machines) -> None:
    store = in_s3.store()
    doomed, kept = put(store, {"a": LARGE, "b": b"gone"}), put(store, {"a": LARGE + b"more", "b": b"stays"})
    gone = {doomed.digest, *digests(doomed).values()}
    freed = store.delete(gone)
    assert 0 < freed <= len(LARGE)
    assert not store.has(doomed.digest)
    assert not any(store.local.has_object(digest) for digest in gone)
    other = in_s3.store("b")
    assert shown(Artifact(kept.digest, other)) == {"a": LARGE + b"more", "b": b"stays"}
    with pytest.raises(Corrupt):
        other.read(doomed.digest)
    store.delete({kept.digest, *digests(kept).values()})
    assert names(store) == set()


def test_what_is_young_stays_and_putting_makes_young(in_s3: Machines) -> None:
    store = in_s3.store()
    old, again = put(store, {"a": b"old", "b": LARGE}), put(store, {"a": b"x" * 100_000, "b": LARGE[::-1]})
    time.sleep(2.1)  # times in a bucket are whole seconds
    moment = time.time()
    put(store, {"a": b"x" * 100_000, "b": LARGE[::-1]})
    chunk = blake3_bytes(b"left by a put that was cut off")
    store.bucket.remote.write(place("chunks", chunk), b"left by a put that was cut off")
    everything = {each for artifact in (old, again) for each in (artifact.digest, *digests(artifact).values())}
    assert store.delete(everything, older_than=moment) > len(LARGE)
    assert not store.has(old.digest)
    assert shown(Artifact(again.digest, in_s3.store("b")))["b"] == LARGE[::-1]
    assert place("chunks", chunk) in names(store)
    store.delete(set(), older_than=time.time() + 60)
    assert place("chunks", chunk) not in names(store)
    assert in_s3.store("b").has(again.digest)


def test_what_was_erased_elsewhere_goes_here(machines: Machines) -> None:
    here, there = machines.store("a"), machines.store("b")
    artifact = put(there, {"a": b"of a person"})
    assert shown(Artifact(artifact.digest, here)) == {"a": b"of a person"}
    doomed = {artifact.digest, *digests(artifact).values()}
    there.delete(doomed)
    here.catch_up(doomed)
    assert not here.has(artifact.digest)
    files = (path for path in here.root.rglob("*") if path.is_file())
    assert not any(b"of a person" in path.read_bytes() for path in files)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_deleting_waits_for_whoever_puts_on_any_machine(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgresql").schema() if kind == "postgresql" else ""

    def opened() -> Database:
        return PostgresqlDatabase(url) if url else SqliteDatabase(tmp_path / "treadle.db")

    one, other = opened(), opened()
    said: list[str] = []

    def delete() -> None:
        with other.guarded(alone=True):
            said.append("deleted")

    with one.guarded(alone=False), one.guarded(alone=False):
        deleting = threading.Thread(target=delete)
        deleting.start()
        deleting.join(0.2)
        assert said == []
    deleting.join(30)
    assert said == ["deleted"]
    with other.guarded(alone=True):
        putting = threading.Thread(target=_enter, args=(one, said))
        putting.start()
        putting.join(0.2)
        assert said == ["deleted"]
    putting.join(30)
    assert said == ["deleted", "put"]
    one.close()
    other.close()


def _enter(database: Database, said: list[str]) -> None:
    with database.guarded(alone=False):
        said.append("put")


def test_a_lock_that_was_lost_is_no_acknowledgment(postgresql: Server) -> None:
    database = PostgresqlDatabase(postgresql.schema())
    with pytest.raises(Lost), database.guarded(alone=False):
        postgresql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'"
        )
    with database.guarded(alone=False):
        pass
    database.close()


# -- ways that are bad


@pytest.mark.parametrize("fault", ["500", *(pytest.param(each, marks=pytest.mark.slow) for each in ("cut", "late"))])
def test_a_bad_way_only_costs_time(
    in_s3: Machines, s3: int, monkeypatch: pytest.MonkeyPatch, hasty: None, fault: str
) -> None:
    proxy = FaultyProxy(s3, lambda number: fault if number % 3 == 1 else "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    artifact = put(in_s3.store("a"), FILES)
    assert shown(Artifact(artifact.digest, in_s3.store("b"))) == FILES
    proxy.close()
    assert proxy.faults > 0


def test_a_put_that_failed_is_not_acknowledged_and_goes_on_later(
    in_s3: Machines, s3: int, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    put(in_s3.store(), {"x": b"before"})
    dying = FaultyProxy(s3, lambda number: "late" if number == 1 else "500")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", dying.url)
        store = in_s3.store()
        with pytest.raises(Unreachable, match="tried 5 times") as caught:
            put(store, FILES)
        assert "\n" not in str(caught.value)
        with pytest.raises(Unreachable):
            store.has_object("b3:" + "0" * 64)
    dying.close()
    store = in_s3.store("b")
    digest = next(iter(put(Store(in_s3.folder / "plain"), FILES).digest for _ in range(1)))
    assert not store.has(digest)
    assert put(in_s3.store(), FILES).digest == digest
    assert shown(Artifact(digest, store)) == FILES


KILLED = """
import os, sys
from pathlib import Path
from treadle.core.artifacts import Artifact, Builder
from treadle.core.bucket_store import BucketStore
from treadle.core.remote import FolderRemote
from treadle.core.store import Store

count, real = int(sys.argv[3]), FolderRemote.write
def write(self, name, data):
    global count
    count -= 1
    if count < 0:
        os.kill(os.getpid(), 9)
    real(self, name, data)
FolderRemote.write = write
store = BucketStore(Store(Path(sys.argv[1])), sys.argv[2], "owner")
with Builder(Artifact, store) as builder:
    for number in range(30):
        (builder.path / str(number)).write_bytes(b"%d" % number)
    (builder.path / "large").write_bytes(bytes(range(256)) * 40_000)
    print(builder.commit().digest)
"""


@pytest.mark.parametrize("count", [1, 7, 33, 34])
def test_killed_in_the_middle_nothing_is_half_there(tmp_path: Path, count: int) -> None:
    machines = Machines(tmp_path, f"file://{tmp_path}/bucket")
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "a"), machines.url]
    done = subprocess.run([*arguments, str(count)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (-9, "")
    there = machines.store("b")
    names = [name.split("/")[-2:] for kind in ("objects", "lists") for name in there.bucket.remote.names(f"{kind}/")]
    assert [problem for _, problem in there.examine("b3:" + "".join(parts) for parts in names) if problem] == []
    done = subprocess.run([*arguments, "1000"], capture_output=True, text=True, timeout=60)
    assert len(shown(Artifact(done.stdout.strip(), there))) == 31


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "tried 5 times"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "set the service's environment variables"),
        ({}, "make the bucket first"),
    ],
)
def test_what_is_wrong_with_the_bucket_is_one_line(
    in_s3: Machines, monkeypatch: pytest.MonkeyPatch, hasty: None, change: dict[str, str | None], said: str
) -> None:
    for name, value in change.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    url = in_s3.url if change else "s3://there-is-none/x"
    for use in (lambda store: put(store, {"a": b"x"}), lambda store: store.has("b3:" + "0" * 64)):
        with pytest.raises(UserError, match=said) as caught:
            use(Machines(in_s3.folder, url).store())
        assert "\n" not in str(caught.value)


def test_the_bucket_of_another_project_or_a_remote_is_refused(machines: Machines, tmp_path: Path) -> None:
    put(machines.store(), {"a": b"x"})
    with pytest.raises(UserError, match="a project with other keys"):
        BucketStore(Store(tmp_path / "other"), machines.url, "somebody").put_bytes(b"x")
    open_remote(f"{machines.url}/remote", tmp_path).write("remote", b"1\n")
    with pytest.raises(UserError, match="is a remote of treadle push"):
        BucketStore(Store(tmp_path / "other"), f"{machines.url}/remote", "owner").put_bytes(b"x")
    machines.store().bucket.remote.write("store", b'{"format":7}')
    with pytest.raises(UserError, match="store of format 7"):
        machines.store().put_bytes(b"x")


# -- encrypted

OLD, NEW = bytes(range(32)), bytes(range(1, 33))


def test_what_is_in_the_bucket_is_encrypted(in_s3: Machines) -> None:
    in_s3.cipher = Cipher([OLD])
    store = in_s3.store()
    artifact = put(store, FILES)
    for name in names(store):
        data = store.bucket.remote.read(name)
        assert not any(text[:5] in data for text in FILES.values() if len(text) > 4)
        assert not data.startswith(b"{")
    assert shown(Artifact(artifact.digest, in_s3.store("b"))) == FILES
    in_s3.cipher = None
    with pytest.raises(UserError, match="is encrypted; name its keys"):
        in_s3.store("c").view(artifact.digest)
    in_s3.cipher = Cipher([NEW])
    with pytest.raises(UserError, match="add the key that it was encrypted under"):
        in_s3.store("d").view(artifact.digest)


def test_a_changed_byte_of_what_is_encrypted_is_named(machines: Machines) -> None:
    machines.cipher = Cipher([OLD])
    artifact = put(machines.store(), {"a": b"text" * 100, "b": LARGE})
    store = machines.store("b")
    for name in sorted(names(store)):
        data = store.bucket.remote.read(name)
        at = random.Random(name).randrange(len(data))
        store.bucket.remote.write(name, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        found = [d for d, problem in store.examine([artifact.digest, *digests(artifact).values()]) if problem]
        assert len(found) == 1
        store.bucket.remote.write(name, data)
    assert shown(Artifact(artifact.digest, store)) == {"a": b"text" * 100, "b": LARGE}


def test_keys_of_a_bucket_are_changed(machines: Machines) -> None:
    """From none to one, and on to another; whoever has all keys reads all the time."""
    artifact = put(machines.store(), FILES)
    for number, keys in enumerate(([OLD], [NEW, OLD])):
        machines.cipher = Cipher(keys)
        store = machines.store(f"machine {number}")
        assert shown(Artifact(artifact.digest, store)) == FILES
        done = encrypt(store)
        assert (done.objects, done.problems) == (len(names(store)), {})
        assert encrypt(store).objects == 0
    machines.cipher = Cipher([NEW])
    last = machines.store("last")
    assert shown(Artifact(artifact.digest, last)) == FILES
    assert encrypt(last, off=True).objects > len(names(last))
    machines.cipher = None
    assert shown(Artifact(artifact.digest, machines.store("plain"))) == FILES


def test_a_file_that_is_encrypted_itself_is_no_riddle(machines: Machines) -> None:
    data = Cipher([OLD]).encrypt(b"somebody's own")
    artifact = put(machines.store(), {"a": data})
    assert Artifact(artifact.digest, machines.store("b")).path("a").read_bytes() == data


def test_what_was_never_sent_can_be_deleted(machines: Machines) -> None:
    """A put that was killed in between leaves a copy here that the bucket knows nothing of, with whatever text."""
    store = machines.store()
    sent = put(store, FILES)
    unsent = store.local.put_bytes(b"about a person")
    assert unsent in store.names()
    assert not store.has_object(unsent)
    store.delete({unsent})
    assert unsent not in store.names()
    assert shown(Artifact(sent.digest, machines.store("b"))) == FILES


def test_a_list_that_cannot_be_read_keeps_nothing_else(machines: Machines) -> None:
    store = machines.store()
    damaged, other = put(store, {"a": LARGE}), put(store, {"b": LARGE[::-1]})
    (entry,) = damaged.entries()
    store.bucket.remote.write(place("lists", entry.digest), b"no list")
    (gone,) = other.entries()
    store.delete({gone.digest, other.digest})
    assert not store.has_object(gone.digest)
    with pytest.raises(Corrupt, match="its list of chunks cannot be read"):
        store.delete({entry.digest})
    assert not machines.store().has_object(entry.digest)
    assert entry.digest not in store.local.names()
