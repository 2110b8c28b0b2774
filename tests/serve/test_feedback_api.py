"""Feedback over HTTP."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection

import httpx
import pytest
from toy_server import Served

from treadle.serve.allowance import Allowance


def test_feedback_is_joined_to_its_interaction(served: Served) -> None:
    asked = served.chat("hello").json()["id"]
    post = lambda **body: served.http.post("/v1/feedback", json={"interaction": asked} | body)  # noqa: E731
    for body, value in (
        ({"thumbs": "up"}, 1.0),
        ({"thumbs": "down"}, 0.0),
        ({"score": 0.25}, 0.25),
        ({"score": 1}, 1.0),
    ):
        answer = post(**body)
        assert answer.status_code == 201, answer.text
        assert served.recorder.said[-1]["value"] == value
        assert served.recorder.said[-1]["interaction"] == asked
        assert answer.json()["id"] == served.recorder.said[-1]["id"]
    assert post(correction="Write to bob@example.com", comment="ann@example.com says", user="bob").status_code == 201
    row = served.recorder.said[-1]
    assert (row["kind"], row["correction"], row["comment"]) == ("correction", "Write to [email]", "[email] says")
    assert (row["user"], row["source"], row["erased"]) == (served.recorder.keyed("bob"), "api", False)


def test_saying_the_same_again_changes_nothing_and_changing_ones_mind_does(served: Served) -> None:
    asked = served.chat("hello").json()["id"]
    statuses, ids = [], []
    for thumbs, user in (("up", "a"), ("up", "a"), ("up", "b"), ("down", "a"), ("up", "a"), ("up", "a")):
        body = {"interaction": asked, "thumbs": thumbs, "user": user}
        answer = served.http.post("/v1/feedback", json=body)
        statuses.append(answer.status_code)
        ids.append(answer.json()["id"])
    assert statuses == [201, 200, 201, 201, 201, 200]
    assert ids[0] == ids[1]
    assert ids[4] == ids[5]
    assert len(served.recorder.said) == 4


def test_feedback_on_nothing(served: Served) -> None:
    for unknown in ("int-01ARZ3NDEKTSV4RRFFQ69G5FAV", "nonsense", "", "fb-01ARZ3NDEKTSV4RRFFQ69G5FAV"):
        answer = served.http.post("/v1/feedback", json={"interaction": unknown, "thumbs": "up"})
        assert answer.status_code == 404, unknown
        assert answer.json()["error"]["param"] == "interaction"
    asked = served.chat("hello").json()["id"]
    served.rows.clear()  # as an erasure does
    assert served.http.post("/v1/feedback", json={"interaction": asked, "thumbs": "up"}).status_code == 404
    assert served.recorder.said == []


def test_feedback_that_says_nothing_or_too_much(served: Served) -> None:
    asked = served.chat("hello").json()["id"]
    for body in (
        {},
        {"thumbs": "up", "score": 1},
        {"thumbs": "sideways"},
        {"score": 1.5},
        {"score": "high"},
        {"correction": ""},
        *({"correction": blank} for blank in ("   ", "\n\n", "\u200b", "\u00a0", "\t", "\ufeff\ufe0f", "\u3164\u2800")),
        {"stars": 5},
        {"preference": 1},
    ):
        assert served.http.post("/v1/feedback", json={"interaction": asked} | body).status_code == 400, body
    assert served.recorder.said == []


def test_a_preference_names_one_of_the_choices(served: Served) -> None:
    asked = served.chat("a b", n=2).json()["id"]
    assert served.http.post("/v1/feedback", json={"interaction": asked, "preference": 1}).status_code == 201
    assert served.http.post("/v1/feedback", json={"interaction": asked, "preference": 2}).status_code == 400


def test_no_text_is_kept_of_what_keeps_no_text(start: Callable[..., Served]) -> None:
    served = start(record="full")
    asked = served.chat("hello", store=False).json()["id"]
    for body in ({"correction": "better"}, {"thumbs": "up", "comment": "fine"}):
        answer = served.http.post("/v1/feedback", json={"interaction": asked} | body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "not_stored")
    assert served.http.post("/v1/feedback", json={"interaction": asked, "thumbs": "up"}).status_code == 201


def test_too_much_from_one_sender_is_refused_until_later(start: Callable[..., Served]) -> None:
    served = start(feedback_per_hour=3, feedback_per_key=8, key="secret")
    asked = served.chat("hello").json()["id"]

    def vote(thumbs: str, **more: str) -> httpx.Response:
        return served.http.post("/v1/feedback", json={"interaction": asked, "thumbs": thumbs} | more)

    assert [vote(thumbs, user="ann").status_code for thumbs in ("up", "down", "up", "down")] == [201, 201, 201, 429]
    refused = vote("up", user="ann")
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert refused.json()["error"]["code"] == "feedback_limit"
    assert 3000 < int(refused.headers["retry-after"]) <= 3600
    assert len(served.recorder.said) == 3
    assert vote("up", user="bob").status_code == 201  # another user's votes are still welcome
    assert vote("up").status_code == 201
    assert [vote("up", user=f"invented {number}").status_code for number in range(4)] == [201, 429, 429, 429]
    assert served.chat("hello").status_code == 200


def test_an_allowance_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("treadle.serve.allowance.time.monotonic", lambda: now[0])
    allowance = Allowance(2, 60.0)
    assert [allowance.take("a") for _ in range(3)] == [None, None, 60]
    now[0] += 59.5
    assert allowance.take("a") == 1
    assert allowance.take("b") is None
    now[0] += 0.5
    assert [allowance.take("a") for _ in range(3)] == [None, None, 60]


def test_a_thousand_votes_of_one_key(served: Served) -> None:
    asked = served.chat("hello").json()["id"]
    bodies = [{"interaction": asked, "score": number / 1000} for number in range(1000)]
    statuses = Counter(served.http.post("/v1/feedback", json=body).status_code for body in bodies)
    assert statuses == {201: 600, 429: 400}
    assert len(served.recorder.said) == 600


def test_what_is_too_long(start: Callable[..., Served]) -> None:
    served = start(record="full")
    asked = served.chat("hello").json()["id"]
    for field, most in (("comment", 10_000), ("correction", 100_000), ("user", 512)):
        body = {"interaction": asked, "correction": "better", field: "x" * (most + 1)}
        answer = served.http.post("/v1/feedback", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
        assert served.http.post("/v1/feedback", json=body | {field: "x" * most}).status_code == 201
    content = b'{"interaction":"%s","thumbs":"up","comment":"' % asked.encode() + b"x" * (10 << 20) + b'"}'
    connection = HTTPConnection(served.url.removeprefix("http://"))  # sends all of it before it reads a word
    with closing(connection):
        connection.request("POST", "/v1/feedback", body=content)
        refused = connection.getresponse()
        assert (refused.status, json.loads(refused.read())["error"]["code"]) == (413, "request_too_large")
    pieces = (content[first : first + 65536] for first in range(0, len(content), 65536))
    answer = served.http.post("/v1/feedback", content=pieces)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert served.chat("hello").status_code == 200


def test_two_who_say_the_same_at_once_say_it_once(served: Served) -> None:
    asked = served.chat("hello").json()["id"]
    body = {"interaction": asked, "thumbs": "up", "user": "ann"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: httpx.post(f"{served.url}/v1/feedback", json=body), range(16)))
    assert sorted(answer.status_code for answer in answers) == [200] * 15 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(served.recorder.said) == 1


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "a\u0000b\u001b[31m\u202e", "\U0001f600" * 50, "'; DROP TABLE x; --"]
)
def test_hostile_text_is_kept_as_text(start: Callable[..., Served], text: str) -> None:
    served = start(record="full")
    asked = served.chat(text).json()["id"]
    body = {"interaction": asked, "correction": text, "comment": text, "user": text}
    assert served.http.post("/v1/feedback", json=body).status_code == 201
    assert (served.recorder.said[-1]["correction"], served.recorder.said[-1]["comment"]) == (text, text)


def test_wrong_types(served: Served) -> None:
    asked = served.chat("hello").json()["id"]
    for body in (
        {"thumbs": 1},
        {"thumbs": True},
        {"score": True},
        {"score": float("inf")},
        {"correction": ["x"]},
        {"thumbs": "up", "comment": {"a": 1}},
        {"thumbs": "up", "user": 7},
        {"preference": 0.5},
        {"interaction": 5, "thumbs": "up"},
        {"interaction": None, "thumbs": "up"},
    ):
        content = json.dumps({"interaction": asked} | body).replace("Infinity", "1e999")
        answer = served.http.post("/v1/feedback", content=content)
        assert answer.status_code == 400, body
        assert answer.json()["error"]["message"]
    assert served.recorder.said == []
