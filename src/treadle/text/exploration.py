"""From what the record holds to the material of a page: a corpus or a dataset, with what it was made from.

``explore`` follows a reference back (a dataset to its cleaned corpus, that one to what was collected), counts what is
there, and says what is gone. Two references are compared document by document.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from treadle.core.artifacts import Artifact
from treadle.core.errors import UserError, nearest
from treadle.core.runs import RunRecord
from treadle.record.record import Record
from treadle.record.reference import resolve
from treadle.text.arrow import pyarrow
from treadle.text.comparison import Comparison, Membership, changed_words
from treadle.text.corpus import Corpus, read_names
from treadle.text.dataset import SPLITS, Dataset, iterate_split
from treadle.text.document import Document
from treadle.text.explore import Material, SplitShape, render_report
from treadle.text.overview import Expected, Overview, overview_of
from treadle.text.rule_log import RULES_FILE, LogRow, read_rule_log

# The steps whose result is explored when none is named.
_MAKERS = {
    Dataset.kind: ("prepare.assemble", "prepare.keep_evaluations_apart", "prepare.add_synthetic"),
    Corpus.kind: ("prepare.filter_quality", "prepare.leave_out", "prepare.clean", "collect.gather"),
}
_NAMES = 12  # of added and of removed documents
_FORMS = "a corpus or a dataset: dataset@v1, b3:..."


@dataclass(frozen=True, slots=True)
class Subject:
    """What is explored: ``cleaned`` and ``corpus`` are what the dataset was made from, as far as they are still there;
    ``corrected`` are corrections that joined it, ``synthetic`` what a teacher made for it."""

    ref: str
    digest: str
    dataset: Dataset | None = None
    cleaned: Corpus | None = None
    corpus: Corpus | None = None
    corrected: Corpus | None = None
    synthetic: Corpus | None = None

    @property
    def texts(self) -> Corpus | None:
        """The documents as they are in it: cleaned where they were cleaned."""
        return self.cleaned or self.corpus

    def documents(self) -> Iterator[list[Document]]:
        """Batches of the documents it is made from; of a dataset, those that its examples name."""
        parts = [part for part in (self.texts, self.corrected, self.synthetic) if part is not None]
        if self.dataset is None:
            for part in parts:
                yield from part.documents()
            return
        named = set(self.dataset.document_ids())
        for part in parts:
            for batch in part.documents():
                yield [document for document in batch if document.id in named]

    def shown(self) -> Iterator[list[Document]]:
        """Batches of the texts as they are in it, then of the synthetic ones that it has."""
        yield from self.texts.documents() if self.texts is not None else ()
        if self.synthetic is not None and self.dataset is not None:
            named = set(self.dataset.document_ids())
            for batch in self.synthetic.documents():
                yield [document for document in batch if document.id in named]


@dataclass(frozen=True, slots=True)
class RuleHit:
    """A document that a rule touched. ``locator`` is empty where no corpus here names it any more."""

    document: str
    fate: str
    source: str = ""
    locator: str = ""


@dataclass(slots=True)
class _Print:
    """Ids and texts of documents as 64-bit numbers, 16 bytes a document; two texts agree by chance once in 10^19."""

    ids: array[int] = field(default_factory=lambda: array("Q"))
    texts: array[int] = field(default_factory=lambda: array("Q"))

    def watching(self, batches: Iterable[Sequence[Document]]) -> Iterator[Sequence[Document]]:
        """The batches as they are, noted."""
        from hashlib import blake2b

        for batch in batches:
            for document in batch:
                for numbers, said in ((self.ids, document.id), (self.texts, document.text)):
                    digest = blake2b(said.encode("utf-8", "surrogatepass"), digest_size=8).digest()
                    numbers.append(int.from_bytes(digest, "little"))
            yield batch


def find_subject(record: Record, ref: str | None) -> Subject:
    """What a reference names, or the project's last dataset, or its last corpus; ``UserError`` when it is neither."""
    if ref is None:
        return _last(record)
    reference = resolve(record, ref, lambda _: [])
    if reference.kind != "artifact" or reference.of not in (Corpus.kind, Dataset.kind):
        what = reference.of or reference.kind
        raise UserError(f"explore {ref}: that is a {what}; expected {_FORMS}")
    return _subject(record, ref, reference.id, reference.of)


def explore(record: Record, ref: str | None) -> tuple[Subject, Material]:
    """The subject and the material of its page."""
    subject = find_subject(record, ref)
    return subject, material_of(subject, title=_title(subject))


