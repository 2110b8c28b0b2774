"""Putting a backup in the place of what a store holds now.

Everything is prepared beside it first: keys, rows checked one by one, query tables drawn anew, the journal's segments,
a row ``restored`` that says what of history is lost, and the ledger is audited as ``verify`` does it. Only then is
anything replaced (``swap``), all of it or nothing, whenever this process is killed.

What may be lost is asked first: a backup that is older than a head that anybody kept is refused unless the caller says
``older``. What is there now is backed up before, if it can be read, and put aside otherwise.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from treadle.core import backup, fact, nodes, swap
from treadle.core.artifacts import read_manifest
from treadle.core.audit import Published, audit, project
from treadle.core.backup import Archive, Source, checked
from treadle.core.cipher import Cipher
from treadle.core.database import Database
from treadle.core.digest import PREFIX
from treadle.core.errors import Corrupt, Refused, UserError
from treadle.core.fact import Fact, Projection, Row
from treadle.core.head import Head, HeadFile
from treadle.core.keys import Keys
from treadle.core.ledger import Ledger
from treadle.core.nodes import Tree
from treadle.core.opening import open_database
from treadle.core.sqlite import SqliteDatabase
from treadle.core.state import State
from treadle.core.store import Store

ABANDONED = "restored"  # the kind of row
_PAGE = 2_048
_NAMED = 1_000  # heads that are given up one by one: any of the latest may be what another machine has seen last
_ACCOUNTS = ("gc", "seal", "erasure", "artifact")


@dataclass
class Restored:
    """What a restore put back, and what of history is lost by it: the rows ``backup.size + 1`` to ``lost`` of the
    history that was replaced; ``replaced`` is its latest head that anybody knew of."""

    backup: Head
    made: str
    rows: int = 0
    replaced: Head | None = None
    lost: int = 0
    abandoned: list[Head] = field(default_factory=list)
    kept: Path | None = None
    erased: frozenset[str] = frozenset()  # requests that were done when ``kept`` was written
    sound: bool = False  # the ledger that was replaced was what its head says
    again: bool = False  # this backup was restored before, and nothing was written since

    def public(self) -> dict[str, Any]:
        """The shape that ``treadle restore --json`` promises."""
        return {
            "made": self.made,
            "rows": self.rows,
            "backup": _said(self.backup),
            "replaced": _said(self.replaced),
            "lost": self.lost,
            "kept": None if self.kept is None else str(self.kept),
        }


@dataclass(frozen=True)
class Target:
    """Where a backup is restored to: the store's folder, its database, the tables to draw, heads kept elsewhere.

    ``erased`` is told the keys and the present ledger's rows about erasures, and tells what else was erased.
    """

    root: Path
    place: Path | str
    projections: tuple[Projection, ...]
    published: Sequence[Published] = ()
    store_format: int = 1
    cipher: Cipher | None = None
    erased: Callable[[Keys, Sequence[Row]], AbstractSet[str]] = lambda _keys, _rows: frozenset()


@dataclass
class _Present:
    """What is there now, as far as it can be told. ``sound``: the ledger is what its head says."""

    head: Head | None = None
    sound: bool = False
    codes: list[str] = field(default_factory=list)
    accounts: list[Row] = field(default_factory=list)  # for what is in the store or was taken out of it
    last: Row | None = None
    roots: dict[int, str] = field(default_factory=dict)  # of the latest sizes


def restore(archive: Archive, target: Target, *, older: bool = False) -> Restored:
    """Put a backup in the place of what is there; nothing is changed where this raises.

    ``UserError`` for another project's backup or while somebody has the store open, ``Refused`` where rows would be
    lost that somebody can show, ``Corrupt`` where the backup is not what was written.
    """
    contents = archive.contents
    if contents.store_format > target.store_format:
        raise UserError(
            f"{archive.path} is of a store of format {contents.store_format}, this Treadle reads format "
            f"{target.store_format}; use a newer one"
        )
    with _errors(target.root), ExitStack() as opened:
        target.root.mkdir(parents=True, exist_ok=True)
        opened.enter_context(swap.alone(target.root))
        # Until the end: what somebody appended after it was looked at would be lost and nobody told.
        server = opened.enter_context(swap.server_alone(target.place)) if isinstance(target.place, str) else None
        swap.finish(target.root, target.place, server)  # what an earlier restore began
        store = Store(target.root, target.cipher)
        opened.callback(store.close)
        store.check_keys()
        prepared = store.new_folder("restore-")
        opened.callback(lambda: shutil.rmtree(prepared, ignore_errors=True))
        keys = _keys(archive, target.root, prepared)
        present = _look(target, keys, server)
        _put_journal(archive, prepared, present if present.sound else _Present())
        later = _known_heads(target, keys, present)
        with closing(SqliteDatabase(prepared / "treadle.db")) as database:
            tree = _rows(archive, database, keys, target.projections, {head.size for head in later})
            found = _compare(archive, tree, later, present, database)
            _refuse_loss(archive.path, found, present, older)
            put_objects(archive, store, _erased(archive, store, target, keys, present))
            done = [row for row in present.accounts if row.kind == "erasure" and row.body["phase"] == "done"]
            found.erased = frozenset(row.body["request"] for row in done) if present.sound else frozenset()
            found.sound = present.sound
            found.kept = _keep(target, keys, store, present, server)
            _go_on(database, keys, prepared, target, found, present)
        plan = {"replaced": None if found.kept and present.sound else _aside(target, found)}
        (prepared / "plan.json").write_text(json.dumps(plan))
        swap.decide(target.root, prepared)
        swap.finish(target.root, target.place, server)
    return found


@contextmanager
def _errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {root}: {error.strerror or error}; make room or make it writable and restore again"
        ) from None


# -- keys, journal, objects


def put_beside(archive: Archive, target: Target) -> None:
    """Everything but the ledger, for one that is sound while its store is lost: keys, head, the journal's segments."""
    root = target.root
    with _errors(root), ExitStack() as opened:
        root.mkdir(parents=True, exist_ok=True)
        opened.enter_context(swap.alone(root))
        store = Store(root, target.cipher)
        opened.callback(store.close)
        store.check_keys()
        prepared = store.new_folder("restore-")
        keys = _keys(archive, root, prepared)
        present = _look(target, keys)
        _put_journal(archive, prepared, present)
        put_objects(archive, store, _erased(archive, store, target, keys, present))
        swap.put_keys(prepared, root)
        swap.put_segments(prepared, root)
        HeadFile(root / "head.json", keys).create(archive.contents.head)


