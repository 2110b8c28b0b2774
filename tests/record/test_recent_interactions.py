"""Interactions at hand: the last ones, and no more text than a server has room for."""

from __future__ import annotations

import random

import pytest

from treadle.record import recorder as recorder_module
from treadle.record.record import Record

from .traffic import Traffic


def test_large_ones_are_read_from_the_journal_and_do_not_pile_up(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "_RECENT_CHARACTERS", 100_000)
    traffic = Traffic(record, random.Random(1))
    large = [traffic.interact(messages=({"role": "user", "content": f"{n}" * 30_000},)) for n in range(8)]
    small = [traffic.interact(messages=None, answer="short") for _ in range(50)]
    recent = record.recorder._recent
    assert all(recent.get(each) is not None for each in small)
    assert sum(recent.get(each) is not None for each in large) == 3
    for n, each in enumerate(large):
        found = record.recorder.find_interaction(each)
        assert found is not None
        assert found.messages is not None
        assert found.messages[0]["content"] == f"{n}" * 30_000
        assert recent._characters <= 100_000
