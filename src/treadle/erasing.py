"""Forgetting a person: found everywhere, kept out from now on, rebuilt without, old objects deleted, proven by
``verify``.

    1. requested   the suppression list grows; every collection from now on leaves the person out
    2. journal     the person's interactions and feedback are rewritten without text and name
    3. rebuild     the ordinary cycle runs, as far as it had come; whatever held the person gets a new digest
    4. deleting    the row that accounts for the old objects is written, then they are deleted
    5. done        the person's key is destroyed, the database is scrubbed, nothing of them is left in any byte

Killed anywhere, the same command goes on where it was. What it does not do: edit the user's own source files. A server
that runs stops answering with a model whose objects are gone. "Rebuilt without" is the claim; not that a model forgot.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from treadle.core.digest import keyed_digest
from treadle.core.driver import Driver, Listener
from treadle.core.errors import Corrupt, TreadleError, UserError
from treadle.core.identifiers import new_id
from treadle.core.ledger import Fact
from treadle.core.reach import collected_artifacts
from treadle.core.runs import RunRecord
from treadle.core.uploads import pending
from treadle.core.verify import erased_objects, named_objects
from treadle.cycle import begin
from treadle.project import Project
from treadle.record import erasure_list
from treadle.record.erasure_list import Known
from treadle.record.record import Record
from treadle.record.recorder import CASES, FEEDBACK, INTERACTIONS
from treadle.record.turn import TurnInputs
from treadle.stages.collect import admit, withdraw
from treadle.text.accounting import ACCOUNTING_FILE, Accounting
from treadle.text.corpus import Corpus
from treadle.text.findings import mentioning
from treadle.text.mentions import IDENTIFIER, data_key, mentions_of
from treadle.text.suppress import Matcher, Suppression, identifier_words

_FREE_TEXTS = ("error ", "note ", "surroundings ", "texts ")  # how `named_objects` calls what holds words
LOG = "log"  # the kind of artifact that holds what a run printed
# What a stage is there for, by kind.
_MADE = {"collect": "corpus", "prepare": "dataset", "develop": "model", "deploy": "release"}
_TEXTS = (
    "messages",
    "answer",
    "alternatives",
    "given",
    "metadata",
    "parameters",
    "user",
    "correction",
    "comment",
    "reference",
    "request",
)


@dataclass
class Forgotten:
    """What an erasure found and did.

    ``collected`` counts corpora that a collection let go of: their lists of documents are searched, their texts cannot
    be. ``lake`` counts files that went from the lake. ``rebuilt`` is None where nothing had to be rebuilt or nobody
    asked, and False when the cycle did not get as far as before or gave no new champion; ``why_not`` then says why.
    ``reached`` is the stage that what was made of their documents had come to, empty where no stage made any of it.
    """

    request: str
    documents: int = 0
    interactions: int = 0
    feedback: int = 0
    artifacts: list[str] = field(default_factory=list)
    objects: int = 0
    lake: int = 0
    collected: int = 0
    reached: str = ""
    rebuilt: bool | None = None
    why_not: str = ""
    done: bool = False

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "request": self.request,
            "documents": self.documents,
            "interactions": self.interactions,
            "feedback": self.feedback,
            "artifacts": len(self.artifacts),
            "objects": self.objects,
            "lake": self.lake,
            "collected": self.collected,
            "rebuilt": self.rebuilt,
            "why_not": self.why_not,
            "done": self.done,
        }


class Person:
    """One subject, by the keyed digests that stand for them, each with its number of words."""

    def __init__(self, record: Record, entries: dict[str, int], lookups: Iterable[str]) -> None:
        self.entries = entries
        self.lookups = tuple(lookups)
        windows = tuple(sorted({count for count in entries.values() if count}))
        self._matcher = Matcher(Suppression(frozenset(entries), windows), record.recorder.keyed)
        self._corpora: dict[str, set[str]] = {}

    @classmethod
    def named(cls, record: Record, subject: str) -> Person:
        """Known by name only while the command runs; ``UserError`` for what is no name."""
        if not subject.strip() or len(subject) > 500:
            raise UserError("forget: expected the name, address or id of one person, at most 500 characters")
        keyed = record.recorder.keyed
        subject = subject.strip()
        words = identifier_words(subject)
        entries = {keyed(subject): 0}
        if words:
            entries[keyed(" ".join(words))] = len(words)
        entries |= dict.fromkeys(mentions_of(data_key(keyed), subject), IDENTIFIER)
        return cls(record, entries, [keyed(subject)])

    def in_row(self, row: dict[str, Any]) -> bool:
        """Whether a row of the journal is theirs or names them."""
        if row.get("user") in self.entries:
            return True
        said = (row.get(name) for name in _TEXTS)
        return any(self._matcher.names_somebody(text) for each in said for text in (*_strings(each), *_names(each)))

    def documents_in(self, corpus: Corpus) -> set[str]:
        """Ids of the documents about them or naming them."""
        if corpus.digest not in self._corpora:
            found = {doc.id for batch in corpus.documents() for doc in batch if self._matcher.matches(doc)}
            # What was redacted, or is gone, is known by the digests that were kept of it.
            found |= mentioning(corpus.path(), self.entries)
            # And what was dropped where nothing else holds it, such as a teacher's reply, is quoted in samples.
            account = corpus.accounting() if corpus.has(ACCOUNTING_FILE) else Accounting()
            quoted = (sample for samples in account.samples.values() for sample in samples)
            found |= {sample.document for sample in quoted if self._matcher.names_somebody(sample.text)}
            self._corpora[corpus.digest] = found
        return self._corpora[corpus.digest]


def forget(
    project: Project, subject: str, *, dry_run: bool = False, rebuild: bool = True, listener: Listener | None = None
) -> Forgotten:
    """Erase a person. The caller holds the project's lock."""
    record = project.record
    person = Person.named(record, subject)
    request, pseudonym = _standing(record, person, create=not dry_run)
    if dry_run:
        return _find(record, person, request)[0]
    return _erase(project, person, request or new_id("era"), pseudonym, rebuild=rebuild, listener=listener)


