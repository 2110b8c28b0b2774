"""Who gets in, what every answer carries, and what a foreign page cannot do."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from console.conftest import BASE, Browser, Content, Opened, text_of
from small_project import Project
from treadle.console.app import create_console
from treadle.console.links import Links, NotAdmitted, Person
from treadle.console.sessions import IDLE_SECONDS, SESSION_SECONDS, Door, Sessions
from treadle.core.errors import UserError
from treadle.core.workspace import Workspace

ANN = Person("ann", "k3:" + "a" * 40)
KEY = "a-long-key-for-the-server"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


# -- links


def test_a_link_works_once_and_not_for_ever(tmp_path: Path) -> None:
    clock = Clock()
    with Workspace(tmp_path / "store") as workspace:
        links = Links(workspace.state, clock)
        token = links.make(ANN)
        assert links.take(token)[0] == ANN
        with pytest.raises(NotAdmitted) as refused:
            links.take(token)
        assert refused.value.why == "used"

        late = links.make(ANN)
        clock.now += 601
        with pytest.raises(NotAdmitted) as refused:
            links.take(late)
        assert refused.value.why == "expired"
        for wrong in ("", "x", late[:-1] + ("A" if late[-1] != "A" else "B"), late.partition(".")[0], late + "x"):
            with pytest.raises(NotAdmitted) as refused:
                links.take(wrong)
            assert refused.value.why == "unknown"

        clock.now += 86_500
        links.sweep()
        assert workspace.state.names("console.link:") == []


def test_a_link_leaves_no_secret_and_no_name_behind(tmp_path: Path) -> None:
    with Workspace(tmp_path / "store") as workspace:
        links = Links(workspace.state)
        token = links.make(ANN)
        name, _, secret = token.partition(".")
        held = json.dumps([workspace.state.get(each) for each in workspace.state.names("console.link:")])
        assert secret not in held
        links.take(token)
        held = json.dumps(workspace.state.get(f"console.link:{name}"))
        assert "ann" not in held
        assert ANN.actor not in held


def test_of_many_who_take_a_link_at_once_one_gets_in(tmp_path: Path) -> None:
    with Workspace(tmp_path / "store") as workspace:
        token = Links(workspace.state).make(ANN)
        outcomes: list[str] = []
        start = threading.Barrier(8)

        def take() -> None:
            start.wait()
            try:
                Links(workspace.state).take(token)
                outcomes.append("in")
            except NotAdmitted as refused:
                outcomes.append(refused.why)

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["in", *["used"] * 7]


# -- sessions


def test_sessions_end_by_age_and_by_idleness() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    cookie = sessions.begin(ANN)
    for _ in range(20):
        clock.now += IDLE_SECONDS / 2
        if clock.now > 1_000_000 + SESSION_SECONDS:
            break
        assert sessions.find(cookie) is not None
    assert sessions.find(cookie) is None
    idle = sessions.begin(ANN)
    clock.now += IDLE_SECONDS + 1
    assert sessions.find(idle) is None
    left = sessions.begin(ANN)
    sessions.end(left)
    assert sessions.find(left) is None
    assert sessions.find("") is None


def test_sessions_are_bounded_and_the_busy_ones_stay() -> None:
    sessions = Sessions()
    kept = sessions.begin(ANN)
    idle = sessions.begin(ANN)
    for _ in range(1_000):
        sessions.find(kept)
        sessions.begin(ANN)
    assert sessions.find(kept) is not None
    assert sessions.find(idle) is None


def test_the_door_slows_guessing_down() -> None:
    clock = Clock()
    door = Door(KEY, clock)
    for _ in range(5):
        assert not door.held("1.2.3.4")
        assert not door.opens("guess", "1.2.3.4")
    assert door.held("1.2.3.4")
    assert not door.held("5.6.7.8")
    assert door.opens(KEY, "5.6.7.8")
    clock.now += 61
    assert not door.held("1.2.3.4")
    for number in range(60):
        door.opens("guess", f"10.0.0.{number}")
    assert door.held("9.9.9.9")


# -- coming in


def test_a_stranger_sees_nothing(looked_at: Opened) -> None:
    stranger = looked_at.stranger()
    for path in ("/", "/runs", "/interactions", "/lineage?ref=@champion", "/review", "/approvals/2", "/compare"):
        answer = stranger.get(path)
        assert answer.status_code == 401, path
        assert "treadle console --link" in text_of(answer.text)
        assert "kettle" not in answer.text
        assert stranger.get(path, headers={"Accept": "application/json"}).status_code == 401
    for path in ("/review", "/approvals/2", "/interactions/int-x/feedback", "/appearance"):
        assert stranger.http.post(path, data={"csrf": ""}).status_code == 401
    wrong = stranger.get("/", headers={"Cookie": f"{looked_at.console._entrance._cookie}=guess"})
    assert wrong.status_code == 401
    assert stranger.get("/", headers={"Authorization": "Bearer x"}).status_code == 401
    assert stranger.get("/login").status_code == 404


def test_a_link_opens_a_session_with_a_guarded_cookie(looked_at: Opened) -> None:
    stranger = looked_at.stranger()
    link = looked_at.console.link("ann")
    assert stranger.http.head(link).status_code == 200  # a look at the head does not use it up
    answer = stranger.get(link)
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert re.match(
        r"treadle_[0-9a-f]{10}=[A-Za-z0-9_-]{43}; HttpOnly; Max-Age=43200; Path=/; SameSite=strict\Z", cookie
    )
    assert [each["content"] for each in Content(answer.text).all("meta") if each.get("http-equiv") == "refresh"] == [
        "0; url=/"
    ]
    assert stranger.get("/").status_code == 200
    assert 'You are in as ann"' in stranger.get("/").text
    # The browser that used it may ask again; nobody else may.
    assert stranger.get(link).status_code == 200
    other = looked_at.stranger()
    replayed = other.get(link)
    assert replayed.status_code == 403
    assert "This link has been used, and each works once." in text_of(replayed.text)
    assert "treadle console --link" in replayed.text
    assert "set-cookie" not in replayed.headers
    assert other.get("/").status_code == 401


def test_an_old_link_says_so(opened: Opened) -> None:
    link = opened.console.link("ann")
    state = opened.record.workspace.state
    name = next(each for each in state.names("console.link:"))
    state.set(name, {**state.get(name), "expires": 1.0})
    answer = opened.stranger().get(link)
    assert answer.status_code == 403
    assert "a link works for ten minutes" in answer.text
    assert opened.stranger().get("/enter?link=nonsense").status_code == 403
    assert opened.stranger().get("/enter").status_code == 403


def test_the_cookie_is_secure_where_the_browser_speaks_tls(looked_at: Opened) -> None:
    browser = Browser(TestClient(looked_at.console, base_url="https://localhost:8443", follow_redirects=False))
    assert "; Secure" in browser.get(looked_at.console.link()).headers["set-cookie"]


def test_leaving_ends_the_session(looked_at: Opened) -> None:
    browser = looked_at.browser()
    cookies = dict(browser.http.cookies)
    assert browser.http.post("/leave", data={"csrf": "wrong"}).status_code == 403
    assert browser.get("/").status_code == 200
    answer = browser.post("/leave")
    assert answer.status_code == 200
    assert "Max-Age=0" in answer.headers["set-cookie"]
    again = looked_at.stranger()
    again.http.cookies.update(cookies)
    assert again.get("/").status_code == 401


def test_two_people_are_told_apart(looked_at: Opened) -> None:
    ann, ben = looked_at.console.person("ann"), looked_at.console.person("ben")
    assert ann.actor != ben.actor
    assert ann.actor == looked_at.record.runs.keys.keyed("actor", "ann")
    assert looked_at.console.person().actor == looked_at.record.runs.keyed_actor()


# -- what every answer carries


def test_every_answer_is_guarded(looked_at: Opened) -> None:
    browser, stranger = looked_at.browser(), looked_at.stranger()
    answers = [browser.get("/"), browser.get("/nowhere"), browser.get("/?format=json"), stranger.get("/")]
    answers += [stranger.get("/enter?link=x"), browser.get("/static/console.js"), browser.http.post("/review", data={})]
    answers += [browser.get("/", headers={"Host": "evil.example"})]
    for answer in answers:
        headers = answer.headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store" or "/static/" in str(answer.url)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8010", "127.0.0.1.evil.example", "", "169.254.1.1", "[::"]
)
def test_other_names_are_not_answered(looked_at: Opened, host: str) -> None:
    browser = looked_at.browser()
    answer = browser.get("/", headers={"Host": host})
    assert answer.status_code == 421
    assert "kettle" not in answer.text
    assert browser.http.post("/review", data={"csrf": browser.csrf}, headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8010", "localhost", "localhost:1", "[::1]:8010", "127.8.8.8"])
def test_names_of_this_machine_are_answered(looked_at: Opened, host: str) -> None:
    assert looked_at.browser().get("/approvals", headers={"Host": host}).status_code == 200


# -- forms


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://127.0.0.1:8010.evil.example"},
        {"Origin": BASE, "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_foreign_page_cannot_send_a_form(looked_at: Opened, headers: dict[str, str]) -> None:
    browser = looked_at.browser()
    row = looked_at.record.interactions.page(limit=1).rows[0]
    before = looked_at.record.interactions.feedback(row.id)
    data = {"csrf": browser.csrf, "label": "good"}
    answer = browser.http.post(f"/interactions/{row.id}/feedback", data=data, headers=headers)
    assert answer.status_code == 403
    assert "Nothing was written" in answer.text
    assert looked_at.record.interactions.feedback(row.id) == before


def test_a_form_needs_the_token_of_its_own_session(looked_at: Opened) -> None:
    ann, ben = looked_at.browser("ann"), looked_at.browser("ben")
    row = looked_at.record.interactions.page(limit=1).rows[0]
    before = looked_at.record.interactions.feedback(row.id)
    for token in ("", "x", ben.csrf, ann.csrf[:-1], "\ud83d"[:0] + "ü" * 43):
        for path in (f"/interactions/{row.id}/feedback", "/review", "/approvals/2", "/appearance", "/leave"):
            answer = ann.post(path, csrf=token, label="good", action="good", interaction=row.id, decision="approve")
            assert answer.status_code == 403, (token, path)
    assert looked_at.record.interactions.feedback(row.id) == before
    assert looked_at.record.versions.alias("model", "champion").number == 1  # type: ignore[union-attr]
    without = ann.http.post("/review", data={"action": "skip"})
    assert without.status_code == 403


def test_only_forms_within_limits_are_read(looked_at: Opened) -> None:
    browser = looked_at.browser()
    token = browser.csrf
    post = browser.http.post
    assert post("/review", json={"csrf": token}).status_code == 415
    assert post("/review", files={"csrf": (None, token)}).status_code == 415
    assert post("/review", data={"csrf": token, "correction": "x" * 2_000_000}).status_code == 413
    assert post("/review", data={f"f{number}": "" for number in range(60)}).status_code == 400

    def endless() -> Iterator[bytes]:
        yield b"csrf=" + token.encode()
        for _ in range(40):
            yield b"x" * 50_000

    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert post("/review", content=endless(), headers=kind).status_code == 413
    broken = post("/review", content=b"csrf=\xff\xfe%ff%zz&=&&", headers=kind)
    assert broken.status_code == 403


def test_redirects_stay_inside(looked_at: Opened) -> None:
    browser = looked_at.browser()
    for target, kept in (
        ("/runs?step=a", "/runs?step=a"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/x\r\nSet-Cookie: a=b", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
    ):
        answer = browser.post("/appearance", appearance="dark", next=target)
        assert answer.status_code == 303
        assert answer.headers["location"] == kept
    assert Content(browser.get("/").text).all("html")[0]["data-appearance"] == "dark"
    assert browser.post("/appearance", appearance="pink").status_code == 400


# -- mounted, with a key


@contextmanager
def mounted(folder: Path, *, inside: bool) -> Iterator[Browser]:
    console = create_console(folder, prefix="/console", api_key=KEY, loopback=False)
    try:
        app = Starlette(routes=[Mount("/console", app=console)]) if inside else console
        http = TestClient(app, base_url="http://serve.example:8000", follow_redirects=False)
        yield Browser(http, "/console")
    finally:
        console.close()


def sign_in(browser: Browser, key: str = KEY, name: str = "ann", **more: str) -> int:
    form = browser.page("/login")
    data = {"csrf": form.field("csrf"), "next": form.field("next"), "name": name, "key": key, **more}
    origin = {"Origin": "http://serve.example:8000"}
    answer = browser.http.post("/console/login", data=data, headers=origin)
    return answer.status_code


@pytest.mark.parametrize("inside", [True, False])
def test_mounted_it_asks_for_the_key(built: Project, inside: bool) -> None:
    with mounted(built.folder, inside=inside) as browser:
        answer = browser.get("/runs?step=develop.train&format=html")
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/console/login?next=%2Fruns%3Fstep%3Ddevelop.train")
        assert browser.get("/runs?format=json").status_code == 401
        assert browser.get("/enter?link=x").status_code == 404
        assert sign_in(browser, "wrong") == 403
        assert sign_in(browser, "") == 403
        assert sign_in(browser, name=" ") == 403
        assert sign_in(browser, csrf="x") == 403
        assert sign_in(browser) == 200
        cookies = [each for each in browser.http.cookies.jar if not each.name.endswith("_door")]
        assert [(each.path, each.value is not None) for each in cookies] == [("/console", True)]
        for path in ("/", "/runs", "/interactions", "/lineage?ref=@champion", "/review", "/approvals/2", "/compare"):
            page = browser.page(path)
            for tag, attributes in page.tags:
                for name in ("src", "href", "action", "hx-get", "hx-post"):
                    assert name not in attributes or re.match(r"/console/|#", attributes[name]), (tag, attributes)
            for each in page.all("link") + page.all("script"):
                assert browser.http.get(each.get("href") or each["src"]).status_code == 200
        moved = browser.http.post(
            "/console/appearance",
            data={"csrf": browser.csrf, "appearance": "dark", "next": "/runs"},
            headers={"Origin": "http://serve.example:8000"},
        )
        assert moved.headers["location"] == "/console/runs"


def test_mounted_json_takes_the_key_in_a_header(built: Project) -> None:
    with mounted(built.folder, inside=True) as browser:
        good = browser.get("/runs?format=json", headers={"Authorization": f"Bearer {KEY}"})
        assert good.status_code == 200
        assert browser.http.post("/console/review", headers={"Authorization": f"Bearer {KEY}"}).status_code == 401
        codes = [
            browser.get("/?format=json", headers={"Authorization": f"Bearer guess-{number}"}).status_code
            for number in range(7)
        ]
        assert codes == [401] * 5 + [429] * 2
        assert browser.get("/login").status_code == 200
        assert sign_in(browser) == 429


def test_without_a_key_there_is_no_mounted_console(built: Project) -> None:
    for arguments in ({"prefix": "/console"}, {"loopback": False}, {"prefix": "/console", "api_key": ""}):
        with pytest.raises(UserError, match="TREADLE_API_KEY"):
            create_console(built.folder, **arguments)  # type: ignore[arg-type]
    for prefix in ("console", "/console/"):
        with pytest.raises(ValueError, match="expected a path"):
            create_console(built.folder, prefix=prefix, api_key=KEY)
