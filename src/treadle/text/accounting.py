"""What became of every document: in = kept + dropped (by a named rule) + quarantined (source, offset,
reason), always.

A rule's name has the transform first: ``filter.min_chars``, ``deduplicate.exact``. Samples say why; they are
cut and masked, and a text about a person is not sampled at all. Ids in samples may be those of documents that
the artifact beside it does not hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from treadle.core.digest import canonical_json
from treadle.core.errors import TreadleError
from treadle.text.document import Document
from treadle.text.duplicates import Duplicate, Duplicates
from treadle.text.excerpts import excerpt_around
from treadle.text.rule_log import Log
from treadle.text.triggers import trigger_of

ACCOUNTING_FILE = "accounting.json"
SAMPLES = 5  # kept for each rule
_EXCERPT = 200  # characters


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A piece of a source that could not be read. ``offset`` counts bytes from the start of what was
    decompressed.

    ``reason`` never quotes the piece, because that may be about a person.
    """

    source: str
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class Twin:
    """The document that stays where another is its duplicate, and how alike they are, from 0 to 1.

    ``cluster`` is the id of the first document of the cluster where that is another one.
    """

    document: str
    locator: str
    similarity: float = 1.0
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One dropped document as the report shows it; ``text`` is masked and cut, ``mark`` the place in it that triggered
    the rule."""

    document: str
    locator: str
    reason: str
    text: str
    mark: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """All fields by name; ``mark`` where there is one."""
        return {name: value for name, value in asdict(self).items() if name != "mark" or value is not None}


@dataclass(frozen=True, slots=True)
class Touched:
    """A document in which a rule found something: its id, the rule (``redact.email``), how often.

    ``mentions`` are keyed digests of what was found. ``sample`` is shown in the report, masked.
    """

    document: str
    rule: str
    count: int = 1
    mentions: tuple[str, ...] = ()
    sample: Sample | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """A document that a rule took out, and why. ``private``: no sample of it is kept, not even its id.

    ``twin`` is set where it went as a duplicate; the two are of one cluster.
    ``span``: the characters of its text that triggered the rule, half open, where the rule has such a place.
    ``found``: what an erasure looks for, of a text that was dropped for it.
    """

    document: Document
    rule: str
    reason: str
    private: bool = False
    twin: Twin | None = None
    span: tuple[int, int] | None = None
    found: tuple[Touched, ...] = ()


@dataclass(frozen=True, slots=True)
class Note:
    """Something counted on the way that drops nothing: ``redact.email`` 3. ``documents``: ids of those it changed."""

    name: str
    count: int = 1
    documents: tuple[str, ...] = ()


@dataclass(slots=True)
class Accounting:
    """The running count. ``close`` proves the sum, and only a closed one is worth writing.

    ``log`` takes note of every document that a rule touched, where somebody wants to know. ``unread`` are the pieces of
    evaluation sets that could not be read, by the name of the set: nothing was to be learned from them, so the sum is
    without them.
    """

    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    duplicates: Duplicates = field(default_factory=Duplicates)
    unread: dict[str, list[Quarantined]] = field(default_factory=dict)
    log: Log | None = field(default=None, compare=False, repr=False)

    def drop(self, dropped: Dropped) -> None:
        """Count a dropped document and keep the first few of each rule as samples."""
        self.dropped[dropped.rule] = self.dropped.get(dropped.rule, 0) + 1
        kept = self.samples.setdefault(dropped.rule, [])
        if not dropped.private and len(kept) < SAMPLES:
            kept.append(_sample(dropped))
        if dropped.twin is not None and not dropped.private:
            twin, document = dropped.twin, dropped.document
            similarity, cluster = round(twin.similarity, 4), twin.cluster or twin.document
            row = Duplicate(cluster, document.id, twin.document, dropped.rule, similarity)
            self.duplicates.add(row, twin.locator, document.locator)
        if self.log is not None and not dropped.private:
            self.log.add((dropped.document.id,), dropped.rule, "dropped")

    def touch(self, touched: Touched) -> None:
        """Keep the first few samples of each rule that changes documents and drops none."""
        if self.log is not None:
            self.log.add((touched.document,), touched.rule, "changed")
        if touched.sample is not None:
            kept = self.samples.setdefault(touched.rule, [])
            if len(kept) < SAMPLES:
                kept.append(touched.sample)

    def note(self, note: Note) -> None:
        """Count something that drops nothing."""
        self.notes[note.name] = self.notes.get(note.name, 0) + note.count
        if self.log is not None:
            self.log.add(note.documents, note.name, "changed")

    def close(self) -> Accounting:
        """Itself; ``TreadleError`` when the parts do not add up to what came in."""
        parts = self.kept + sum(self.dropped.values()) + len(self.quarantined)
        if self.read != parts:
            raise TreadleError(
                f"{self.read} pieces came in and {parts} are accounted for; this is a defect of Treadle, report it"
            )
        return self

    def then(self, after: Accounting) -> Accounting:
        """One account of two stretches of the same line: what this one kept is what ``after`` read."""
        if self.kept != after.read:
            raise TreadleError(
                f"{self.kept} documents left one transform and {after.read} reached the next; report this"
            )
        return _joined(self, after, read=self.read, kept=after.kept)

    def beside(self, other: Accounting) -> Accounting:
        """One account of two lines that ran side by side."""
        return _joined(self, other, read=self.read + other.read, kept=self.kept + other.kept)

    def to_json(self) -> dict[str, Any]:
        """``in``, ``kept``, ``dropped``, ``quarantined`` as documented for ``collect --json``; ``notes``
        and ``samples`` besides.
        """
        unread = {name: [asdict(piece) for piece in found] for name, found in sorted(self.unread.items())}
        return {
            "in": self.read,
            "kept": self.kept,
            "dropped": dict(sorted(self.dropped.items())),
            "quarantined": [asdict(piece) for piece in self.quarantined],
            "notes": dict(sorted(self.notes.items())),
            "samples": {rule: [sample.to_json() for sample in found] for rule, found in sorted(self.samples.items())},
            **({"duplicates": self.duplicates.to_json()} if self.duplicates else {}),
            **({"unread": unread} if unread else {}),
        }

    def line(self) -> str:
        """One line for a person: in = kept + dropped + quarantined."""
        return (
            f"{self.read:,} in = {self.kept:,} kept + {sum(self.dropped.values()):,} dropped"
            f" + {len(self.quarantined):,} quarantined"
        )

    def losses(self) -> str:
        """What did not stay, by rule, for a person; empty where all did."""
        counts = [f"{count:,} {rule}" for rule, count in sorted(self.dropped.items())]
        return ", ".join([*counts, *([f"{len(self.quarantined):,} quarantined"] if self.quarantined else [])])

    def write(self, folder: Path) -> None:
        """``accounting.json`` in an artifact's folder, and ``duplicates.parquet`` beside it where there are any;
        ``TreadleError`` when the sum does not hold."""
        (folder / ACCOUNTING_FILE).write_bytes(canonical_json(self.close().to_json()) + b"\n")
        self.duplicates.write(folder)


def read_accounting(folder: Path) -> Accounting:
    """The accounting of an artifact's folder."""
    value = json.loads((folder / ACCOUNTING_FILE).read_bytes())
    return Accounting(
        read=value["in"],
        kept=value["kept"],
        dropped=value["dropped"],
        quarantined=[Quarantined(**piece) for piece in value["quarantined"]],
        notes=value.get("notes", {}),
        samples={rule: [_read_sample(one) for one in found] for rule, found in value.get("samples", {}).items()},
        duplicates=Duplicates.from_json(value.get("duplicates")),
        unread={name: [Quarantined(**piece) for piece in found] for name, found in value.get("unread", {}).items()},
    ).close()


