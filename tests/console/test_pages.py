"""Every page and its JSON: the right things on them, the promised shape, no outside asset, small."""

from __future__ import annotations

import html
import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from pydantic import TypeAdapter
from starlette.testclient import TestClient

import treadle
from console.conftest import BASE, Browser, Content, Opened, ask, interaction, text_of
from small_project import Project
from treadle.console.app import create_console
from treadle.console.pages.answer import AnswerPage
from treadle.console.pages.answers import AnswersPage
from treadle.console.pages.approvals import ApprovalPage, ApprovalsPage
from treadle.console.pages.comparison import ComparePage
from treadle.console.pages.lineage import LineagePage
from treadle.console.pages.review import ReviewPage
from treadle.console.pages.run import RunPage
from treadle.console.pages.runs import RunsPage
from treadle.console.pages.side_by_side import SideBySidePage
from treadle.console.pages.status import StatusPage, trained
from treadle.core.artifacts import Artifact
from treadle.core.driver import Driver
from treadle.core.run import Run
from treadle.core.workspace import Workspace
from treadle.cycle import STAGES
from treadle.record.interaction_index import InteractionFilter
from treadle.record.record import Record
from treadle.stages.collect import admit, collect

PAGES: dict[str, Any] = {
    "/": StatusPage,
    "/runs": RunsPage,
    "/runs?step=develop.&sort=metric&metric=loss&q=learning_rate": RunsPage,
    "/runs/RUN": RunPage,
    "/compare": ComparePage,
    "/compare?a=model@v1&b=model@v2": ComparePage,
    "/compare?a=RUN&b=OTHER": ComparePage,
    "/compare?a=dataset@v1&b=dataset@v1": ComparePage,
    "/compare/runs?run=RUN&run=OTHER": SideBySidePage,
    "/interactions": AnswersPage,
    "/interactions?text=kettle&rating=down&since=2026-01-01": AnswersPage,
    "/interactions/ANSWER": AnswerPage,
    "/lineage": LineagePage,
    "/lineage?ref=@champion": LineagePage,
    "/lineage?ref=ANSWER": LineagePage,
    "/lineage?ref=RUN": LineagePage,
    "/lineage?ref=model@v1&way=down&limit=5": LineagePage,
    "/review": ReviewPage,
    "/approvals": ApprovalsPage,
    "/approvals/1": ApprovalPage,
    "/approvals/2": ApprovalPage,
}


def named(opened: Opened, path: str) -> str:
    """A path with real ids in it."""
    runs = opened.record.runs.find(step="develop.train")
    answer = opened.record.interactions.page(InteractionFilter(origin="traffic"), limit=1).rows[0].id
    return path.replace("RUN", runs[0].id).replace("OTHER", runs[1].id).replace("ANSWER", answer)


@pytest.fixture(scope="module")
def browser(looked_at: Opened) -> Browser:
    return looked_at.browser()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_and_its_json(looked_at: Opened, browser: Browser, path: str) -> None:
    where = named(looked_at, path)
    answer = browser.get(where)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Content(answer.text)
    assert len(page.all("h1")) == 1
    assert len(page.all("main")) == 1
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    labelled = {attributes.get("for") for attributes in page.all("label")}
    for field in [*page.all("input"), *page.all("select"), *page.all("textarea")]:
        assert field.get("type") == "hidden" or field.get("aria-label") or field["id"] in labelled, field
    assert len(page.all("caption")) == len(page.all("table"))

    given = browser.json(where)
    same = browser.get(where + ("&" if "?" in where else "?") + "format=json").json()
    assert given.keys() == same.keys()
    adapter = TypeAdapter(PAGES[path])
    assert adapter.dump_python(adapter.validate_python(given), mode="json") == given


