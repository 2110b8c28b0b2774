"""Push and pull: what of the record goes to a remote, and what comes back.

Without references: every object that a row of the ledger names, and what was uploaded and is to be named. With them:
those artifacts. A pull looks at every byte of what it is about, so it also mends: what is missing or damaged here is
fetched. What was erased never comes back, and a push takes it away from the remote as well; what was collected comes
back when it is asked for by name.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from treadle.core.artifacts import Entry
from treadle.core.digest import is_digest
from treadle.core.encrypting import Recoded, encrypt_remote
from treadle.core.errors import Corrupt, UserError
from treadle.core.ledger import Fact
from treadle.core.reach import collected_artifacts
from treadle.core.remote import Remote, introduce, is_there, open_remote
from treadle.core.sealed_remote import SealedRemote
from treadle.core.store import Store
from treadle.core.store_remote import readable
from treadle.core.transfer import Moved, Transfer
from treadle.core.uploads import pending
from treadle.core.verify import erased_objects, named_objects
from treadle.record import erasure_list
from treadle.record.erasure_list import Known
from treadle.record.record import Record
from treadle.record.reference import resolve


def push(record: Record, url: str, folder: Path, refs: tuple[str, ...] = ()) -> Moved:
    """Send what the remote lacks, an artifact's files before its manifest."""
    erased, _ = erased_objects(record.workspace)
    asked = _artifacts(record, refs) if refs else dict.fromkeys(_named(record, erased), True)
    tops = _without(erased, asked)
    remote = SealedRemote(open_remote(url, folder), record.store.cipher)
    introduce(remote, writing=True)
    with _local_errors(record.store), Transfer(record.store, remote) as transfer:
        files, absent = _files_of(record, tops, erased, transfer)
        transfer.send(digest for digest in files if digest not in tops and digest not in absent)
        transfer.send(digest for digest in tops if digest not in absent)
        _tell_erasures(record, remote)
        erased, _ = erased_objects(record.workspace)  # once more: somebody may have been forgotten meanwhile
        transfer.withdraw(erased)
        _say_erased(transfer, asked, tops)
        return transfer.moved


def pull(record: Record, url: str, folder: Path, refs: tuple[str, ...] = ()) -> Moved:
    """Fetch what is missing or damaged here, manifests first; every object is checked before it gets its name. The
    caller holds the project, so that nothing is erased meanwhile."""
    erased, _ = erased_objects(record.workspace)
    asked = _artifacts(record, refs) if refs else _named(record, erased)
    tops = _without(erased, asked)
    sealed = SealedRemote(open_remote(url, folder), record.store.cipher)
    introduce(sealed, writing=False)
    remote = readable(sealed, record.store.cipher)
    record.store.mend()
    with _local_errors(record.store), Transfer(record.store, remote) as transfer:
        seen = _mend(record.store, transfer, sorted(tops), set())
        collected = {} if refs else collected_artifacts(record.ledger)
        files: set[str] = set()
        for digest in (digest for digest, is_artifact in tops.items() if is_artifact):
            for entry in _entries(record.store, digest):
                if entry.digest not in erased and (digest not in collected or entry.path in collected[digest]):
                    files.add(entry.digest)
        _mend(record.store, transfer, sorted(files), seen)
        record.store.mend()  # what was kept beside until its objects were here
        if refs and not transfer.moved.problems:
            _name_again(record, tops)
        _say_erased(transfer, asked, tops)
        return transfer.moved


def encrypt(record: Record, url: str, folder: Path, *, off: bool = False) -> Recoded:
    """Encrypt what a remote has under the first key, or with ``off`` decrypt it."""
    remote = open_remote(url, folder)
    introduce(remote, writing=False)
    if not is_there(remote, "remote"):
        raise UserError(f"{remote.url} is a project's own store; call treadle encrypt in that project")
    return encrypt_remote(remote, record.store.cipher, off=off)


def erasures_at(record: Record, url: str, folder: Path) -> list[Known]:
    """What was erased in this project, as far as a remote was told."""
    remote = open_remote(url, folder)
    introduce(remote, writing=False)
    return erasure_list.read(_told(record, remote), record.workspace.keys)


def _told(record: Record, remote: Remote) -> bytes:
    try:
        return remote.read(_erasures(record), 0, erasure_list.LIMIT)
    except FileNotFoundError:
        return b""


