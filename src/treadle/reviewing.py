"""Reviewing: answers that a person should look at, and what the person says of them.

A word is a row of feedback like any other, told apart by its source; taking it back is a new row, nothing is ever
overwritten. None of this needs the project's lock, so people can review while a turn trains.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Literal

from treadle.core.errors import UserError
from treadle.core.ledger import now
from treadle.project import Project
from treadle.record.case import Case, new_case_id
from treadle.record.feedback import Feedback, Kind, can_be_seen
from treadle.record.interaction import Interaction
from treadle.record.record import Record
from treadle.stages.improve import give_feedback
from treadle.stages.improve.corrections import SET_ASIDE
from treadle.text.corpus import Corpus

MAX_CORRECTION = 100_000  # characters, as in POST /v1/feedback
MAX_COMMENT = 10_000
_SHOWN_ASIDE = 100  # corrections set aside that are looked up
Label = Literal["good", "bad", "correct"]


@dataclass(frozen=True, slots=True)
class Item:
    """One answer to look at, and why in words; ``feedback`` is the correction that a rule set aside."""

    interaction: str
    reason: str
    feedback: str | None = None

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Said:
    """What a person said of an answer just now, and what the same person had said before (None: nothing)."""

    row: Feedback
    before: Feedback | None = None


def queue(record: Record, limit: int, leave_out: Collection[str] = ()) -> list[Item]:
    """What waits for a look: corrections that a rule set aside first, then what the index puts forward."""
    found = [item for item in aside(record) if item.interaction not in leave_out]
    known = {item.interaction for item in found} | set(leave_out)
    for row, reason in record.interactions.queue(limit + len(known)) if len(found) < limit else ():
        if row.id not in known:
            found.append(Item(row.id, reason))
            known.add(row.id)
    return found[:limit]


def aside(record: Record) -> list[Item]:
    """Corrections that the last harvest set aside and nobody has looked at since."""
    last = next(iter(record.runs.find(step="improve.harvest", status="done", limit=1)), None)
    digest = last.outputs.get("corpus") if last else None
    if digest is None or not record.store.has(digest):
        return []
    corpus = Corpus(digest, record.store)
    if not corpus.has(SET_ASIDE):
        return []
    found: dict[str, Item] = {}
    for told in corpus.read_json(SET_ASIDE)[:_SHOWN_ASIDE]:
        row = record.workspace.journal.find("feedback", told["feedback"])
        if row is None or row.get("erased") or told["rule"] == "corrections.superseded":
            continue
        said = record.interactions.feedback(row["interaction"])
        if any(word.source == "console" and word.time > row["time"] for word in said):
            continue
        reason = f"a correction was set aside: {told['reason']}"
        found.setdefault(row["interaction"], Item(row["interaction"], reason, row["id"]))
    return list(found.values())


def say(
    project: Project,
    interaction: str,
    label: Label,
    *,
    person: str,
    correction: str | None = None,
    comment: str | None = None,
) -> Said:
    """Record what a person says of an answer: good, bad, or what it should have been.

    Texts are kept as the file's ``monitor.record`` says. Raises ``UserError`` for an unknown interaction, a correction
    without a text or with one that is too long, and any text where none is kept.
    """
    record = project.record
    known = _find(record, interaction)
    text = _text(project, known, correction, "correction", MAX_CORRECTION)
    note = _text(project, known, comment, "comment", MAX_COMMENT)
    if label == "correct" and text is None:
        raise UserError("a correction needs a text: what should the answer have been?")
    kind: Kind = "correction" if label == "correct" else "thumbs"
    value = None if label == "correct" else 1.0 if label == "good" else 0.0
    before = last_word(record, interaction, kind, person)
    given = text if label == "correct" else None
    return Said(give_feedback(record, interaction, kind, value, given, note, person, "console"), before)


def take_back(record: Record, said: Said, person: str) -> Feedback:
    """A new row that restores what the person had said before; without value and text where that was nothing."""
    before = said.before
    value, correction = (before.value, before.correction) if before else (None, None)
    comment = before.comment if before else None
    row = said.row
    return give_feedback(record, row.interaction, row.kind, value, correction, comment, person, "console")


def make_case(project: Project, interaction: str, reference: str, *, person: str) -> Case:
    """Keep a question with the answer that is wanted, to judge every later version by. Raises as `say` does."""
    record = project.record
    known = _find(record, interaction)
    text = _text(project, known, reference, "wanted answer", MAX_CORRECTION)
    if text is None or not known.messages:
        raise UserError("a test case needs the answer that is wanted")
    row = Case(new_case_id(), known.id, now(), known.messages, text, record.recorder.keyed(person), "console")
    record.recorder.case(row)
    return row


def cleaned(project: Project, text: str) -> str:
    """A person's text without personal data, unless the project records in full."""
    if project.file.monitor.record != "full":
        from treadle.text.personal_data import redact

        text = redact(text)
    return text.encode("utf-8", "replace").decode()  # half a pair of surrogates is no character


def last_word(record: Record, interaction: str, kind: Kind, person: str) -> Feedback | None:
    """What a person said last of an answer in that way; None when nothing, or it was taken back."""
    by = record.recorder.keyed(person)
    for row in reversed(record.interactions.feedback(interaction)):
        if row.kind == kind and row.user == by and not row.erased:
            return row if row.value is not None or row.correction else None
    return None


def _find(record: Record, interaction: str) -> Interaction:
    found = record.interactions.get(interaction)
    if found is None:
        raise UserError(f"there is no interaction {interaction[:40]}, or it was erased")
    return found


def _text(project: Project, known: Interaction, text: str | None, what: str, most: int) -> str | None:
    """A person's text as it may be kept; None where there is none."""
    text = (text or "").replace("\r\n", "\n").strip()
    if not can_be_seen(text):
        return None
    if known.messages is None:
        raise UserError(f"{what}: no text is kept of this interaction, nor of what is said of it")
    if len(text) > most:
        raise UserError(f"{what}: {len(text):,} characters; at most {most:,} are taken")
    if project.file.monitor.record == "none":
        raise UserError(f"{what}: the project's file says monitor.record: none, so no text is kept")
    return cleaned(project, text)
