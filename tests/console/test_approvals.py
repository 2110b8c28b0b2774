"""Approvals: the evidence, a word, and everything that may happen between the look and the word."""

from __future__ import annotations

import fcntl
import threading
from typing import Any

import pytest

from console.conftest import Browser, Opened, text_of
from treadle.console import house
from treadle.core.ledger import Fact
from treadle.record.gate import judged


def seen(browser: Browser) -> dict[str, str]:
    """What the form of v2 carries."""
    page = browser.page("/approvals/2")
    return {"report": page.field("report"), "champion": page.field("champion"), "csrf": page.field("csrf")}


def send(browser: Browser, decision: str, carried: dict[str, str], reason: str = "") -> Any:
    return browser.post("/approvals/2", decision=decision, reason=reason, **carried)


def promotions(opened: Opened) -> list[int]:
    rows = opened.record.ledger.rows("alias")
    return [row.body["number"] for row in rows if row.body["alias"] == "champion"]


def words(opened: Opened) -> list[str]:
    return [row.body["decision"] for row in opened.record.ledger.rows("approval")]


def test_what_waits_and_the_evidence(opened: Opened) -> None:
    browser = opened.browser()
    waiting = browser.json("/approvals")["waiting"]
    assert [(each["ref"], each["champion"], each["given"], each["needed"]) for each in waiting] == [
        ("model/helper@v2", "model/helper@v1", 0, 1)
    ]
    view = browser.json("/approvals/2")
    assert view["state"] == "waiting"
    assert all(gate["passed"] for gate in view["gates"])
    quality = next(gate for gate in view["gates"] if gate["gate"].startswith("quality"))
    drawn = quality["drawn"]
    assert drawn["low"] <= drawn["value"] <= drawn["high"]
    assert quality["figures"]["low"] <= quality["figures"]["difference"] <= quality["figures"]["high"]
    assert view["card"].startswith("# helper")
    said = text_of(browser.get("/approvals/2").text)
    for each in ("It would replace model@v1", "Intended use", "Your decision", "Approve v2", "Refuse"):
        assert each in said
    assert browser.json("/approvals/1")["state"] == "champion"
    assert browser.page("/approvals/1").by_id("decide") is None


def test_an_approval_promotes_and_is_recorded(opened: Opened) -> None:
    browser = opened.browser()
    answer = send(browser, "approve", seen(browser), "Reads well, says jane.roe@example.org")
    assert (answer.status_code, answer.headers["location"]) == (303, "/approvals")
    page = text_of(browser.get("/approvals").text)
    assert "model@v2 is the champion now" in page
    assert "Reads well, says [EMAIL]" in page
    assert "Nothing waits." in page
    assert promotions(opened) == [1, 2]
    word = opened.record.approvals.of("model/helper@v2")[0]
    assert word.actor == opened.record.runs.keys.keyed("actor", "ann")
    assert "model@v2 became the champion" in text_of(browser.get("/").text)
    assert browser.json("/approvals/2")["state"] == "champion"
    assert opened.record.ledger.verify() == []


def test_a_refusal_needs_a_reason_and_stands(opened: Opened) -> None:
    ann, ben = opened.browser("ann"), opened.browser("ben")
    carried = seen(ann)
    assert send(ann, "reject", carried).status_code == 400
    assert send(ann, "", carried).status_code == 400
    assert send(ann, "odd", carried).status_code == 400
    assert words(opened) == []
    assert send(ann, "reject", carried, "Too terse.").status_code == 303
    assert send(ben, "approve", seen(ben)).status_code == 303
    assert "model@v2 is refused" in text_of(ben.get("/approvals").text)
    assert promotions(opened) == [1]
    assert words(opened) == ["reject", "approve"]
    assert ben.json("/approvals/2")["state"] == "refused"