def _erasures(record: Record) -> str:
    return f"erasures/{record.workspace.keys.public}.jsonl"


def _tell_erasures(record: Record, remote: Remote) -> None:
    """Keep the list of erasures at the remote, for whoever restores a backup that is older."""
    known = erasure_list.recorded(record.ledger.rows(*erasure_list.KINDS), record.store)
    if not known:
        return
    before = _told(record, remote)
    data = erasure_list.merged(before, known, record.workspace.keys)
    if data != before:
        remote.write(_erasures(record), data)


@contextmanager
def _local_errors(store: Store) -> Iterator[None]:
    """A full disk or a store that cannot be written is no fault of the remote, and is said in one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {store.root}: {error.strerror or error}; what arrived stays, the same command goes on"
        ) from None


def _named(record: Record, erased: set[str]) -> dict[str, bool]:
    """Objects that rows name, or are to name, and that were not erased; and whether each is an artifact."""
    waiting = pending(record.workspace.state)
    named = named_objects(record.workspace)
    known = {digest: what.startswith("artifact") for digest, what in named if digest not in erased}
    return dict.fromkeys(waiting - erased, False) | known


def _without(erased: set[str], asked: dict[str, bool]) -> dict[str, bool]:
    return {digest: is_artifact for digest, is_artifact in asked.items() if digest not in erased}


def _say_erased(transfer: Transfer, asked: Iterable[str], tops: Container[str]) -> None:
    """What was asked for by name and an erasure removed is a problem: it neither goes nor comes."""
    gone = (digest for digest in asked if digest not in tops)
    transfer.moved.problems.update(dict.fromkeys(gone, "was erased, and stays away"))


def _artifacts(record: Record, refs: Iterable[str]) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for ref in refs:
        if is_digest(ref):  # also one that the ledger does not know
            found[ref] = True
            continue
        reference = resolve(record, ref, lambda name: [])
        run = record.runs.get(reference.id) if reference.kind == "run" else None
        if run is not None:
            found.update(dict.fromkeys(run.outputs.values(), True))
        elif reference.kind == "artifact":
            found[reference.id] = True
        else:
            raise UserError(
                f"{ref} is no artifact; push and pull take model@v1, dataset@v1, @champion, run-... or b3:..."
            )
    return found


def _files_of(
    record: Record, tops: dict[str, bool], erased: set[str], transfer: Transfer
) -> tuple[dict[str, None], set[str]]:
    """Files of artifacts in order, and what of all is not here; a problem unless the remote has it or it was let go."""
    collected = collected_artifacts(record.ledger)
    files: dict[str, None] = {}
    let_go: set[str] = set()
    for top in (digest for digest, is_artifact in tops.items() if is_artifact):
        for entry in _entries(record.store, top):
            if entry.digest in erased:
                continue
            files[entry.digest] = None
            if top in collected and entry.path not in collected[top]:
                let_go.add(entry.digest)
    absent = {digest for digest in (*files, *tops) if not record.store.has_object(digest)}
    for digest in absent - let_go:
        if transfer.holds(digest):
            transfer.moved.present += 1
        else:
            transfer.moved.problems[digest] = f"object {digest} is missing from {record.store.root}"
    return files, absent


def _entries(store: Store, digest: str) -> tuple[Entry, ...]:
    try:
        return store.entries(digest)
    except Corrupt:
        return ()  # missing or damaged: a problem already


def _mend(store: Store, transfer: Transfer, digests: list[str], seen: set[str]) -> set[str]:
    """Fetch those that are missing or damaged; returns what was looked at so far."""
    wanted = []
    for digest in digests:
        if digest in seen:
            continue
        try:
            store.check(digest)
            transfer.moved.present += 1
        except Corrupt:
            wanted.append(digest)
    transfer.fetch(wanted)
    return seen | set(digests)


def _name_again(record: Record, tops: Iterable[str]) -> None:
    """Artifacts that were collected and are whole again are no longer on the list of those let go."""
    collected = collected_artifacts(record.ledger)
    for row in list(record.ledger.rows("artifact")):
        if row.body["digest"] in collected.keys() & set(tops) and record.store.has(row.body["digest"]):
            collected.pop(row.body["digest"])
            record.ledger.append(Fact("artifact", row.body))
