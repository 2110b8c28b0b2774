"""Objects go to a remote and come back, the same over a folder and over S3 (a real server, by HTTP)."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faulty_proxy import FaultyProxy, ask_again_at_once
from stores import KINDS, Kind, damage
from treadle.core.artifacts import Artifact
from treadle.core.chunks import read_list
from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.errors import Corrupt, UserError
from treadle.core.ledger import Fact
from treadle.core.remote import Patient, Remote, Unreachable, open_remote, place
from treadle.core.runs import Run
from treadle.core.sealed_remote import SealedRemote
from treadle.core.verify import verify
from treadle.core.workspace import Workspace
from treadle.record.exchange import pull, push
from treadle.record.garbage import Limits, collect, find_garbage
from treadle.record.record import PROJECTIONS, Record

LARGE = 12 << 20  # bytes; several chunks


class Model(Artifact):
    kind = "model"


@pytest.fixture
def store_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """How the objects of the record lie."""
    kind: Kind = KINDS[request.param]
    kind.use(monkeypatch)
    return kind


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A store of plain objects with each remote; one that is packed and encrypted with a folder, for a transfer asks
    the store and knows nothing of that."""
    if "url" in metafunc.fixturenames:
        pairs = [("folder", "plain"), ("s3", "plain"), ("folder", "packed-encrypted")]
        metafunc.parametrize(("url", "store_kind"), pairs, indirect=True)
    elif "store_kind" in metafunc.fixturenames:
        kinds = ["plain"] if "bucket" in metafunc.fixturenames else ["plain", "packed-encrypted"]
        metafunc.parametrize("store_kind", kinds, indirect=True)


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "remote") if request.param == "folder" else str(request.getfixturevalue("bucket"))


@pytest.fixture
def record(store_kind: Kind, tmp_path: Path) -> Iterator[Record]:
    with Workspace(tmp_path / "store", projections=PROJECTIONS, cipher=store_kind.cipher) as workspace:
        yield Record(workspace, "models-demo")


def make(record: Record, files: dict[str, bytes]) -> Model:
    """A model that a run made."""
    run: Run = record.runs.start(
        "tests.make", version=1, key=blake3_bytes(repr(sorted(files)).encode()), parameters={}, inputs={}, seed=1,
        progress=lambda *_: None, folder=record.store.root,
    )  # fmt: skip
    with run.create(Model) as made:
        for name, data in files.items():
            (made.path / name).parent.mkdir(parents=True, exist_ok=True)
            (made.path / name).write_bytes(data)
        model = made.commit()
    record.runs.finish(run, "done", seconds=0, outputs={"model": model})
    return model


def weights(seed: int = 1, size: int = LARGE) -> bytes:
    return random.Random(seed).randbytes(size)


FILES = {"weights": weights(), "ünï/日本 🧵.txt": b"small", "new\nline": b"x" * 5000, "empty": b"", "config": b"{}"}


@pytest.fixture
def model(record: Record) -> Model:
    return make(record, FILES)


def lose(record: Record, *digests: str) -> None:
    record.store.delete(set(digests))


def files(model: Model) -> dict[str, str]:
    return {entry.path: entry.digest for entry in model.entries()}


def remote_of(url: str) -> Remote:
    """What a remote has, as the store of this test reads it."""
    return SealedRemote(open_remote(url, Path("/")), KINDS[os.environ.get("WRITER_STORE", "plain")].cipher)


def objects(record: Record) -> set[str]:
    return {name for name, _ in record.store.objects()}


def test_everything_comes_back_to_an_empty_store(record: Record, model: Model, url: str, tmp_path: Path) -> None:
    before = objects(record)
    sent = push(record, url, tmp_path)
    assert (sent.objects, sent.problems) == (len(before), {})
    assert sent.chunks > 2
    again = push(record, url, tmp_path)
    assert (again.objects, again.bytes, again.present) == (0, 0, len(before))
    shutil.rmtree(record.store.root / "objects")
    shutil.rmtree(record.store.root / "cache")
    assert not verify(record.workspace).ok
    fetched = pull(record, url, tmp_path)
    assert (fetched.objects, fetched.bytes, fetched.problems) == (sent.objects, sent.bytes, {})
    assert objects(record) == before
    assert verify(record.workspace).ok
    folder = model.path()
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert not list((record.store.root / "cache" / "pull").iterdir())