def _keys(archive: Archive, root: Path, prepared: Path) -> Keys:
    """The project's keys: those of the store where they are there, else those of the backup, which are prepared."""
    if all((root / "keys" / name).exists() for name in backup.KEYS):
        keys = Keys(root / "keys", make=False)
    else:
        if len(archive.names("keys/")) != len(backup.KEYS):
            raise UserError(f"{archive.path} was made without keys; put {root / 'keys'} back first")
        for name in backup.KEYS:
            _extract(archive, f"keys/{name}", prepared / "keys" / name)
            (prepared / "keys" / name).chmod(0o600)
        (prepared / "keys").chmod(0o700)
        keys = Keys(prepared / "keys", make=False)
    if keys.public != archive.contents.public_key or not archive.contents.head.valid(keys):
        raise UserError(f"{archive.path} is a backup of another project than the one with the keys in {root / 'keys'}")
    return keys


def _extract(archive: Archive, name: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for data in archive.pieces(name):
            file.write(data)


def _put_journal(archive: Archive, prepared: Path, present: _Present) -> None:
    """The journal's segments, but those that were sealed since: their rows may have been erased from what they are
    now."""
    seals = [row.body for row in present.accounts if row.kind == "seal" and row.body["file"]]
    sealed = {f"journal/{body['stream']}/{body['file']}.jsonl" for body in seals}
    for name in archive.names("journal/"):
        if name not in sealed:
            _extract(archive, name, prepared / name)


def put_objects(archive: Archive, store: Store, erased: AbstractSet[str]) -> None:
    """Objects go into the store at once, but those that were erased; one that no row names does no harm. ``Corrupt``
    for one that is another."""
    prepared = store.new_folder("objects-")
    for name in archive.names("objects/"):
        digest = PREFIX + name.rpartition("/")[2]
        if archive.contents.members[name][1] != digest:
            raise Corrupt(f"{archive.path}: {name} is not the object it is called; use another backup")
        if digest in erased:
            continue
        try:
            store.check(digest)
        except Corrupt:
            _extract(archive, name, prepared / "object")
            store.adopt([(prepared / "object", digest)])
    shutil.rmtree(prepared, ignore_errors=True)


def _erased(archive: Archive, store: Store, target: Target, keys: Keys, present: _Present) -> AbstractSet[str]:
    """Objects that were erased, and that nothing made again since; of a damaged ledger, as far as it can be read."""
    gone: set[str] = set()
    for row in present.accounts:
        if row.kind == "erasure":
            gone.update(row.body["objects"])
        elif gone and row.kind in ("artifact", "seal"):
            gone -= _tree(archive, store, row.body["digest" if row.kind == "artifact" else "segment"])
    return gone | target.erased(keys, [row for row in present.accounts if row.kind in ("erasure", "seal")])


def _tree(archive: Archive, store: Store, digest: str) -> set[str]:
    """An artifact's manifest and files, as far as they are known here."""
    name = "objects/" + digest.removeprefix(PREFIX)
    try:
        packed = name in archive.contents.members and not store.has_object(digest)
        entries = read_manifest(archive.read(name)) if packed else store.entries(digest)
    except Corrupt:
        return {digest}
    return {digest, *(entry.digest for entry in entries)}


# -- what is there now


def _look(target: Target, keys: Keys, server: Database | None = None) -> _Present:
    """The present ledger, checked; one that is damaged, or somebody else's, only counts as not sound."""
    found = _Present()
    if isinstance(target.place, Path) and not target.place.exists():
        return found
    try:
        with _opened(target, server) as database, database.snapshot() as reader:
            heads = list(reader.execute("SELECT size, root, signature FROM ledger_head WHERE id = 1"))
            if not heads or not Head(*heads[0]).valid(keys):
                return found
            found.head = Head(*heads[0])
            size = found.head.size if type(found.head.size) is int else 0
            tree = Tree(set(range(max(1, size - _NAMED + 1), size + 1)))
            sql = "SELECT seq, kind, version, time, body, mac FROM ledger ORDER BY seq"
            for rows in database.batches(reader, sql, _PAGE):
                tree.extend(checked(rows, tree.size, keys))
                found.last = _row(rows[-1])
                found.codes += [row[5] for row in rows]
                found.accounts += [_row(row) for row in rows if row[1] in _ACCOUNTS]
            found.roots = tree.roots
            found.sound = tree.size == found.head.size and tree.frontier.root().hex() == found.head.root
    except (Corrupt, sqlite3.Error):
        return found
    return found


def _opened(target: Target, server: Database | None) -> AbstractContextManager[Database]:
    """The present database; that of a server that is held is open already."""
    return nullcontext(server) if server else closing(open_database(target.place))


def _row(row: Sequence[Any]) -> Row:
    return Row(row[0], row[1], row[2], row[3], json.loads(row[4]))


def _known_heads(target: Target, keys: Keys, present: _Present) -> list[Head]:
    """Every genuine head that anybody kept."""
    heads = [each.head for each in target.published]
    with suppress(Corrupt):
        heads += [head for head in [HeadFile(target.root / "head.json", keys).read()] if head]
    if present.head:
        heads.append(present.head)
    return [head for head in dict.fromkeys(heads) if head.valid(keys)]


def _keep(target: Target, keys: Keys, store: Store, present: _Present, server: Database | None) -> Path | None:
    """A backup of what is there now, where it is sound."""
    if not present.sound or present.head is None:
        return None
    path = target.root / "backups" / f"before-restore-{backup.stamp()}.zip"
    with _opened(target, server) as database:
        State(database)
        backup.write(Source(target.root, database, keys, store, target.store_format), path)
    return path


def _aside(target: Target, found: Restored) -> str | None:
    """Where a database goes that could not be read."""
    if not isinstance(target.place, Path) or not target.place.exists():
        return None
    (target.root / "backups").mkdir(exist_ok=True)
    found.kept = target.root / "backups" / f"damaged-{backup.stamp()}.db"
    return f"backups/{found.kept.name}"


# -- the new ledger


def _rows(archive: Archive, database: Database, keys: Keys, projections: Sequence[Projection], sizes: set[int]) -> Tree:
    """Fill an empty database with the rows of a backup, each checked; query tables are drawn from them."""
    head, tree = archive.contents.head, Tree(sizes)
    State(database)
    Ledger(database, keys, Path(str(database.place) + ".head"), projections).close()  # makes the tables
    with database.transaction() as cursor:
        for rows in archive.lines("ledger.jsonl", _PAGE):
            if any(type(row) is not list or len(row) != 6 for row in rows):
                raise Corrupt(f"{archive.path} holds a row that is none; use another backup")
            tree.extend(checked(rows, tree.size, keys))
            cursor.executemany("INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?)", rows)
            for row in rows:
                project(projections, cursor, _row(row))
        if tree.size != head.size or tree.frontier.root().hex() != head.root:
            raise Corrupt(f"the rows of {archive.path} are not those that its head was signed over; use another backup")
        nodes.store(cursor, tree.nodes)
        values = (head.size, tree.frontier.encode(), head.root, head.signature)
        cursor.execute("INSERT INTO ledger_head VALUES (1, ?, ?, ?, ?)", values)
        for rows in archive.lines("state.jsonl", _PAGE):
            for table, *row in rows:
                if table not in backup.STATE:
                    raise Corrupt(f"{archive.path} has rows of a table that no backup has; use another backup")
                marks = ", ".join("?" * len(row))
                cursor.execute(f"INSERT INTO {table} VALUES ({marks})", [backup.value(each) for each in row])
    return tree


def _compare(archive: Archive, tree: Tree, later: list[Head], present: _Present, database: Database) -> Restored:
    """What the backup lacks of what is known."""
    contents = archive.contents
    found = Restored(contents.head, contents.made)
    found.abandoned = [
        head for head in later if head.size > tree.size or (head.size and tree.roots.get(head.size) != head.root)
    ]
    if found.abandoned:
        found.replaced = max(found.abandoned, key=lambda head: head.size)
    common = min(tree.size, found.replaced.size) if found.replaced else tree.size
    if present.sound:
        codes = [row[0] for row in database.query("SELECT mac FROM ledger ORDER BY seq")]
        shorter = min(len(codes), len(present.codes))
        common = next((place for place in range(shorter) if codes[place] != present.codes[place]), shorter)
    found.rows = common
    found.lost = max([head.size for head in found.abandoned], default=common) - common
    _discount_the_same(found, present)
    return found


def _discount_the_same(found: Restored, present: _Present) -> None:
    """Where this backup was restored before and nothing written since, no more is lost than by that."""
    last = present.last
    if not present.sound or last is None or last.kind != ABANDONED or last.body["backup"] != _said(found.backup):
        return
    before = [Head(size, root, "") for size, root in last.body["abandoned"]]
    if {_pair(head) for head in found.abandoned} <= {_pair(head) for head in [*before, present.head] if head}:
        known = {_pair(head) for head in found.abandoned}
        found.abandoned += [head for head in before if _pair(head) not in known]
        replaced = last.body["replaced"]
        found.replaced = replaced and Head(replaced["size"], replaced["root"], "")
        found.rows, found.lost, found.again = last.body["after"], last.body["lost"], True


def _pair(head: Head) -> tuple[int, str]:
    return head.size, head.root


def _refuse_loss(path: Path, found: Restored, present: _Present, older: bool) -> None:
    if found.replaced is None or found.again or older:
        return
    advice = "use a newer backup, or restore this one with --older"
    if present.sound:
        advice += "; the ledger here is sound: --keep-ledger puts back only what is beside it"
    raise Refused(
        f"{path.name} is older than a head over {found.replaced.size} rows that is kept here or was published: "
        f"{found.lost} rows after row {found.rows} would be lost; {advice}"
    )


def _go_on(database: Database, keys: Keys, prepared: Path, target: Target, found: Restored, present: _Present) -> None:
    """Say in the ledger what happened, and check that all of it holds."""
    head = prepared / "head.json"
    HeadFile(head, keys).create(found.backup)
    ledger = Ledger(database, keys, head, target.projections)
    body = {
        "made": found.made,
        "backup": _said(found.backup),
        "replaced": _said(found.replaced),
        "after": found.rows,
        "lost": found.lost,
        "abandoned": [[each.size, each.root] for each in found.abandoned],
        "passed": _passed(found, present),
    }
    ledger.append(*_still_true(found, present), Fact("restored", body), sync=True)
    ledger.close()
    problems = audit(database, keys, HeadFile(head, keys), target.projections).problems
    if problems:
        raise Corrupt(f"the backup does not verify: {problems[0].ref}: {problems[0].detail}; use another backup")


def _passed(found: Restored, present: _Present) -> list[list[Any]]:
    """The tree's roots at sizes that are lost: on a machine that shares the ledger each may be the latest seen."""
    if not present.sound:
        return []
    before = present.last.body.get("passed", []) if found.again and present.last else []
    return [*before, *([size, root] for size, root in present.roots.items() if size > found.rows)][-_NAMED:]


def _still_true(found: Restored, present: _Present) -> list[Fact]:
    """What later rows say of the store, which is not taken back: segments that were sealed, objects that went. An
    erasure is done again, for the backup may hold more of the person; so it is open until then."""
    common = found.backup.size if found.again else found.rows
    later = [row for row in present.accounts if row.seq > common and row.kind != "artifact"]
    return [fact.Fact(row.kind, row.body) for row in later if present.sound and row.body.get("phase") != "done"]


def _said(head: Head | None) -> dict[str, Any] | None:
    return None if head is None else {"size": head.size, "root": head.root}