def repeat(
    project: Project,
    known: Iterable[Known],
    *,
    listener: Listener | None = None,
    spared: Path | None = None,
    without: frozenset[str] = frozenset(),
) -> list[str]:
    """Do again what was erased after the backup that was restored was made; returns the requests.

    What Treadle put aside goes as well, but for ``spared``, which was made when the requests ``without`` were done.
    People are known by their keyed digests only. Nothing is rebuilt. The caller holds the project's lock. Killed
    anywhere, the next `treadle restore` or `pull` goes on.
    """
    record, again = project.record, []
    missed = erasure_list.missed(record.ledger, known)
    if missed:  # first: once all is done nobody comes back for it
        _let_go_of_backups(record, spared if {each.request for each in missed} <= without else None)
    for each in missed:
        sealed = record.workspace.journal.sealed
        for body in each.seals:
            if body["replaces"] in sealed(body["stream"]):
                record.ledger.append(Fact("seal", body))
        listed = record.erasures.listed_before(each.request)
        entries = {name: count for name, count in each.entries.items() if name not in listed}
        person = Person(record, entries, entries)
        _erase(project, person, each.request, each.subject, rebuild=False, listener=listener, again=each.objects)
        again.append(each.request)
    return again


def _find(record: Record, person: Person, request: str) -> tuple[Forgotten, set[str]]:
    """What there is of them, or was when an attempt that was interrupted began, and the artifacts that were made from
    it."""
    found, before = Forgotten(request), record.erasures.counted(request)
    documents = _documents(record, person)
    found.documents = max(len(documents), before["documents"])
    found.interactions = max(_count(record, INTERACTIONS, person), before["interactions"])
    found.feedback = max(_count(record, FEEDBACK, person), before["feedback"])
    found.collected = _collected_corpora(record)
    affected, found.reached = _affected(record, documents)
    found.artifacts = sorted(affected)
    return found, affected


def _erase(
    project: Project,
    person: Person,
    request: str,
    pseudonym: str,
    *,
    rebuild: bool,
    listener: Listener | None,
    again: Iterable[str] | None = None,
) -> Forgotten:
    """All phases. ``again`` names what was deleted already, where an erasure is repeated: what no row names was
    searched then, and is what a restore left of later rows."""
    record = project.record
    record.store.require_complete()  # before the first row: what hides in a damaged pack could not be deleted
    unnamed = _unnamed(record) if again is None else set()
    before = set(again or ())
    found, affected = _find(record, person, request)
    suppression = record.erasures.extend(person.entries).digest
    facts = {"documents": found.documents, "interactions": found.interactions, "feedback": found.feedback}
    record.erasures.record(request, pseudonym, "requested", suppression, **facts)
    journal = record.workspace.journal
    for stream in (INTERACTIONS, FEEDBACK, CASES):
        journal.rewrite(stream, lambda row: _without(row) if person.in_row(row) else row)
    replaced = {row.body["replaces"] for row in record.ledger.rows("seal") if row.body["replaces"]}
    # Before the rebuild, so that the model that knew them is asked nothing more and judges nobody. Where this is done
    # again, that model is gone already, and a restore points at it once more.
    _withdraw(record, affected | before)
    _take_out(project, affected | before, listener)
    kept = _rebuild(project, listener, found) if rebuild and affected and found.reached else set()
    found.artifacts = sorted(affected - kept)
    interrupted = _interrupted(record, request) - _objects_of(record, kept)
    gone = {*found.artifacts, *interrupted, *(name for name in replaced if record.store.has_object(name))}
    in_use = _objects_in_use(record, gone)
    doomed = (_objects_of(record, gone) - in_use) | _texts_about(record, person) | before
    # What no row names goes as well and is not accounted for: nobody misses it, and killed here it is found again.
    left = (unnamed & _unnamed(record)) - in_use
    found.objects = len(doomed | left)
    if project.file.collect.lake is not None:
        erased, _ = erased_objects(record.workspace)
        lake = project.file.collect.lake
        found.lake = withdraw(record.store, project.folder, lake, doomed | erased, person.documents_in)
    record.erasures.record(request, pseudonym, "deleting", suppression, objects=sorted(doomed))
    record.store.delete(doomed | left)
    if again is None:
        _let_go_of_backups(record)
    record.interactions.scrub()
    record.documents.scrub()
    record.workspace.state.scrub()
    # The key goes last: until then an interrupted erasure is found again by the person's name.
    record.erasures.record(request, pseudonym, "done", suppression)
    for lookup in person.lookups:
        record.workspace.state.destroy_person(lookup)
    record.workspace.state.scrub()
    found.done = True
    return found


