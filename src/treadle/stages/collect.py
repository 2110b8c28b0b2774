"""Collect: text from where it is, into documents with source, license, time and an id that never changes."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from treadle.core.artifacts import Artifact
from treadle.core.config import Settings
from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.place import about
from treadle.core.remote import open_remote
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.core.store import Store
from treadle.record.suppression import SuppressionList
from treadle.text.accounting import Accounting
from treadle.text.corpus import Corpus, write_corpus
from treadle.text.document import Document
from treadle.text.lake import current, left_over, pour
from treadle.text.source import OpenSource, SourceContext, open_source, read_sources
from treadle.text.suppress import Suppress, Suppression
from treadle.text.takeover import taking_over
from treadle.text.transform import run_transforms


class SourceSettings(Settings):
    """One place that text comes from. What else may be set depends on the type."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = Field(description="python_docs, files, another installed source, or module:Class of your own")


class CollectSettings(Settings):
    """Where the text comes from."""

    sources: list[SourceSettings] = Field(min_length=1, description="read in this order")
    lake: str | None = Field(None, description="folder or bucket that holds the corpus for other tools, as Parquet")


def collect(driver: Driver, settings: CollectSettings, suppression: SuppressionList | None) -> Corpus:
    """One corpus from all sources, of which only what is new or changed is read. Settings are checked and fingerprints
    taken before that.
    """
    keys = driver.runs.keys
    with taking_over(driver.runs.store, lambda path: keys.keyed("file", path)) as following:
        corpus = _collected(driver, settings, suppression)
        if not driver.planning:
            following.keep(corpus)
            driver.listener.say(corpus.accounting().line())
            if following.counts is not None:
                driver.listener.say(f"of these {following.counts.line()}")
    if settings.lake is not None:
        ingest(driver, corpus, settings.lake)
    return corpus


def _collected(driver: Driver, settings: CollectSettings, suppression: SuppressionList | None) -> Corpus:
    context = SourceContext(driver.folder, driver.runs.keyed_person)
    sources = [each.model_dump() for each in settings.sources]
    opened = [open_source(source, context, f"collect.sources[{place}]") for place, source in enumerate(sources)]
    for source in opened:
        _refresh(driver, source)
    fingerprints = []
    for place, source in enumerate(opened):
        with about(f"collect.sources[{place}]"):
            fingerprints.append(source.fingerprint())
    return driver.run(gather, suppression, sources=sources, fingerprints=fingerprints)


def ingest(driver: Driver, corpus: Corpus, lake: str) -> None:
    """Pour the corpus into the lake, unless that is what it holds.

    The lake itself says whether there is anything to do, so the last pour is part of the request: what was poured once,
    replaced, and is to lie there again is no action that was done before.
    """
    try:
        remote = open_remote(lake, driver.folder)
        before = current(remote)
    except UserError as error:
        raise UserError(f"collect.lake: {error}") from None
    held = before["corpus"] if before else None
    if before is not None and held == corpus.digest and not left_over(remote, before):
        return
    known = corpus.pending or corpus.document_count()

    def work(run: Run) -> dict[str, Artifact]:
        poured = pour(remote, corpus.digest, corpus.documents(), lambda done: run.progress(done, known, "documents"))
        run.summary(documents=poured.documents, files=poured.files, written=poured.written, deleted=poured.deleted)
        driver.listener.say(
            f"lake {remote.url}: {poured.documents:,} documents in {poured.files:,} files,"
            f" {poured.written:,} written, {poured.deleted:,} deleted; {poured.digest[:11]}"
        )
        return {}

    last = driver.runs.find(step="collect.ingest", status="done", limit=1)
    after = last[0].id if last else None
    driver.act("collect.ingest", work, inputs=[corpus], lake=lake, replaces=held, after=after)


