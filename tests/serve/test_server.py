"""The server's life: the port first, ready when it is, and no request lost at the end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from toy_server import serve_toy

from treadle.core.errors import UserError
from treadle.serve.gateway import Gateway
from treadle.serve.server import bind, is_loopback, run, serving

HERE = Path(__file__).parent
PROGRAM = """
import json, sys
sys.path.insert(0, {here!r})
from toy_server import ListRecorder, DIGEST, redact
from toy_engine import ToyEngine, ToyTokenizer
from treadle.serve.gateway import Gateway, GatewaySettings, ServedRelease, Serving
from treadle.serve.server import run
recorder = ListRecorder()
async def build():
    tokenizer = ToyTokenizer()
    engine = ToyEngine(tokenizer, pace=0.05)
    return Gateway(Serving(ServedRelease("docs@v1", DIGEST), engine, tokenizer), recorder, redact=redact)
run(build, port=0, on_ready=lambda url: print(url, flush=True), drain_seconds={drain})
print(json.dumps([[r["status"], r["error"], r["tokens"]["completion"]] for r in recorder.rows]), flush=True)
"""


@contextmanager
def process(drain: float) -> Iterator[tuple[subprocess.Popen[str], str]]:
    program = textwrap.dedent(PROGRAM).format(here=str(HERE), drain=drain)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        try:
            yield running, running.stdout.readline().strip()
        finally:
            running.kill()


def ask(url: str, words: int) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "x " * words}]}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30)


def test_a_taken_port_is_one_line_before_anything_is_loaded() -> None:
    async def never() -> Gateway:
        raise AssertionError("loaded a model for a port that is taken")

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} on 127.0.0.1 is in use; .*--port"):
            run(never, port=port)


def test_two_servers_cannot_both_have_a_port() -> None:
    with bind("127.0.0.1", 0) as first, pytest.raises(UserError, match="in use"):
        bind("127.0.0.1", first.getsockname()[1])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.invalid"])
def test_the_world_needs_a_key(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TREADLE_API_KEY", raising=False)
    with pytest.raises(UserError, match="TREADLE_API_KEY"):
        bind(host, 0)


def test_with_a_key_the_world_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREADLE_API_KEY", "k")
    bind("0.0.0.0", 0).close()
    with pytest.raises(UserError, match="name or address"):
        bind("no.such.host.invalid", 0)
    with pytest.raises(UserError, match="65535"):
        bind("127.0.0.1", 70_000)


def test_loopback() -> None:
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "127.8.8.8")] == [True] * 4
    assert [is_loopback(h) for h in ("0.0.0.0", "10.0.0.1", "", "localhost.evil.example")] == [False] * 4


def test_what_goes_wrong_while_opening_comes_out() -> None:
    async def broken() -> Gateway:
        raise UserError("model/: no weights here")

    with pytest.raises(UserError, match="no weights"), serving(broken):
        pass
    with pytest.raises(UserError, match="no weights"):
        run(broken, port=0)


def test_sigterm_lets_requests_in_flight_finish() -> None:
    with process(drain=20) as (running, url), ThreadPoolExecutor(2) as pool:
        asked = pool.submit(ask, url, 30)  # 1.5 seconds
        wait_until_working(url)
        running.send_signal(signal.SIGTERM)
        statuses = set()
        while not asked.done():
            try:
                statuses.add(httpx.get(f"{url}/health/ready").status_code)
                late = ask(url, 1)
                assert late.status_code in (200, 503)
                if late.status_code == 503:
                    assert late.json()["error"]["code"] == "shutting_down"
                    assert late.headers["retry-after"]
                    statuses.add("refused")  # type: ignore[arg-type]
            except httpx.TransportError:
                break
        answer = asked.result()
        assert answer.status_code == 200
        assert answer.json()["usage"]["completion_tokens"] == 30
        assert {503, "refused"} <= statuses
        out, err = running.communicate(timeout=20)
        assert running.returncode == 0, err
        assert '["ok", null, 30]' in out


def test_after_the_deadline_requests_are_told_and_recorded() -> None:
    with process(drain=0.3) as (running, url), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, url, 200)  # 10 seconds
        wait_until_working(url)
        running.send_signal(signal.SIGTERM)
        answer = asked.result()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
        out, err = running.communicate(timeout=20)
        assert running.returncode == 0, err
        assert '[["cancelled", "shutting_down", ' in out


def test_a_second_interrupt_does_not_wait() -> None:
    with process(drain=60) as (running, url), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, url, 390)
        wait_until_working(url)
        running.send_signal(signal.SIGINT)
        time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        assert asked.result().status_code == 503
        assert running.wait(timeout=10) == 0


def test_a_server_in_a_thread_ends_with_its_block(served: object) -> None:
    url = served.url  # type: ignore[attr-defined]
    assert httpx.get(f"{url}/health/ready").json() == {"status": "ok"}
    names = {thread.name for thread in threading.enumerate()}
    assert "treadle-serve" in names


def test_the_gateway_is_light() -> None:
    program = (
        "import sys, treadle.serve.server, treadle.serve.app; "
        "print([m for m in ('torch','transformers','numpy','pyarrow','pydantic','openvino') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"


def wait_until_working(url: str) -> None:
    for _ in range(200):
        if "treadle_in_flight_requests 1.0" in httpx.get(f"{url}/metrics").text:
            return
        time.sleep(0.01)
    pytest.fail("the request did not arrive")


def test_a_request_that_is_not_whole_yet_is_waited_for() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "one two three"}]}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    head += b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    with serve_toy() as served:
        address = urlsplit(served.url)
        with socket.create_connection((str(address.hostname), int(address.port or 0)), 10) as client:
            client.sendall(head + body[:20])
            time.sleep(0.3)  # until it is read and waited for
            drained = asyncio.run_coroutine_threadsafe(served.gateway.drain(10), served.loop)
            with pytest.raises(TimeoutError):
                drained.result(0.3)
            assert served.chat().json()["error"]["code"] == "shutting_down"  # what comes now is not let in
            client.sendall(body[20:])
            with client.makefile("rb") as answer:
                assert b" 200 " in answer.readline()
            assert drained.result(5)
    assert [row["status"] for row in served.rows] == ["ok"]
