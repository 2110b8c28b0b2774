"""One process for all releases of a base: adapters come and go in it, and no answer is another's."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from apart_release import write_apart, write_spec
from lm.test_adapter import WRONG
from toy_adapting import AdaptingEngine
from treadle.core.errors import UserError
from treadle.lm.engine import Chunk, EngineGone, GenerateRequest

ALPHAS = (70, 71)  # tokens of a letter each


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What the workers did."""
    path = tmp_path / "journal"
    path.touch()
    monkeypatch.setenv("TOY_JOURNAL", str(path))
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return lambda: path.read_text().splitlines()


@pytest.fixture
def releases(tmp_path: Path, tiny_llama: Path) -> list[Path]:
    """Two on one base."""
    return [write_apart(tiny_llama, tmp_path / f"r{alpha}", seed=alpha, alpha=float(alpha)) for alpha in ALPHAS]


async def answer(engine: AdaptingEngine, count: int = 6) -> tuple[str, str | None]:
    chunks: list[Chunk] = [chunk async for chunk in engine.generate(request(count))]
    return "".join(chunk.text for chunk in chunks), chunks[-1].finish_reason


def request(count: int) -> GenerateRequest:
    return GenerateRequest("r", (5, 6), max_tokens=count, ignore_eos=True)


async def is_of(engine: AdaptingEngine, alpha: int) -> bool:
    """Whether this adapter, and no other, answers and scores."""
    (score,) = await engine.score([([5], [6, 7])])
    return score.logprobs == (-alpha, -alpha) and await answer(engine) == (letter(engine, alpha) * 6, "length")


async def comes_back(engine: AdaptingEngine, alpha: int) -> None:
    """Wait until it answers again, as it ought to."""
    while True:
        try:
            assert await is_of(engine, alpha)
        except EngineGone:
            await asyncio.sleep(0.05)
        else:
            return


def letter(engine: AdaptingEngine, alpha: int) -> str:
    return engine.tokenizer.spell(alpha).decode()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def test_two_releases_have_one_process_and_their_own_answers(
    journal: Callable[[], list[str]], releases: list[Path]
) -> None:
    async def work() -> None:
        one, two = await asyncio.gather(*(AdaptingEngine.open(each, threads=1) for each in releases))
        assert one.worker_pid == two.worker_pid is not None
        engines = [(one, 70), (two, 71)] * 30
        said = await asyncio.gather(*(answer(engine, 5 + n % 7) for n, (engine, _) in enumerate(engines)))
        expected = [letter(engine, alpha) * (5 + n % 7) for n, (engine, alpha) in enumerate(engines)]
        assert [text for text, _ in said] == expected
        assert all(await asyncio.gather(*(is_of(engine, alpha) for engine, alpha in engines)))
        with pytest.raises(UserError, match="only generate and score"):
            await one.embed(["a text"])
        together = one.stats().memory_bytes + two.stats().memory_bytes
        await two.close()
        assert together == pytest.approx(one.stats().memory_bytes, rel=0.2)  # each told of its half
        with pytest.raises(EngineGone, match="closed"):
            await answer(two)
        assert await is_of(one, 70)
        await one.close()

    run(work())
    assert sorted(journal()[1:3]) == ["load 70", "load 71"]
    assert (journal()[0], journal()[3:]) == ("open", ["drop 71"])


def test_back_and_forth_starts_nothing(journal: Callable[[], list[str]], releases: list[Path]) -> None:
    async def work() -> None:
        held = await AdaptingEngine.open(releases[0], threads=1)
        first = held.worker_pid
        for turn in range(1, 7):
            following = await AdaptingEngine.open(releases[turn % 2], threads=1)
            assert await is_of(held, ALPHAS[(turn - 1) % 2])
            await held.close()
            held = following
            assert await is_of(held, ALPHAS[turn % 2])
            assert held.worker_pid == first
        await held.close()
        assert not Path(f"/proc/{first}/cmdline").exists() or not Path(f"/proc/{first}/cmdline").read_bytes()
        again = await AdaptingEngine.open(releases[1], threads=1)
        assert again.worker_pid != first
        await again.close()

    run(work())
    assert journal().count("open") == 2
    assert journal().count("drop 70") == 3