def test_a_byte_in_the_middle_costs_a_chunk_or_two(record: Record, url: str, tmp_path: Path) -> None:
    data = weights(size=40 << 20)
    first = make(record, {"weights": data})
    push(record, url, tmp_path)
    second = make(record, {"weights": data[: 20 << 20] + b"!" + data[20 << 20 :]})
    sent = push(record, url, tmp_path)
    assert 1 <= sent.chunks <= 2
    assert sent.bytes < len(data) * 0.45
    lose(record, files(second)["weights"])
    fetched = pull(record, url, tmp_path)
    assert fetched.objects == 1
    assert fetched.chunks == sent.chunks  # the others are in the first one, here
    record.store.check(files(second)["weights"])
    lose(record, files(first)["weights"], files(second)["weights"])
    assert pull(record, url, tmp_path).problems == {}
    assert verify(record.workspace).ok


@pytest.mark.parametrize("name", ["weights", "config", "ünï/日本 🧵.txt"])
def test_a_damaged_object_is_found_and_fetched(
    record: Record, store_kind: Kind, model: Model, url: str, tmp_path: Path, name: str
) -> None:
    push(record, url, tmp_path)
    model.path()
    data = record.store.read(files(model)[name])
    damage(record.store, files(model)[name])
    assert files(model)[name] in {problem.ref for problem in verify(record.workspace).problems}
    assert pull(record, url, tmp_path).objects == 1
    assert Artifact(model.digest, store_kind.open(record.store.root)).path(name).read_bytes() == data
    assert verify(record.workspace).ok


def test_a_damaged_manifest_is_fetched_and_then_its_files(
    record: Record, model: Model, url: str, tmp_path: Path
) -> None:
    push(record, url, tmp_path)
    lose(record, model.digest, *files(model).values())
    assert pull(record, url, tmp_path).objects == 1 + len(FILES)
    assert verify(record.workspace).ok


def test_what_is_damaged_here_is_not_sent(record: Record, model: Model, url: str, tmp_path: Path) -> None:
    for name in ("weights", "config"):
        damage(record.store, files(model)[name], 0)
    sent = push(record, url, tmp_path)
    assert sent.problems.keys() == {files(model)["weights"], files(model)["config"]}
    assert sent.objects > 2
    remote = remote_of(url)
    for kind, name in (("lists", "weights"), ("objects", "weights"), ("objects", "config")):
        with pytest.raises(FileNotFoundError):
            remote.read(place(kind, files(model)[name]))


def test_what_is_damaged_there_is_named_and_not_taken(record: Record, model: Model, url: str, tmp_path: Path) -> None:
    push(record, url, tmp_path)
    remote, digests = remote_of(url), files(model)
    chunks = read_list(remote.read(place("lists", digests["weights"])))
    good = remote.read(place("chunks", chunks[1].digest))
    remote.write(place("chunks", chunks[1].digest), b"?" + good[1:])
    remote.write(place("objects", digests["config"]), b"[]")
    remote.delete(place("objects", digests["new\nline"]))
    lose(record, *digests.values())
    shutil.rmtree(record.store.root / "cache")
    fetched = pull(record, url, tmp_path)
    assert fetched.problems.keys() == {digests["weights"], digests["config"], digests["new\nline"]}
    assert f"chunk {chunks[1].digest} damaged" in fetched.problems[digests["weights"]]
    assert not record.store.has_object(digests["weights"])
    assert not record.store.has_object(digests["config"])
    assert record.store.has_object(digests["empty"])
    remote.write(place("chunks", chunks[1].digest), good)
    fetched = pull(record, url, tmp_path)
    assert digests["weights"] not in fetched.problems
    assert fetched.chunks == len(chunks) - 1  # the first one was right, and stayed


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b'{"chunks":[],"format":1}', b'{"chunks":[],"format":2}', b'{"chunks":[["b3:x",1]],"format":1}',
        b'{"chunks":[["../../x",1]],"format":1}', b'{"chunks":[["b3:' + b"0" * 64 + b'",99999999999]],"format":1}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_chunk_list_that_is_none_is_refused(record: Record, model: Model, tmp_path: Path, data: bytes) -> None:
    url = str(tmp_path / "remote")
    push(record, url, tmp_path)
    weights = files(model)["weights"]
    remote_of(url).write(place("lists", weights), data)
    lose(record, weights)
    fetched = pull(record, url, tmp_path)
    assert fetched.problems.keys() == {weights}
    assert "\n" not in fetched.problems[weights]
    assert not record.store.has_object(weights)


