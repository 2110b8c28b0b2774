"""Examples that were left out, and what that means for the documents they were made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from treadle.core.errors import TreadleError
from treadle.text.accounting import Accounting, Dropped
from treadle.text.dataset import Example
from treadle.text.document import Document
from treadle.text.rule_log import Log


@dataclass(frozen=True, slots=True)
class DroppedExample:
    """An example that goes no further: the rule (``decontaminate.near_answer``) and, for a person, why it
    applies.
    """

    example: Example
    rule: str
    reason: str


def account(
    documents: Mapping[str, Document],
    before: Iterable[Example],
    after: Iterable[Example],
    dropped: Sequence[DroppedExample],
    log: Log | None = None,
) -> Accounting:
    """Count the documents behind ``before``: kept when an example of ``after`` still has them, else dropped
    by the first rule.

    ``log`` hears of each that was dropped, and as ``changed`` of each that lost an example and kept another.
    ``TreadleError`` when a document vanished without a rule.
    """
    read = {name for example in before for name in example.documents}
    kept = {name for example in after for name in example.documents}
    accounting = Accounting(read=len(read), kept=len(kept), log=log)
    if log is not None:
        log_lost_examples(log, dropped, kept)
    told = set(kept)
    for drop in dropped:
        for name in drop.example.documents:
            if name not in told:
                told.add(name)
                accounting.drop(Dropped(documents[name], drop.rule, drop.reason))
    lost = read - told
    if lost:
        raise TreadleError(f"{len(lost)} documents left the dataset without a rule, {min(lost)} first; report this")
    return accounting.close()


def log_lost_examples(log: Log, dropped: Iterable[DroppedExample], kept: Set[str]) -> None:
    """Of the documents that are kept for another example: whoever reads them whole reads what was dropped."""
    lost = {(name, drop.rule) for drop in dropped for name in drop.example.documents if name in kept}
    for name, rule in sorted(lost):
        log.add((name,), rule, "changed")
