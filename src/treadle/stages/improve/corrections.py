"""Corrections become documents: what users said an answer should have been, by rules that no single user can bend.

Kept ones are learned from, or judged by (a share of them, and what people made test cases of); the rest is counted by
the rule that set it aside. A reviewer's own correction, made in the console, stands above the rules.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from treadle.core.artifacts import Artifact
from treadle.core.digest import canonical_json
from treadle.core.driver import Driver
from treadle.core.runs import Run
from treadle.record.case import Case
from treadle.record.feedback import Feedback
from treadle.record.interaction import Interaction
from treadle.record.record import Record
from treadle.stages.improve.settings import CorrectionSettings
from treadle.text.accounting import Accounting, Dropped
from treadle.text.corpus import Corpus, write_corpus
from treadle.text.document import Document, document_id

SOURCE = "feedback"
SET_ASIDE = "set_aside.json"
_LONGEST = 4.0  # times the longest answer that was seen; beyond that a person looks at it
_SAME_ANSWER = 3  # different questions that get the same correction
Use = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Correction:
    """One person's last word on one interaction: the conversation, and the answer (or label) that was wanted."""

    feedback: str
    interaction: Interaction
    wanted: str
    by: str
    subject: str | None
    time: str
    reviewed: bool
    case: bool = False

    @property
    def question(self) -> str:
        """What was asked, in a form that compares."""
        asked = [message["content"] for message in self.interaction.messages or () if message["role"] == "user"]
        return " ".join(" ".join(asked).lower().split())


@dataclass(frozen=True, slots=True)
class SetAside:
    """A correction that is not used, by which rule, in words."""

    correction: Correction
    rule: str
    reason: str


def harvest(
    driver: Driver, record: Record, settings: CorrectionSettings, *, labeled: bool, until: str
) -> Corpus | None:
    """All corrections up to a time as a corpus; None when there are none. Done once for each time. Says how many were
    set aside, also where nothing is left.

    ``labeled``: they become texts with a label, else conversations.
    """

    def gather(run: Run) -> dict[str, Artifact]:
        kept, aside = chosen(found(record, until), settings)
        with run.create(Corpus) as corpus:
            documents = _documents(kept, settings, labeled)
            corpus.add_documents(write_corpus(corpus.path, [documents] if documents else []))
            accounting = Accounting(read=len(kept) + len(aside), kept=len(documents))
            for each in aside:
                accounting.drop(Dropped(_document(each.correction, settings, labeled, "train"), each.rule, each.reason))
            accounting.write(corpus.path)
            told = [{"feedback": each.correction.feedback, "rule": each.rule, "reason": each.reason} for each in aside]
            (corpus.path / SET_ASIDE).write_bytes(canonical_json(told))
            run.summary(kept=len(kept), set_aside=len(aside))
            return {"corpus": corpus.commit()}

    if not any(True for _ in found(record, until)):
        return None
    made = driver.act("improve.harvest", gather, until=until, labeled=labeled, **settings.model_dump())
    if made is None:
        return None
    corpus = Corpus(made["corpus"].digest, record.store)
    account = corpus.accounting()
    if account.dropped:
        aside = sum(account.dropped.values())
        driver.listener.say(f"{aside:,} set aside: {account.losses()}; treadle console has the open ones under Review")
    return corpus if corpus.document_count() else None


def found(record: Record, until: str) -> Iterable[Correction]:
    """The last correction of each person on each interaction, and test cases, oldest first; texts not kept are none."""
    latest: dict[tuple[str, str], Correction] = {}
    for row in _said(record):
        interaction = record.recorder.find_interaction(row.interaction)
        wanted = row.reference if isinstance(row, Case) else row.correction
        if row.time > until or row.erased or interaction is None or not interaction.messages:
            continue
        reviewed = row.source == "console"
        by = row.user or interaction.key or "anonymous"
        place = (row.interaction, "reviewer" if reviewed else by)
        latest.pop(place, None)
        if not wanted:  # a word that was taken back
            continue
        subject = interaction.user or (None if reviewed else row.user)
        latest[place] = Correction(row.id, interaction, wanted, by, subject, row.time, reviewed, isinstance(row, Case))
    return latest.values()