@pytest.mark.parametrize("path", ["../escape", "/etc/passwd", "a/../../b", "a\\b"])
def test_a_manifest_cannot_lead_out_of_its_folder(record: Record, tmp_path: Path, path: str) -> None:
    """Somebody made a remote with a manifest that a manifest may not be; its digest is right."""
    remote = remote_of(str(tmp_path / "remote"))
    file = b"gotcha"
    manifest = canonical_json({"files": [[path, len(file), blake3_bytes(file)]], "format": 1})
    remote.write("remote", b"1\n")
    for data in (file, manifest):
        remote.write(place("objects", blake3_bytes(data)), data)
    pull(record, str(tmp_path / "remote"), tmp_path, (blake3_bytes(manifest),))
    assert not record.store.has_object(blake3_bytes(file))
    with pytest.raises(Corrupt, match="not a path inside"):
        record.store.view(blake3_bytes(manifest))
    assert not (tmp_path / "escape").exists()


def test_only_what_is_named_goes_and_comes(record: Record, url: str, tmp_path: Path) -> None:
    one, other = make(record, {"a": b"one"}), make(record, {"a": b"other"})
    version = record.versions.register("model", other.digest, None)
    assert push(record, url, tmp_path, (version.ref,)).objects == 2
    lose(record, one.digest, other.digest, *files(one).values(), *files(other).values())
    fetched = pull(record, url, tmp_path, ("model@v1",))
    assert (fetched.objects, fetched.problems) == (2, {})
    assert record.store.has(other.digest)
    assert pull(record, url, tmp_path, (one.digest,)).problems.keys() == {one.digest}
    with pytest.raises(UserError):
        push(record, url, tmp_path, ("model@v7",))


def test_an_erasure_reaches_the_remote_and_nothing_comes_back(record: Record, url: str, tmp_path: Path) -> None:
    shared = weights(5, 9 << 20)
    gone, kept = make(record, {"a": shared + weights(6), "b": b"of a person"}), make(record, {"a": shared + weights(7)})
    push(record, url, tmp_path)
    large, other, doomed = files(gone)["a"], files(kept)["a"], {gone.digest, *files(gone).values()}
    suppression = record.erasures.extend({}).digest
    record.erasures.record("era-1", "k3:0", "deleting", suppression, objects=sorted(doomed))
    lose(record, *doomed)
    record.erasures.record("era-1", "k3:0", "done", suppression)
    remote = remote_of(url)
    lists = {digest: read_list(remote.read(place("lists", digest))) for digest in (large, other)}
    assert push(record, url, tmp_path).deleted == 3
    assert not doomed & {
        "b3:" + "".join(name.split("/")[-2:]) for name in [*remote.names("objects/"), *remote.names("lists/")]
    }
    there = {"b3:" + "".join(name.split("/")[-2:]) for name in remote.names("chunks/")}
    assert there == {chunk.digest for chunk in lists[other]}
    assert there & {chunk.digest for chunk in lists[large]}  # shared, so it stayed
    assert pull(record, url, tmp_path).objects == 0
    lose(record, other)
    assert pull(record, url, tmp_path).problems == {}
    assert verify(record.workspace).ok


def test_what_was_erased_does_not_come_back_by_its_name(record: Record, url: str, tmp_path: Path) -> None:
    gone, kept = make(record, {"a": b"of a person"}), make(record, {"b": b"of nobody"})
    version = record.versions.register("model", gone.digest, None)
    producer = record.runs.producer(gone.digest)
    assert producer is not None
    push(record, url, tmp_path)
    doomed = {gone.digest, *files(gone).values()}
    suppression = record.erasures.extend({}).digest
    record.erasures.record("era-1", "k3:0", "deleting", suppression, objects=sorted(doomed))
    lose(record, *doomed)
    record.erasures.record("era-1", "k3:0", "done", suppression)
    for ref in (gone.digest, version.ref, producer.id):
        assert pull(record, url, tmp_path, (ref,)).problems == {gone.digest: "was erased, and stays away"}
    lose(record, *files(kept).values())
    file = blake3_bytes(b"of a person")
    fetched = pull(record, url, tmp_path, (file, kept.digest))
    assert (fetched.objects, list(fetched.problems)) == (1, [file])
    assert not doomed & objects(record)
    assert verify(record.workspace).ok
    sent = push(record, url, tmp_path, (version.ref,))
    assert (sent.objects, sent.deleted, list(sent.problems)) == (0, 2, [gone.digest])