def test_another_base_or_other_settings_have_another_process(
    journal: Callable[[], list[str]], releases: list[Path], tmp_path: Path, make_model: Callable[..., Path]
) -> None:
    other = write_apart(make_model(tmp_path / "other", seed=5), tmp_path / "on-other", seed=1, alpha=72.0)

    async def work() -> None:
        engines = [
            await AdaptingEngine.open(releases[0], threads=1),
            await AdaptingEngine.open(other, threads=1),
            await AdaptingEngine.open(releases[1], threads=1, settings={"hang_seconds": 50.0}),
        ]
        assert len({engine.worker_pid for engine in engines}) == 3
        for engine, alpha in zip(engines, (70, 72, 71), strict=True):
            assert await is_of(engine, alpha)
        for engine in engines:
            await engine.close()

    run(work())


def test_a_lost_worker_comes_back_with_all_adapters_in_use(
    journal: Callable[[], list[str]], releases: list[Path]
) -> None:
    async def work() -> None:
        one, two = [await AdaptingEngine.open(each, threads=1) for each in releases]
        third = await AdaptingEngine.open(releases[1], threads=1)  # the same adapter, of another release
        streams = [engine.generate(request(2000)) for engine in (one, two)]
        for stream in streams:
            await anext(stream)
        os.kill(one.worker_pid or 0, signal.SIGKILL)
        for stream in streams:
            assert [chunk async for chunk in stream][-1].finish_reason == "error"
        await comes_back(one, 70)
        await comes_back(two, 71)
        await one.close()
        await two.close()
        while "drop 70" not in journal():
            await asyncio.sleep(0.01)
        shutil.rmtree(releases[0])  # whose base was opened first
        os.kill(third.worker_pid or 0, signal.SIGKILL)
        await comes_back(third, 71)
        await third.close()

    run(work())
    assert [line for line in journal() if not line.startswith("load")] == ["open", "open", "drop 70", "open"]


def test_closing_one_cancels_its_own_requests_alone(journal: Callable[[], list[str]], releases: list[Path]) -> None:
    async def work() -> None:
        one, two = [await AdaptingEngine.open(each, threads=1) for each in releases]
        mine, theirs = [engine.generate(request(400)) for engine in (one, two)]
        await anext(mine)
        await anext(theirs)
        assert (one.stats().running, two.stats().running) == (1, 1)
        await one.close()
        assert [chunk async for chunk in mine][-1].finish_reason == "cancelled"
        rest = [chunk async for chunk in theirs]
        assert rest[-1].finish_reason == "length"
        while two.stats().running:
            await asyncio.sleep(0.01)
        await two.close()

    run(work())


@pytest.mark.parametrize(("wrong", "said"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_a_wrong_one_is_refused_and_harms_nobody(
    journal: Callable[[], list[str]], releases: list[Path], wrong: Callable[[Path], None], said: str
) -> None:
    wrong(releases[1])

    async def work() -> None:
        with pytest.raises(UserError, match=said):
            await AdaptingEngine.open(releases[1], threads=1)
        one = await AdaptingEngine.open(releases[0], threads=1)
        first = one.worker_pid
        with pytest.raises(UserError, match=said):
            await AdaptingEngine.open(releases[1], threads=1)
        assert await is_of(one, 70)
        assert one.worker_pid == first
        await one.close()

    run(work())


def test_too_high_a_rank_is_refused_by_who_runs_it(
    journal: Callable[[], list[str]], releases: list[Path], tmp_path: Path, tiny_llama: Path
) -> None:
    high = write_apart(tiny_llama, tmp_path / "high", seed=3, rank=5)

    async def work() -> None:
        one = await AdaptingEngine.open(releases[0], threads=1)
        with pytest.raises(UserError, match="rank 5, at most 4"):
            await AdaptingEngine.open(high, threads=1)
        write_spec(high, rank=4)  # a release that says less than there is
        with pytest.raises(UserError, match="its rank is 5, and the release says 4"):
            await AdaptingEngine.open(high, threads=1)
        assert await is_of(one, 70)
        await one.close()

    run(work())


def test_an_adapter_that_is_gone_when_the_worker_comes_back_is_answered_by_nobody(
    journal: Callable[[], list[str]], releases: list[Path]
) -> None:
    async def work() -> None:
        one, two = [await AdaptingEngine.open(each, threads=1) for each in releases]
        shutil.rmtree(releases[1] / "adapter")
        os.kill(one.worker_pid or 0, signal.SIGKILL)
        await comes_back(one, 70)
        with pytest.raises(EngineGone, match="adapter is not loaded"):
            await answer(two)
        await one.close()
        await two.close()

    run(work())
