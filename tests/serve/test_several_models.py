"""One server for the models of several projects: who answers, and in whose record it stands."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_following import Orders, until
from toy_keys import Book
from toy_server import ListRecorder, redact

from treadle.core.errors import TreadleError, UserError
from treadle.lm.engine import EngineGone
from treadle.record.api_key import Limit
from treadle.record.deployment import Routing
from treadle.record.interaction import Interaction
from treadle.record.recording import Recording
from treadle.record.shadow import ShadowSettings
from treadle.serve.following import Follower, Followers
from treadle.serve.gateway import Gateway, GatewaySettings, Serving
from treadle.serve.guardrail import NO_GUARDRAILS, Guardrails, Named
from treadle.serve.guards import BlockList
from treadle.serve.keyring import KeyBook
from treadle.serve.served_model import ServedModel
from treadle.serve.server import serving
from treadle.serve.table import Table

ONE, TWO, FIVE, SIX, SEVEN = ("b3:" + digit * 64 for digit in "12567")
CHAT = "/v1/chat/completions"


@dataclass
class Project(Orders):
    """What ought to answer for one project, and its record."""

    name: str = "docs"
    asking: str = "chat"
    guardrails: Guardrails = NO_GUARDRAILS
    called: str = ""

    async def open(self, release: str) -> Serving:
        found = await super().open(release)
        name = f"{self.called or self.name}@v{release[3]}"
        return replace(
            found,
            release=replace(found.release, name=name, asking=self.asking, aliases=("champion",)),
            guardrails=self.guardrails,
        )


@dataclass
class Record(ListRecorder):
    """One that cannot be read now and then."""

    unreadable: bool = False
    looked: int = 0

    def find_interaction(self, interaction: str) -> Interaction | None:
        self.looked += 1
        if self.unreadable:
            raise TreadleError("the database is away")
        return super().find_interaction(interaction)

    def keyed(self, person: str) -> str:
        return super().keyed(f"{id(self)} {person}")  # each record has keys of its own


@dataclass
class World:
    url: str
    gateway: Gateway
    docs: Project
    moods: Project
    http: httpx.Client
    records: dict[str, Record] = field(default_factory=dict)

    def post(self, path: str, body: dict[str, Any], key: str | None = None) -> httpx.Response:
        return self.http.post(path, json=body, headers={"authorization": f"Bearer {key}"} if key else {})

    def chat(self, model: str | None = None, text: str = "one two three", **more: Any) -> httpx.Response:
        key = more.pop("key", None)
        body = {"messages": [{"role": "user", "content": text}]} | more
        return self.post(CHAT, body | ({"model": model} if model else {}), key)

    def rows(self, name: str) -> list[dict[str, Any]]:
        return self.records[name].rows


def moods(**more: Any) -> Project:
    return Project(**({"name": "moods", "routing": Routing(FIVE)} | more))


@contextmanager
def several(
    docs: Project | None = None,
    other: Project | None = None,
    *,
    keys: KeyBook | None = None,
    shadow: ShadowSettings | None = None,
    drain: float = 5,
) -> Iterator[World]:
    """Two projects behind one server: ``docs``, whose it is, and ``moods``."""
    first, second = docs or Project(), other or moods()
    records = {"docs": Record(), "moods": Record()}
    model = ServedModel("moods", records["moods"], Recording("full", 60.0, "to cheer up"), sticky="x-session-id")
    followers = Followers([Follower(first, keep_seconds=0), Follower(second, model=model, shadow=shadow)])
    made: list[Gateway] = []

    async def build() -> Gateway:
        rules = GatewaySettings(api_key=None, purpose="to read")
        made.append(
            Gateway(Table(), records["docs"], settings=rules, redact=redact, keys=keys, name="docs", others=[model])
        )
        await followers.start(made[0])
        return made[0]

    with (
        serving(build, drain_seconds=drain, beside=followers.following) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield World(url, made[0], first, second, client, records)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.parametrize(
    ("asked", "release"),
    [
        (None, ONE), ("docs", ONE), ("docs@v1", ONE), ("docs@champion", ONE), (ONE, ONE),
        ("moods", FIVE), ("moods@v5", FIVE), ("moods@champion", FIVE), (FIVE, FIVE),
    ],
)  # fmt: skip
def test_the_name_says_whose_release_answers(asked: str | None, release: str) -> None:
    with several() as world:
        answer = world.chat(asked)
        assert answer.json()["system_fingerprint"] == answer.headers["treadle-release"] == release
        owner, other = ("docs", "moods") if release == ONE else ("moods", "docs")
        [row] = world.rows(owner)
        assert (row["id"], row["release"]) == (answer.json()["id"], release)
        assert world.rows(other) == []


def test_each_record_has_its_own_rules_and_people() -> None:
    with several() as world:
        for name in ("docs", "moods"):
            assert world.chat(name, "write to me@example.org", user="jane").status_code == 200
        [of_docs], [of_moods] = world.rows("docs"), world.rows("moods")
        assert of_docs["messages"][0]["content"] == "write to [email]"
        assert of_moods["messages"][0]["content"] == "write to me@example.org"
        assert (of_docs["purpose"], of_docs.get("retain_until")) == ("to read", None)
        assert of_moods["purpose"] == "to cheer up"
        assert of_moods["retain_until"]
        assert of_docs["user"] == world.records["docs"].keyed("jane") != of_moods["user"]


@pytest.mark.parametrize("asked", ["mood", "moods@v1", "moods@v9", "docs@v5", "moods@", "@v1", "", SIX, "Moods"])
def test_a_name_that_nothing_has(asked: str) -> None:
    with several() as world:
        answers = [
            world.post(CHAT, {"messages": [{"role": "user", "content": "a"}], "model": asked}),
            world.post("/predict", {"instances": ["a"], "model": asked}),
            world.post("/invocations", {"inputs": "a", "model": asked}),
        ]
        assert [code(each) for each in answers] == [(404, "model_not_found")] * 3
        assert not world.rows("docs") + world.rows("moods")


def test_all_are_listed_and_described() -> None:
    with several() as world:
        listed = world.http.get("/v1/models").json()["data"]
        assert [(each["id"], each["digest"], each["share"]) for each in listed] == [
            ("docs@v1", ONE, 1.0), ("moods@v5", FIVE, 1.0)
        ]  # fmt: skip
        for name, release in (("docs", ONE), ("moods", FIVE)):
            assert world.http.get(f"/v1/models/{name}").json()["digest"] == release
            for path in (f"/v1/models/{name}/metadata", f"/v2/models/{name}"):
                assert world.http.get(path).headers["treadle-release"] == release
            assert world.http.get(f"/v2/models/{name}/ready").json() == {"name": name, "ready": True}
        assert world.http.get("/v2/models/nobody").status_code == 404


def shapes(name: str, version: str) -> dict[str, dict[str, Any]]:
    """Requests of all contracts that name a model."""
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["good"]}
    return {
        CHAT: {"messages": [{"role": "user", "content": "good"}], "model": name},
        "/v1/completions": {"prompt": "good", "model": name},
        "/v1/score": {"text_1": "good", "text_2": ["day"], "model": name},
        "/v1/rerank": {"query": "good", "documents": ["day"], "model": name},
        "/invocations": {"inputs": "good", "model": name},
        "/invocations?messages": {"messages": [{"role": "user", "content": "good"}], "model": name},
        "/predict": {"instances": ["good"], "model": name},
        f"/v1/models/{name}:predict": {"instances": ["good"]},
        f"/v1/models/{name}/versions/{version}:predict": {"instances": ["good"]},
        f"/v1/models/{name}/labels/champion:predict": {"instances": ["good"]},
        f"/v2/models/{name}/infer": {"inputs": [tensor]},
        f"/v2/models/{name}/versions/{version}/infer": {"inputs": [tensor]},
    }


@pytest.mark.parametrize(("name", "release"), [("docs", ONE), ("moods", FIVE)])
def test_every_contract_reaches_it(name: str, release: str) -> None:
    with several() as world:
        asked = shapes(name, release[3])
        for path, body in asked.items():
            answer = world.post(path.partition("?")[0], body)
            assert (answer.status_code, answer.headers["treadle-release"]) == (200, release), (path, answer.text)
        assert {row["release"] for row in world.rows(name)} == {release}
        assert len(world.rows(name)) == len(asked)
        assert not world.rows("moods" if name == "docs" else "docs")


def test_models_of_other_kinds_stand_side_by_side() -> None:
    with several(other=moods(asking="classify")) as world:
        for path, body in {
            "/v1/classify": {"input": "a good day", "model": "moods"},
            "/invocations": {"input": "a good day", "model": "moods"},
            "/v1/models/moods:classify": {"examples": [{"text": "a good day"}]},
            "/v2/models/moods/infer": {
                "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a good day"]}]
            },
        }.items():
            answer = world.post(path, body)
            assert (answer.status_code, answer.headers["treadle-release"]) == (200, FIVE), (path, answer.text)
            assert "good" in answer.text
        assert code(world.post("/v1/classify", {"input": "a good day"})) == (400, "wrong_endpoint")  # the first's
        assert world.chat().json()["system_fingerprint"] == ONE
        assert len(world.rows("moods")) == 4


def test_feedback_goes_to_the_project_that_has_the_interaction() -> None:
    with several() as world:
        ids = {name: world.chat(name).json()["id"] for name in ("docs", "moods")}
        for name, other in (("docs", "moods"), ("moods", "docs")):
            body = {"interaction": ids[name], "thumbs": "up", "user": "jane", "comment": "to me@example.org"}
            assert world.post("/v1/feedback", body).status_code == 201
            assert world.post("/v1/feedback", body).status_code == 200  # the same again
            [said] = world.records[name].said
            assert said["interaction"] == ids[name]
            assert said["user"] == world.records[name].keyed("jane")
            assert not [row for row in world.records[other].said if row["interaction"] == ids[name]]
        assert world.records["docs"].said[0]["comment"] == "to [email]"
        assert world.records["moods"].said[0]["comment"] == "to me@example.org"
        unknown = {"interaction": "int-" + "0" * 26, "thumbs": "up"}
        assert world.post("/v1/feedback", unknown).status_code == 404


def test_a_record_that_cannot_be_read_takes_no_feedback_and_the_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.serve.opinions._UNREAD", 0.4)
    with several() as world:
        ids = {name: world.chat(name).json()["id"] for name in ("docs", "moods")}
        world.records["docs"].unreadable = True
        for _ in range(5):
            said = world.post("/v1/feedback", {"interaction": ids["docs"], "thumbs": "up"})
            assert code(said) == (503, "record_unavailable")
        assert world.records["docs"].looked == 1  # nobody waits for it again and again
        assert world.post("/v1/feedback", {"interaction": ids["moods"], "thumbs": "up"}).status_code == 201
        world.records["docs"].unreadable = False
        until(lambda: world.post("/v1/feedback", {"interaction": ids["docs"], "thumbs": "up"}).status_code == 201)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    made = Book(tmp_path / "store")
    yield made
    made.close()


def ways_to(name: str, version: str, release: str) -> list[tuple[str, dict[str, Any]]]:
    """Requests that end at a model, by all of its names."""
    message = {"messages": [{"role": "user", "content": "good"}]}
    named = [(CHAT, message | {"model": each}) for each in (f"{name}@v{version}", f"{name}@champion", release)]
    several = [(CHAT, message | {"model": name, "n": 2}), (CHAT, message | {"model": name, "stream": True})]
    return [(path.partition("?")[0], body) for path, body in shapes(name, version).items()] + named + several


def test_a_key_for_one_model_is_for_no_other(book: Book) -> None:
    _, secret = book.create("for-moods", models=("moods@champion",))
    _, every = book.create("for-all")
    with several(keys=book.use()) as world:
        for path, body in ways_to("docs", "1", ONE):
            assert code_of(world.post(path, body, secret)) == 403, path
        assert not world.rows("docs")
        for path, body in ways_to("moods", "5", FIVE):
            assert world.post(path, body, secret).status_code == 200, path
        assert world.chat(key=secret).json()["system_fingerprint"] == FIVE  # who names none gets what the key is for
        inputs = world.post("/invocations", {"inputs": "good"}, secret)
        assert inputs.headers["treadle-release"] == FIVE
        headers = {"authorization": f"Bearer {secret}"}
        assert [each["id"] for each in world.http.get("/v1/models", headers=headers).json()["data"]] == ["moods@v5"]
        for path in ("/v1/models/docs", "/v2/models/docs", "/v2/models/docs/ready", "/v1/models/docs/metadata"):
            assert world.http.get(path, headers=headers).status_code == 403
        assert world.chat("moods").status_code == 401  # and the other project's name is no way in without one
        for name, status in (("docs", 404), ("moods", 201)):
            said = {"interaction": world.chat(name, key=every).json()["id"], "thumbs": "up"}
            assert world.post("/v1/feedback", said, secret).status_code == status


def code_of(answer: httpx.Response) -> int:
    return answer.status_code


def test_one_budget_is_for_all_models(book: Book) -> None:
    key, secret = book.create("both", Limit("tokens", 60))
    with several(keys=book.use()) as world:
        statuses = [world.chat(("docs", "moods")[number % 2], key=secret).status_code for number in range(20)]
        spent = sum(
            row["tokens"]["prompt"] + row["tokens"]["completion"]
            for name in ("docs", "moods")
            for row in world.rows(name)
        )
        assert set(statuses) == {200, 429}
        assert 60 <= spent < 60 + 12  # and at most one request more
        assert {row["key"] for name in ("docs", "moods") for row in world.rows(name)} == {key.id}
        for path, body in ways_to("moods", "5", FIVE) + ways_to("docs", "1", ONE):
            assert code_of(world.post(path, body, secret)) == 429, path
    assert book.used(key).tokens == spent


def test_a_wrong_name_counts_as_a_request(book: Book) -> None:
    key, secret = book.create("guesser", Limit("requests", 3, "minute"))
    with several(keys=book.use()) as world:
        codes = {world.chat(f"model-{number}", key=secret).status_code for number in range(8)}
        assert codes == {404, 429}
    assert book.used(key).requests >= 3


def test_guardrails_are_those_of_the_release_that_answers() -> None:
    rails = Guardrails(inward=(Named("block_list", BlockList(words=["good"])),))
    with several(Project(guardrails=rails)) as world:
        for path, body in ways_to("docs", "1", ONE):
            answer = world.post(path, body)
            assert (answer.status_code, "block_list" in answer.text) == (400, True), (path, answer.text)
        rows = world.rows("docs")
        assert {(row["status"], row["error"]) for row in rows} == {("cancelled", "content_filter")}
        assert len(rows) == len(ways_to("docs", "1", ONE))  # each stands in the record of its project
        assert world.chat("moods", "good").status_code == 200
        assert not world.docs.engines[ONE][0].requests


def test_a_promotion_in_one_is_nothing_to_those_who_ask_the_other() -> None:
    with several(Project(pace=0.002), moods(pace=0.002)) as world, ThreadPoolExecutor(8) as pool:
        ended = False

        def load(name: str) -> list[httpx.Response]:
            answers = []
            while not ended:
                answers.append(world.chat(name, f"{name} asks", stream=len(answers) % 2 == 1))
            return answers

        tasks = {name: [pool.submit(load, name) for _ in range(3)] for name in ("docs", "moods")}
        for wanted in (SIX, FIVE, SEVEN):
            world.moods.routing = Routing(wanted)
            until(lambda wanted=wanted: world.gateway.models[1].serving.release.digest == wanted)  # type: ignore[misc]
        world.moods.routing = Routing(SEVEN, canary=SIX, share=0.5)
        until(lambda: world.gateway.models[1].table.canary is not None)
        time.sleep(0.1)
        ended = True
        answers = {name: [each for task in found for each in task.result()] for name, found in tasks.items()}
    for name, found in answers.items():
        assert {each.status_code for each in found} == {200}
        assert len(world.rows(name)) == len(found)
        assert {row["status"] for row in world.rows(name)} == {"ok"}
        for row in world.rows(name):
            assert row["answer"] == f"{row['release'][3]}: {name} asks"
    assert {row["release"] for row in world.rows("docs")} == {ONE}
    assert {row["release"] for row in world.rows("moods")} == {FIVE, SIX, SEVEN}
    assert world.docs.reports == [{ONE: 1.0}]
    assert world.moods.reports[-1] == {SEVEN: 0.5, SIX: 0.5}
    for project in (world.docs, world.moods):
        assert project.begun == [world.url, "ended"]
        assert all(engine.closed for engines in project.engines.values() for engine in engines)


def test_canary_shadow_and_fallback_are_the_projects_own() -> None:
    rules = ShadowSettings(release="@challenger", share=1.0)
    other = moods(routing=Routing(FIVE, canary=SIX, share=0.5, shadow=SEVEN))
    with several(other=other, shadow=rules) as world:
        until(lambda: world.gateway.models[1].table.canary is not None)
        sides = []
        for session in map(str, range(20)):  # by the header that the second project's file names
            headers = {"x-session-id": session}
            body = {"messages": [{"role": "user", "content": "a"}], "model": "moods"}
            drawn = {world.http.post(CHAT, json=body, headers=headers).headers["treadle-release"] for _ in range(3)}
            sides.append(drawn)
        assert all(len(side) == 1 for side in sides)
        assert set.union(*sides) == {FIVE, SIX}
        shadows = world.gateway.models[1].shadows
        until(lambda: shadows.waiting + shadows.running == 0)
        copies = [row for row in world.rows("moods") if row["origin"] == "shadow"]
        assert {row["release"] for row in copies} == {SEVEN}
        assert world.chat().status_code == 200
        assert [row["origin"] for row in world.rows("docs")] == ["traffic"]  # the other's shadow gets nothing of it
        world.moods.routing = Routing(FIVE, fallback=SIX)
        until(lambda: world.gateway.models[1].table.fallback is not None)
        for name, project in (("docs", world.docs), ("moods", world.moods)):
            project.engines[ONE if name == "docs" else FIVE][-1].failing = EngineGone("it is gone")
        assert world.chat("moods").json()["system_fingerprint"] == SIX
        assert world.chat("docs").status_code == 503  # it has none, and the other's is not for it
        assert [row["release"] for row in world.rows("moods") if row.get("instead_of")] == [SIX]


def test_one_that_cannot_be_opened_does_not_keep_the_others_from_answering(caplog: pytest.LogCaptureFixture) -> None:
    other = moods(broken={FIVE})
    with several(other=other) as world:
        assert "moods does not answer yet: no weights here" in caplog.text
        assert world.chat().status_code == 200
        assert code(world.chat("moods")) == (503, "no_model")
        ready = world.http.get("/health/ready")
        assert (ready.status_code, ready.json()) == (200, {"status": "partial"})
        assert world.http.get("/ping").status_code == 200
        assert world.http.get("/v2/models/docs/ready").status_code == 200
        assert world.http.get("/v2/models/moods/ready").status_code == 503
        metrics = world.http.get("/metrics").text
        assert 'treadle_model_ready{model="docs"} 1.0' in metrics
        assert 'treadle_model_ready{model="moods"} 0.0' in metrics
        other.routing = Routing(SIX)  # the next one is good
        until(lambda: world.chat("moods").status_code == 200)
        assert world.http.get("/health/ready").json() == {"status": "ok"}
        assert 'treadle_model_ready{model="moods"} 1.0' in world.http.get("/metrics").text


def test_nothing_promoted_in_one_and_the_first_may_be_that_one() -> None:
    with several(Project(routing=None)) as world:
        assert code(world.chat()) == (503, "no_model")
        assert world.chat("moods").status_code == 200
        assert world.http.get("/health/ready").json() == {"status": "partial"}
        world.docs.routing = Routing(ONE)
        until(lambda: world.chat().status_code == 200)


def test_a_server_that_has_nothing_at_all_says_what_the_first_lacks() -> None:
    with (
        pytest.raises(UserError, match="nothing has been promoted yet"),
        several(Project(routing=None), moods(broken={FIVE})),
    ):
        pass


def test_a_database_that_is_away_stops_the_following_of_one() -> None:
    with several() as world:
        world.moods.blind = True
        time.sleep(0.6)
        assert world.chat("moods").status_code == 200  # what answers goes on
        world.docs.routing = Routing(TWO)
        until(lambda: world.chat().json()["system_fingerprint"] == TWO)
        world.moods.routing, world.moods.blind = Routing(SIX), False
        until(lambda: world.chat("moods").json()["system_fingerprint"] == SIX)


def test_a_record_that_cannot_be_written_stops_its_own_model() -> None:
    with several() as world:
        world.records["moods"].broken = True
        assert [code(world.chat("moods")) for _ in range(2)] == [(503, "record_unavailable")] * 2
        assert world.chat("docs").status_code == 200
        assert len(world.gateway.models[1].unrecorded) == 1
        world.records["moods"].broken = False
        assert world.chat("moods").status_code == 200
        assert [row["status"] for row in world.rows("moods")] == ["failed", "ok"]
        assert len(world.rows("docs")) == 1


def test_a_release_that_goes_by_anothers_name_is_not_opened() -> None:
    with several(other=moods(called="docs")) as world:
        assert code(world.chat("moods")) == (503, "no_model")
        assert world.chat(FIVE).status_code == 404
        assert world.moods.engines[FIVE][0].closed
        until(lambda: world.moods.failures[:1] == [(FIVE, "UserError")])
        assert world.chat("docs").json()["system_fingerprint"] == ONE


@pytest.mark.parametrize("names", [("docs", "docs"), ("", "docs"), ("docs", "")])
def test_names_are_distinct(names: tuple[str, str]) -> None:
    other = ServedModel(names[1], ListRecorder())
    with pytest.raises(ValueError, match="a name of its own"):
        Gateway(Table(), ListRecorder(), redact=redact, name=names[0], others=[other])


def test_all_are_drained_at_the_end() -> None:
    with ThreadPoolExecutor(4) as pool:
        with several(Project(pace=0.02), moods(pace=0.02)) as world:
            names = ["docs", "moods"] * 2
            slow = [pool.submit(httpx.post, f"{world.url}{CHAT}", json=body(name), timeout=30) for name in names]
            until(lambda: world.gateway.in_flight == 4)
        answers = [each.result() for each in slow]
    assert [each.json()["choices"][0]["finish_reason"] for each in answers] == ["stop"] * 4
    for name in ("docs", "moods"):
        assert [row["status"] for row in world.rows(name)] == ["ok", "ok"]


def body(name: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "word " * 40}], "model": name}


def test_every_answer_is_counted_by_its_release() -> None:
    with several() as world:
        for name, count in (("docs", 2), ("moods", 3)):
            for _ in range(count):
                world.chat(name)
        metrics = world.http.get("/metrics").text
        for line in (
            'treadle_answers_total{release="docs@v1",status="ok"} 2.0',
            'treadle_answers_total{release="moods@v5",status="ok"} 3.0',
            f'treadle_release_share{{digest="{ONE}",release="docs@v1"}} 1.0',
            f'treadle_release_share{{digest="{FIVE}",release="moods@v5"}} 1.0',
        ):
            assert line in metrics
