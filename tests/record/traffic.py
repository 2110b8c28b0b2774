"""Traffic for the tests of the index, and what a plain scan of the journal says of it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from treadle.core.ledger import now
from treadle.record.case import Case, new_case_id
from treadle.record.feedback import Feedback, new_feedback_id
from treadle.record.interaction import Given, Interaction, Seconds, Tokens, new_interaction_id
from treadle.record.interaction_index import InteractionFilter, InteractionIndex, InteractionRow
from treadle.record.record import Record

RELEASES = ("b3:" + "1" * 64, "b3:" + "2" * 64, "b3:" + "3" * 64)
PEOPLE = ("ann", "bob", "eve", None)
TEXTS = ("Straße nach Süden", 'a "quoted" \\ text\nof two lines', "plain question", "half \ud800 a pair", "x" * 300)


class Traffic:
    """Appends to a record what the chance says."""

    def __init__(self, record: Record, chance: random.Random) -> None:
        self.record, self.chance = record, chance
        self.ids: list[str] = []
        self.begun = datetime.now(UTC) - timedelta(hours=6)

    def interact(self, **given: Any) -> str:
        """One interaction; ``given`` instead of what the chance says."""
        chance, person = self.chance, self.chance.choice(PEOPLE)
        kept, status = chance.random() < 0.8, chance.choice(("ok", "ok", "ok", "failed", "cancelled"))
        moment = self.begun + timedelta(milliseconds=chance.randrange(6 * 3600 * 1000))
        release = chance.choice(RELEASES)
        row: dict[str, Any] = {
            "id": new_interaction_id(),
            "request": "r",
            "time": moment.isoformat(timespec="milliseconds")[:-6] + "Z",
            "release": release,
            "model": f"model/demo@v{release[3]}",
            "endpoint": "chat.completions",
            "status": status,
            "store": kept,
            "user": self.record.recorder.keyed(person) if person else None,
            "key": chance.choice(("key-1", "key-2", None)),
            "messages": ({"role": "user", "content": chance.choice(TEXTS)},) if kept else None,
            "answer": chance.choice(TEXTS) if kept and status == "ok" else None,
            "confidence": chance.choice(((), (), (0.4,), (0.9, 0.59), (0.99,))),
            "given": (Given("doc:" + "a" * 64, "k3:0", "A title", "what was given"),) if chance.random() < 0.1 else (),
            "tokens": Tokens(chance.randrange(50), chance.randrange(50)),
            "seconds": Seconds(0.0, chance.choice((None, chance.random())), chance.random() * 3),
            "metadata": {"treadle": "smoke"} if kept and chance.random() < 0.2 else None,
            "origin": "shadow" if len(self.ids) % 7 == 3 else "traffic",
        }
        interaction = Interaction(**{**row, **given})
        self.record.recorder.interaction(interaction)
        self.ids.append(interaction.id)
        return interaction.id

    def opine(self, interaction: str | None = None, **given: Any) -> None:
        """One piece of feedback; now and then one that takes an earlier word back, or is about nothing known."""
        chance = self.chance
        about = interaction or chance.choice(self.ids[-40:] or ["int-unknown"])
        kind = chance.choice(("thumbs", "thumbs", "score", "correction", "preference"))
        value = {"thumbs": chance.choice((0.0, 1.0, None)), "score": chance.random(), "preference": 0.0}.get(kind)
        row: dict[str, Any] = {
            "id": new_feedback_id(),
            "interaction": about,
            "time": now(),
            "kind": kind,
            "value": value,
            "correction": chance.choice(("better", None)) if kind == "correction" else None,
            "comment": chance.choice((None, "because")),
            "user": chance.choice([self.record.recorder.keyed(name) if name else None for name in PEOPLE]),
            "source": chance.choice(("api", "api", "cli", "console")),
        }
        self.record.recorder.feedback(Feedback(**{**row, **given}))

    def keep(self, interaction: str | None = None) -> None:
        """One test case."""
        about = interaction or self.chance.choice(self.ids[-40:] or ["int-unknown"])
        self.record.recorder.case(Case(new_case_id(), about, now(), (), "wanted"))

    def erase(self, person: str) -> None:
        """Take a person out of the journal, as an erasure does, and delete what that replaced."""
        digest = self.record.recorder.keyed(person)
        journal, store = self.record.workspace.journal, self.record.store
        texts = ("messages", "answer", "user", "correction", "comment", "metadata")
        for stream in ("interactions", "feedback", "cases"):

            def change(row: dict[str, Any]) -> dict[str, Any] | None:
                if row.get("user") != digest:
                    return row
                return {**row, **{name: None for name in texts if name in row}, "given": [], "erased": True}

            replaced = journal.rewrite(stream, change)
            store.delete(replaced | {entry.digest for name in replaced for entry in store.entries(name)})


def scanned(record: Record) -> list[InteractionRow]:
    """Every interaction by a plain scan, newest first."""
    journal = record.workspace.journal
    said: dict[str, list[Feedback]] = {}
    for row in journal.read("feedback"):
        if not row.get("erased"):
            said.setdefault(row["interaction"], []).append(Feedback.from_dict(row))
    cases = {row["interaction"] for row in journal.read("cases") if not row.get("erased")}
    found = []
    for row in journal.read("interactions"):
        if not row.get("erased"):
            interaction = Interaction.from_dict(row)
            words = in_force(said.get(interaction.id, []))
            found.append(_row(interaction, words, case=interaction.id in cases))
    return sorted(found, key=lambda each: each.time, reverse=True)


def in_force(words: Iterable[Feedback]) -> list[Feedback]:
    """The last word of each person and kind, unless it took back the one before; the rest of the words as they are."""
    latest: dict[tuple[str, str], Feedback] = {}
    for word in sorted(words, key=lambda each: (each.time, each.id)):
        latest.pop((word.kind, word.user or word.id), None)
        if word.value is not None or word.correction:
            latest[word.kind, word.user or word.id] = word
    return list(latest.values())


def _row(row: Interaction, words: list[Feedback], *, case: bool) -> InteractionRow:
    thumbs = [word.value for word in words if word.kind == "thumbs"]
    scores = [word.value for word in words if word.kind == "score"]
    return InteractionRow(
        id=row.id,
        time=row.time,
        release=row.release,
        model=row.model,
        endpoint=row.endpoint,
        status=row.status,
        user=row.user,
        tokens_prompt=row.tokens.prompt,
        tokens_completion=row.tokens.completion,
        seconds=row.seconds.total,
        ttft=row.seconds.ttft,
        thumbs=thumbs[-1] if thumbs else None,
        score=scores[-1] if scores else None,
        corrected=any(word.kind == "correction" for word in words),
        commented=any(word.comment for word in words),
        case=case,
        stored=row.messages is not None,
        smoke=(row.metadata or {}).get("treadle") == "smoke" and row.origin != "shadow",
        shadow=row.origin == "shadow",
        confidence=min(row.confidence) if row.confidence else None,
    )


def listed(index: InteractionIndex, where: InteractionFilter | None = None, limit: int = 50) -> list[InteractionRow]:
    """Every page of a list."""
    where = where or InteractionFilter()
    rows: list[InteractionRow] = []
    before = None
    while True:
        page = index.page(where, before=before, limit=limit)
        rows += page.rows
        before = page.next
        if before is None:
            return rows