def test_two_who_approve_at_once_give_one_promotion(opened: Opened) -> None:
    people = [opened.browser(f"person-{number}") for number in range(4)]
    carried = [seen(browser) for browser in people]
    answers: list[Any] = []
    start = threading.Barrier(len(people))

    def approve(browser: Browser, own: dict[str, str]) -> None:
        start.wait()
        answers.append(send(browser, "approve", own))

    threads = [threading.Thread(target=approve, args=pair) for pair in zip(people, carried, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [303] * 4
    assert promotions(opened) == [1, 2]
    assert len(words(opened)) == 4
    assert opened.record.ledger.verify() == []


def test_one_person_twice_is_one_word(opened: Opened) -> None:
    browser = opened.browser()
    carried = seen(browser)
    assert send(browser, "approve", carried).status_code == 303
    assert send(browser, "approve", carried).status_code == 303
    assert "already" in text_of(browser.get("/approvals").text)
    assert (promotions(opened), words(opened)) == ([1, 2], ["approve"])


def test_two_people_are_needed_where_the_file_says_so(opened: Opened) -> None:
    object.__setattr__(opened.console.project.file.govern, "approval", "two")
    ann, ben = opened.browser("ann"), opened.browser("ben")
    assert send(ann, "approve", seen(ann)).status_code == 303
    assert "waits for one more person" in text_of(ann.get("/approvals").text)
    assert promotions(opened) == [1]
    assert ann.json("/approvals")["waiting"][0]["given"] == 1
    assert send(ann, "approve", seen(ann)).status_code == 303
    assert promotions(opened) == [1]
    assert send(ben, "approve", seen(ben)).status_code == 303
    assert promotions(opened) == [1, 2]


def test_judged_again_between_the_look_and_the_word(opened: Opened) -> None:
    browser = opened.browser()
    carried = seen(browser)
    version = opened.record.versions.all("model")[1]
    before = judged(opened.record.ledger, version.digest)
    assert before is not None
    body = {"release": before.release, "model": version.digest, "passed": True, "gates": before.gates}
    opened.record.ledger.append(Fact("gate", {**body, "report": opened.record.versions.all("dataset")[0].digest}))
    answer = send(browser, "approve", carried)
    assert answer.status_code == 409
    said = text_of(answer.text)
    assert "Model/helper@v2 was judged again since you looked" in said
    assert "Nothing was written" in said
    assert (promotions(opened), words(opened)) == ([1], [])


def test_an_alias_moved_in_between(opened: Opened) -> None:
    browser = opened.browser()
    carried = seen(browser)
    other = opened.record.versions.register("model", opened.record.versions.all("dataset")[0].digest, None)
    opened.record.versions.point("champion", other, reason="a test", release=opened.record.versions.served())
    answer = send(browser, "approve", carried)
    assert answer.status_code == 409
    assert "the champion is model/helper@v3 now" in text_of(answer.text).lower().replace("The", "the")
    assert words(opened) == []
    told = browser.http.post("/approvals/2?format=json", data={**carried, "decision": "approve"})
    assert told.status_code == 409
    assert told.json()["error"]["title"] == "Changed meanwhile"
    assert send(browser, "approve", {**carried, "champion": ""}).status_code == 409
    assert send(browser, "approve", {**carried, "report": ""}).status_code == 409


def test_promoted_by_somebody_else_in_between(opened: Opened) -> None:
    browser = opened.browser()
    carried = seen(browser)
    opened.project.call("approve", "model@v2", "--reason", "by command")
    answer = send(browser, "approve", carried)
    assert answer.status_code == 303
    assert promotions(opened) == [1, 2]
    assert len(words(opened)) == 2


def test_while_a_turn_runs_nothing_is_decided(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house, "CHANGE_SECONDS", 0.3)
    browser = opened.browser()
    carried = seen(browser)
    with (opened.record.workspace.root / "lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = send(browser, "approve", carried)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert "A turn is running" in text_of(answer.text)
    assert (promotions(opened), words(opened)) == ([1], [])
    assert send(browser, "approve", carried).status_code == 303
    assert promotions(opened) == [1, 2]


def test_a_short_change_is_waited_for(opened: Opened) -> None:
    browser = opened.browser()
    carried = seen(browser)
    lock = (opened.record.workspace.root / "lock").open("a+")
    fcntl.flock(lock, fcntl.LOCK_EX)
    timer = threading.Timer(0.5, lock.close)
    timer.start()
    answer = send(browser, "approve", carried)
    timer.join()
    assert answer.status_code == 303
    assert promotions(opened) == [1, 2]
