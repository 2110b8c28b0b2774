"""Transforms: batches of documents in; documents, drops and notes out. They fuse: a shard goes through a run
of them in one call.

A transform is a function whose first parameter is the documents and whose keyword-only parameters are its
settings:

    def shout(documents, *, mark="!"):
        for document in documents:
            if document.text:
                yield replace(document, text=document.text.upper() + mark)
            else:
                yield Dropped(document, "shout.empty", "nothing to shout")

One that must see all documents in order (exact deduplication) is a class whose constructor takes the settings
and whose instance is called with each batch; it sets ``ordered = True``. One that can decide only when it has seen
all of them (near duplicates) is a ``Whole``. Every document that goes in comes out or is dropped by name: the
runner checks it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from treadle.core.digest import canonical_json
from treadle.core.errors import MissingExtra, UserError
from treadle.core.place import about, place_of
from treadle.core.plugins import Plugin, load
from treadle.core.settings import bind, check
from treadle.text.accounting import Accounting, Dropped, Note, Touched, Twin
from treadle.text.document import Document
from treadle.text.spill import Spill

GROUP = "treadle.transforms"
SHARD_DOCUMENTS = 1000
SHARD_CHARACTERS = 1_000_000  # few enough that the last shards leave no worker alone for long

Piece = Document | Dropped | Note | Touched
Apply = Callable[[Sequence[Document]], Iterable[Piece]]
Shard = list[Document]
F = TypeVar("F", bound=Callable[..., Any])


class Transform(Protocol):
    """What the runner needs: a name for messages, whether order matters, and a fresh state for one pass."""

    @property
    def name(self) -> str: ...

    @property
    def ordered(self) -> bool: ...

    def start(self) -> Apply: ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a ``Whole`` drops a document."""

    rule: str
    reason: str
    twin: Twin | None = None


@dataclass(frozen=True, slots=True)
class Marked:
    """That a document goes on with these fields beside its own, noted under a rule's name."""

    rule: str
    fields: Mapping[str, Any]


class Whole(Protocol):
    """A transform that decides when it has seen all documents; its class sets ``whole = True``.

    Looks are taken wherever the executor likes, shard by shard, and must be small: they lie in memory, the documents
    do not. Documents are numbered from 0 in their order.
    """

    def look(self, documents: Shard) -> Any:
        """What deciding needs of a shard."""
        ...

    def look_again(self, documents: Shard) -> Any:
        """What it needs of those that ``again`` was called for."""
        ...

    def decide(
        self, looks: Iterable[Any], again: Callable[[Sequence[int]], Iterable[Any]]
    ) -> Mapping[int, Verdict | Marked]:
        """The documents to drop or to mark, by number. ``again`` takes ascending numbers and gives a second look at
        those documents, some of them at a time, in order."""
        ...


class Map(Protocol):
    """An executor's ``map``: results in the order of the shards. The built-in ``map`` is one."""

    def __call__(self, function: Callable[[Any], Any], shards: Iterable[Any], /) -> Iterator[Any]: ...


@dataclass(frozen=True)
class TransformContext:
    """What a transform may know of its surroundings, where it has a parameter ``context``. ``key``: the project's for
    pseudonyms and mentions, 32 bytes.
    """

    project: Path | None = None
    key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class NamedTransform:
    """A transform as the file names it. It travels to other processes by name and is loaded there."""

    name: str
    settings: Mapping[str, Any]
    project: Path | None
    version: str
    ordered: bool
    packages: tuple[str, ...] = ()
    whole: bool = False
    context: TransformContext = field(default_factory=TransformContext, repr=False)
    files: str = ""  # a digest of the files it reads, where it says so by ``fingerprint``

    def start(self) -> Apply:
        """Ready to be called with batches, in order."""
        target = load(GROUP, self.name, self.project).value
        where = f"prepare.steps ({self.name})"
        if inspect.isclass(target):
            instance: Apply = bind(target, self.settings, where=where, provided={"context": self.context})
            if self.files and _files_of(instance) != self.files:
                raise UserError(f"{where}: a file that it reads changed meanwhile; run the same command again")
            return instance
        values = check(target, self.settings, where=where, provided=(_documents_parameter(target),))
        return functools.partial(target, **values)

    def key(self) -> dict[str, Any]:
        """What of it enters a step's key."""
        key = {"name": self.name, "settings": dict(self.settings), "version": self.version}
        return {**key, "files": self.files} if self.files else key


