"""What ``nvidia-smi`` says, as numbers. No card was at hand: a script stands in for the program here."""

from __future__ import annotations

from pathlib import Path

import pytest

from treadle.core.system_metrics import samplers
from treadle.integrations.nvidia import figures


def test_figures() -> None:
    said = "0, 87, 40213\n1, [N/A], 512\n2, 0, [Insufficient Permissions]\n"
    assert figures(said) == {
        "gpu0_percent": 87.0,
        "gpu0_memory_mb": 40213.0,
        "gpu1_memory_mb": 512.0,
        "gpu2_percent": 0.0,
    }
    assert figures("") == {}
    assert figures("No devices were found\n") == {}


def program(folder: Path, text: str) -> None:
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "nvidia-smi").chmod(0o755)


def test_it_is_found_by_name_and_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert samplers() == []
    program(tmp_path, "echo '0, 12, 345'")
    (sample,) = samplers()
    assert sample() == {"gpu0_percent": 12.0, "gpu0_memory_mb": 345.0}
    program(tmp_path, "echo 'driver mismatch' >&2; exit 18")
    assert sample() == {}