@pytest.mark.parametrize("path", PAGES)
def test_nothing_comes_from_outside(looked_at: Opened, browser: Browser, path: str) -> None:
    page = browser.page(named(looked_at, path))
    for tag, attributes in page.tags:
        assert tag not in ("style", "iframe", "object", "embed"), tag
        assert "style" not in attributes, (tag, attributes)
        assert not [name for name in attributes if name.startswith(("on", "hx-on"))], attributes
        for name in ("src", "href", "action", "hx-get", "hx-post"):
            if name in attributes:
                assert re.match(r"[/#?]", attributes[name]), (tag, attributes)
    assert [attributes["src"].partition("?")[0] for attributes in page.all("script")] == [
        "/static/htmx.min.js",
        "/static/console.js",
    ]


def test_the_first_page_is_small(looked_at: Opened) -> None:
    browser = looked_at.browser()
    first = browser.get("/")
    page = Content(first.text)
    assets = [each["src"] for each in page.all("script")] + [each["href"] for each in page.all("link")]
    assert len(assets) == 4
    total = len(first.content)
    for asset in assets:
        answer = browser.get(asset)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        total += len(answer.content)
    assert total < 100_000


def test_files_are_named_by_what_is_in_them(browser: Browser) -> None:
    assert browser.get("/static/console.css").headers["content-type"] == "text/css; charset=utf-8"
    for name in ("LICENSES.txt", "..%2Fapp.py", "app.py", "%2e%2e/app.py"):
        assert browser.get(f"/static/{name}").status_code == 404


@pytest.mark.parametrize("step", ["develop.train", "develop.fit", "develop.pretrain", "develop.prefer"])
def test_whatever_gave_a_model_is_what_develop_gave(step: str, tmp_path: Path) -> None:
    with Workspace(tmp_path) as workspace:
        record = Record(workspace, "docs")
        assert trained(record) == "nothing yet"

        def learn(run: Run) -> dict[str, Artifact]:
            run.summary(loss=2.5)
            return {}

        Driver(record.runs, tmp_path, seed=1).act(step, learn)
        assert trained(record) == "loss 2.50"


def test_status_shows_the_loop(looked_at: Opened, browser: Browser) -> None:
    view = browser.json("/")
    assert [stage["name"] for stage in view["stages"]] == list(STAGES)
    states = {stage["name"]: stage["state"] for stage in view["stages"]}
    assert states["govern"] == "waiting"
    assert {states[name] for name in ("collect", "prepare", "develop", "track", "deploy", "monitor")} == {"done"}
    assert view["waiting"] == ["model@v2"]
    assert [each["ref"] for each in view["in_force"]] == ["model@v1"]
    assert view["traffic"]["requests"] == 40
    assert sum(span["requests"] for span in view["traffic"]["spans"]) == 40
    assert [turn["outcome"] for turn in view["turns"]] == ["promoted", "waiting"]
    page = browser.page("/")
    stages = [each for each in page.all("a") if each.get("class", "").startswith("stage ")]
    assert len(stages) == 8
    assert stages[6]["aria-label"] == "7 govern champion v1, waits for a person"
    said = text_of(browser.get("/").text)
    assert "model@v2 waits for a person." in said
    assert "Turn 2 ended: model@v2 passed its gates and waits for a person to approve it." in said
    assert "model@v1 became the champion: it answers your users." in said


def test_runs_are_searched_filtered_sorted_and_paged(looked_at: Opened, browser: Browser) -> None:
    every = browser.json("/runs")
    assert every["total"] == len(looked_at.record.runs.find())
    trained = browser.json("/runs?step=develop.train")
    assert {run["step"] for run in trained["runs"]} == {"develop.train"}
    assert trained["total"] == 2
    whole_stage = browser.json("/runs?step=develop.")
    assert {run["step"].partition(".")[0] for run in whole_stage["runs"]} == {"develop"}
    assert browser.json("/runs?q=" + quote('"budget":4000'))["total"] == 1
    assert browser.json("/runs?q=%25")["total"] == 0  # no wildcard
    assert browser.json("/runs?q=_")["total"] > 0
    assert browser.json("/runs?status=failed")["total"] == 0
    by_loss = browser.json("/runs?step=develop.train&sort=metric&metric=loss")["runs"]
    losses = [run["metrics"]["loss"] for run in by_loss]
    assert losses == sorted(losses, reverse=True)
    shortest = [run["seconds"] for run in browser.json("/runs?sort=shortest")["runs"]]
    assert shortest == sorted(shortest)
    assert browser.json("/runs?start=20")["runs"] == every["runs"][20:]