def test_what_was_collected_comes_back_by_name_only(record: Record, model: Model, tmp_path: Path) -> None:
    url = str(tmp_path / "remote")
    push(record, url, tmp_path)
    digest = model.digest
    record.ledger.append(Fact("gc", {"artifacts": [digest], "keeps": ["documents.ids"], "objects": 5, "bytes": 0}))
    limits = Limits(grace=0)
    collect(record, find_garbage(record, limits), limits)
    assert not record.store.has(digest)
    assert push(record, url, tmp_path).problems == {}
    assert pull(record, url, tmp_path).objects == 0
    assert verify(record.workspace).ok
    assert pull(record, url, tmp_path, (digest,)).problems == {}
    assert record.store.has(digest)
    assert find_garbage(record, limits).public()["objects"] == 0  # it is named again
    lose(record, files(model)["config"])
    assert not verify(record.workspace).ok


def test_another_projects_store_is_a_remote_to_pull_from(record: Record, model: Model, tmp_path: Path) -> None:
    with Workspace(tmp_path / "other", projections=PROJECTIONS, cipher=record.store.cipher) as workspace:
        other = Record(workspace, "models-demo")
        assert pull(other, str(record.store.root), tmp_path, (model.digest,)).problems == {}
        assert Artifact(model.digest, other.store).path("weights").read_bytes() == FILES["weights"]
        with pytest.raises(UserError, match="a project's own store"):
            push(other, str(record.store.root), tmp_path)


# -- ways that are bad


