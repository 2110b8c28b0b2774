"""The timeline: what happened to the project, newest first, in words that need no manual.

Each event is drawn from one row of the ledger, so it can be checked: `Event.row` is its place there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from treadle.core.errors import Corrupt
from treadle.core.ledger import Row
from treadle.record.note import read_note
from treadle.record.record import Record
from treadle.record.version import IMPORTED

LIMIT = 60  # events, unless asked otherwise
MOST = 500

Kind = Literal[
    "turn", "gate", "promotion", "refusal", "rollback", "canary", "alert", "approval", "deployment", "erasure"
]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. ``refs`` are references that lead on (``model@v2``, ``b3:...``); ``quote`` is what a
    person wrote, ``row`` the ledger row."""

    time: str
    kind: Kind
    text: str
    refs: tuple[str, ...] = ()
    quote: str | None = None
    row: int = 0

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "refs": list(self.refs)}


def timeline(record: Record, limit: int = LIMIT) -> list[Event]:
    """The latest events, newest first; at most ``MOST``."""
    limit = max(1, min(limit, MOST))
    teller = _Teller(record)
    rows: list[Row] = []
    for kind in teller.tells:
        rows.extend(_latest(record, kind, limit))
    rows.sort(key=lambda row: row.seq, reverse=True)
    found: list[Event] = []
    for row in rows:
        event = teller.tells[row.kind](row)
        if event is not None:
            found.append(event)
        if len(found) == limit:
            break
    return found


def _latest(record: Record, kind: str, limit: int) -> list[Row]:
    # Kind by kind, so that the index gives the rows and the many about runs and seals are never looked at.
    sql = "SELECT seq, kind, version, time, body FROM ledger WHERE kind = ? ORDER BY seq DESC LIMIT ?"
    return [_row(*values) for values in record.workspace.database.query(sql, (kind, limit))]


def _row(seq: int, kind: str, version: int, time: str, body: str) -> Row:
    try:
        return Row(seq, kind, version, time, json.loads(body))
    except ValueError:
        raise Corrupt(f"row {seq} of the ledger cannot be read; run treadle verify") from None