def test_a_run_is_shown_whole(looked_at: Opened, browser: Browser) -> None:
    run = looked_at.record.runs.find(step="develop.train")[0]
    view = browser.json(f"/runs/{run.id}")
    loss = next(curve for curve in view["curves"] if curve["metric"] == "loss")
    assert len(loss["points"]) == run.metrics["steps"]
    assert loss["points"][-1][1] == pytest.approx(run.metrics["loss"])
    assert view["parameters"]["budget"] == 4000
    assert view["outputs"][0]["label"] == "model@v2"
    assert {each["name"] for each in view["inputs"]} >= {"dataset", "tokens"}
    assert view["python"].startswith("3.")
    assert "torch" in view["environment"]
    page = browser.get(f"/runs/{run.id}").text
    assert page.count("<polyline") == len(view["curves"])
    assert quote(view["outputs"][0]["digest"], safe="") in page


def test_runs_are_filtered_as_the_command_filters_them(looked_at: Opened, browser: Browser) -> None:
    def asked(**query: str) -> dict[str, Any]:
        return browser.json("/runs?" + urlencode(query))

    large = asked(where="metrics.loss > 0 and params.budget = 4000")
    assert [run["step"] for run in large["runs"]] == ["develop.train"]
    assert (large["total"], large["error"]) == (1, None)
    assert asked(where="not step = 'develop.train'", step="develop.train")["total"] == 0
    lowest = asked(step="develop.train", sort="lowest", by="metrics.loss")["runs"]
    highest = asked(step="develop.train", sort="highest", by="metrics.loss")["runs"]
    assert [run["id"] for run in lowest] == [run["id"] for run in reversed(highest)]
    assert lowest[0]["metrics"]["loss"] < lowest[1]["metrics"]["loss"]
    for query, says in (
        ({"where": "metrics.loss <"}, "--where, column 15: expected a number"),
        ({"where": "metrics.los < 1"}, "did you mean 'metrics.loss'?"),
        ({"sort": "lowest", "by": "metrics.los"}, "no run has metrics.los"),
        ({"sort": "lowest", "by": "<b>"}, "by, column 1"),
    ):
        answer = browser.get("/runs?" + urlencode(query))
        assert answer.status_code == 400
        page = Content(answer.text)
        assert (page.by_id("where") or {})["value"] == query.get("where", "")
        assert says in html.unescape(answer.text)
        assert "<b>" not in answer.text


def test_several_runs_are_put_side_by_side(opened: Opened) -> None:
    trained = opened.record.runs.find(step="develop.train")
    with treadle.start_run("fit", params={"budget": 1}, folder=opened.project.folder, system=None) as run:
        run.log(1, own=2.0)
        run.log(2, own=1.0)
        run.tag(note="<b>bold")
    named = [*(each.id for each in trained), run.id]
    view = opened.browser().json("/compare/runs?run=" + ",".join(named))
    assert [each["id"] for each in view["runs"]] == named
    assert view["settings"]["budget"] == [4000, 3000, 1]
    assert view["metrics"]["loss"][:2] == [each.metrics["loss"] for each in trained]
    assert view["metrics"]["loss"][2] is None
    for score in view["scores"]["rouge_l"][:2]:
        assert score["low"] <= score["value"] <= score["high"]
        assert score["n"] > 0
    drawn = {each["metric"]: len(each["drawn"]["lines"]) for each in view["curves"]}
    assert (drawn["loss"], drawn["own"]) == (2, 1)
    page = opened.browser().get("/compare/runs?" + "&".join(f"run={each}" for each in named)).text
    assert re.search(r'<polyline class="line s2"[^>]*>', page)
    assert "&lt;b&gt;bold" in page
    assert "<b>bold" not in page
    for query, status in (("", 400), (f"run={run.id}", 400), (f"run={run.id}&run=run-nothing", 404)):
        assert opened.browser().get(f"/compare/runs?{query}").status_code == status


