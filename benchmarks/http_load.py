"""A light client: bare sockets and one loop, so that it takes little from the server on the same cores."""

from __future__ import annotations

import json
import re
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

_WHOLE = b"\r\n0\r\n\r\n"  # the end of a chunked body
_COUNTED = re.compile(rb'"completion_tokens": ?(\d+)')


def request_bytes(path: str, body: dict[str, Any], key: str | None = None) -> bytes:
    """A POST on a connection that stays open."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n"
    head += "content-type: application/json\r\n"
    head += f"authorization: Bearer {key}\r\n" if key else ""
    return head.encode() + b"\r\n" + data


def address(url: str) -> tuple[str, int]:
    """Host and port of ``http://HOST:PORT``."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def in_turn(url: str, request: bytes, count: int) -> list[float]:
    """Seconds of each of ``count`` requests on one connection, one after another; plain answers."""
    seconds = []
    with socket.create_connection(address(url)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            started = time.perf_counter()
            sock.sendall(request)
            data = sock.recv(1 << 16)
            while not _is_whole(data):
                data += sock.recv(1 << 16)
            seconds.append(time.perf_counter() - started)
            if not data.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(data[:500].decode(errors="replace"))
    return seconds


def side_by_side(url: str, request: bytes | Sequence[bytes], count: int, connections: int) -> float:
    """Requests a second of so many connections, each with one request under way, several in turn; plain answers."""
    following = cycle([request] if isinstance(request, bytes) else request)
    left, ended = count, 0
    started = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        for _ in range(connections):
            stream = _Stream(socket.create_connection(address(url)))
            stream.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(stream.sock, selectors.EVENT_READ, stream)
            _send(stream, next(following))
            left -= 1
        while ended < count:
            for key, _ in selector.select():
                stream = key.data
                piece = stream.sock.recv(1 << 16)
                stream.data += piece
                if piece and not _is_whole(bytes(stream.data)):
                    continue
                if not stream.data.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(bytes(stream.data[:500]).decode(errors="replace"))
                ended += 1
                if left > 0:
                    left -= 1
                    _send(stream, next(following))
                else:
                    selector.unregister(stream.sock)
                    stream.sock.close()
    return count / (time.perf_counter() - started)


def _is_whole(data: bytes) -> bool:
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return False
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return len(body) >= int(length)


@dataclass
class Load:
    """What came of a number of streams; ``tokens`` by the server's own count."""

    tokens: int = 0
    seconds: float = 0.0
    requests: int = 0
    first: list[float] = field(default_factory=list)
    longest_gap: float = 0.0


@dataclass
class _Stream:
    sock: socket.socket
    sent: float = 0.0
    last: float = 0.0
    data: bytearray = field(default_factory=bytearray)


def streams(url: str, requests: Sequence[bytes], at_once: int) -> Load:
    """Send all requests, ``at_once`` at a time, each as soon as one before it has ended; the answers are streams. Each
    has a connection of its own: some servers close theirs after a stream."""
    waiting = list(reversed(requests))
    load = Load()
    started = time.perf_counter()
    with selectors.DefaultSelector() as selector:

        def begin() -> None:
            stream = _Stream(socket.create_connection(address(url)))
            stream.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(stream.sock, selectors.EVENT_READ, stream)
            _send(stream, waiting.pop())

        for _ in range(min(at_once, len(waiting))):
            begin()
        while selector.get_map():
            for key, _ in selector.select():
                stream = key.data
                _receive(stream, load)
                if not stream.data.endswith(_WHOLE):
                    continue
                load.tokens += _tokens(bytes(stream.data))
                load.requests += 1
                selector.unregister(stream.sock)
                stream.sock.close()
                if waiting:
                    begin()
    load.seconds = time.perf_counter() - started
    return load


def _send(stream: _Stream, request: bytes) -> None:
    stream.data.clear()
    stream.sent = stream.last = time.perf_counter()
    stream.sock.sendall(request)


def _receive(stream: _Stream, load: Load) -> None:
    piece = stream.sock.recv(1 << 16)
    if not piece:
        raise RuntimeError("the server closed a stream: " + bytes(stream.data[:500]).decode(errors="replace"))
    now = time.perf_counter()
    if not stream.data:
        if not piece.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(piece[:500].decode(errors="replace"))
        load.first.append(now - stream.sent)
    else:
        load.longest_gap = max(load.longest_gap, now - stream.last)
    stream.last = now
    stream.data += piece


def _tokens(data: bytes) -> int:
    if b"data: [DONE]" not in data:
        raise RuntimeError("a stream broke off: " + data[-500:].decode(errors="replace"))
    return int(_COUNTED.findall(data)[-1])
