"""``/interactions/ID``: one answer, what it came from, and a person's word on it; ``?format=json`` gives an
`AnswerPage`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from treadle.console.pages.lineage import LineagePage, walked
from treadle.console.problem import Problem
from treadle.console.visit import Page, Redirect, Visit, local
from treadle.record.feedback import Feedback
from treadle.record.interaction import Interaction
from treadle.record.interaction_index import InteractionFilter, InteractionIndex
from treadle.reviewing import last_word, make_case, say

_DOCUMENTS = 12  # shown beside an answer
_LABELS: tuple[Literal["", "good", "bad", "correct"], ...] = ("", "good", "bad", "correct")


@dataclass(frozen=True, slots=True)
class AnswerPage:
    """One interaction with what was said of it. ``texts``: its text is kept, so it may be corrected. ``mine`` is the
    word of the person who looks: good, bad or nothing."""

    interaction: Interaction
    version: str
    texts: bool
    feedback: tuple[Feedback, ...]
    case: bool
    mine: str
    wanted: str
    lineage: LineagePage


def answer(visit: Visit) -> Page:
    """Read one."""
    record, index = visit.record, visit.house.interactions()
    identifier = visit.path["interaction"]
    found = index.get(identifier)
    if found is None:
        said = f"There is no interaction {identifier[:60]}, or it was erased."
        raise Problem(404, "No such answer", said, "Look for it in the list.", "/interactions")
    said_so_far = tuple(row for row in index.feedback(found.id) if not row.erased)
    word = last_word(record, found.id, "thumbs", visit.session.person.name)
    corrections = [row.correction for row in said_so_far if row.correction]
    version = next((each.short for each in record.versions.all("model") if found.model == each.ref), found.model)
    view = AnswerPage(
        found,
        version,
        found.messages is not None,
        said_so_far,
        _is_case(index, found),
        "" if word is None else "good" if word.value == 1 else "bad",
        corrections[-1] if corrections else found.answer or "",
        walked(record, found.id, "up", _DOCUMENTS),
    )
    return Page("answer.html", "Answer", "answers", view)


def give(visit: Visit) -> Redirect:
    """Thumbs, or what the answer should have been."""
    form, identifier = visit.form, visit.path["interaction"]
    label = form.choice("label", _LABELS, "")
    if not label:
        raise Problem(400, "Nothing said", "Say good, bad, or what the answer should have been.")
    with visit.house.writing:
        said = say(
            visit.project,
            identifier,
            label,
            person=visit.session.person.name,
            correction=form.values.get("correction"),
            comment=form.values.get("comment"),
        )
    visit.house.written()
    told = {"good": "Thumbs up recorded.", "bad": "Thumbs down recorded.", "correct": "Your correction is recorded."}
    return Redirect(_back(visit), told[label], said.row)


def keep(visit: Visit) -> Redirect:
    """Make it a test case."""
    with visit.house.writing:
        wanted = visit.form.values.get("reference", "")
        case = make_case(visit.project, visit.path["interaction"], wanted, person=visit.session.person.name)
    visit.house.written()
    said = "This is a test case now: every later version is judged by it."
    return Redirect(_back(visit), said, case)


def _back(visit: Visit) -> str:
    return local(f"/interactions/{visit.path['interaction']}", "/interactions")


def _is_case(index: InteractionIndex, found: Interaction) -> bool:
    """What the index says of it; rows are found by their time."""
    moment = datetime.fromisoformat(found.time)
    until = (moment + timedelta(milliseconds=2)).isoformat()
    rows = index.page(InteractionFilter(since=found.time, until=until), limit=50).rows
    return any(row.case for row in rows if row.id == found.id)