def test_what_was_said_of_a_run_and_what_it_printed_are_shown(opened: Opened) -> None:
    folder = opened.project.folder
    tags = {"team": "<i>search", "kept": True}
    with treadle.start_run("fit", params={"prompt": "Be kind."}, tags=tags, folder=folder, capture=True) as run:
        sys.stdout.write(f"<b>printed {'x' * 120_000} the end\n")
        for step in range(5):
            run.log(step, loss=1 / (step + 1))
        run.note("the schedule is <script>alert(1)</script> of last week")
        (folder / "notes.txt").write_text("made")
        run.artifact(folder / "notes.txt", kind="notes")
    view = opened.browser().json(f"/runs/{run.id}")
    assert view["tags"] == tags
    assert view["parameters"] == {"prompt": "Be kind."}
    assert view["notes"] == ["the schedule is <script>alert(1)</script> of last week"]
    assert view["log"].endswith("the end\n")
    assert view["log"].startswith("... ")
    assert {(made["name"], made["kind"]) for made in view["outputs"]} == {("notes", "notes"), ("log", "log")}
    assert all(made["bytes"] > 0 for made in view["outputs"])
    assert "loss" in {curve["metric"] for curve in view["curves"]}
    assert view["command"]
    assert view["threads"]["available"] > 0
    page = opened.browser().get(f"/runs/{run.id}").text
    for told in ("&lt;i&gt;search", "Be kind.", "&lt;script&gt;alert(1)", "the end", "What it printed", "notes, 4 B"):
        assert told in page
    for markup in ("<i>search", "<script>alert", "<b>printed"):
        assert markup not in page


def test_a_failed_run_says_why(opened: Opened) -> None:
    runs = opened.record.runs
    settings: dict[str, Any] = {"version": 1, "key": "k", "inputs": {}, "seed": 1, "progress": lambda *_: None}
    run = runs.start("prepare.x", parameters={"a": 1}, folder=opened.project.folder, **settings)
    runs.finish(run, "failed", seconds=0.1, error="the disk is full, api_key=hunter2hunter2")
    view = opened.browser().json(f"/runs/{run.id}")
    assert view["error"] == "the disk is full, api_key=[secret]" or "[secret]" in view["error"]
    assert opened.browser().json("/")["stages"][1]["state"] == "failed"


def test_two_versions_are_compared(browser: Browser) -> None:
    view = browser.json("/compare?a=model@v1&b=model@v2")
    assert view["difference"]["settings"]["develop.train.budget"] == [3000, 4000]
    loss = next(each for each in view["curves"] if each["metric"] == "loss")
    assert len(loss["b"]) > len(loss["a"]) > 1
    assert len(loss["drawn"]["lines"]) == 2
    flips = view["flips"]
    assert flips["metric"] == "rouge_l"
    assert 0 < flips["count_better"] + flips["count_worse"] <= flips["n"] == 21
    for flip in flips["better"]:
        assert flip["value_b"] > flip["value_a"]
        assert flip["question"].startswith("How do I")
        assert flip["reference"].startswith("To ")
    other_way = browser.json("/compare?a=model@v2&b=model@v1&metric=rouge_l")["flips"]
    assert {flip["item"] for flip in other_way["worse"]} == {flip["item"] for flip in flips["better"]}
    assert browser.json("/compare?a=model@v1&b=model@v2&metric=token_f1")["flips"]["metric"] == "token_f1"


