"""An engine whose base is shared, in a real worker process, without a model: each answer says which adapter gave it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from treadle.core.errors import UserError
from treadle.lm.adapter import CONFIG, Adapter
from treadle.lm.engine_wire import Generate, LoadAdapter, Tokens
from treadle.lm.worker_engine import WorkerEngine


class Adapting:
    """Answers every token with the alpha of the adapter; keeps a journal of what it did in ``$TOY_JOURNAL``."""

    context_length = 4096

    def __init__(self) -> None:
        self._alphas: dict[int, int] = {}
        self._left: dict[int, tuple[int, int]] = {}

    @classmethod
    def open(cls, folder: Path, threads: int | None, settings: dict[str, Any]) -> Adapting:
        _note("open")
        return cls()

    def load_adapter(self, message: LoadAdapter) -> None:
        if message.rank > 4:
            raise UserError(f"{message.folder}: rank {message.rank}, at most 4")
        read = Adapter(Path(message.folder), message.digest, message.base, message.rank).read()
        self._alphas[message.adapter] = int(json.loads(read[CONFIG])["lora_alpha"])
        _note(f"load {self._alphas[message.adapter]}")

    def drop_adapter(self, adapter: int) -> None:
        _note(f"drop {self._alphas.pop(adapter)}")

    def add(self, request: Generate) -> None:
        self._left[request.number] = (self._alphas[request.adapter], request.max_tokens)

    def cancel(self, number: int) -> None:
        if number in self._left:
            self._left[number] = (self._left[number][0], 0)

    def pending(self) -> tuple[int, int]:
        return len(self._left), 0

    def step(self) -> list[Tokens]:
        time.sleep(0.002)
        found = []
        for number, (token, left) in list(self._left.items()):
            if left < 1:
                found.append(Tokens(number, [], finish="cancelled"))
            else:
                found.append(Tokens(number, [token], finish="length" if left == 1 else None))
            self._left[number] = (token, left - 1)
            if left <= 1:
                del self._left[number]
        return found

    def score_with(self, adapter: int, pairs: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
        return [[-float(self._alphas[adapter])] * len(continuation) for _, continuation in pairs]


class AdaptingEngine(WorkerEngine):
    """As vLLM's: one process for all that have one base."""

    name: ClassVar[str] = "adapting"
    backend: ClassVar[str] = "toy_adapting:Adapting"
    loads_adapters: ClassVar[bool] = True
    shares_base: ClassVar[bool] = True

    @classmethod
    def check(cls, folder: Path) -> None:
        pass


def _note(what: str) -> None:
    with Path(os.environ["TOY_JOURNAL"]).open("a") as file:
        file.write(what + "\n")