def _standing(record: Record, person: Person, *, create: bool) -> tuple[str, str]:
    """An open request for the same person, or nothing; with the digest that stands for them while their key exists.
    ``create``: make the key where there is none."""
    (lookup,) = person.lookups
    key = record.workspace.state.person_key(lookup, create=create)
    if key is None:
        return "", ""
    pseudonym = keyed_digest(key, "erasure", lookup)
    standing = (each.request for each in record.erasures.open() if each.subject == pseudonym)
    return next(standing, ""), pseudonym


def _documents(record: Record, person: Person) -> set[str]:
    found: set[str] = set()
    for digest, kind in _artifacts(record):
        corpus = Corpus(digest, record.store)
        if kind == "corpus" and record.store.has(digest) and corpus.has_files():
            found |= person.documents_in(corpus)
    return found


def _collected_corpora(record: Record) -> int:
    """Corpora whose documents a collection deleted: whom they named nobody can tell any more."""
    collected = collected_artifacts(record.ledger)
    left = {digest for digest, kind in _artifacts(record) if kind == "corpus" and digest in collected}
    return sum(
        record.store.has_object(digest) and not record.store.has(digest) and Corpus(digest, record.store).has_files()
        for digest in left
    )


def _affected(record: Record, documents: set[str]) -> tuple[set[str], str]:
    """Artifacts that were made from any of the documents, and whatever runs made of those; and how far they came."""
    if not documents:
        return set(), ""
    affected = record.documents.holding(documents)
    runs = record.runs.find()  # one that failed may have made something before
    grew = True
    while grew:
        grew = False
        for run in runs:
            if any(_takes(run.inputs, digest) for digest in affected):
                new = set(run.outputs.values()) - affected
                affected |= new
                grew = grew or bool(new)
    reached = _reached(record, runs, affected)  # by what is gone already as well: an interrupted erasure goes on
    return {digest for digest in affected if record.store.has_object(digest)}, reached


def _reached(record: Record, runs: Iterable[RunRecord], affected: set[str]) -> str:
    """The last stage that made what it is there for. Tests alone, say of a base model, are no stage `develop`."""
    kinds = dict(_artifacts(record))
    made = {(_stage(run), kinds.get(digest)) for run in runs for digest in affected.intersection(run.outputs.values())}
    reached = next((stage for stage, kind in reversed(_MADE.items()) if (stage, kind) in made), "")
    registered = reached == "develop" and any(record.versions.find("model", digest) for digest in affected)
    return "track" if registered else reached


def _stage(run: RunRecord) -> str:
    return run.step.partition(".")[0]


def _rebuild(project: Project, listener: Listener | None, found: Forgotten) -> set[str]:
    """Run the cycle without the person, whole where there was a release; what it gave stays. The old ones go after it
    in any case."""
    whole = found.reached == "deploy"
    this = begin(project, listener=listener)
    try:
        this.go(None if whole else found.reached)
        found.rebuilt = not whole or this.governed.decision in ("promoted", "unchanged")
        found.why_not = "" if found.rebuilt else f"the new version is {this.governed.decision}"
    except TreadleError as error:
        found.rebuilt, found.why_not = False, str(error)
    return {digest for _, results in this.driver.stages for result in results for digest in result.outputs.values()}


def _unnamed(record: Record) -> set[str]:
    """Objects that no row names, left behind by something that was killed."""
    everything = record.store.names()
    waiting = pending(record.workspace.state)  # before the rows: what settles meanwhile is in one of the two
    return everything - waiting - _objects_in_use(record, set())


