"""Reviewing: labels, corrections, undo and back, what a rule set aside, and no need for the project's lock."""

from __future__ import annotations

import fcntl

from console.conftest import Browser, Content, Opened, ask, text_of
from treadle.core.driver import Driver
from treadle.core.ledger import now
from treadle.reviewing import aside
from treadle.stages.improve import give_feedback
from treadle.stages.improve.corrections import harvest


def shown(browser: Browser) -> str:
    """The interaction that is looked at."""
    found = Content(browser.get("/review").text).by_id("item")
    assert found is not None
    return found["data-interaction"]


def test_ten_items_are_labelled_one_after_the_other(opened: Opened) -> None:
    browser, index = opened.browser(), opened.record.interactions
    token, seen = browser.csrf, []
    for number in range(10):
        item = shown(browser)
        seen.append(item)
        sent = browser.post("/review", token, action="good" if number % 2 else "bad", interaction=item)
        assert (sent.status_code, sent.headers["location"]) == (303, "/review")
        last = index.feedback(item)[-1]
        assert (last.kind, last.value, last.source) == ("thumbs", float(number % 2), "console")
        assert last.user == opened.record.recorder.keyed("ann")
    assert len(set(seen)) == 10
    assert "Labelled good." in text_of(browser.get("/review").text)
    assert "You labelled 10 so far." in text_of(browser.get("/review").text)
    # Bad ratings came first.
    ratings = [[row.value for row in index.feedback(item) if row.source == "api"] for item in seen]
    assert ratings[:5] == [[0.0]] * 5


def test_keys_are_said_and_every_one_has_its_button(opened: Opened) -> None:
    browser = opened.browser()
    browser.post("/review", action="good", interaction=shown(browser))
    page = browser.page("/review")
    keys = {attributes["data-key"]: tag for tag, attributes in page.tags if "data-key" in attributes}
    assert keys == {"g": "button", "b": "button", "s": "button", "p": "a", "c": "textarea", "u": "button"}
    for word in ("good", "bad", "correct", "skip", "previous", "undo"):
        assert word in page.text


def test_a_correction_is_kept_and_leaves_the_queue(opened: Opened) -> None:
    browser = opened.browser()
    item = shown(browser)
    sent = browser.post("/review", action="correct", interaction=item, correction="Fill it with vinegar.")
    assert sent.status_code == 303
    last = opened.record.interactions.feedback(item)[-1]
    assert (last.kind, last.correction, last.source) == ("correction", "Fill it with vinegar.", "console")
    assert shown(browser) != item
    assert browser.post("/review", action="correct", interaction=item, correction=" ").status_code == 400
    assert browser.post("/review", action="correct", interaction=item, correction="\u200b\u2800").status_code == 400
    assert browser.post("/review", action="good", interaction="int-nothing").status_code == 400


def test_skipped_items_come_back_to_others(opened: Opened) -> None:
    ann, ben = opened.browser("ann"), opened.browser("ben")
    item = shown(ann)
    before = len(opened.record.interactions.feedback(item))
    ann.post("/review", action="skip", interaction=item)
    assert shown(ann) != item
    assert shown(ben) == item
    assert len(opened.record.interactions.feedback(item)) == before


def test_undo_is_a_new_row_that_restores_what_was_said(opened: Opened) -> None:
    browser, index = opened.browser(), opened.record.interactions
    item = shown(browser)
    others = [row for row in index.feedback(item) if row.source == "api"]
    browser.post("/review", action="good", interaction=item)
    browser.post("/review", action="undo")
    rows = [row for row in index.feedback(item) if row.source == "console"]
    assert [(row.kind, row.value) for row in rows] == [("thumbs", 1.0), ("thumbs", None)]
    assert [row for row in index.feedback(item) if row.source == "api"] == others
    undone = browser.get(f"/review?at={item}")
    assert f'data-interaction="{item}"' in undone.text
    assert "you said: " not in text_of(undone.text)
    assert shown(browser) == item  # it waits again

    browser.post("/review", action="bad", interaction=item)
    browser.post("/review", action="correct", interaction=item, correction="First.")
    browser.post("/review", action="correct", interaction=item, correction="Second.")
    browser.post("/review", action="undo")
    last = index.feedback(item)[-1]
    assert (last.kind, last.correction) == ("correction", "First.")
    browser.post("/review", action="undo")
    browser.post("/review", action="undo")
    assert browser.post("/review", action="undo").status_code == 400
    rows = [row for row in index.feedback(item) if row.source == "console"]
    assert [(row.kind, row.value, row.correction) for row in rows][-2:] == [
        ("correction", None, None),
        ("thumbs", None, None),
    ]


