"""The view on a terminal, which is a real one of 80 columns here."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress

SHOWS = """
import time
from treadle.cli.live import watching
from treadle.core.driver import StepResult
from treadle.cycle import STAGES

with watching(STAGES, quiet=False) as view:
    view.stage("develop")
    view.started("develop.train", "new settings: learning_rate, tokens")
    view.progress("develop.train", 30, 100, "steps", "█▇▆▅▄▃▂▂▁▁▁▁▁▁▁▁ loss 2.310, 280 tok/s")
    time.sleep(0.6)
    view.say("[a finding] in brackets")
    view.finished(StepResult("develop.train", "done", 61.0, outputs={"model": "b3:0123456789abcdef"}))
"""


def test_bar_curve_and_stages_are_whole_at_80_columns() -> None:
    said = _on_a_terminal(SHOWS)
    shown = next(line for line in said if "develop.train (new settings: …" in line)
    assert "30/100 steps" in shown
    assert shown.rstrip().endswith(("0:00:00", "-:--:--"))
    assert any(line.rstrip() == "  █▇▆▅▄▃▂▂▁▁▁▁▁▁▁▁ loss 2.310, 280 tok/s" for line in said)
    assert any(
        line.startswith("○ collect ○ prepare ◉ develop ") and line.rstrip().endswith("○ improve") for line in said
    )
    assert "develop   [a finding] in brackets" in {line.rstrip() for line in said}
    assert any(line.startswith("develop   train              1m01s") for line in said)
    # What a step said of itself goes with its bar.
    ended = max(at for at, line in enumerate(said) if "1m01s" in line)
    assert not any("tok/s" in line for line in said[ended:])


def _on_a_terminal(code: str) -> list[str]:
    """The lines that a program wrote to a terminal, without what moves its cursor or colors them."""
    ours, theirs = pty.openpty()
    surroundings = {**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color"}
    surroundings.pop("NO_COLOR", None)
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=surroundings) as program:
        os.close(theirs)
        heard = bytearray()
        with suppress(OSError):  # how a terminal tells that its last program is gone
            while part := os.read(ours, 4096):
                heard += part
        os.close(ours)
    assert program.returncode == 0, heard.decode()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", heard.decode()).replace("\r", "\n").split("\n")
