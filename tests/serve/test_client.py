"""A request's client is the same whether the server knows it or ASGI's messages tell of it."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.routing import Match, Route
from toy_engine import ToyEngine, ToyTokenizer
from toy_server import DIGEST, ListRecorder, Served, redact

from treadle.serve.app import create_app
from treadle.serve.connection import _written
from treadle.serve.gateway import Gateway, GatewaySettings, ServedRelease, Serving

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "one two three four five six seven eight nine ten"}]}


def opened(recorder: ListRecorder, pace: float = 0.0) -> Any:
    """The application alone, with no server that would know its clients."""
    tokenizer = ToyTokenizer()
    served = Serving(ServedRelease("docs@v1", DIGEST), ToyEngine(tokenizer, pace=pace), tokenizer)
    return create_app(Gateway(served, recorder, settings=GatewaySettings(api_key=None), redact=redact))


def test_asgi_alone_is_enough(served: Served) -> None:
    recorder = ListRecorder()

    async def ask() -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(opened(recorder))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post(CHAT, json=BODY), await client.post(CHAT, json={"messages": []})

    for alone, known in zip(
        asyncio.run(ask()), (served.http.post(CHAT, json=each) for each in (BODY, {"messages": []})), strict=True
    ):
        assert alone.status_code == known.status_code
        assert set(known.headers) - set(alone.headers) <= {"date"}
        assert alone.headers["content-length"] == str(len(alone.content))
        assert alone.json().get("choices") == known.json().get("choices")
        assert alone.json().get("error") == known.json().get("error")
    assert [row["status"] for row in recorder.rows] == ["ok"]


def test_asgi_tells_of_a_client_that_leaves() -> None:
    recorder = ListRecorder()

    async def leave() -> None:
        messages = iter([{"type": "http.request", "body": json.dumps(BODY).encode(), "more_body": False}])
        sent: list[Any] = []

        async def receive() -> Any:
            try:
                return next(messages)
            except StopIteration:
                await asyncio.sleep(0.2)
                return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "query_string": b""}
        await opened(recorder, pace=0.1)(scope, receive, send)
        assert sent == []

    asyncio.run(asyncio.wait_for(leave(), 10))
    (row,) = recorder.rows
    assert (row["status"], row["error"]) == ("cancelled", "client_left")


@pytest.mark.parametrize("padding", [0, 300_000])
def test_a_client_that_leaves_is_heard_of(start: Callable[..., Served], padding: int) -> None:
    """A large body pauses the reading of its connection, on whose other end nobody is any more."""
    served = start(pace=0.3)
    body = json.dumps(BODY).encode() + b" " * padding
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        head = b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (CHAT.encode(), len(body))
        sock.sendall(head + body)
        while not served.engine.running:
            time.sleep(0.01)
    began = time.monotonic()
    while not served.rows:
        assert time.monotonic() < began + 2
        time.sleep(0.01)
    assert (served.rows[0]["status"], served.rows[0]["error"]) == ("cancelled", "client_left")
    assert served.chat("one").status_code == 200


def test_a_named_path_gets_what_the_router_would_give(served: Served) -> None:
    app = create_app(served.gateway)
    assert ("POST", CHAT) in app._named
    for (method, path), endpoint in app._named.items():
        scope = {"type": "http", "method": method, "path": path, "headers": []}
        first = next(route for route in app.routes if route.matches(dict(scope))[0] is Match.FULL)
        assert isinstance(first, Route)
        assert first.endpoint is endpoint
    assert served.http.get(CHAT).status_code == 405


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\nb", b"a\rb", b"a\0"])
def test_no_header_makes_another(value: bytes) -> None:
    with pytest.raises(ValueError, match="line break"):
        _written(200, [(b"x-request-id", value)], 0)
    assert _written(200, [(b"x-request-id", b"a b")], 3) == (
        b"HTTP/1.1 200 OK\r\nx-request-id: a b\r\ncontent-length: 3\r\n\r\n"
    )
