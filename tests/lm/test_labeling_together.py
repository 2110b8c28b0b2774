"""Texts of requests that wait are labeled together, and each request gets its own back."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from typing import Any

from treadle.core.errors import UserError
from treadle.lm.engine_wire import Classify, Close, Failed, FrameBuffer, Values, decode_reply, encode
from treadle.lm.engine_worker import Worker


class Lengths:
    """Labels a text by its length; notes how many come together."""

    context_length = 8

    def __init__(self) -> None:
        self.calls: list[int] = []

    def pending(self) -> tuple[int, int]:
        return 0, 0

    def cancel(self, number: int) -> None:
        pass

    def classify(self, texts: Sequence[str]) -> tuple[list[str], list[list[float]]]:
        self.calls.append(len(texts))
        if "bad" in texts:
            raise UserError("bad is no text")
        return ["length"], [[float(len(text))] for text in texts]


def answers(requests: Sequence[Classify]) -> tuple[Lengths, dict[int, Values | Failed]]:
    """What a worker says to requests that were all there before it began."""
    backend, found = Lengths(), dict[int, Any]()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = Worker(theirs)
        worker._open = lambda: backend  # type: ignore[method-assign,assignment,return-value]
        ours.sendall(b"".join(map(encode, requests)))
        thread = threading.Thread(target=worker.run)
        thread.start()
        frames = FrameBuffer()
        while len(found) < len(requests):
            for frame in frames.feed(ours.recv(1 << 16)):
                reply = decode_reply(frame)
                if isinstance(reply, Values | Failed):
                    found[reply.number] = reply
        ours.sendall(encode(Close()))
        thread.join()
    return backend, found


def test_each_request_gets_its_own_rows() -> None:
    requests = [Classify(n, ["x" * (n + place) for place in range(n)]) for n in range(1, 9)]
    backend, found = answers(requests)
    assert sum(backend.calls) == sum(range(1, 9))
    assert max(backend.calls) > 8
    for request in requests:
        reply = found[request.number]
        assert isinstance(reply, Values)
        assert reply.rows == [[float(len(text))] for text in request.texts]
        assert reply.labels == ["length"]


def test_a_long_request_is_cut_and_comes_back_whole() -> None:
    long = Classify(1, ["x" * (n % 7) for n in range(300)])
    backend, found = answers([long, Classify(2, ["xy"])])
    assert max(backend.calls) <= 128
    first, second = found[1], found[2]
    assert isinstance(first, Values)
    assert isinstance(second, Values)
    assert [row[0] for row in first.rows] == [float(n % 7) for n in range(300)]
    assert second.rows == [[2.0]]


def test_what_cannot_be_done_is_told_to_all_of_them() -> None:
    _, found = answers([Classify(1, ["good"]), Classify(2, ["bad"])])
    assert all(isinstance(reply, Values | Failed) for reply in found.values())
    assert isinstance(found[2], Failed)
    assert found[2].message == "bad is no text"
