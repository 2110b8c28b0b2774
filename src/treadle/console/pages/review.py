"""``/review``: look at the answers that need a person, one after the other; ``?format=json`` gives a `ReviewPage`."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.console.problem import Problem
from treadle.console.visit import Page, Redirect, Visit
from treadle.record.feedback import Feedback
from treadle.record.interaction import Interaction
from treadle.reviewing import Item, Label, Said, last_word, queue, say, take_back

AHEAD = 100  # items that are counted; beyond that there are more
_ACTIONS = ("good", "bad", "correct", "skip", "undo")
_LABELS: dict[str, Label] = {"good": "good", "bad": "bad", "correct": "correct"}
_SAID = {"good": "Labelled good.", "bad": "Labelled bad.", "correct": "Correction kept."}


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """One answer to look at. ``proposed`` is what a user wanted instead, where a rule set that aside; ``mine`` what the
    person who looks said before: good, bad, corrected, or nothing."""

    interaction: Interaction
    reason: str
    proposed: str | None
    mine: str


@dataclass(frozen=True, slots=True)
class ReviewPage:
    """``waiting`` counts up to ``ahead``; ``back`` is the interaction looked at before, ``undo`` the one whose label
    can be taken back."""

    item: ReviewItem | None
    waiting: int
    ahead: int
    labelled: int
    back: str | None
    undo: str | None


@dataclass(frozen=True, slots=True)
class Labelled:
    """What was written."""

    action: str
    feedback: Feedback | None


def review(visit: Visit) -> Page:
    """The next item, or the one that ``at`` names."""
    session, asked = visit.session, visit.query.text("at", most=60)
    visit.house.interactions()
    done = {said.row.interaction for said in session.labelled}
    waiting = queue(visit.record, AHEAD, {*session.skipped, *done})
    chosen = next((item for item in waiting if item.interaction == asked), None)
    if asked and chosen is None:
        chosen = Item(asked, "you looked at it before")
    item = _item(visit, chosen or next(iter(waiting), None))
    here = item.interaction.id if item else ""
    before = [name for name in session.looked_at if name != here]
    undo = session.labelled[-1].row.interaction if session.labelled else None
    view = ReviewPage(item, len(waiting), AHEAD, len(session.labelled), before[-1] if before else None, undo)
    return Page("review.html", "Review", "review", view)


def label(visit: Visit) -> Redirect:
    """Do what a key or a button said."""
    action = visit.form.choice("action", _ACTIONS, "skip")
    if action == "undo":
        return _undo(visit)
    interaction = visit.form.text("interaction", most=60)
    session = visit.session
    if action == "skip":
        if interaction not in session.skipped:
            session.skipped.append(interaction)
        _looked_at(visit, interaction)
        return Redirect("/review", "Skipped.", Labelled(action, None))
    with visit.house.writing:
        said = say(
            visit.project,
            interaction,
            _LABELS[action],
            person=session.person.name,
            correction=visit.form.values.get("correction"),
            comment=visit.form.values.get("comment"),
        )
    session.labelled.append(said)
    _looked_at(visit, interaction)
    visit.house.written()
    return Redirect("/review", _SAID[action], Labelled(action, said.row))


def _undo(visit: Visit) -> Redirect:
    if not visit.session.labelled:
        raise Problem(400, "Nothing to undo", "You have not labelled anything yet.", back="/review")
    last: Said = visit.session.labelled.pop()
    with visit.house.writing:
        row = take_back(visit.record, last, visit.session.person.name)
    visit.house.written()
    said = "Taken back: what you said before stands again, as a new row."
    return Redirect(f"/review?at={row.interaction}", said, Labelled("undo", row))


def _looked_at(visit: Visit, interaction: str) -> None:
    if interaction in visit.session.looked_at:
        visit.session.looked_at.remove(interaction)
    visit.session.looked_at.append(interaction)


def _item(visit: Visit, item: Item | None) -> ReviewItem | None:
    if item is None:
        return None
    record = visit.record
    found = record.interactions.get(item.interaction)
    if found is None:
        raise Problem(404, "Not there", "There is no such interaction, or it was erased.", back="/review")
    proposed = None
    if item.feedback is not None:
        said = (row for row in record.interactions.feedback(found.id) if row.id == item.feedback)
        proposed = next((row.correction for row in said), None)
    return ReviewItem(found, item.reason, proposed, _mine(visit, found.id))


def _mine(visit: Visit, interaction: str) -> str:
    name = visit.session.person.name
    if last_word(visit.record, interaction, "correction", name) is not None:
        return "corrected"
    word = last_word(visit.record, interaction, "thumbs", name)
    return "" if word is None else "good" if word.value == 1 else "bad"
