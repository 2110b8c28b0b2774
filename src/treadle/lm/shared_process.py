"""One process for several releases: their base is loaded once, and the adapter of each into the process that runs.

They meet by their base's digest, the engine and its settings. The first starts the process and the last ends it;
between them an adapter comes and goes without another start. A worker that is lost comes back with all adapters in use.
Each release has its own `AdapterProcess`, which puts its adapter's number on whatever it asks: no answer is another's.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

import msgspec

from treadle.core.errors import UserError
from treadle.lm.adapter import Adapter, base_files
from treadle.lm.engine import EngineGone, EngineStats
from treadle.lm.engine_process import Asked, EngineProcess, Lost, answer_of
from treadle.lm.engine_wire import DropAdapter, Generate, LoadAdapter, Ready, Request, Score, Values

_CLOSED = "the engine was closed"


class _SharedProcess:
    """The process, and what is loaded into it."""

    def __init__(self, process: EngineProcess, ended: Callable[[], object]) -> None:
        self.process = process
        self.members: set[AdapterProcess] = set()
        self._ended = ended
        self._lock = asyncio.Lock()
        self._ready: Ready | None = None
        self._numbers = itertools.count(1)  # none is given twice, so that nothing late is taken for another's
        self._folders: dict[AdapterProcess, Path] = {}  # of bases, all of them alike
        self._checked: set[frozenset[tuple[str, int, int, int, int]]] = set()
        self._loaded: dict[str, LoadAdapter] = {}  # by digest
        self._users: dict[str, list[AdapterProcess]] = {}

    async def enter(self, member: AdapterProcess) -> tuple[Ready, int]:
        """Have the member's adapter loaded, and the base where this is the first; its number there."""
        adapter, folder = member.adapter, member.folder
        files = _identity(folder)
        if files not in self._checked:  # a store's releases share the files of their base
            await asyncio.to_thread(adapter.check_base, folder)
            self._checked.add(files)
        self._folders[member] = folder
        async with self._lock:
            if self._ready is None:
                self._reopen()
                self._ready = await self.process.start()
            if adapter.digest not in self._loaded:
                await self._load(adapter)
            self._users.setdefault(adapter.digest, []).append(member)
            return self._ready, self._loaded[adapter.digest].adapter

    async def leave(self, member: AdapterProcess) -> None:
        """Unload the member's adapter, unless another has the same; end the process where this is the last."""
        self.members.discard(member)
        self._folders.pop(member, None)
        if not self.members:
            self._ended()
            await self.process.close()
            return
        async with self._lock:
            digest = member.adapter.digest
            users = self._users.get(digest, [])
            if member in users:
                users.remove(member)
            if users:
                folder = str(users[0].adapter.folder)
                self._loaded[digest] = msgspec.structs.replace(self._loaded[digest], folder=folder)
            elif digest in self._loaded:
                self._unload(digest)
            self._reopen()

    async def _load(self, adapter: Adapter) -> None:
        number = next(self._numbers)
        self._loaded[adapter.digest] = message = LoadAdapter(
            0, number, str(adapter.folder), adapter.digest, adapter.base, adapter.rank
        )
        self._reopen()  # before it is loaded: a worker may be lost meanwhile
        try:
            await self.process.call(lambda asked: msgspec.structs.replace(message, number=asked))
        except BaseException:
            self._unload(adapter.digest)
            self._reopen()
            raise

    def _unload(self, digest: str) -> None:
        self._users.pop(digest, None)
        self.process.tell(DropAdapter(self._loaded.pop(digest).adapter))

    def _reopen(self) -> None:
        """Have the next worker open what is in use now, from folders that are still there."""
        if self._folders:
            self.process.reopen_with(next(iter(self._folders.values())), list(self._loaded.values()))


def _identity(folder: Path) -> frozenset[tuple[str, int, int, int, int]]:
    """Tells a base's files from all others, without reading them."""
    found = ((path.relative_to(folder).as_posix(), path.stat()) for path in base_files(folder))
    return frozenset((name, each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns) for name, each in found)


class AdapterProcess:
    """What an `EngineProcess` is to its engine, for one release of several that share one."""

    def __init__(self, shared: _SharedProcess, adapter: Adapter, folder: Path) -> None:
        self.adapter = adapter
        self.folder = folder
        self._shared = shared
        self._number = 0
        self._asked: dict[int, Asked] = {}
        self._closed = False
        shared.members.add(self)

    async def start(self) -> Ready:
        """As ``EngineProcess.start``; ``UserError`` also for an adapter that cannot be loaded."""
        ready, self._number = await self._shared.enter(self)
        return ready

    @property
    def pid(self) -> int | None:
        """As ``EngineProcess.pid``."""
        return self._shared.process.pid

    def stats(self) -> EngineStats:
        """As ``EngineProcess.stats``: this one's requests, and its part of the memory."""
        if self._closed:
            raise EngineGone(_CLOSED)
        found = self._shared.process.stats()
        mine, all_of_them = len(self._asked), found.running + found.queued
        queued = mine * found.queued // all_of_them if all_of_them else 0
        return EngineStats(mine - queued, queued, found.memory_bytes // max(1, len(self._shared.members)))

    async def ask(self, make: Callable[[int], Request]) -> Asked:
        """As ``EngineProcess.ask``, by this adapter; ``UserError`` for what the base alone would answer."""

        def by_adapter(number: int) -> Request:
            message = make(number)
            if not isinstance(message, Generate | Score) or not self._number:
                raise UserError("adapters that are loaded hot only generate and score; choose engine: transformers")
            message.adapter = self._number
            return message

        if self._closed:
            raise EngineGone(_CLOSED)
        asked = await self._shared.process.ask(by_adapter)
        if self._closed:  # while it waited for a worker
            self._shared.process.release(asked)
            raise EngineGone(_CLOSED)
        self._asked[asked.number] = asked
        return asked

    def release(self, asked: Asked) -> None:
        """As ``EngineProcess.release``."""
        self._asked.pop(asked.number, None)
        self._shared.process.release(asked)

    async def call(self, make: Callable[[int], Request]) -> Values:
        """As ``EngineProcess.call``."""
        return await answer_of(self, make)

    async def close(self) -> None:
        """Leave the process to the others, or end it where there are none. Requests in flight are told."""
        if self._closed:
            return
        self._closed = True
        for asked in list(self._asked.values()):
            asked.answers.put_nowait(Lost(_CLOSED, closed=True))
            self.release(asked)
        await self._shared.leave(self)


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, _SharedProcess]] = WeakKeyDictionary()


def join(key: Hashable, make: Callable[[], EngineProcess], adapter: Adapter, folder: Path) -> AdapterProcess:
    """A place for an adapter in this event loop's process for ``key``; ``make`` makes one where there is none.

    ``folder`` holds the adapter's base. The caller closes it, whether or not it could be started.
    """
    known = _shared.setdefault(asyncio.get_running_loop(), {})
    if key not in known:
        known[key] = _SharedProcess(make(), partial(known.pop, key))
    return AdapterProcess(known[key], adapter, folder)
