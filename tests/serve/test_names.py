"""Under which names a server without a key answers: none that somebody else could make lead here."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from toy_keys import Book
from toy_server import Served

Start = Callable[..., Served]


def status(served: Served, host: str, path: str = "/v1/models", **headers: str) -> int:
    return served.http.get(path, headers={"host": host, **headers}).status_code


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/v1/models/docs-assistant", "/v2/models/docs-assistant"])
def test_a_name_of_somebody_elses_gets_nothing(served: Served, path: str) -> None:
    port = httpx.URL(served.url).port
    for host in (f"evil.example:{port}", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "[::1"):
        answer = served.http.get(path, headers={"host": host})
        assert answer.status_code == 403, host
        assert answer.json()["error"]
        assert "docs-assistant@v1" not in answer.text


def test_a_question_under_such_a_name_is_refused_by_a_code_of_its_own(served: Served) -> None:
    body = {"messages": [{"role": "user", "content": "a"}]}
    answer = served.http.post("/v1/chat/completions", json=body, headers={"host": "evil.example"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden_host")
    assert not served.engine.requests


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "localhost.", "app.localhost", "127.0.0.1:1", "10.244.3.7:8000", "[::1]:8000"],
)
def test_addresses_and_names_of_this_machine_are_its_own(served: Served, host: str) -> None:
    assert status(served, host) == 200


def test_a_probe_is_answered_whatever_it_calls_the_server(served: Served) -> None:
    for path in ("/health/live", "/health/ready", "/ping", "/openapi.json"):
        assert status(served, "pod.cluster.example", path) == 200


def test_names_that_the_settings_allow(start: Start) -> None:
    served = start(hosts=frozenset({"models.example"}))
    assert status(served, "models.example:443") == 200
    assert status(served, "Models.Example") == 200
    assert status(served, "other.example") == 403
    assert status(start(hosts=None), "any.example") == 200


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    made = Book(tmp_path / "store")
    yield made
    made.close()


def test_a_server_with_a_key_answers_under_any_name(book: Book, start: Start) -> None:
    assert status(start(key="sesame"), "evil.example") == 200
    _, secret = book.create("one")
    keyed = start(keys=book.use())
    assert status(keyed, "evil.example", authorization=f"Bearer {secret}") == 200
    assert status(keyed, "evil.example") == 401


def test_who_sends_no_name_is_no_browser(served: Served) -> None:
    url = httpx.URL(served.url)
    with socket.create_connection((url.host, url.port or 80)) as connection:
        connection.sendall(b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert connection.recv(64).startswith(b"HTTP/1.1 200")
