"""Ctrl-C counts also where a library swallows it and breaks by it a moment later."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import pytest

from treadle.cli import main as command


def test_an_interrupt_that_was_swallowed_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(**_: object) -> None:
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        raise AttributeError("module 'sympy' has no attribute 'core'")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        monkeypatch.setattr(command.treadle, "main", breaks)
        assert command.main([]) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert "interrupted; nothing is half-written" in capsys.readouterr().err