def _said(record: Record) -> list[Feedback | Case]:
    rows: list[Feedback | Case] = [row for row in record.recorder.all_feedback() if row.kind == "correction"]
    rows.extend(record.recorder.cases())
    return sorted(rows, key=lambda row: (row.time, row.id))


def chosen(corrections: Iterable[Correction], settings: CorrectionSettings) -> tuple[list[Correction], list[SetAside]]:
    """What is used, and what is set aside by which rule.

    ``superseded``: a reviewer said something else. ``conflict``: people want different answers to one question.
    ``same_answer``: one answer to many questions. ``outlier``: far longer than any answer before. ``per_person``: more
    than one person may have.
    """
    rows = list(corrections)
    reviewed = {row.interaction.id for row in rows if row.reviewed}
    wanted: dict[str, set[str]] = defaultdict(set)
    questions: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.interaction.id not in reviewed:
            wanted[row.question].add(_plain(row.wanted))
            questions[_plain(row.wanted)].add(row.question)
    longest = max((len(row.interaction.answer or "") for row in rows), default=0)
    kept: list[Correction] = []
    aside: list[SetAside] = []
    used: Counter[str] = Counter()
    for row in sorted(rows, key=lambda row: (row.time, row.feedback), reverse=True):
        rule, reason = "", ""
        if not row.reviewed:
            rule, reason = _rule(row, reviewed, wanted, questions, _LONGEST * max(longest, 200))
            if not rule and used[row.by] >= settings.per_person:
                rule, reason = "per_person", f"more than {settings.per_person} of one person"
        if rule:
            aside.append(SetAside(row, f"corrections.{rule}", reason))
            continue
        used[row.by] += 1
        kept.append(row)
    kept.reverse()
    return kept, aside


def _rule(
    row: Correction, reviewed: set[str], wanted: dict[str, set[str]], questions: dict[str, set[str]], longest: float
) -> tuple[str, str]:
    if row.interaction.id in reviewed:
        return "superseded", "a reviewer said what is wanted here"
    if len(wanted[row.question]) > 1:
        return "conflict", f"{len(wanted[row.question])} different answers are wanted to the same question"
    same = questions[_plain(row.wanted)]
    if len(same) >= _SAME_ANSWER and row.interaction.endpoint not in ("classify", "tag", "/v1/classify"):
        return "same_answer", f"the same answer is wanted to {len(same)} different questions"
    if len(row.wanted) > longest:
        return "outlier", f"{len(row.wanted):,} characters; no answer so far had a quarter of that"
    return "", ""


def _documents(kept: Sequence[Correction], settings: CorrectionSettings, labeled: bool) -> list[Document]:
    documents: dict[str, Document] = {}
    for row in kept:
        document = _document(row, settings, labeled, "train")
        share = int(document.id.removeprefix("doc:")[:8], 16) / 16**8
        use: Use = "test" if row.case or share < settings.test_share else "train"
        if documents.get(document.id) is None or use == "test":
            documents[document.id] = _document(row, settings, labeled, use)
    return list(documents.values())


def _document(row: Correction, settings: CorrectionSettings, labeled: bool, use: Use) -> Document:
    asked = [dict(message) for message in row.interaction.messages or ()]
    fields: dict[str, Any] = {"interaction": row.interaction.id, "use": use}
    if labeled:
        text = "\n".join(message["content"] for message in asked)
        fields["label"] = row.wanted
    else:
        fields["messages"] = [*asked, {"role": "assistant", "content": row.wanted}]
        given = row.interaction.answer or ""
        if given.strip() and _plain(given) != _plain(row.wanted):  # what was given is liked less than what was wanted
            fields["rejected"] = [*asked, {"role": "assistant", "content": given}]
        text = "\n".join(message["content"] for message in fields["messages"])
    raw = canonical_json({"asked": asked, "wanted": row.wanted})
    return Document(
        id=document_id(SOURCE, row.interaction.id, raw),
        source=SOURCE,
        locator=f"correction of {row.interaction.id}",
        text=text,
        license=settings.license,
        time=row.time,
        origin="feedback",
        purpose=row.interaction.purpose,
        subject=row.subject,
        retain_until=row.interaction.retain_until,
        fields=fields,
    )


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