def _sample(dropped: Dropped) -> Sample:
    from treadle.text.personal_data import excerpt, mask

    document = dropped.document
    locator = mask(document.locator)
    if document.subject:
        return Sample(document.id, locator, dropped.reason, "")
    span = dropped.span or trigger_of(dropped.rule, document.text)
    if span is None:
        return Sample(document.id, locator, dropped.reason, excerpt(document.text, _EXCERPT))
    return Sample(document.id, locator, dropped.reason, *excerpt_around(document.text, span, _EXCERPT))


def _read_sample(value: dict[str, Any]) -> Sample:
    mark = value.get("mark")
    return Sample(**{**value, "mark": (int(mark[0]), int(mark[1])) if mark else None})


def _joined(first: Accounting, second: Accounting, *, read: int, kept: int) -> Accounting:
    samples = dict(first.samples)
    for rule, found in second.samples.items():
        samples[rule] = (samples.get(rule, []) + found)[:SAMPLES]
    return Accounting(
        read=read,
        kept=kept,
        dropped=_added(first.dropped, second.dropped),
        quarantined=first.quarantined + second.quarantined,
        notes=_added(first.notes, second.notes),
        samples=samples,
        duplicates=first.duplicates.and_then(second.duplicates),
        unread={**first.unread, **second.unread},
    )


def _added(first: dict[str, int], second: dict[str, int]) -> dict[str, int]:
    return {key: first.get(key, 0) + second.get(key, 0) for key in _keys(first, second)}


def _keys(*counts: Iterable[str]) -> list[str]:
    return sorted({key for one in counts for key in one})
