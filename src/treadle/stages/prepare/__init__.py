"""Prepare: clean, drop, deduplicate, redact; make examples; split without leaks; tokens, index, profile and a
report."""

from __future__ import annotations

from treadle.stages.prepare.chain import InitialTokenizer, Prepared, Tokenizing, prepare
from treadle.stages.prepare.settings import PrepareSettings

__all__ = ["InitialTokenizer", "PrepareSettings", "Prepared", "Tokenizing", "prepare"]