def test_back_shows_the_item_before_with_its_label(opened: Opened) -> None:
    browser = opened.browser()
    first = shown(browser)
    browser.post("/review", action="good", interaction=first)
    second = shown(browser)
    browser.post("/review", action="skip", interaction=second)
    page = browser.page("/review")
    assert next(each["href"] for each in page.all("a") if each.get("data-key") == "p") == f"/review?at={second}"
    back = browser.page(f"/review?at={first}")
    assert "you said: good" in back.text
    assert next(each["href"] for each in back.all("a") if each.get("data-key") == "p") == f"/review?at={second}"


def test_thumbs_on_an_answer_and_a_change_of_mind(opened: Opened) -> None:
    browser, index = opened.browser(), opened.record.interactions
    item = index.page(limit=1).rows[0].id
    for label in ("good", "good", "bad", "good"):
        assert browser.post(f"/interactions/{item}/feedback", label=label).status_code == 303
    values = [row.value for row in index.feedback(item) if row.source == "console"]
    assert values == [1.0, 0.0, 1.0]
    page = browser.page(f"/interactions/{item}")
    assert [each["value"] for each in page.all("button") if each.get("aria-pressed") == "true"] == ["good"]
    told = browser.http.post(
        f"/interactions/{item}/feedback?format=json", data={"csrf": browser.csrf, "label": "bad"}
    ).json()
    assert (told["kind"], told["value"], told["source"]) == ("thumbs", 0.0, "console")


def test_a_test_case_is_made_and_shown(opened: Opened) -> None:
    browser, index = opened.browser(), opened.record.interactions
    item = index.page(limit=1).rows[0].id
    whole = index.get(item)
    assert whole is not None
    assert browser.post(f"/interactions/{item}/case", reference="Use vinegar.").status_code == 303
    case = next(opened.record.recorder.cases())
    assert (case.interaction, case.reference, case.messages) == (item, "Use vinegar.", whole.messages)
    assert case.user == opened.record.recorder.keyed("ann")
    page = text_of(browser.get(f"/interactions/{item}").text)
    assert "This is a test case now" in page
    assert browser.json(f"/interactions/{item}")["case"]
    assert "test case" in text_of(browser.get(f"/interactions/{item}").text)
    assert not browser.json("/interactions/" + index.page(limit=2).rows[1].id)["case"]


def test_corrections_that_a_rule_set_aside_come_first(opened: Opened) -> None:
    record = opened.record
    same = ask(record, 2, lambda _: "How do I clean my lamp?")
    for number, item in enumerate(same):
        give_feedback(record, item, "correction", None, f"Answer {number}.", None, f"user-{number}", "api")
    driver = Driver(record.runs, opened.project.folder, seed=1)
    settings = opened.console.project.file.improve.corrections
    harvest(driver, record, settings, labeled=False, until=now())
    opened.console.house.written()
    items = aside(record)
    assert {item.interaction for item in items} == set(same)
    assert "2 different answers are wanted to the same question" in items[0].reason

    browser = opened.browser()
    first = shown(browser)
    assert first in same
    said = text_of(browser.get("/review").text)
    assert "A correction was set aside" in said
    assert f"Answer {same.index(first)}." in said
    browser.post("/review", action="correct", interaction=first, correction="This one.")
    assert {item.interaction for item in aside(record)} == set(same) - {first}
    assert shown(browser) == next(iter(set(same) - {first}))


def test_none_of_it_waits_for_a_turn(opened: Opened) -> None:
    browser = opened.browser()
    item = shown(browser)
    with (opened.record.workspace.root / "lock").open("a+") as lock:  # what a turn in another process holds
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert browser.post("/review", action="good", interaction=item).status_code == 303
        assert browser.post(f"/interactions/{item}/case", reference="x").status_code == 303
        assert browser.post(f"/interactions/{item}/feedback", label="correct", correction="x").status_code == 303
    assert [row.kind for row in opened.record.interactions.feedback(item) if row.source == "console"] == [
        "thumbs",
        "correction",
    ]


def test_an_erased_answer_is_gone(opened: Opened) -> None:
    browser = opened.browser()
    item = shown(browser)

    def without(row: dict[str, object]) -> dict[str, object] | None:
        return {**row, "erased": True, "messages": None, "answer": None} if row["id"] == item else row

    opened.record.workspace.journal.rewrite("interactions", without)
    opened.console.house.written()
    assert browser.get(f"/interactions/{item}").status_code == 404
    assert browser.get(f"/review?at={item}").status_code == 404
    assert browser.post(f"/interactions/{item}/feedback", label="good").status_code == 400
    assert shown(browser) != item
