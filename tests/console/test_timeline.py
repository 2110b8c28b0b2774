"""The timeline: every kind of event in words, newest first, bounded, and true to its row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from treadle.core.ledger import Fact
from treadle.core.workspace import Workspace
from treadle.record.note import keep_note
from treadle.record.record import PROJECTIONS, Record
from treadle.record.turn import TurnInputs
from treadle.timeline import MOST, in_words, timeline

DRIFTED = "the questions are no longer like those it was trained on"
MODEL, OTHER, RELEASE, REPORT = ("b3:" + letter * 64 for letter in "abcd")


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    with Workspace(tmp_path / "store", projections=PROJECTIONS) as workspace:
        yield Record(workspace, "docs")


def said(record: Record) -> list[str]:
    return [event.text for event in timeline(record)]


def test_nothing_happened_yet(record: Record) -> None:
    assert timeline(record) == []


def test_a_turn_from_its_reason_to_its_end(record: Record) -> None:
    first = record.versions.register("model", MODEL, None)
    record.turns.begin(("asked for",), TurnInputs(), "")
    body = {
        "release": RELEASE,
        "model": MODEL,
        "report": REPORT,
        "passed": True,
        "gates": {"quality": True, "law": True},
    }
    record.ledger.append(Fact("gate", body))
    record.versions.point("champion", first, reason="gates held", release=RELEASE)
    record.turns.end(1, "promoted", "gates held", first.ref)
    record.turns.begin(("corrections 48 >= 40", "drift alert"), TurnInputs(), "")
    assert said(record) == [
        f"Turn 2 began: users corrected 48 answers, and 40 are enough for a turn; {DRIFTED}.",
        "Turn 1 ended: model@v1 answers your users from now on. Gates held.",
        "model@v1 became the champion: it answers your users. Reason: gates held.",
        "model@v1 passed all 2 gates.",
        "Turn 1 began: somebody asked for it.",
    ]
    events = timeline(record)
    assert events[1].refs == ("model@v1",)
    assert events[3].refs == ("model@v1", RELEASE)
    rows = {row.seq: row for row in record.ledger.rows()}
    assert all(rows[event.row].time == event.time for event in events)
    assert events == sorted(events, key=lambda event: -event.row)
    assert events[0].public()["refs"] == []


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        ("unchanged", "Turn 1 ended and nothing is new: model@v1 was in force already. So it is."),
        ("waiting", "Turn 1 ended: model@v1 passed its gates and waits for a person to approve it. So it is."),
        ("canary", "Turn 1 made model@v1; it is being tried on a share of the traffic. So it is."),
        ("refused", "Turn 1 ended: model@v1 was refused; what was in force stays so. So it is."),
        ("failed", "Turn 1 broke off; what was in force stays so. So it is."),
    ],
)
def test_every_end_of_a_turn(record: Record, outcome: str, text: str) -> None:
    version = record.versions.register("model", MODEL, None)
    record.turns.begin((), TurnInputs(), "")
    record.turns.end(1, outcome, "so it is", version.ref)  # type: ignore[arg-type]
    assert said(record)[0] == text


def test_a_canary_that_was_stopped_and_one_that_passed(record: Record) -> None:
    first, second = record.versions.register("model", MODEL, None), record.versions.register("model", OTHER, None)
    record.versions.point("champion", first, reason="gates held", release=RELEASE)
    record.canaries.begin("can-1", RELEASE, OTHER, REPORT, 0.1)
    record.canaries.widen("can-1", 0.5, {})
    stopped = record.canaries.decided("can-1", "take_back", "three errors in 50", {}, second.number)
    record.versions.point("challenger", None, reason="taken back", together=(stopped,))
    record.canaries.begin("can-2", RELEASE, OTHER, REPORT, 0.25)
    passed = record.canaries.decided("can-2", "promote", "not decidable at n=100", {})
    record.versions.point("champion", second, reason="as told", together=(passed,), release=RELEASE, canary="can-2")
    assert said(record)[:-1] == [
        "model@v2 became the champion: it answers your users. Reason: its trial on real traffic.",
        "The version being tried passed on real traffic: not decidable at n=100.",
        "model@v2 is being tried on 25% of the traffic.",
        "model@v2 was stopped: three errors in 50.",
        "The version being tried did well enough; it gets 50% of the traffic now.",
        "model@v2 is being tried on 10% of the traffic.",
    ]


def test_refusals_rollbacks_and_what_people_said(record: Record) -> None:
    first, second = record.versions.register("model", MODEL, None), record.versions.register("model", OTHER, None)
    body = {
        "release": RELEASE,
        "model": OTHER,
        "report": REPORT,
        "passed": False,
        "gates": {"quality": False, "law": True},
    }
    record.ledger.append(Fact("gate", body))
    refusal = {"model": OTHER, "number": 2, "release": RELEASE, "reason": "gates said no: quality", "report": REPORT}
    record.ledger.append(Fact("refusal", refusal))
    note = keep_note(record.store, "Too <b>terse</b>.")
    record.approvals.record(second.ref, "reject", "k3:" + "9" * 40, note, REPORT)
    record.approvals.record(second.ref, "approve", "k3:" + "8" * 40, None, REPORT)
    facts = {"release": RELEASE, "taken_back": 2, "note": keep_note(record.store, "Users complain.")}
    record.versions.point("champion", first, reason="took back v2", **facts)
    record.versions.point("champion", None, reason="erased")
    events = timeline(record)
    assert [(event.kind, event.text, event.quote) for event in events] == [
        ("rollback", "No version is in force any longer: erased.", None),
        ("rollback", "model@v2 was taken back; model@v1 answers your users again.", "Users complain."),
        ("approval", "A person (888888) approved model@v2.", None),
        ("approval", "A person (999999) refused model@v2.", "Too <b>terse</b>."),
        ("refusal", "model@v2 will not be promoted: gates said no: quality.", None),
        ("gate", "model@v2 did not pass 1 of its 2 gates: quality.", None),
    ]


def test_alerts_deployments_and_erasures(record: Record) -> None:
    record.alerts.raise_("drift", "the latest 500 questions differ", RELEASE, {})
    record.deployments.record(RELEASE, "model/docs@v1", "http://127.0.0.1:8000", 0.1)
    record.deployments.record(RELEASE, "model/docs@v1", "http://127.0.0.1:8000", 0.0)
    suppression = record.erasures.extend({"k3:1": 2}).digest
    for phase in ("requested", "deleting", "done"):
        record.erasures.record("era-1", "k3:2", phase, suppression)
    assert said(record) == [
        "A person was erased: their data and everything made from it is gone.",
        "Everything was rebuilt without that person; the old objects are being deleted.",
        "A person asked to be erased; from now on nothing of theirs is collected.",
        "model@v1 no longer answers at http://127.0.0.1:8000.",
        "model@v1 answers at http://127.0.0.1:8000 for 10% of the requests.",
        "Alert (drift): the latest 500 questions differ.",
    ]


def test_it_is_bounded_and_the_latest_come_first(record: Record) -> None:
    for number in range(40):
        record.turns.begin((f"volume {number} >= 1 requests",), TurnInputs(), "")
        record.alerts.raise_(f"kind-{number}", "x", None, {})
    latest = timeline(record, 5)
    assert [event.kind for event in latest] == ["alert", "turn", "alert", "turn", "alert"]
    assert latest[1].text == "Turn 40 began: 39 requests came in, and 1 are enough for a turn."
    assert len(timeline(record, 10_000)) == 80 <= MOST
    assert len(timeline(record, 0)) == 1


def test_reasons_are_put_into_words_and_others_left_as_they_are() -> None:
    assert in_words("age of the champion >= 30d") == "the version in force is older than 30d"
    assert in_words("schedule 0 3 * * 1") == "it is time, by the schedule 0 3 * * 1"
    assert in_words("something else.") == "something else"