def test_copies_for_a_shadow_are_told_from_smoke_questions_and_traffic(opened: Opened) -> None:
    release = opened.record.versions.served()
    assert release is not None
    copy = interaction(release, "Is this a copy?", 1, origin="shadow", copy_of="int-" + "0" * 26)
    opened.record.recorder.interaction(copy)
    browser = opened.browser()
    totals = {origin: browser.json(f"/interactions?origin={origin}")["total"] for origin in ("traffic", "smoke", "all")}
    assert totals == {"traffic": 40, "smoke": 8, "all": 49}
    [found] = browser.json("/interactions?origin=shadow")["rows"]
    assert (found["row"]["id"], found["row"]["shadow"], found["row"]["smoke"]) == (copy.id, True, False)
    assert "shadow" in browser.page("/interactions?origin=shadow").text
    browser.page("/interactions?origin=shadows", 400)


def test_answers_are_filtered_and_paged(opened: Opened) -> None:
    browser = opened.browser()
    every = browser.json("/interactions")
    assert every["total"] == 40
    assert [each["question"] for each in every["rows"]][:2] == [
        "How do I clean my kettle, 39?",
        "How do I clean my kettle, 38?",
    ]
    assert browser.json("/interactions?rating=down")["total"] == 5
    assert browser.json("/interactions?origin=smoke")["total"] == 8
    found = browser.json("/interactions?text=kettle,%2017")
    assert len(found["rows"]) == 1
    assert found["searched"] == 40
    assert browser.json("/interactions?since=2100-01-01")["total"] == 0
    release = every["rows"][0]["row"]["release"]
    assert browser.json(f"/interactions?release={release}")["total"] == 40

    ask(opened.record, 60)
    opened.console.house.written()
    seen, path = [], "/interactions"
    while path:
        page = browser.json(path)
        seen += [each["row"]["id"] for each in page["rows"]]
        path = f"/interactions?before={page['next']}" if page["next"] else ""
    assert len(seen) == len(set(seen)) == 100


def test_an_answer_is_shown_with_what_it_came_from(looked_at: Opened, browser: Browser) -> None:
    path = named(looked_at, "/interactions/ANSWER")
    view = browser.json(path)
    assert view["interaction"]["messages"][0]["content"] == "How do I clean my kettle, 39?"
    groups = {group["kind"]: group for group in view["lineage"]["groups"]}
    assert [each["label"] for each in groups["model"]["found"]] == ["model/helper@v1"]
    assert groups["document"]["cut"] + len(groups["document"]["found"]) >= 15
    assert view["lineage"]["verified"]
    said = text_of(browser.get(path).text)
    for each in ("Correct this", "Make this a test case", "made from", "model@v1", "first token", "50 ms"):
        assert each in said


def test_walk_from_an_answer_to_a_document_and_back(looked_at: Opened, browser: Browser) -> None:
    start = named(looked_at, "/interactions/ANSWER")
    document = next(each["href"] for each in browser.page(start).all("a") if each.get("title", "").startswith("doc:"))
    down = browser.page(document)
    answers = [each["href"] for each in down.all("a") if "/interactions/int-" in each.get("href", "")]
    assert start in answers
    view = browser.json(document)
    assert view["way"] == "down"
    kinds = [group["kind"] for group in view["groups"]]
    assert kinds.index("model") < kinds.index("interaction") or set(kinds) >= {"model", "interaction"}


