"""What one connection may cost: memory, time and file descriptors, whatever its client sends."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from toy_server import Served

from treadle.serve.metrics import resident_bytes

GET = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"
CHUNKED = b"POST /v1/nothing HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"


@contextmanager
def connected(served: Served, timeout: float = 10) -> Iterator[socket.socket]:
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as sock:
        yield sock


def received(sock: socket.socket) -> bytes:
    """All that comes until the server closes."""
    got = b""
    try:
        while piece := sock.recv(1 << 16):
            got += piece
    except OSError:
        pass
    return got


def poured(sock: socket.socket, piece: bytes, most: int) -> int:
    """Bytes that the server took of a piece sent again and again."""
    sent = 0
    sock.settimeout(2)
    try:
        while sent < most:
            sock.sendall(piece)
            sent += len(piece)
    except OSError:
        pass
    return sent


def until(true: Callable[[], object], seconds: float = 10) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_pipelined_requests_without_end_cost_no_memory(served: Served) -> None:
    before = resident_bytes()
    with connected(served) as sock:
        reading = threading.Thread(target=received, args=(sock,), daemon=True)
        reading.start()
        poured(sock, GET * 1000, 20 << 20)
        grown = resident_bytes() - before
    assert grown < 30 << 20, f"{grown >> 20} MB"
    assert served.chat().status_code == 200


@pytest.mark.parametrize("path", [b"/v1/nothing", b"/v1/chat/completions"])
def test_trailers_without_end_cost_no_memory(served: Served, path: bytes) -> None:
    before = resident_bytes()
    with connected(served) as sock:
        sock.sendall(CHUNKED.replace(b"/v1/nothing", path) + b"1\r\nx\r\n0\r\n")
        sent = poured(sock, b"".join(b"x-%d: y\r\n" % i for i in range(5000)), 60 << 20)
        grown = resident_bytes() - before
    assert sent < 4 << 20
    assert grown < 30 << 20, f"{grown >> 20} MB"
    assert served.chat().status_code == 200


def test_a_trailer_is_no_header(start: Callable[..., Served]) -> None:
    served = start(key="secret")
    body = b'{"messages":[{"role":"user","content":"one"}]}'
    with connected(served) as sock:
        sock.sendall(
            CHAT
            + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n%x\r\n%s\r\n0\r\n" % (len(body), body)
            + b"authorization: Bearer secret\r\n\r\n"
        )
        assert received(sock).startswith(b"HTTP/1.1 401")
    assert not served.rows


@pytest.mark.parametrize("then", [b"\r\n", b"\r\n\r\n\r\n"])
def test_an_empty_line_keeps_no_connection_open(served: Served, monkeypatch: pytest.MonkeyPatch, then: bytes) -> None:
    monkeypatch.setattr("treadle.serve.connection.HEAD_SECONDS", 0.4)
    with connected(served) as sock:
        sock.sendall(GET)
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 200")
        sock.sendall(then)
        began = time.monotonic()
        received(sock)
        assert time.monotonic() - began < 5


def test_a_body_that_nobody_reads_keeps_no_connection_open(
    start: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treadle.serve.connection.HEAD_SECONDS", 0.5)
    served = start(key="secret")
    with connected(served) as sock:
        sock.sendall(CHAT + b"content-length: 100000\r\n\r\n{")
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 401")
        began = time.monotonic()
        with pytest.raises(OSError):
            for _ in range(100):
                sock.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() - began < 5


def test_garbage_behind_a_request_does_not_stand_in_its_answer(start: Callable[..., Served]) -> None:
    served = start(pace=0.05)
    body = b'{"stream":true,"messages":[{"role":"user","content":"a b c d e f g h i j"}]}'
    with connected(served) as sock:
        sock.sendall(CHAT + b"content-length: %d\r\n\r\n%s" % (len(body), body))
        got = sock.recv(1 << 16)
        assert got.startswith(b"HTTP/1.1 200")
        sock.sendall(b"\0garbage\r\n\r\n")
        got += received(sock)
    assert got.count(b"HTTP/1.1") == 1


def test_a_chunk_that_tells_of_itself_without_end(served: Served) -> None:
    with connected(served) as sock:
        sock.sendall(CHUNKED.replace(b"/v1/nothing", b"/v1/chat/completions") + b"1;x=")
        assert poured(sock, b"a" * 4096, 8 << 20) < 4 << 20
    with connected(served) as sock:  # a chunk for every byte is a waste, and no more than that
        body = b'{"messages":[{"role":"user","content":"%s"}]}' % (b"one " * 300)
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        sock.sendall(CHAT + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        assert received(sock).startswith(b"HTTP/1.1 200")


def test_whoever_offers_another_protocol_goes_on_in_this_one(served: Served) -> None:
    body = b'{"messages":[{"role":"user","content":"one"}]}'
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAI\r\n"
    head = CHAT + offer + b"content-length: %d\r\n\r\n" % len(body)
    for parts in ([head + body], [head, body], [head[:90], head[90:] + body[:5], body[5:]]):
        with connected(served) as sock:
            for part in parts:
                sock.sendall(part)
                time.sleep(0.05)
            assert sock.recv(1 << 16).startswith(b"HTTP/1.1 200")
            sock.sendall(GET.replace(b"host:", b"connection: close\r\nhost:"))
            assert received(sock).startswith(b"HTTP/1.1 200")
    with connected(served) as sock:
        sock.sendall(b"CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\n\r\n")
        assert received(sock).startswith(b"HTTP/1.1 400")


def test_a_client_that_leaves_with_more_requests_sent_ahead_has_left(start: Callable[..., Served]) -> None:
    served = start(pace=0.05)
    body = b'{"messages":[{"role":"user","content":"%s"}]}' % (b"w " * 150)
    with connected(served) as sock:
        sock.sendall(CHAT + b"content-length: %d\r\n\r\n%s" % (len(body), body) + GET)
        until(lambda: served.engine.running)
    until(lambda: served.rows)
    [row] = served.rows
    assert (row["status"], row["error"]) == ("cancelled", "client_left")
    assert not served.gateway.in_flight


@contextmanager
def apart(files: int | None = None) -> Iterator[tuple[str, int]]:
    """The URL and the process of a server that may have so many files open."""
    command = [sys.executable, str(Path(__file__).with_name("toy_process.py")), "0"]
    if files is not None:
        command = ["bash", "-c", f'ulimit -n {files} && exec "$@"', "-", *command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def crowd(url: str, number: int, stack: ExitStack) -> None:
    """Connections of which none says a word."""
    host, port = url.removeprefix("http://").split(":")
    for _ in range(number):
        stack.enter_context(socket.create_connection((host, int(port)), timeout=10))


def asked_apart(url: str) -> int:
    with httpx.Client(trust_env=False, timeout=10) as client:
        return client.post(
            f"{url}/v1/chat/completions", json={"messages": [{"role": "user", "content": "a"}]}
        ).status_code


def test_ten_thousand_idle_connections_are_no_harm() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 10_500:
        pytest.skip("not so many files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with apart() as (url, pid), ExitStack() as stack:
            assert asked_apart(url) == 200
            before = resident(pid)
            crowd(url, 10_000, stack)
            began = time.monotonic()
            assert asked_apart(url) == 200
            assert time.monotonic() - began < 5
            assert resident(pid) - before < 200 << 20
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_whoever_is_idle_longest_makes_room_where_files_run_out() -> None:
    with apart(files=400) as (url, pid), ExitStack() as stack:
        crowd(url, 700, stack)
        for _ in range(5):
            assert asked_apart(url) == 200
        assert len(list(Path(f"/proc/{pid}/fd").iterdir())) < 300


def test_bodies_that_stop_halfway_cost_no_more_memory_than_so_many(start: Callable[..., Served]) -> None:
    served = start(max_body_bytes=1 << 20, body_seconds=1.5)
    before = resident_bytes()
    refused = b""
    with ExitStack() as stack:
        for number in range(200):
            sock = stack.enter_context(connected(served))
            sock.sendall(CHAT + b"content-length: 1000000\r\n\r\n" + b" " * 900_000)
            if number == 199:
                refused = received(sock)
        assert resident_bytes() - before < 140 << 20
    assert refused.startswith(b"HTTP/1.1 503")
    assert b"too_many_bodies" in refused
    until(lambda: served.gateway.arriving == 0)
    assert served.chat("w " * 100, max_tokens=1).status_code == 200