def _objects_of(record: Record, artifacts: set[str]) -> set[str]:
    found = set(artifacts)
    for digest in artifacts:
        try:
            found.update(entry.digest for entry in record.store.entries(digest))
        except Corrupt:
            continue  # gone already: an interrupted erasure goes on
    return found


def _objects_in_use(record: Record, without: set[str]) -> set[str]:
    """Objects that something else in the record still needs."""
    names = {name for name, _ in named_objects(record.workspace)} - without
    return _objects_of(record, {name for name in names if record.store.has_object(name)})


def _interrupted(record: Record, request: str) -> set[str]:
    """What an earlier attempt at the same request was about to delete."""
    rows = record.ledger.rows("erasure")
    named = {name for row in rows if row.body["request"] == request for name in row.body["objects"]}
    return {name for name in named if record.store.has_object(name)}


def _texts_about(record: Record, person: Person) -> set[str]:
    """Stored texts that name them: errors, notes, what a run was told and what it knew (its command line, its diff),
    and what runs printed."""
    found = set()
    for name, what in named_objects(record.workspace):
        if what.startswith(_FREE_TEXTS) and record.store.has_object(name):
            if person.in_row({"comment": _words_in(record.store.read(name))}):
                found.add(name)
        elif what.startswith(f"artifact {LOG} ") and record.store.has(name):
            pieces = {entry.digest for entry in record.store.entries(name)}
            if any(person.in_row({"comment": _words_in(record.store.read(piece), ours=False)}) for piece in pieces):
                found |= {name, *pieces}
    return found


def _words_in(stored: bytes, *, ours: bool = True) -> str:
    """Every text in an object, as it was written and not as JSON spells it, and the names in it; those at the top of
    an object of ours are Treadle's words."""
    said = stored.decode("utf-8", "replace")
    try:
        value = json.loads(stored)
        named = list(value.values()) if ours and isinstance(value, dict) else value
        return "\n".join([*_strings(value), *_names(named), *([] if ours else [said])])
    except (ValueError, RecursionError):
        return said


def _names(value: Any) -> list[str]:
    """Names of members in JSON; of ``tags.Jane`` what follows each point as well."""
    if isinstance(value, dict):
        ends = [key.split(".", count)[-1] for key in value for count in range(key.count(".") + 1)]
        return ends + [name for item in value.values() for name in _names(item)]
    if isinstance(value, list):
        return [name for item in value for name in _names(item)]
    return []


def _withdraw(record: Record, gone: set[str]) -> None:
    """No alias points at what is about to be deleted."""
    for alias in ("champion", "challenger", "previous"):
        version = record.versions.alias("model", alias)
        if version is not None and version.digest in gone:
            record.versions.point(alias, None, reason="erased")


def _take_out(project: Project, gone: set[str], listener: Listener | None) -> None:
    """The latest turn takes neither corrections of theirs nor a model that knew them."""
    record = project.record
    turn = record.turns.latest()
    if turn is None or not gone & {turn.inputs.feedback, turn.inputs.start, turn.inputs.split, turn.inputs.model}:
        return
    feedback, split = turn.inputs.feedback, turn.inputs.split
    if feedback in gone and not record.store.has(str(feedback)):
        feedback = None
    elif feedback in gone:
        driver = Driver(record.runs, project.folder, seed=project.file.seed, listener=listener)
        left = admit(driver, Corpus(str(feedback), record.store), record.erasures.suppression())
        feedback = left.digest if left is not None else None
    start = None if turn.inputs.start in gone else turn.inputs.start
    ready = None if turn.inputs.model in gone else turn.inputs.model
    record.turns.change(turn.number, TurnInputs(feedback, start, None if split in gone else split, ready))


def _let_go_of_backups(record: Record, spared: Path | None = None) -> None:
    """What Treadle put aside by itself, before a restore or a migration: the person is in it."""
    folder = record.store.root / "backups"
    if spared is None or not spared.exists():
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.name != spared.name:
            path.unlink(missing_ok=True)


def _count(record: Record, stream: str, person: Person) -> int:
    return sum(person.in_row(row) for row in record.workspace.journal.read(stream) if not row.get("erased"))


def _without(row: dict[str, Any]) -> dict[str, Any]:
    """The row with everything said and everyone named taken out; figures stay."""
    empty = {name: type(row[name])() if isinstance(row[name], list | dict) else None for name in _TEXTS if name in row}
    return {**row, **empty, **({"request": ""} if "request" in row else {}), "erased": True}


def _artifacts(record: Record) -> list[tuple[str, str]]:
    sql = "SELECT DISTINCT digest, kind FROM artifacts"
    return [(row[0], row[1]) for row in record.workspace.database.query(sql)]


def _takes(inputs: dict[str, Any], digest: str) -> bool:
    return any(digest == value or (isinstance(value, list) and digest in value) for value in inputs.values())


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _strings(item)]
    return []