def test_lineage_says_how_much_was_cut(browser: Browser) -> None:
    view = browser.json("/lineage?ref=model@v1&way=down&limit=5")
    answers = next(group for group in view["groups"] if group["kind"] == "interaction")
    assert len(answers["found"]) == 5
    assert answers["cut"] == 40 + 4 - 5  # with the smoke requests


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/nowhere", 404, "no such page"),
        ("/runs/run-nothing", 404, "There is no run run-nothing"),
        ("/interactions/int-nothing", 404, "There is no interaction int-nothing"),
        ("/approvals/99", 404, "There is no model@v99"),
        ("/lineage?ref=model@v99", 400, "There is no model@v99"),
        ("/lineage?ref=whatever", 400, "is no reference"),
        ("/lineage?ref=@champion&limit=0", 400, "limit"),
        ("/lineage?ref=@champion&way=sideways", 400, "sideways"),
        ("/runs?status=odd", 400, "status"),
        ("/runs?start=-1", 400, "start"),
        ("/runs?start=\u0661", 400, "start"),
        ("/runs?q=" + "x" * 300, 400, "at most 200"),
        ("/compare?a=model@v1&b=run-nothing", 400, "There is no run"),
        ("/compare?a=model@v1&b=model@v2&metric=odd", 400, "was not measured"),
        ("/interactions?since=yesterday", 400, "expected a time"),
        ("/interactions?before=x", 400, ""),
        ("/review?at=int-nothing", 404, "no such interaction"),
        ("/leave", 405, "cannot be asked for"),
        ("/?" + "x" * 20_000, 414, "longer than"),
    ],
)
def test_bad_requests_are_answered_in_words(browser: Browser, path: str, status: int, said: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == status, answer.text
    assert said in text_of(answer.text)
    assert "Traceback" not in answer.text
    joined = path + ("&" if "?" in path else "?") + "format=json"
    if len(joined) < 10_000:
        told = browser.get(joined)
        assert told.status_code == status
        assert told.json()["error"]["status"] == status
        assert set(told.json()["error"]) == {"status", "title", "message", "todo"}


def test_a_defect_shows_nothing_of_the_inside(
    looked_at: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    browser = looked_at.browser()

    def broken(*_: object) -> None:
        raise RuntimeError("secret inside /etc/passwd")

    monkeypatch.setattr(looked_at.console.project.record.turns, "all", broken)
    answer = browser.get("/")
    assert answer.status_code == 500
    assert "secret inside" not in answer.text
    assert "Something went wrong on our side" in answer.text
    assert "RuntimeError at test_pages.py" in caplog.text
    assert "secret inside" not in caplog.text


def test_a_project_where_nothing_happened_yet(tmp_path: Path, built: Project) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "treadle.yaml").write_text(built.file.read_text())
    console = create_console(folder)
    try:
        browser = Browser(TestClient(console, base_url=BASE, follow_redirects=False))
        browser.enter(console.link())
        for path in ("/", "/runs", "/interactions", "/review", "/approvals", "/lineage", "/compare"):
            assert browser.get(path).status_code == 200, path
            assert browser.get(path + "?format=json").status_code == 200
        assert {stage["state"] for stage in browser.json("/")["stages"]} == {"never"}
        assert json.dumps(browser.json("/")["timeline"]) == "[]"
    finally:
        console.close()


def test_collected_is_what_the_sources_gave_and_not_what_was_left_of_corrections(tmp_path: Path) -> None:
    (tmp_path / "treadle.yaml").write_text(
        "name: helper\ntask: chat\ndevelop: {base_model: somewhere}\n"
        "collect: {sources: [{type: files, path: data.jsonl, fields: {text: text, subject: who}}]}\n"
    )
    data = tmp_path / "data.jsonl"
    rows = [{"text": f"Text of {who}.", "who": who} for who in ("Jane", "Ann", "Bo")]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    console = create_console(tmp_path)
    try:
        record, settings = console.project.record, console.project.file.collect
        driver = Driver(record.runs, tmp_path, seed=17)
        corpus = collect(driver, settings, None)
        left = admit(driver, corpus, record.erasures.extend({record.recorder.keyed("Jane"): 0}))
        assert left is not None
        assert left.document_count() == 2
        browser = Browser(TestClient(console, base_url=BASE, follow_redirects=False))
        browser.enter(console.link())
        assert browser.json("/")["stages"][0]["gives"] == "3 documents"
        data.write_text(json.dumps(rows[1]) + "\n")
        collect(driver, settings, None)
        assert browser.json("/")["stages"][0]["gives"] == "1 document"
    finally:
        console.close()