class _Teller:
    """Puts rows into words. Models are called by their versions."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._versions: dict[str, str | None] = {}
        self.tells: dict[str, Callable[[Row], Event | None]] = {
            "turn.begun": self._turn_begun,
            "turn.ended": self._turn_ended,
            "gate": self._gate,
            "alias": self._alias,
            "refusal": self._refusal,
            "canary.begun": self._canary_begun,
            "canary.step": self._canary_step,
            "canary.decided": self._canary_decided,
            "alert": self._alert,
            "approval": self._approval,
            "deployment": self._deployment,
            "erasure": self._erasure,
        }

    def _model(self, digest: str | None) -> str:
        return (self._name(digest) if digest else None) or "a model"

    def _name(self, digest: str) -> str | None:
        if digest not in self._versions:
            self._versions[digest] = next((each.short for each in self._record.versions.with_digest(digest)), None)
        return self._versions[digest]

    def _turn_begun(self, row: Row) -> Event:
        number, reasons = row.body["number"], [in_words(reason) for reason in row.body["reasons"]]
        why = "; ".join(reasons) or "somebody asked for it"
        return Event(row.time, "turn", f"Turn {number} began: {why}.", row=row.seq)

    def _turn_ended(self, row: Row) -> Event:
        body = row.body
        number, candidate, detail = body["number"], body["candidate"], _sentence(body["detail"])
        name = _short(candidate) if candidate else "the new version"
        said = {
            "promoted": f"Turn {number} ended: {name} answers your users from now on.",
            "unchanged": f"Turn {number} ended and nothing is new: {name} was in force already.",
            "waiting": f"Turn {number} ended: {name} passed its gates and waits for a person to approve it.",
            "canary": f"Turn {number} made {name}; it is being tried on a share of the traffic.",
            "refused": f"Turn {number} ended: {name} was refused; what was in force stays so.",
            "failed": f"Turn {number} broke off; what was in force stays so.",
        }.get(body["outcome"], f"Turn {number} ended: {body['outcome']}.")
        refs = (_short(candidate),) if candidate else ()
        return Event(row.time, "turn", f"{said} {detail}".strip(), refs, row=row.seq)

    def _gate(self, row: Row) -> Event:
        body = row.body
        name, gates = self._model(body["model"]), body["gates"]
        failed = [gate for gate, passed in gates.items() if not passed]
        if failed:
            text = f"{name} did not pass {len(failed)} of its {len(gates)} gates: {', '.join(failed)}."
        else:
            text = f"{name} passed {'its only gate' if len(gates) == 1 else f'all {len(gates)} gates'}."
            text = text if gates else f"{name} was judged; the file asks for no gate."
        return Event(row.time, "gate", text, (*self._ref(body["model"]), body["release"]), row=row.seq)

    def _alias(self, row: Row) -> Event | None:
        body = row.body
        ours = (body["of"], body["name"], body["alias"]) == ("model", self._record.name, "champion")
        if not ours or body["reason"] == IMPORTED:
            return None
        quote = read_note(self._record.store, body.get("note"))
        if body["number"] is None:
            text = f"No version is in force any longer: {body['reason']}."
            return Event(row.time, "rollback", text, quote=quote, row=row.seq)
        name = f"model@v{body['number']}"
        back = body.get("taken_back")
        if back is not None:
            text = f"model@v{back} was taken back; {name} answers your users again."
            return Event(row.time, "rollback", text, (name, f"model@v{back}"), quote, row.seq)
        # The row about a trial's end stands just before this one and tells its figures.
        reason = "its trial on real traffic" if body.get("canary") else body["reason"]
        text = f"{name} became the champion: it answers your users. Reason: {reason}."
        return Event(row.time, "promotion", text, (name,), quote, row.seq)

    def _refusal(self, row: Row) -> Event:
        name = f"model@v{row.body['number']}"
        text = f"{name} will not be promoted: {row.body['reason']}."
        return Event(row.time, "refusal", text, (name,), row=row.seq)

    def _canary_begun(self, row: Row) -> Event:
        body = row.body
        text = f"{self._model(body['model'])} is being tried on {body['share']:.0%} of the traffic."
        return Event(row.time, "canary", text, (*self._ref(body["model"]), body["release"]), row=row.seq)

    def _canary_step(self, row: Row) -> Event:
        text = f"The version being tried did well enough; it gets {row.body['share']:.0%} of the traffic now."
        return Event(row.time, "canary", text, row=row.seq)

    def _canary_decided(self, row: Row) -> Event:
        body = row.body
        what = "passed on real traffic" if body["decision"] == "promote" else "was stopped"
        number = body.get("taken_back")
        name = f"model@v{number}" if number is not None else "The version being tried"
        quote = read_note(self._record.store, body["figures"].get("note"))
        text = f"{name} {what}: {body['reason']}."
        return Event(row.time, "canary", text, (name,) if number is not None else (), quote, row.seq)

    def _alert(self, row: Row) -> Event:
        body = row.body
        release = (body["release"],) if body["release"] else ()
        return Event(row.time, "alert", f"Alert ({body['of']}): {in_words(body['detail'])}.", release, row=row.seq)

    def _approval(self, row: Row) -> Event:
        body = row.body
        name = _short(body["ref"])
        what = "approved" if body["decision"] == "approve" else "refused"
        quote = read_note(self._record.store, body["note"])
        text = f"A person ({body['actor'].partition(':')[2][:6]}) {what} {name}."
        return Event(row.time, "approval", text, (name,), quote, row.seq)

    def _deployment(self, row: Row) -> Event:
        body = row.body
        share = "" if body["share"] == 1 else f" for {body['share']:.0%} of the requests"
        text = f"{_short(body['model'])} answers at {body['endpoint']}{share}."
        if not body["share"]:
            text = f"{_short(body['model'])} no longer answers at {body['endpoint']}."
        return Event(row.time, "deployment", text, (body["release"],), row=row.seq)

    def _erasure(self, row: Row) -> Event:
        said = {
            "requested": "A person asked to be erased; from now on nothing of theirs is collected.",
            "deleting": "Everything was rebuilt without that person; the old objects are being deleted.",
            "done": "A person was erased: their data and everything made from it is gone.",
        }
        text = said.get(row.body["phase"], f"Erasure: {row.body['phase']}.")
        return Event(row.time, "erasure", text, row=row.seq)

    def _ref(self, digest: str) -> tuple[str, ...]:
        name = self._name(digest)
        return (name,) if name else ()


_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"corrections (\d+) >= (\d+)\Z"), r"users corrected \1 answers, and \2 are enough for a turn"),
    (re.compile(r"drift alert\Z"), "the questions are no longer like those it was trained on"),
    (re.compile(r"age of the champion >= (\S+)\Z"), r"the version in force is older than \1"),
    (re.compile(r"volume (\d+) >= (\d+) requests\Z"), r"\1 requests came in, and \2 are enough for a turn"),
    (re.compile(r"schedule (.+)\Z"), r"it is time, by the schedule \1"),
    (re.compile(r"asked for\Z"), "somebody asked for it"),
)


def in_words(reason: str) -> str:
    """A reason that a rule in the file gave, for somebody who does not know the file; any other text as it is."""
    for pattern, words in _RULES:
        if pattern.match(reason):
            return pattern.sub(words, reason)
    return reason.rstrip(".")


def _sentence(text: str) -> str:
    text = text.strip().rstrip(".")
    return text[:1].upper() + text[1:] + "." if text else ""


def _short(ref: str) -> str:
    """``model@v2`` for ``model/NAME@v2``."""
    return re.sub(r"\A(model|dataset)/[^@]*@", r"\1@", ref)