def declare(
    *, version: int, packages: tuple[str, ...] = (), ordered: bool = False, whole: bool = False
) -> Callable[[F], F]:
    """Decorator for a transform: its integer version, the distributions whose versions matter, whether it
    needs the order, or all documents.
    """

    def mark(target: F) -> F:
        vars_of: Any = target
        vars_of.version, vars_of.packages, vars_of.ordered, vars_of.whole = version, packages, ordered, whole
        return target

    return mark


def parse_step(item: Any, where: str) -> tuple[str, dict[str, Any]]:
    """Name and settings of one entry of a list of transforms: ``normalize`` or ``filter: {min_chars:
    20}``.
    """
    if isinstance(item, str):
        return item, {}
    if isinstance(item, Mapping) and len(item) == 1:
        name, settings = next(iter(item.items()))
        if isinstance(name, str) and (settings is None or isinstance(settings, Mapping)):
            return name, dict(settings or {})
    error = UserError(f"{where}: expected a name, or one name with its settings, as in `filter: {{min_chars: 20}}`")
    error.place = place_of(where)
    raise error


def load_transforms(
    items: Sequence[Any], project: Path | None, where: str = "prepare.steps", *, key: bytes | None = None
) -> list[NamedTransform]:
    """The transforms that a list in the file names, settings checked; ``UserError`` otherwise. ``key`` is what those
    that make pseudonyms make them with.
    """
    context = TransformContext(project, key)
    loaded = []
    for place, item in enumerate(items):
        name, settings = parse_step(item, f"{where}[{place}]")
        with about(f"{where}[{place}]", name):
            named = replace(_named(load(GROUP, name, project), settings, project), context=context)
            with suppress(MissingExtra):  # a plan needs no package that only a run needs
                started = named.start()  # a wrong setting shows before anything runs
                named = replace(named, files=_files_of(started))
        loaded.append(named)
    return loaded


def run_transforms(
    batches: Iterable[Sequence[Document]],
    transforms: Sequence[Transform],
    accounting: Accounting,
    map: Map = map,  # noqa: A002 (it is what it is)
    touched: Callable[[Touched], object] | None = None,
) -> Iterator[Shard]:
    """What is left of the documents, shard by shard and in order; ``accounting`` is complete when the
    iterator ends.

    Neighbouring transforms that do not need the order run as one function over each shard, wherever ``map``
    runs it; the others run here. Boundaries of shards depend on the documents alone. ``touched`` is given what
    transforms found in documents, also in those they dropped for it.
    """
    shards = _counted_in(_shards(batches), accounting)
    for kind, group in groupby(transforms, key=_kind):
        run = tuple(group)
        if kind == "whole":
            for transform in run:
                shards = _counted_out(_decided(shards, transform, map), accounting, touched)
            continue
        outcomes = _in_order(shards, run) if kind == "ordered" else map(functools.partial(_fused, run), shards)
        shards = _counted_out(outcomes, accounting, touched)
    for shard in shards:
        accounting.kept += len(shard)
        if shard:
            yield shard


@dataclass(slots=True)
class Outcome:
    """What became of one shard in a run of transforms."""

    documents: Shard
    dropped: list[Dropped] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    changed: dict[str, list[str]] = field(default_factory=dict)  # ids by note
    touched: list[Touched] = field(default_factory=list)

    def pass_through(self, name: str, apply: Apply) -> None:
        """Send the documents through one transform; ``UserError`` when it loses, doubles or invents one."""
        before = [document.id for document in self.documents]
        kept: Shard = []
        gone: list[Dropped] = []
        for piece in apply(self.documents):
            if isinstance(piece, Document):
                kept.append(piece)
            elif isinstance(piece, Dropped):
                gone.append(piece)
            elif isinstance(piece, Note):
                self.notes[piece.name] = self.notes.get(piece.name, 0) + piece.count
                self.changed.setdefault(piece.name, []).extend(piece.documents)
            elif isinstance(piece, Touched):
                self.touched.append(piece)
            else:
                raise UserError(
                    f"transform {name} gave a {type(piece).__name__}; expected Document, Dropped, Note or Touched"
                )
        after = [document.id for document in kept] + [drop.document.id for drop in gone]
        if len(after) != len(before) or set(after) != set(before):
            raise UserError(
                f"transform {name}: {len(before)} documents in, {len(kept)} out and {len(gone)} dropped; "
                "it must yield each document it is given once, or a Dropped for it"
            )
        self.documents = kept
        self.dropped += gone


def _fused(transforms: tuple[Transform, ...], shard: Shard) -> Outcome:
    outcome = Outcome(shard)
    for transform in transforms:
        outcome.pass_through(transform.name, _started(transform))
    return outcome


