"""Quality: a classifier from one's own good and bad documents, and the corpus without what it scores low."""

from __future__ import annotations

from typing import Any

from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.record.suppression import SuppressionList
from treadle.text.accounting import Accounting
from treadle.text.corpus import Corpus, write_corpus
from treadle.text.duplicates import read_duplicates
from treadle.text.findings import FindingsFile, read_findings
from treadle.text.handles import QualityClassifier
from treadle.text.quality import Quality
from treadle.text.quality_training import train_on
from treadle.text.rule_log import RULES_FILE, RuleLog
from treadle.text.source import SourceContext, open_source, read_sources
from treadle.text.suppress import Suppress, Suppression
from treadle.text.transform import run_transforms


def gather_examples(
    driver: Driver, settings: dict[str, Any], suppression: SuppressionList | None, where: str
) -> Corpus:
    """The documents of a source as a corpus; its settings are checked before anything is read."""
    opened = open_source(settings, SourceContext(driver.folder, driver.runs.keyed_person), where)
    return driver.run(read_examples, suppression, source=settings, where=where, fingerprint=opened.fingerprint())


@step(name="prepare.read_examples", version=1, packages=("pyarrow",))
def read_examples(
    suppression: SuppressionList | None, *, source: dict[str, Any], where: str, fingerprint: str, run: Run
) -> Corpus:
    """Every document of the source but those of, or about, anybody on the suppression list."""
    opened = open_source(source, SourceContext(run.folder, run.keyed), where)
    entries = suppression.suppressed() if suppression is not None else {}
    known = Suppression(frozenset(entries), tuple(sorted({words for words in entries.values() if words})))
    came, left = Accounting(), Accounting()
    with run.create(Corpus) as corpus:
        batches = run_transforms(read_sources([opened], came), [Suppress(known, run.keyed)], left)
        corpus.add_documents(write_corpus(corpus.path, batches))
        came.then(left).write(corpus.path)
        if opened.fingerprint() != fingerprint:
            raise UserError(f"{where}: a file changed while it was read; run the same command again")
        run.summary(read=came.read, kept=left.kept, quarantined=len(came.quarantined))
        return corpus.commit()


@step(name="prepare.train_quality", version=1, packages=("numpy", "pyarrow"))
def train_quality(good: Corpus, bad: Corpus, *, run: Run) -> QualityClassifier:
    """The classifier, and its accuracy and area under the curve on documents held out."""
    sides = [(document for batch in side.documents() for document in batch) for side in (good, bad)]
    trained = train_on(*sides)
    worth = trained.worth
    with run.create(QualityClassifier) as classifier:
        info = {"learned": trained.learned, "on_both_sides": trained.on_both_sides, "held_out": worth.to_json()}
        trained.model.save(classifier.path, info)
        classifier.add_documents(trained.documents)
        run.summary(
            accuracy=worth.accuracy.value,
            auc=worth.auc.value,
            learned=trained.learned,
            held_out=worth.good + worth.bad,
            on_both_sides=trained.on_both_sides,
        )
        return classifier.commit()


@step(name="prepare.filter_quality", version=1, packages=("numpy", "pyarrow"))
def filter_quality(corpus: Corpus, classifier: QualityClassifier, *, threshold: float, run: Run) -> Corpus:
    """The documents that score at least the threshold, each with its score."""
    accounting = Accounting()
    with run.create(Corpus) as left:
        with RuleLog(left.path) as log, FindingsFile(left.path) as findings:
            log.carry(corpus.path(RULES_FILE))
            accounting.log = log
            for row in read_findings(corpus.path()):  # an erasure looks for them here, too
                findings.add(row)
            judge = Quality(classifier.path(), threshold)
            kept = run_transforms(corpus.documents(), [judge], accounting, run.executor.map)
            left.add_documents(write_corpus(left.path, kept))
        both = corpus.accounting().then(accounting)
        both.duplicates.know_again(read_duplicates(corpus.path()))
        both.write(left.path)
        run.summary(read=accounting.read, kept=accounting.kept, dropped=sum(accounting.dropped.values()))
        return left.commit()


def told(classifier: QualityClassifier) -> str:
    """The line that says what a classifier is worth."""
    held = classifier.read_json("quality.json")["held_out"]
    accuracy, auc = held["accuracy"], held["auc"]
    return (
        f"quality classifier, on {held['good']:,} good and {held['bad']:,} bad documents held out: accuracy"
        f" {accuracy['value']:.3f} ({accuracy['low']:.3f} to {accuracy['high']:.3f}), AUC {auc['value']:.3f}"
        f" ({auc['low']:.3f} to {auc['high']:.3f})"
    )
