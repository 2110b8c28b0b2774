"""An engine's process in trouble that does not end with the process: what it left, what hangs, what comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from treadle.core.errors import TreadleError
from treadle.lm import engine_process
from treadle.lm.engine import EngineGone
from treadle.lm.engine_process import EngineProcess
from treadle.lm.engine_wire import Embed


@asynccontextmanager
async def started(folder: Path, hang_seconds: float = 60) -> AsyncIterator[EngineProcess]:
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = EngineProcess(
        "toy_faulty:Faulty",
        folder,
        threads=1,
        settings={},
        environment={"PYTHONPATH": paths},
        hang_seconds=hang_seconds,
    )
    await process.start()
    try:
        yield process
    finally:
        await process.close()


async def pid_of(process: EngineProcess) -> int:
    return int((await process.call(lambda number: Embed(number, ["a"]))).rows[0][0])


async def comes_back(process: EngineProcess, seconds: float = 20) -> int:
    ends = time.monotonic() + seconds
    while True:
        try:
            return await pid_of(process)
        except EngineGone:
            assert time.monotonic() < ends
            await asyncio.sleep(0.05)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def alive(pid: int) -> bool:
    try:
        return " Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2][:3]
    except OSError:
        return False


def until(true: Callable[[], object], seconds: float = 10) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.mark.parametrize("closed", [False, True])
def test_what_a_worker_has_started_ends_with_it_and_holds_nobody_up(tmp_path: Path, closed: bool) -> None:
    (tmp_path / "helper").touch()

    async def work() -> None:
        async with started(tmp_path) as process:
            helper = int((tmp_path / "helper").read_text())
            first = await pid_of(process)
            assert alive(helper)
            if not closed:
                os.kill(first, signal.SIGKILL)
                began = time.monotonic()
                assert await comes_back(process) != first
                assert time.monotonic() - began < 5
                until(lambda: not alive(helper))
        until(lambda: not alive(int((tmp_path / "helper").read_text())))

    run(work())


def test_a_worker_that_hangs_while_it_loads_again_is_replaced(tmp_path: Path) -> None:
    async def work() -> None:
        async with started(tmp_path, hang_seconds=0.5) as process:
            first = await pid_of(process)
            (tmp_path / "hang").touch()
            os.kill(first, signal.SIGKILL)
            while (tmp_path / "opened").read_text() != "xx":
                await asyncio.sleep(0.02)
            (tmp_path / "hang").unlink()
            assert await comes_back(process) != first

    run(work())


def test_what_cannot_be_opened_is_told_at_once_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_process, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(engine_process, "_LATER", 0.3)

    async def work() -> None:
        async with started(tmp_path) as process:
            (tmp_path / "fail").touch()
            os.kill(await pid_of(process), signal.SIGKILL)
            with pytest.raises(EngineGone, match=r"in 5 attempts .*no weights"):
                await asyncio.sleep(0.05)
                await pid_of(process)
            for _ in range(30):  # also while it is tried again
                with pytest.raises(EngineGone):
                    process.stats()
                await asyncio.sleep(0.02)
            (tmp_path / "fail").unlink()
            await comes_back(process)
            process.stats()

    run(work())


def test_what_is_too_large_to_be_sent_leaves_nothing_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with started(tmp_path, hang_seconds=0.5) as process:
            first = await pid_of(process)
            monkeypatch.setattr("treadle.lm.engine_wire._MAX_FRAME", 1000)
            with pytest.raises(TreadleError, match="at most 1000"):
                await process.call(lambda number: Embed(number, ["a" * 2000]))
            monkeypatch.undo()
            assert process.stats().queued == 0
            await asyncio.sleep(1.2)
            assert await pid_of(process) == first

    run(work())
