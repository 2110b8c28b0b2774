"""One rule of prepare: what it looks for, who published that, and the documents it touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from treadle.core.errors import UserError, nearest
from treadle.record.record import Record
from treadle.text.corpus import Corpus
from treadle.text.detectors import RULES
from treadle.text.findings import read_findings

CLEAN, ASSEMBLE = "prepare.clean", "prepare.assemble"
_DROPS = "redact.drop_"
_KINDS = {f"redact.{kind}": kind for kind in RULES} | {f"{_DROPS}{kind}": kind for kind in RULES}


@dataclass
class RuleFacts:
    """``documents`` maps ids to how often the rule held; at most as many as were asked for, of ``touched``.

    ``dropped`` counts documents that the rule took out; of those only the sampled ones are named. ``finds``, ``check``
    and ``source`` are empty where the rule is not one for personal data.
    """

    name: str
    corpora: list[str]
    finds: str = ""
    check: str = ""
    source: str = ""
    touched: int = 0
    findings: int = 0
    dropped: int = 0
    documents: dict[str, int] = field(default_factory=dict)

    def public(self) -> dict[str, Any]:
        """As JSON."""
        documents = [{"id": name, "count": count} for name, count in self.documents.items()]
        return {
            "rule": self.name,
            "finds": self.finds,
            "check": self.check,
            "source": self.source,
            "corpora": self.corpora,
            "touched": self.touched,
            "findings": self.findings,
            "dropped": self.dropped,
            "documents": documents,
        }


def rule_facts(record: Record, name: str, limit: int) -> RuleFacts:
    """What a rule did in the latest preparation; ``limit`` 0 names every document.

    ``UserError`` before anything was prepared, and for a rule that is not there.
    """
    cleaned = list(_cleaned(record))
    if not cleaned:
        raise UserError("nothing was prepared yet; treadle prepare does it")
    facts = RuleFacts(name, [corpus.digest for corpus in cleaned])
    known = set(_KINDS)
    for corpus in cleaned:
        accounting = corpus.accounting()
        known |= accounting.dropped.keys() | accounting.samples.keys()
        facts.dropped += accounting.dropped.get(name, 0)
        counts = Counter(dict(_touched(corpus, name)))
        if name in accounting.dropped:
            counts.update({sample.document: 1 for sample in accounting.samples.get(name, ())})
        else:
            facts.touched += len(counts)
            facts.findings += counts.total()
        room = len(counts) if limit == 0 else max(0, limit - len(facts.documents))
        facts.documents |= dict(list(counts.items())[:room])
    if name not in known:
        raise UserError(f"there is no rule {name!r};{nearest(name, sorted(known))}")
    if name in _KINDS:
        rule = RULES[_KINDS[name]]
        facts.finds, facts.check, facts.source = rule.finds, rule.check, rule.source
    return facts


def _touched(corpus: Corpus, name: str) -> Iterator[tuple[str, int]]:
    for row in read_findings(corpus.path()):
        if row.rule == name:
            yield row.document, row.count


def _cleaned(record: Record) -> Iterator[Corpus]:
    """The cleaned corpora that the latest dataset was made from: documents, and corrections where there are any; or
    what was cleaned last, where no dataset came of it.
    """
    made = record.runs.find(step=ASSEMBLE, status="done", limit=1)
    digests = [made[0].inputs.get("corpus"), made[0].inputs.get("corrected")] if made else []
    latest = record.runs.find(step=CLEAN, status="done", limit=1)
    if latest and (not made or latest[0].started > made[0].started):
        digests = list(latest[0].outputs.values())
    for digest in digests:
        if isinstance(digest, str) and record.store.has(digest):
            yield Corpus(digest, record.store)
