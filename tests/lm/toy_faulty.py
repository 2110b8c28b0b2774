"""A backend without a model that does what its folder says: opens, hangs, fails, or leaves a process behind."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.lm.engine_wire import Generate, Tokens


class Faulty:
    """Embeds each text as its own process's number."""

    context_length = 100

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def open(cls, folder: Path, threads: int | None, settings: dict[str, Any]) -> Faulty:
        with (folder / "opened").open("a") as file:
            file.write("x")
        if (folder / "hang").exists():
            time.sleep(600)
        if (folder / "fail").exists():
            raise UserError(f"{folder}: no weights")
        if (folder / "helper").exists():
            helper = subprocess.Popen(["sleep", "600"])
            (folder / "helper").write_text(str(helper.pid))
        return cls(folder)

    def pending(self) -> tuple[int, int]:
        return 0, 0

    def add(self, request: Generate) -> None:
        raise UserError("cannot write")

    def cancel(self, number: int) -> None:
        return

    def step(self) -> list[Tokens]:
        return []

    def embed(self, texts: list[str]) -> list[list[float]]:
        return [[float(os.getpid())] for _ in texts]
