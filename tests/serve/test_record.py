"""What requests leave in the record: one interaction each, text only as far as the rules let it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_server import ListRecorder, Served

from treadle.core.errors import Corrupt
from treadle.record.feedback import Feedback
from treadle.record.interaction import Cost, Given, Interaction, Seconds, Tokens, is_interaction_id, new_interaction_id
from treadle.serve.gateway import Gateway, GatewaySettings, Price

SECRET = "bob@example.com"


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen")


def everything(served: Served) -> str:
    return json.dumps([served.rows, served.recorder.said])


def ask_with_secrets(served: Served, **more: object) -> httpx.Response:
    return served.chat(
        f"mail {SECRET} now",
        user=SECRET,
        metadata={"from": SECRET},
        stop=[f"never {SECRET}"],
        context=[{"text": f"of {SECRET}", "title": f"by {SECRET}"}],
        **more,
    )


def test_redacted_is_the_rule(served: Served) -> None:
    assert SECRET in ask_with_secrets(served).json()["choices"][0]["message"]["content"]
    [row] = served.rows
    assert SECRET not in everything(served)
    assert row["messages"] == [{"role": "user", "content": "mail [email] now"}]
    assert "[email]" in row["answer"]
    assert row["metadata"] == {"from": "[email]"}
    assert row["user"] == served.recorder.keyed(SECRET)


def test_full_keeps_what_was_said(start: Callable[..., Served]) -> None:
    served = start(record="full")
    ask_with_secrets(served)
    assert served.rows[0]["messages"][0]["content"] == f"mail {SECRET} now"
    assert served.rows[0]["user"] != SECRET


@pytest.mark.parametrize("way", ["none", "store"])
def test_no_text_is_kept(start: Callable[..., Served], way: str) -> None:
    served = start(record="none" if way == "none" else "full")
    ask_with_secrets(served, **({} if way == "none" else {"store": False}))
    [row] = served.rows
    said = everything(served)
    assert SECRET not in said
    assert "mail" not in said
    assert "[email]" not in said
    assert (row["messages"], row["answer"], row["metadata"]) == (None, None, None)
    assert row["store"] is (way == "none")
    assert row["given"][0]["title"] is None
    assert row["tokens"]["completion"] > 0


def test_that_treadle_asked_is_known_without_text(start: Callable[..., Served]) -> None:
    served = start(record="none")
    served.chat("hello", metadata={"treadle": "smoke", "from": SECRET})
    assert served.rows[0]["metadata"] == {"treadle": "smoke"}


def test_redacting_needs_something_that_redacts(served: Served) -> None:
    with pytest.raises(ValueError, match="redacts"):
        Gateway(served.gateway.serving, ListRecorder(), settings=GatewaySettings(record="redacted"))


def test_cost_purpose_and_retention(start: Callable[..., Served]) -> None:
    served = start(release={"price": Price("EUR", 1.0, 2.0)}, purpose="help", retention_seconds=86_400)
    served.chat("a b c")
    [row] = served.rows
    assert row["cost"] == {"currency": "EUR", "amount": 0.000011}  # 5 tokens read, 3 written
    assert row["purpose"] == "help"
    assert row["origin"] == "traffic"
    assert row["retain_until"][:10] > row["time"][:10]


def test_the_clients_request_id_is_kept_when_it_is_well_formed(served: Served) -> None:
    for given_id, kept in (("abc-1", True), ("x" * 200, False), ("a b", False)):
        response = served.http.post(
            "/v1/chat/completions",
            json={"messages": [{"role": "user", "content": "hi"}]},
            headers={"x-request-id": given_id},
        )
        assert (response.headers["x-request-id"] == given_id) is kept
        assert served.rows[-1]["request"] == response.headers["x-request-id"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_the_engines_work(start: Callable[..., Served], stream: bool) -> None:
    served = start(pace=0.05)
    with httpx.Client(base_url=served.url, timeout=0.5) as client, pytest.raises(httpx.ReadTimeout):
        body = {"messages": [{"role": "user", "content": "x " * 300}], "stream": stream}
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            for _ in response.iter_bytes():
                time.sleep(0.4)
                raise httpx.ReadTimeout("enough")
    wait_for(lambda: bool(served.rows))
    [row] = served.rows
    assert (row["status"], row["error"], row["finish_reason"]) == ("cancelled", "client_left", "cancelled")
    assert served.engine.cancelled == [row["id"]]
    assert row["tokens"]["completion"] < 300
    wait_for(lambda: served.gateway.in_flight == 0)
    assert served.engine.running == 0
    assert 'treadle_requests_total{endpoint="chat",status="499"} 1.0' in served.http.get("/metrics").text


def test_all_choices_are_cancelled(start: Callable[..., Served]) -> None:
    served = start(pace=0.05)
    with served.client.chat.completions.create(
        model="docs-assistant", messages=[{"role": "user", "content": "x " * 300}], n=3, stream=True
    ) as stream:
        next(iter(stream))
    wait_for(lambda: bool(served.rows))
    assert len(served.engine.cancelled) == 3
    assert len(served.rows) == 1


def test_nothing_said_is_logged(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    served.engine.fail_after = 3
    served.chat("zebra zebra")
    served.chat("zebra", temperature="zebra")
    served.engine.failing, served.engine.fail_after = ValueError("zebra"), 0
    served.chat("zebra")
    assert "ValueError" in caplog.text
    assert "zebra" not in "\n".join(r.getMessage() for r in caplog.records if r.name.startswith(("treadle", "uvicorn")))


texts = st.text(max_size=20)


@given(
    st.builds(
        Interaction,
        id=st.builds(new_interaction_id),
        request=texts,
        time=texts,
        release=texts,
        model=texts,
        endpoint=texts,
        status=st.sampled_from(["ok", "failed", "cancelled"]),
        store=st.booleans(),
        messages=st.none() | st.lists(st.dictionaries(texts, texts), max_size=3).map(tuple),
        alternatives=st.lists(texts, max_size=2).map(tuple),
        confidence=st.lists(st.floats(0, 1), max_size=2).map(tuple),
        given=st.lists(st.builds(Given, document=st.none() | texts, digest=texts), max_size=2).map(tuple),
        tokens=st.builds(Tokens, prompt=st.integers(0), completion=st.integers(0)),
        seconds=st.builds(Seconds, queue=st.floats(0, 1)),
        cost=st.none() | st.builds(Cost, currency=texts, amount=st.floats(0, 1)),
        parameters=st.dictionaries(texts, st.integers() | texts),
        metadata=st.none() | st.dictionaries(texts, texts),
    )
)
def test_interactions_come_back_from_their_row(row: Interaction) -> None:
    stored = json.loads(json.dumps(row.to_dict()))
    assert Interaction.from_dict(stored | {"of_a_later_format": 1}) == row
    assert stored["format"] == 1


def test_rows_that_are_none() -> None:
    with pytest.raises(Corrupt):
        Interaction.from_dict({"id": "int-1"})
    with pytest.raises(Corrupt):
        Feedback.from_dict({})
    feedback = Feedback("fb-1", "int-1", "2026-01-01T00:00:00Z", "score", 0.5)
    assert Feedback.from_dict(feedback.to_dict() | {"later": 1}) == feedback


def test_interaction_ids() -> None:
    assert is_interaction_id(new_interaction_id())
    for bad in ("", "int-", "int-" + "I" * 26, "int-8" + "0" * 25, "fb-" + "0" * 26, "int-" + "0" * 26 + "\n"):
        assert not is_interaction_id(bad)
