"""What the benchmarks stand on: servers that sleep while they are not asked, a trace of the size that is wanted."""

from __future__ import annotations

import os
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from benchmarks.load import ANSWER, PROMPT, TRACE, resized
from benchmarks.peers import fastest, peer_server
from benchmarks.serve_prefix import WORDS, documents

from treadle.loading.trace import read_trace, scaled

HTTP = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1")


def sleeps(process: int) -> bool:
    """It is stopped, or is within two seconds."""
    for _ in range(200):
        if Path(f"/proc/{process}/stat").read_text().split()[2] == "T":
            return True
        time.sleep(0.01)
    return False


def test_a_server_sleeps_unless_it_is_asked_and_is_gone_at_the_end(tmp_path: Path) -> None:
    with peer_server(lambda port: [*HTTP, str(port)], tmp_path / "log", ready="/") as server:
        assert sleeps(server.process.pid)
        with pytest.raises(OSError):
            urllib.request.urlopen(server.url, timeout=0.3)
        with server.awake() as url, urllib.request.urlopen(url, timeout=5) as answer:
            assert answer.status == 200
        assert sleeps(server.process.pid)
    with pytest.raises(ProcessLookupError):
        os.killpg(server.process.pid, 0)


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    broken = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with pytest.raises(RuntimeError, match="no such model"), peer_server(lambda _: broken, tmp_path / "log", ready="/"):
        pass


def test_the_fastest_way_comes_first(tmp_path: Path) -> None:
    said = iter([1.0, 3.0, 1.0, 5.0])  # each is asked twice, the first time to warm up

    def start():  # type: ignore[no-untyped-def]
        return peer_server(lambda port: [*HTTP, str(port)], tmp_path / "log", ready="/")

    assert list(fastest({"slow": start, "quick": start}, lambda _: next(said)).items()) == [
        ("quick", 5.0),
        ("slow", 3.0),
    ]


@pytest.mark.skipif(not TRACE.is_file(), reason="needs the shared data")
def test_a_trace_has_the_requests_that_are_wanted_of_it() -> None:
    trace = scaled(read_trace(TRACE), speed=1, seconds=None, prompt=PROMPT, answer=ANSWER)
    for count in (500, 7_000):  # fewer and more than ten minutes have
        found = resized(trace, 600, count)
        assert len(found) == pytest.approx(count, abs=1)
        assert 0 <= found[0].at <= found[-1].at < 600


def test_no_two_texts_begin_alike() -> None:
    texts = [text for words in WORDS.values() for text in documents(25, words)]
    assert len({text[:40] for text in texts}) == 50
    assert {len(text.split()) - 5 for text in texts} == set(WORDS.values())  # after "Part 1, of 500 words."