@pytest.mark.parametrize("fault", ["500", "cut", "late"])
def test_a_bad_way_only_costs_time(
    record: Record, model: Model, bucket: str, s3: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    ask_again_at_once(monkeypatch)
    proxy = FaultyProxy(s3, lambda number: fault if number % 3 == 1 else "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    try:
        assert push(record, bucket, tmp_path).problems == {}
        lose(record, *files(model).values())
        shutil.rmtree(record.store.root / "cache")
        assert pull(record, bucket, tmp_path).problems == {}
    finally:
        proxy.close()
    assert proxy.faults > 0
    assert verify(record.workspace).ok


def test_a_remote_that_dies_leaves_both_sides_usable(
    record: Record, model: Model, bucket: str, s3: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_again_at_once(monkeypatch)
    dead = FaultyProxy(s3, lambda number: "500")
    dying = FaultyProxy(s3, lambda number: "late")  # each connection dies after 3,000 bytes
    for proxy, move in ((dead, push), (dying, pull)):
        if move is pull:
            assert push(record, bucket, tmp_path).problems == {}
            lose(record, *files(model).values())
            shutil.rmtree(record.store.root / "cache")
        with monkeypatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", proxy.url)
            with pytest.raises(Unreachable, match="tried 5 times") as caught:
                move(record, bucket, tmp_path)
        proxy.close()
        assert "\n" not in str(caught.value)
    assert pull(record, bucket, tmp_path).problems == {}
    assert verify(record.workspace).ok


KILLED = """
import os, sys
from pathlib import Path
from treadle.core.remote import FolderRemote
from treadle.core.workspace import Workspace
from treadle.record import exchange
from treadle.record.record import PROJECTIONS, Record

verb, root, remote, count = sys.argv[1:4] + [int(sys.argv[4])]
name = "write" if verb == "push" else "read"
real = getattr(FolderRemote, name)
def counted(self, what, *more):
    global count
    count -= what.startswith("chunks/")
    if count < 0:
        os.kill(os.getpid(), 9)
    return real(self, what, *more)
setattr(FolderRemote, name, counted)
with Workspace(Path(root), projections=PROJECTIONS) as workspace:
    getattr(exchange, verb)(Record(workspace, "models-demo"), remote, Path("/"))
"""


@pytest.mark.parametrize("count", [0, 3, 9])
def test_killed_in_the_middle_it_goes_on(tmp_path: Path, count: int) -> None:
    root, url = tmp_path / "store", str(tmp_path / "remote")

    def killed(verb: str) -> None:
        done = subprocess.run([sys.executable, "-c", KILLED, verb, root, url, str(count)], timeout=60)
        assert done.returncode == -9

    with Workspace(root, projections=PROJECTIONS) as workspace:
        model = make(Record(workspace, "models-demo"), {"weights": weights(size=40 << 20)})
        digest = files(model)["weights"]
    killed("push")
    with Workspace(root, projections=PROJECTIONS) as workspace:
        record = Record(workspace, "models-demo")
        there = len(list(remote_of(url).names("chunks/")))
        assert there >= count - 4
        sent = push(record, url, tmp_path)
        assert sent.problems == {}
        whole = len(read_list(remote_of(url).read(place("lists", digest))))
        assert sent.chunks == whole - there
        lose(record, digest)
        shutil.rmtree(workspace.root / "cache")
    killed("pull")
    with Workspace(root, projections=PROJECTIONS) as workspace:
        record = Record(workspace, "models-demo")
        assert not record.store.has_object(digest)
        fetched = pull(record, url, tmp_path)
        assert fetched.problems == {}
        assert fetched.chunks <= whole - max(0, count - 4)
        assert verify(workspace).ok


FULL = """
import resource, signal, sys
from pathlib import Path
from treadle.core.errors import UserError
from treadle.core.workspace import Workspace
from treadle.record.exchange import pull
from treadle.record.record import PROJECTIONS, Record

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Workspace(Path(sys.argv[1]), projections=PROJECTIONS) as workspace:
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 << 20, 6 << 20))
    try:
        pull(Record(workspace, "models-demo"), sys.argv[2], Path("/"))
    except UserError as error:
        print(error)
        sys.exit(7)
"""


def test_where_there_is_no_room_it_says_so_and_goes_on_later(tmp_path: Path) -> None:
    root, url = tmp_path / "store", str(tmp_path / "remote")
    with Workspace(root, projections=PROJECTIONS) as workspace:
        record = Record(workspace, "models-demo")
        digest = files(make(record, FILES))["weights"]
        push(record, url, tmp_path)
        lose(record, digest)
    done = subprocess.run([sys.executable, "-c", FULL, root, url], timeout=60, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert done.stdout.count("\n") == 1
    assert f"cannot write {root}: File too large" in done.stdout
    with Workspace(root, projections=PROJECTIONS) as workspace:
        record = Record(workspace, "models-demo")
        assert not record.store.has_object(digest)
        assert (root / "cache" / "pull" / digest[3:]).stat().st_size > 0
        fetched = pull(record, url, tmp_path)
        assert fetched.problems == {}
        assert fetched.bytes < LARGE
        assert verify(workspace).ok


def test_deleting_takes_what_a_cut_off_transfer_left(record: Record, model: Model, tmp_path: Path) -> None:
    digest = files(model)["weights"]
    push(record, str(tmp_path / "remote"), tmp_path)
    for name in ("pull", "chunks"):
        place = record.store.root / "cache" / name / digest[3:]
        place.parent.mkdir(exist_ok=True)
        place.touch()
    record.store.delete({digest})
    assert not [path for path in record.store.root.rglob("*") if path.name.startswith(digest[5:])]
    assert not [path for path in record.store.root.rglob("*") if path.name == digest[3:]]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://key:secret@bucket/x", "holds a secret"),
        ("https://user:password123@example.org/x", "holds a secret"),
        ("s3://AKIAIOSFODNN7EXAMPLE@bucket", "holds a secret"),
        ("sftp://host/x", "there is no remote called 'sftp'"),
        ("s3://", "expected a bucket"),
    ],
)
def test_an_address_that_will_not_do(record: Record, tmp_path: Path, address: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        push(record, address, tmp_path)
    assert "secret@" not in str(caught.value)
    assert "password123" not in str(caught.value)


def test_a_bucket_that_nobody_made_is_said_in_one_line(record: Record, bucket: str, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="make the bucket first") as caught:
        push(record, "s3://nobody-made-it/x", tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="there is no remote at"):
        pull(record, "s3://nobody-made-it/x", tmp_path)


def test_nothing_is_pulled_from_nowhere(record: Record, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no remote at"):
        pull(record, "nowhere", tmp_path)
    assert not (tmp_path / "nowhere").exists()


def test_a_remote_of_a_later_format_is_refused(record: Record, tmp_path: Path) -> None:
    remote_of(str(tmp_path / "remote")).write("remote", b"2\n")
    for move in (push, pull):
        with pytest.raises(UserError, match="of format"):
            move(record, str(tmp_path / "remote"), tmp_path)


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        url, asked = "broken", 0

        def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
            self.asked += 1
            raise ConnectionResetError(104, "connection reset")

    monkeypatch.setattr("treadle.core.remote._FIRST_PAUSE", 0.01)
    broken = Broken()
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"broken: cannot read x, tried 5 times: connection reset; what arrived"):
        Patient(broken).read("x")  # type: ignore[arg-type]
    assert broken.asked == 5
    assert time.monotonic() - began < 5
