"""Feedback over HTTP."""

from __future__ import annotations

from collections.abc import Callable

from toy_server import Served


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
