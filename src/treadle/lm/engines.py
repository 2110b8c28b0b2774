"""Opening an engine by name, and asking one without an event loop of one's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from treadle.core import plugins
from treadle.core.errors import MissingExtra, UserError

if TYPE_CHECKING:
    from treadle.lm.engine import ClassScores, Engine, EngineStats, Extract, GenerateRequest, Score, TaggedSpan

GROUP = "treadle.engines"
AUTO = "auto"
_AT_ONCE = 64  # requests in flight; more would only wait in the engine
_READ_AT_ONCE = 16  # texts a call, so that progress can be told
_SCORED_AT_ONCE = 64  # pairs: the more, the more begin alike

T = TypeVar("T")


def find_engine(name: str, folder: Path) -> type[Engine]:
    """The engine called ``name``; ``auto`` is the preferred one that is installed and can open ``folder``."""
    from treadle.lm.adapter import adapter_of

    apart = adapter_of(folder) is not None
    if name != AUTO:
        named = cast("type[Engine]", plugins.load(GROUP, name).value)
        if apart and not _loads_adapters(named):
            raise UserError(
                f"engine {name} loads no adapters, and the release in {folder} keeps one beside its base; choose"
                " transformers or vllm, or set deploy.adapter: merged"
            )
        return named
    from treadle.lm.model_folder import model_folder

    model = model_folder(folder)
    suiting = []
    for known in plugins.names(GROUP):
        with suppress(UserError):  # somebody's engine that cannot be loaded is not the one
            kind = plugins.load(GROUP, known).value
            if hasattr(kind, "suits") and kind.suits(model) and (_loads_adapters(kind) or not apart):
                suiting.append(kind)
    if not suiting:
        raise UserError(
            f"{model}: no installed engine can run what is in it (of {', '.join(plugins.names(GROUP))});"
            " expected a config.json beside model.gguf or safetensors; `treadle doctor` says what is missing"
        )
    return cast("type[Engine]", max(suiting, key=lambda kind: kind.preference))


def serves_gguf(name: str) -> bool:
    """Whether the engine called ``name`` runs GGUF files here; for ``auto``, whether any installed one does.

    True where that cannot be found out for want of a package, which opening the engine will name.
    """
    for kind in plugins.names(GROUP) if name == AUTO else [name]:
        try:
            if getattr(plugins.load(GROUP, kind).value, "reads_gguf", False):
                return True
        except (ImportError, MissingExtra):
            return True
        except UserError:  # somebody's engine that cannot be loaded is not the one
            if name != AUTO:
                raise
    return False


def check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """``UserError`` for settings that the engine called ``name`` does not have. One that is not installed here is not
    asked: opening it will say so."""
    try:
        read = getattr(plugins.load(GROUP, name).value, "read_settings", None)
    except (ImportError, MissingExtra):
        return
    if read is not None:
        read(settings)


def loads_adapters(name: str) -> bool:
    """Whether the engine called ``name`` serves a release whose adapter is apart; for ``auto``, whether any does."""
    try:
        return name == AUTO or _loads_adapters(plugins.load(GROUP, name).value)  # transformers does
    except (ImportError, MissingExtra):  # which opening the engine will name
        return True


def _loads_adapters(kind: object) -> bool:
    """One that does not say so would open the base alone, and answer without a word of it."""
    return bool(getattr(kind, "loads_adapters", False))


async def open_engine(
    name: str, folder: Path, *, threads: int | None = None, settings: dict[str, Any] | None = None, here: bool = False
) -> Engine:
    """Open ``folder`` (a model's or a release's) with the engine called ``name`` or ``auto``.

    ``here``: in this process, by engines that have a way (``open_here``).
    """
    kind = find_engine(name, folder)
    opening = getattr(kind, "open_here", kind.open) if here else kind.open
    return cast("Engine", await opening(folder, threads=threads, settings=settings))


class BlockingEngine:
    """An engine for synchronous code: a context manager around one, with its event loop in a thread."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        threads: int | None = None,
        settings: dict[str, Any] | None = None,
        here: bool = False,
    ) -> None:
        """As ``open_engine``; nothing is opened before ``with``."""
        self._opening = partial(open_engine, name, folder, threads=threads, settings=settings, here=here)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name="treadle-engine", daemon=True)
        self._engine: Engine | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._running.wait()
        try:
            self._engine = self._wait(self._opening())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._wait(self._opened.close())
        finally:
            self._end()

    @property
    def name(self) -> str:
        """The engine's, so what ``auto`` came to."""
        return self._opened.name

    @property
    def context_length(self) -> int:
        """In tokens."""
        return self._opened.context_length

    def generate_all(
        self, requests: Sequence[GenerateRequest], on_progress: Callable[[int, int], None] | None = None
    ) -> list[str]:
        """The answers' texts, in the requests' order; ``on_progress`` gets (done, all).

        ``EngineGone`` when the process is lost meanwhile.
        """
        return self._wait(_generate_all(self._opened, requests, on_progress))

    def score(
        self,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Score]:
        """As ``Engine.score``."""
        return self._wait(_in_parts(self._opened.score, pairs, on_progress, _SCORED_AT_ONCE))

    def embed(self, texts: Sequence[str], on_progress: Callable[[int, int], None] | None = None) -> list[list[float]]:
        """As ``Engine.embed``."""
        return self._wait(_in_parts(self._opened.embed, texts, on_progress))

    def classify(
        self, texts: Sequence[str], on_progress: Callable[[int, int], None] | None = None
    ) -> list[ClassScores]:
        """As ``Engine.classify``."""
        return self._wait(_in_parts(self._opened.classify, texts, on_progress))

    def tag(
        self, texts: Sequence[str], on_progress: Callable[[int, int], None] | None = None
    ) -> list[list[TaggedSpan]]:
        """As ``Engine.tag``."""
        return self._wait(_in_parts(self._opened.tag, texts, on_progress))

    def extract(
        self, pairs: Sequence[tuple[str, str]], on_progress: Callable[[int, int], None] | None = None
    ) -> list[Extract]:
        """As ``Engine.extract``."""
        return self._wait(_in_parts(self._opened.extract, pairs, on_progress))

    def stats(self) -> EngineStats:
        """As ``Engine.stats``."""
        return self._opened.stats()

    @property
    def _opened(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("BlockingEngine is used outside its `with`")
        return self._engine

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run in the loop's thread; Ctrl-C here cancels it there."""
        if self._loop is None:
            work.close()
            raise RuntimeError("BlockingEngine is used outside its `with`")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            self._running.set()
            self._loop.run_forever()

    def _end(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


async def _generate_all(
    engine: Engine, requests: Sequence[GenerateRequest], on_progress: Callable[[int, int], None] | None
) -> list[str]:
    from treadle.lm.engine import EngineGone

    room = asyncio.Semaphore(_AT_ONCE)
    done = 0

    async def answer(request: GenerateRequest) -> str:
        nonlocal done
        pieces: list[str] = []
        async with room, aclosing(cast("Any", engine.generate(request))) as chunks:
            async for chunk in chunks:
                pieces.append(chunk.text)
                if chunk.finish_reason in ("error", "cancelled"):
                    raise EngineGone(
                        f"request {request.id}: the engine's process was lost while it answered; run it again"
                    )
        done += 1
        if on_progress is not None:
            on_progress(done, len(requests))
        return "".join(pieces)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answer(request)) for request in requests]
    except* Exception as errors:  # one says it all
        raise _first(errors) from None
    return [task.result() for task in tasks]


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _in_parts(
    ask: Callable[[Sequence[Any]], Coroutine[Any, Any, list[T]]],
    items: Sequence[Any],
    on_progress: Callable[[int, int], None] | None,
    at_once: int = _READ_AT_ONCE,
) -> list[T]:
    found: list[T] = []
    size = at_once if on_progress is not None else max(1, len(items))
    for start in range(0, len(items), size):
        found += await ask(items[start : start + size])
        if on_progress is not None:
            on_progress(len(found), len(items))
    return found
