"""Documents: every transform in order, and without what earlier versions have."""

from __future__ import annotations

from typing import Any

from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.text.accounting import Accounting
from treadle.text.corpus import Corpus, write_corpus
from treadle.text.duplicates import read_duplicates
from treadle.text.earlier import Earlier
from treadle.text.findings import FindingsFile, read_findings
from treadle.text.mentions import data_key
from treadle.text.rule_log import RULES_FILE, RuleLog
from treadle.text.transform import load_transforms, run_transforms


@step(name="prepare.clean", version=2, packages=("pyarrow",))
def clean(corpus: Corpus, *, transforms: list[Any], keys: list[dict[str, Any]], run: Run) -> Corpus:
    """Every transform over every document, in order. ``keys`` carries the versions of their code into the step's
    key."""
    accounting = Accounting()
    done = 0

    def watched(batches: Any) -> Any:
        nonlocal done
        for batch in batches:
            done += len(batch)
            run.progress(done, corpus.document_count(), "documents")
            yield batch

    loaded = load_transforms(transforms, run.folder, key=data_key(run.keyed))
    with run.create(Corpus) as cleaned:
        with RuleLog(cleaned.path) as accounting.log, FindingsFile(cleaned.path) as findings:
            kept = run_transforms(watched(corpus.documents()), loaded, accounting, run.executor.map, findings.add)
            cleaned.add_documents(write_corpus(cleaned.path, kept))
        accounting.write(cleaned.path)
        run.summary(read=accounting.read, kept=accounting.kept, dropped=sum(accounting.dropped.values()))
        return cleaned.commit()


@step(name="prepare.leave_out", version=2, packages=("pyarrow",))
def leave_out(corpus: Corpus, earlier: tuple[Corpus, ...], *, near: float | None, run: Run) -> Corpus:
    """The documents that no earlier corpus has, neither exactly nor nearly (``near`` is the similarity)."""
    accounting = Accounting()
    known = Earlier(tuple(each.path() for each in earlier), near)
    with run.create(Corpus) as left:
        with RuleLog(left.path) as log, FindingsFile(left.path) as findings:
            log.carry(corpus.path(RULES_FILE))
            accounting.log = log
            for row in read_findings(
                corpus.path()
            ):  # an erasure looks for them here, too, once the corpus is collected
                findings.add(row)
            kept = run_transforms(corpus.documents(), [known], accounting, run.executor.map)
            left.add_documents(write_corpus(left.path, kept))
        both = corpus.accounting().then(accounting)
        both.duplicates.know_again(read_duplicates(corpus.path()))
        both.write(left.path)
        run.summary(read=accounting.read, kept=accounting.kept, dropped=sum(accounting.dropped.values()))
        return left.commit()
