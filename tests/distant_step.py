"""A step that another machine runs in tests."""

from __future__ import annotations

import os
import sys
import time

from treadle.core.artifacts import Artifact
from treadle.core.errors import UserError
from treadle.core.runs import Run
from treadle.core.steps import step


@step(name="distant.join", version=1, packages=("blake3",), place="develop.on")
def join(first: Artifact, others: tuple[Artifact, ...], *, word: str, seed: int, run: Run) -> Artifact:
    """All files one after the other, and where it was done."""
    run.log(1, loss=0.5)
    run.progress(1, 2, "steps", "half")
    sys.stdout.write("a library says something\n")
    if word == "refuse":
        raise UserError("word: refuse is not for us; take another")
    if word == "wait":
        (run.folder / "waits").write_text(str(os.getpid()))
        time.sleep(60)
    parts = [(each.path() / name).read_bytes() for each in (first, *others) for name in ("text",)]
    with run.create(Artifact) as made:
        (made.path / "text").write_bytes(b" ".join([*parts, word.encode(), str(seed).encode()]))
        run.summary(parts=len(parts))
        return made.commit()
