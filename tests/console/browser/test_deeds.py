"""What people come for, done in a browser: correct, label, approve, walk from an answer to its documents and back."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from console.browser.conftest import ASKED, Enter, Place
from small_project import Project
from treadle.project import open_project
from treadle.record.feedback import Feedback


def said_here(project: Project) -> list[Feedback]:
    """What was said in the console, oldest first."""
    with open_project(project.folder) as opened:
        return [row for row in opened.record.recorder.all_feedback() if row.source == "console"]


def find(page: Page, words: str) -> None:
    """Search for the one answer with these words, and open it."""
    (question,) = [asked for asked, _ in ASKED if words in asked]
    page.get_by_label("In questions and answers").fill(words)
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("link", name=question).click()
    page.wait_for_url("**/interactions/int-*")


def test_a_link_lets_in_once_and_a_correction_is_recorded(place: Place, enter: Enter) -> None:
    visitor = enter()
    page = visitor.page
    page.get_by_role("link", name="Answers", exact=True).click()
    find(page, "kettle's filter")
    page.get_by_text("Correct this").click()
    page.get_by_label("What the answer should have been").fill("Under the base; turn it left.\nThen pull.")
    page.get_by_label("Comment").fill("the old one")
    page.get_by_role("button", name="Save the correction").click()
    expect(page.locator("#notice")).to_have_text("Your correction is recorded.")
    expect(page.locator("#live")).to_have_text("Your correction is recorded.")  # for those who listen
    expect(page.locator(".timeline .correction .said").last).to_contain_text(
        "Under the base; turn it left.\nThen pull."
    )
    shown = page.url.rpartition("/")[2]
    (row,) = said_here(place.project)
    assert (row.interaction, row.kind, row.comment) == (shown, "correction", "the old one")
    assert row.correction == "Under the base; turn it left.\nThen pull."

    other = visitor.page.context.browser.new_context().new_page()  # type: ignore[union-attr]
    answer = other.goto(place.links["ann"])
    assert answer is not None
    assert answer.status == 403
    expect(other.get_by_role("heading", level=1)).to_have_text("Used already")
    other.context.close()


def test_ten_items_are_labelled_by_keyboard_alone(place: Place, enter: Enter) -> None:
    visitor = enter()
    page = visitor.page
    page.add_init_script(
        "for (const kind of ['pointerdown', 'mousedown', 'touchstart'])"
        " addEventListener(kind, () => console.error('a pointer was used'), true)"
    )
    page.reload()
    visitor.walk_to("#nav-review")
    visitor.press("Enter")
    item = page.locator("#item")
    expect(item).to_be_visible()
    seen: list[str] = []

    def next_one() -> str:
        """The item that is shown now, which was not the one before."""
        if seen:
            expect(item).not_to_have_attribute("data-interaction", seen[-1])
        shown = item.get_attribute("data-interaction")
        assert shown is not None
        seen.append(shown)
        return shown

    wanted: list[tuple[str, str, object]] = []
    for key in "gbcgbscgbcgb":
        shown = next_one()
        if seen[1:]:
            expect(page.locator("#item-title")).to_be_focused()  # a reader is told what came
        if key == "c":
            visitor.press("c")
            expect(page.locator("#correction")).to_be_focused()
            visitor.press("Control+a")
            page.keyboard.type("go by bus")  # with keys that mean something elsewhere
            visitor.press("Control+Enter")
            wanted.append((shown, "correction", "go by bus"))
        else:
            visitor.press(key)
            if key != "s":
                wanted.append((shown, "thumbs", float(key == "g")))
    next_one()
    assert len(wanted) == 11
    expect(page.locator("#labelled")).to_have_text("11")

    visitor.press("u")  # the last one is taken back, and shown once more
    expect(item).to_have_attribute("data-interaction", wanted[-1][0])
    expect(page.locator("#labelled")).to_have_text("10")
    seen.append(wanted[-1][0])
    visitor.press("p")  # the one before that
    expect(item).to_have_attribute("data-interaction", wanted[-2][0])
    expect(page.locator("#item-title .badge")).to_have_text("you said: good")

    rows = said_here(place.project)
    given = [(row.interaction, row.kind, row.correction if row.kind == "correction" else row.value) for row in rows]
    assert given == [*wanted, (wanted[-1][0], "thumbs", None)]
    assert len({row.user for row in rows}) == 1


def test_a_version_is_approved_with_a_reason(place: Place, enter: Enter) -> None:
    assert place.project.json("status")["champion"]["number"] == 1
    page = enter().page
    page.get_by_role("link", name="Look at it and decide").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("model/helper@v2")
    expect(page.get_by_role("region", name="Gates").get_by_role("row")).to_have_count(1 + 3)
    page.get_by_role("link", name="which items flipped").click()
    expect(page.get_by_role("heading", name="Items that flipped")).to_be_visible()
    page.go_back()
    page.get_by_label("Reason").fill("It is kinder, <b>and</b> as right.")
    page.get_by_role("button", name="Approve v2").click()
    expect(page.locator("#notice")).to_contain_text("v2 is the champion now")
    expect(page.locator("q")).to_have_text("It is kinder, <b>and</b> as right.")
    page.get_by_role("link", name="Status", exact=True).click()
    expect(page.locator(".stage").nth(6)).to_have_accessible_name("7 govern champion v2, done")
    status = place.project.json("status")
    assert status["champion"]["number"] == 2
    assert place.project.json("verify")["ok"]


def test_a_refusal_needs_a_reason_and_two_people_are_told_apart(place: Place, enter: Enter) -> None:
    ann, ben = enter("ann"), enter("ben")
    for visitor in (ann, ben):
        visitor.open("/approvals/2")
    ann.refusals.add(400)
    ann.page.get_by_role("button", name="Refuse").click()
    expect(ann.page.locator("#problem-said")).to_contain_text("a refusal needs a reason", ignore_case=True)
    ann.page.get_by_role("link", name="Back").or_(ann.page.get_by_role("link", name="To the status page")).click()
    ann.open("/approvals/2").get_by_label("Reason").fill("It forgets the stove.")
    ann.page.get_by_role("button", name="Refuse").click()
    expect(ann.page.locator("#notice")).to_contain_text("v2 is refused")
    ben.page.reload()
    expect(ben.page.locator("h1 .badge")).to_have_text("refused")
    expect(ben.page.locator(".timeline .refusal q")).to_have_text("It forgets the stove.")
    assert place.project.json("status")["champion"]["number"] == 1


def test_walk_from_an_answer_to_a_document_and_back(place: Place, enter: Enter) -> None:
    page = enter().open("/interactions")
    find(page, "lamp flickers")
    start = page.url
    answer = start.rpartition("/")[2]
    page.locator("#answer-lineage .documents.made_by a").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Lineage of document")
    expect(page.locator(".verdict")).to_have_text("Verified: every object on the way is what was recorded.")
    document = page.locator("#ref").input_value()
    page.get_by_label("At most, of a kind").fill("500")
    page.get_by_role("button", name="Walk").click()
    page.locator(f"a.ref[title='{answer}']").click()
    expect(page).to_have_url(start)

    # The same way, a step at a time: answer, release, model, dataset, document.
    page.get_by_role("link", name="Walk further").click()
    for kind in ("release", "model", "dataset"):
        page.get_by_role("region", name=f"{kind}s", exact=True).get_by_role("link").first.click()
        expect(page.get_by_role("heading", level=1)).to_contain_text(f"Lineage of {kind}")
    page.get_by_label("At most, of a kind").fill("500")
    page.get_by_role("button", name="Walk").click()
    expect(page.locator(f"a.ref[title='{document}']")).to_be_visible()