def compare(record: Record, first: str, second: str) -> tuple[Subject, Material]:
    """The second against the first."""
    before, after = find_subject(record, first), find_subject(record, second)
    for side in (before, after):
        if side.texts is None:
            raise UserError(
                f"explore {side.ref}: the texts it was made from are no longer here, so nothing can be compared"
            )
    prints = _Print(), _Print()
    old, new = (
        overview_of(seen.watching(side.documents()), expected=_expected(side.texts))
        for side, seen in zip((before, after), prints, strict=True)
    )
    more, less = changed_words(old, new)
    comparison = Comparison(before.ref, after.ref, _membership(before, after, *prints), more, less)
    title = f"{before.ref} and {after.ref}"
    return after, Material(title=title, collected=old, kept=new, comparison=comparison, ref=after.ref)


def material_of(subject: Subject, *, title: str, tokens: Mapping[str, Sequence[int]] | None = None) -> Material:
    """Counts everything. A dataset whose documents are gone is counted by its examples, and none of them is shown."""
    stages: dict[str, Any] = {}
    if subject.corpus is not None and subject.corpus is not subject.texts:
        stages["collect"] = _account(subject.corpus)
    last: Artifact | None = subject.dataset or subject.texts
    if last is not None:
        stages["prepare" if subject.dataset or subject.cleaned else "collect"] = _account(last)
    texts, splits = subject.texts, _splits(subject.dataset)
    kept: Overview | None = None
    if texts is None:
        collected = overview_of(_as_documents(subject.dataset))
    elif subject.corpus is not None and texts is not subject.corpus:
        collected = overview_of(subject.corpus.documents(), look=False)
        kept = overview_of(subject.shown(), expected=_expected(texts))
    else:
        collected = overview_of(subject.shown(), expected=_expected(texts))
    return Material(
        title=title,
        collected=collected,
        kept=kept,
        stages={name: account for name, account in stages.items() if account},
        splits=splits,
        tokens=tokens or {},
        ref=subject.ref,
        touched=Counter(row.rule for part in _logged(subject) for row in read_rule_log(part.path(RULES_FILE))),
    )


def page_of(material: Material) -> str:
    """The page as HTML."""
    return render_report(material)


def touched_by(subject: Subject, rule: str) -> list[RuleHit]:
    """The documents that a rule touched, in order; ``UserError`` for a rule that did not run, or was not noted."""
    logged = _logged(subject)
    if not logged:
        raise UserError(
            f"explore {subject.ref}: which rule touched which document was not noted when it was made, or is gone;"
            " run treadle prepare again"
        )
    found: list[LogRow] = []
    rules: set[str] = set()
    for part in logged:
        for row in read_rule_log(part.path(RULES_FILE)):
            rules.add(row.rule)
            if row.rule == rule:
                found.append(row)
    if not found:
        known = sorted(rules)
        raise UserError(f"explore {subject.ref}: no document was touched by a rule {rule!r};{nearest(rule, known)}")
    wanted = {row.document for row in found}
    places: dict[str, tuple[str, str]] = {}
    for corpus in (subject.corpus, subject.cleaned):
        if corpus is not None and len(places) < len(wanted):
            places |= {name: (source, place) for name, source, place in read_names(corpus.path()) if name in wanted}
    return [RuleHit(row.document, row.fate, *places.get(row.document, ("", ""))) for row in found]


def _logged(subject: Subject) -> list[Artifact]:
    """What of it has a list of rules, in the order they ran."""
    return [part for part in (subject.cleaned, subject.dataset) if part is not None and part.has(RULES_FILE)]


def _last(record: Record) -> Subject:
    """What was made last: a dataset, also one that was never made a version; else a corpus."""
    for kind, steps in _MAKERS.items():
        runs = [run for step in steps for run in record.runs.find(step=step, status="done", limit=1)]
        for run in sorted(runs, key=lambda run: run.started, reverse=True):
            for digest in _digests(run.outputs):
                versions = record.versions.with_digest(digest)
                return _subject(record, versions[0].short if versions else digest[:19], digest, kind)
    version = record.versions.latest(Dataset.kind)  # brought in from elsewhere
    if version is not None:
        return _subject(record, version.short, version.digest, Dataset.kind)
    raise UserError("there is nothing to explore yet; run treadle collect or treadle prepare first")


def _subject(record: Record, ref: str, digest: str, kind: str) -> Subject:
    if kind == Corpus.kind:
        corpus = Corpus(digest, record.store)
        if not corpus.has_files():
            raise UserError(f"explore {ref}: it holds no documents as Treadle writes them")
        before = _collected(record, corpus)
        return Subject(ref, digest, cleaned=corpus if before else None, corpus=before or corpus)
    run = record.runs.producer(digest)
    cleaned, synthetic = _input(record, run, "corpus"), _input(record, run, "synthetic")
    collected = _collected(record, cleaned) if cleaned else None
    if synthetic is not None and run is not None:  # corrections joined the dataset that it was added to
        run = record.runs.producer(str(run.inputs["dataset"]))
    corrected = _input(record, run, "corrected")
    return Subject(ref, digest, Dataset(digest, record.store), cleaned, collected, corrected, synthetic)