def _in_order(shards: Iterable[Shard], transforms: tuple[Transform, ...]) -> Iterator[Outcome]:
    applies = [(transform.name, transform.start()) for transform in transforms]
    for shard in shards:
        outcome = Outcome(shard)
        for name, apply in applies:
            outcome.pass_through(name, apply)
        yield outcome


def _kind(transform: Transform) -> str:
    return "whole" if getattr(transform, "whole", False) else "ordered" if transform.ordered else "fused"


def _decided(shards: Iterable[Shard], transform: Transform, map: Map) -> Iterator[Outcome]:  # noqa: A002
    with Spill() as spill:
        looks = map(functools.partial(_look, transform), spill.take(shards))

        def again(numbers: Sequence[int]) -> Iterator[Any]:
            return map(functools.partial(_look_again, transform), spill.some(numbers))

        verdicts = _whole(transform).decide(looks, again)
        for first, shard in spill.shards():
            outcome = Outcome(shard)
            outcome.pass_through(transform.name, functools.partial(_judge, verdicts, first))
            yield outcome


def _judge(verdicts: Mapping[int, Verdict | Marked], first: int, shard: Sequence[Document]) -> Iterator[Piece]:
    for number, document in enumerate(shard, start=first):
        verdict = verdicts.get(number)
        if verdict is None:
            yield document
        elif isinstance(verdict, Marked):
            yield replace(document, fields={**document.fields, **verdict.fields})
            yield Note(verdict.rule, 1, (document.id,))
        else:
            yield Dropped(document, verdict.rule, verdict.reason, twin=verdict.twin)


def _look(transform: Transform, shard: Shard) -> Any:
    return _whole(transform).look(shard)


def _look_again(transform: Transform, shard: Shard) -> Any:
    return _whole(transform).look_again(shard)


def _whole(transform: Transform) -> Whole:
    return cast("Whole", _started(transform))


_started_here: dict[tuple[str, bytes, TransformContext], Apply] = {}


def _started(transform: Transform) -> Apply:
    """Stateless transforms are loaded once in a process, not once a shard."""
    if not isinstance(transform, NamedTransform):
        return transform.start()
    key = (transform.name + transform.version, canonical_json(transform.key()), transform.context)
    if key not in _started_here:
        _started_here[key] = transform.start()
    return _started_here[key]


def _shards(batches: Iterable[Sequence[Document]]) -> Iterator[Shard]:
    shard: Shard = []
    characters = 0
    for batch in batches:
        for document in batch:
            shard.append(document)
            characters += len(document.text)
            if len(shard) >= SHARD_DOCUMENTS or characters >= SHARD_CHARACTERS:
                yield shard
                shard, characters = [], 0
    if shard:
        yield shard


def _counted_in(shards: Iterable[Shard], accounting: Accounting) -> Iterator[Shard]:
    for shard in shards:
        accounting.read += len(shard)
        yield shard


def _counted_out(
    outcomes: Iterable[Outcome], accounting: Accounting, touched: Callable[[Touched], object] | None
) -> Iterator[Shard]:
    for outcome in outcomes:
        for dropped in outcome.dropped:
            accounting.drop(dropped)
            if touched is not None:
                for each in dropped.found:
                    touched(each)
        for name, count in outcome.notes.items():
            accounting.note(Note(name, count, tuple(outcome.changed.get(name, ()))))
        for each in outcome.touched:
            accounting.touch(each)
            if touched is not None:
                touched(each)
        yield outcome.documents


def _named(plugin: Plugin, settings: dict[str, Any], project: Path | None) -> NamedTransform:
    target = plugin.value
    if not callable(target):
        raise UserError(f"{plugin.name} is not a function or a class, so it cannot be a transform")
    return NamedTransform(
        name=plugin.name,
        settings=settings,
        project=project,
        version=plugin.version or str(getattr(target, "version", 1)),
        ordered=bool(getattr(target, "ordered", False)),
        packages=tuple(getattr(target, "packages", ())),
        whole=bool(getattr(target, "whole", False)),
    )


def _files_of(apply: Apply) -> str:
    fingerprint = getattr(apply, "fingerprint", None)
    return str(fingerprint()) if callable(fingerprint) else ""


def _documents_parameter(target: Callable[..., Any]) -> str:
    """The name of the first parameter, which takes the documents."""
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            return name
        break
    raise UserError(f"{getattr(target, '__name__', target)} takes no documents; its first parameter must be the batch")