def withdraw(
    store: Store, folder: Path, lake: str, doomed: Container[str], documents: Callable[[Corpus], Container[str]]
) -> int:
    """Take ``documents`` out of the lake where the corpus in it is one of the ``doomed``, and everything where that is
    gone already; the next collection pours the lake anew. Returns how many files went.
    """
    try:
        remote = open_remote(lake, folder)
        held = current(remote)
    except UserError as error:
        raise UserError(f"collect.lake: {error}; the same command goes on") from None
    if held is None or held["corpus"] not in doomed:
        return 0
    corpus = Corpus(held["corpus"], store)
    if not store.has(corpus.digest):
        return pour(remote, "", ()).deleted
    gone = documents(corpus)
    return pour(remote, "", ([each for each in batch if each.id not in gone] for batch in corpus.documents())).deleted


def refresh(folder: Path, keyed: Callable[[str], str], settings: CollectSettings, tell: Callable[[str], None]) -> None:
    """Bring every source that keeps a snapshot up to date, due or not."""
    for place, source in enumerate(settings.sources):
        where = f"collect.sources[{place}]"
        open_source(source.model_dump(), SourceContext(folder, keyed), where).refresh(tell, asked=True)


def _refresh(driver: Driver, source: OpenSource) -> None:
    """A snapshot is brought up to date before it is fingerprinted; a plan says that it would be."""
    if not driver.planning:
        source.refresh(driver.listener.say)
    elif (why := source.due()) is not None:
        driver.listener.say(f"{source.name} would be fetched: {why}")


@step(version=1, packages=("pyarrow",))
def gather(
    suppression: SuppressionList | None, *, sources: list[dict[str, Any]], fingerprints: list[str], run: Run
) -> Corpus:
    """Read every source. Whoever is on the suppression list does not come in.

    ``fingerprints`` are the sources' own; in the key, they make a changed source be read again.
    """
    context = SourceContext(run.folder, run.keyed)
    opened = [open_source(source, context, f"collect.sources[{place}]") for place, source in enumerate(sources)]
    came, left = Accounting(), Accounting()
    batches: Iterable[Sequence[Document]] = read_sources(opened, came)
    if suppression is not None:
        batches = run_transforms(batches, [Suppress(_suppression(suppression), run.keyed)], left)
    with run.create(Corpus) as corpus:
        corpus.add_documents(write_corpus(corpus.path, _watched(batches, run)))
        accounting = came.then(left) if suppression is not None else came
        accounting.write(corpus.path)
        if [each.fingerprint() for each in opened] != fingerprints:
            raise UserError("collect: a source changed while it was read; run the same command again")
        if accounting.kept == 0:
            raise UserError(f"collect: no document came out of {accounting.read:,} pieces; {_first_reason(accounting)}")
        run.summary(read=accounting.read, kept=accounting.kept, quarantined=len(accounting.quarantined))
        return corpus.commit()


def admit(driver: Driver, corrections: Corpus | None, suppression: SuppressionList | None) -> Corpus | None:
    """Corrections without those of, or about, anybody on the suppression list; None when none is left."""
    if corrections is None or suppression is None:
        return corrections
    left = driver.run(suppress_corrections, corrections, suppression)
    return left if left.pending or left.document_count() else None


@step(version=1, packages=("pyarrow",))
def suppress_corrections(corrections: Corpus, suppression: SuppressionList, *, run: Run) -> Corpus:
    """The same corpus without whoever is on the list."""
    left = Accounting()
    batches = run_transforms(corrections.documents(), [Suppress(_suppression(suppression), run.keyed)], left)
    with run.create(Corpus) as corpus:
        corpus.add_documents(write_corpus(corpus.path, batches))
        corrections.accounting().then(left).write(corpus.path)
        return corpus.commit()


def _suppression(artifact: SuppressionList) -> Suppression:
    entries = artifact.suppressed()
    return Suppression(frozenset(entries), tuple(sorted({words for words in entries.values() if words})))


def _first_reason(accounting: Accounting) -> str:
    if accounting.quarantined:
        piece = accounting.quarantined[0]
        return f"the first, {piece.source} at byte {piece.offset}: {piece.reason}"
    rules = ", ".join(f"{rule} {count:,}" for rule, count in sorted(accounting.dropped.items()))
    return f"dropped: {rules}" if rules else "the sources are empty; check their path"


def _watched(batches: Iterable[Sequence[Document]], run: Run) -> Iterable[Sequence[Document]]:
    done = 0
    for batch in batches:
        done += len(batch)
        run.progress(done, None, "documents")
        yield batch
