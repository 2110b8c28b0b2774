"""A document that hangs, dies or eats memory costs itself only."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from text import made
from treadle.text.readers import workers
from treadle.text.readers.piece import Documents, Text, Unreadable, from_json, to_json
from treadle.text.readers.workers import Workers

FINE = made.docx(made.paragraph("fine"))
SLOW = b"\\begin{document}" + b"\\textbf{word} and \\emph{more words} $x^2$\n" * 40_000


@contextmanager
def pool(**options: int) -> Iterator[Workers]:
    opened = Workers(Documents(**{"workers": 1, **options}))
    try:
        yield opened
    finally:
        opened.close()


def reason(workers: Workers, kind: str, data: bytes) -> str:
    (piece,) = workers.submit(kind, data).result()
    assert isinstance(piece, Unreadable)
    return piece.reason


def goes_on(workers: Workers) -> bool:
    (piece,) = workers.submit("docx", FINE).result()
    return isinstance(piece, Text) and piece.text == "fine"


def process_of(workers: Workers) -> int:
    process = workers._all[0]._process
    assert process is not None
    return process.pid


def test_what_a_worker_sends_arrives_as_it_was() -> None:
    pieces = [Text("a \ud800 b", "!/x", b"\x00\xff", "T", "2020", "me", {"n": [1]}), Unreadable("why", 7, "!/y")]
    sent = [from_json(json.loads(json.dumps(to_json(piece)))) for piece in pieces]
    assert sent == [replace(pieces[0], text="a \ufffd b"), pieces[1]]


def test_a_worker_is_used_again() -> None:
    with pool() as opened:
        assert goes_on(opened)
        first = process_of(opened)
        assert all(goes_on(opened) for _ in range(5))
        assert process_of(opened) == first


def test_too_much_time_of_a_processor() -> None:
    with pool(seconds=1) as opened:
        assert reason(opened, "tex", SLOW) == "took longer than 1 seconds; its reader was stopped"
        assert goes_on(opened)


def test_too_much_memory() -> None:
    body = "".join(made.paragraph(str(number * 7919)) for number in range(300_000))
    with pool(memory=100) as opened:
        assert "memory" in reason(opened, "docx", made.docx(body))
        assert goes_on(opened)


@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGSEGV", "SIGSTOP"])
def test_a_reader_that_dies_or_hangs(signal_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_SPARE", 0.5)
    monkeypatch.setattr(workers, "_PATIENCE", 0.2)
    with pool(seconds=5) as opened:
        assert goes_on(opened)
        victim = process_of(opened)
        future = opened.submit("tex", SLOW)
        timer = threading.Timer(0.2, os.kill, (victim, getattr(signal, signal_name)))
        timer.start()
        (piece,) = future.result()
        timer.join()
        assert isinstance(piece, Unreadable)
        wanted = "took longer" if signal_name == "SIGSTOP" else f"its reader died ({signal_name})"
        assert wanted in piece.reason
        assert goes_on(opened)
        assert process_of(opened) != victim


def test_a_worker_that_died_while_idle_is_no_fault_of_the_next_document() -> None:
    with pool() as opened:
        assert goes_on(opened)
        os.kill(process_of(opened), signal.SIGKILL)
        time.sleep(0.05)
        assert goes_on(opened)


def test_closing_ends_the_processes_at_once() -> None:
    with pool() as opened:
        opened.submit("tex", SLOW)
        while not opened._all or opened._all[0]._process is None:
            time.sleep(0.01)
        process = process_of(opened)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_worker_sees_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret-value")
    with pool() as opened:
        assert goes_on(opened)
        with Path(f"/proc/{process_of(opened)}/environ").open("rb") as file:
            assert b"s3cret-value" not in file.read()