def _collected(record: Record, cleaned: Corpus) -> Corpus | None:
    """The first of the corpora that it was made from, one after the other."""
    found, before = None, _input(record, record.runs.producer(cleaned.digest), "corpus")
    while before is not None:
        found, before = before, _input(record, record.runs.producer(before.digest), "corpus")
    return found


def _input(record: Record, run: RunRecord | None, name: str) -> Corpus | None:
    """An artifact that a run took, where it is a corpus that is still here."""
    digest = run.inputs.get(name) if run is not None else None
    if not isinstance(digest, str) or not digest or not record.store.has(digest):
        return None
    corpus = Corpus(digest, record.store)
    return corpus if corpus.has_files() else None


def _digests(outputs: Mapping[str, Any]) -> Iterator[str]:
    for value in outputs.values():
        yield from [value] if isinstance(value, str) else value or ()


def _title(subject: Subject) -> str:
    kind = "Dataset" if subject.dataset is not None else "Corpus"
    return subject.ref if subject.ref.startswith(kind.casefold()) else f"{kind} {subject.ref}"


def _account(artifact: Artifact) -> Any:
    return artifact.read_json("accounting.json") if artifact.has("accounting.json") else None


def _splits(dataset: Dataset | None) -> dict[str, SplitShape]:
    shapes: dict[str, SplitShape] = {}
    for name in SPLITS if dataset is not None else ():
        assert dataset is not None
        shape = SplitShape()
        for batch in iterate_split(dataset.path(), name):
            for example in batch:
                shape.add(example)
        if shape.examples:
            shapes[name] = shape
    return shapes


def _as_documents(dataset: Dataset | None) -> Iterator[list[Document]]:
    """Examples as texts, for a dataset whose documents are not here. Whom they are about is not known."""
    for name in SPLITS if dataset is not None else ():
        assert dataset is not None
        for batch in iterate_split(dataset.path(), name):
            yield [
                Document(one.id, name, one.group, f"{one.question}\n{one.answer}".strip(), subject="unknown")
                for one in batch
            ]


def _expected(corpus: Corpus | None) -> Expected | None:
    """About how many documents and characters will come, from what the files say of themselves."""
    if corpus is None:
        return None
    _, pq = pyarrow()
    documents = characters = 0
    for path in sorted(corpus.path().glob("documents-*.parquet")):
        with pq.ParquetFile(path) as file:
            about = file.metadata
            documents += about.num_rows
            for group in range(about.num_row_groups):
                place = next(
                    n for n in range(about.num_columns) if about.row_group(group).column(n).path_in_schema == "text"
                )
                characters += about.row_group(group).column(place).total_uncompressed_size
    return Expected(documents, characters)


def _membership(before: Subject, after: Subject, old: _Print, new: _Print) -> Membership:
    import numpy as np

    old_ids, old_first = np.unique(np.frombuffer(old.ids, dtype=np.uint64), return_index=True)
    new_ids, new_first = np.unique(np.frombuffer(new.ids, dtype=np.uint64), return_index=True)
    shared, old_place, new_place = np.intersect1d(old_ids, new_ids, assume_unique=True, return_indices=True)
    old_texts = np.frombuffer(old.texts, dtype=np.uint64)[old_first[old_place]]
    new_texts = np.frombuffer(new.texts, dtype=np.uint64)[new_first[new_place]]
    added, removed = np.setdiff1d(new_first, new_first[new_place]), np.setdiff1d(old_first, old_first[old_place])
    return Membership(
        added=len(added),
        removed=len(removed),
        shared=len(shared),
        changed=int((old_texts != new_texts).sum()),
        added_names=_named(after, added[:_NAMES].tolist()),
        removed_names=_named(before, removed[:_NAMES].tolist()),
    )


def _named(subject: Subject, places: Sequence[int]) -> tuple[str, ...]:
    """Masked locators of the documents at these places of the subject's order."""
    from treadle.text.personal_data import mask

    wanted, names, number = set(places), [], 0
    for batch in subject.documents() if wanted else ():
        for document in batch:
            if number in wanted:
                names.append(mask(f"{document.source} {document.locator}"))
            number += 1
        if len(names) == len(wanted):
            break
    return tuple(names)
