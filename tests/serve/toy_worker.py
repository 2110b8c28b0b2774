"""An engine in a real worker process that answers with the prompt's own tokens, whatever else it works on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from treadle.lm.engine_wire import Generate, Tokens
from treadle.lm.worker_engine import WorkerEngine


class Echo:
    """Runs in the worker: one token of every request a step."""

    context_length = 4096

    def __init__(self) -> None:
        self._left: dict[int, list[int]] = {}

    @classmethod
    def open(cls, folder: Path, threads: int | None, settings: dict[str, Any]) -> Echo:
        return cls()

    def add(self, request: Generate) -> None:
        self._left[request.number] = [i for i in reversed(request.prompt_ids) if i not in request.stop_ids]

    def cancel(self, number: int) -> None:
        self._left.pop(number, None)

    def pending(self) -> tuple[int, int]:
        return len(self._left), 0

    def step(self) -> list[Tokens]:
        time.sleep(0.002)
        found = []
        for number, left in list(self._left.items()):
            found.append(Tokens(number, [left.pop()], finish=None if left else "length"))
            if not left:
                del self._left[number]
        return found


class EchoEngine(WorkerEngine):
    name = "echo"
    backend = "toy_worker:Echo"

    @classmethod
    def check(cls, folder: Path) -> None:
        pass
