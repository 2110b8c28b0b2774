"""A server that follows: who ought to answer is asked again and again, and the gateway's table made so.

A release that is wanted and not open is opened in an engine of its own while the others go on answering; then the table
is exchanged, which no request notices. One that cannot be opened changes nothing for those who ask: the champion before
it stays, somebody is told, and it is tried again after a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from treadle.core.errors import TreadleError, UserError
from treadle.lm.upstream_address import upstreams_of
from treadle.record.deployment import Routing
from treadle.record.shadow import ShadowSettings
from treadle.serve.gateway import Gateway
from treadle.serve.release import Serving
from treadle.serve.served_model import ServedModel
from treadle.serve.table import Shadow, Table

KEEP_SECONDS = 600.0
_INTERVAL = 0.5  # seconds between two looks
_FIRST_PAUSE = 5.0  # seconds before a release that could not be opened is tried again; doubled each time
_LONGEST_PAUSE = 300.0
_TOLD_AGAIN = 600.0  # seconds until a server behind us that fails again and again is told of again
_NOBODY: frozenset[str] = frozenset()
logger = logging.getLogger("treadle.serve")


@dataclass(frozen=True, slots=True)
class View:
    """What a look found. ``routing`` is None when nothing may answer; ``gone`` are releases that were erased;
    ``aliases`` by release. Releases are named by digest."""

    routing: Routing | None
    gone: frozenset[str] = _NOBODY
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Guide(Protocol):
    """What a follower follows and reports to. All but `open` block, and are called in a thread."""

    def look(self, held: frozenset[str]) -> View:
        """Who ought to answer; ``held`` are the releases that are open."""
        ...

    async def open(self, release: str) -> Serving:
        """Open an engine. Raises ``TreadleError`` when it cannot be."""
        ...

    def begin(self, endpoint: str) -> None:
        """The server is reachable at this URL."""
        ...

    def report(self, shares: Mapping[str, float]) -> None:
        """These answer from now on, and nothing else: shares by release."""
        ...

    def cannot(self, release: str, reason: str) -> None:
        """This one is wanted and cannot be opened."""
        ...

    def failing(self, release: str, place: str) -> None:
        """A server behind this one is left alone, for it fails; ``place`` is its host and port."""
        ...

    def end(self) -> None:
        """The server answers no longer."""
        ...


@dataclass(slots=True)
class _Failure:
    again: float
    pause: float
    told: bool = False


class Follower:
    """One for each model of a server; used in its event loop. `start`, then `following` while the server answers."""

    def __init__(
        self,
        guide: Guide,
        *,
        keep_seconds: float = KEEP_SECONDS,
        on_switch: Callable[[Table], None] | None = None,
        shadow: ShadowSettings | None = None,
        model: ServedModel | None = None,
    ) -> None:
        """``keep_seconds``: how long a champion stays open after another took its place. ``on_switch`` is told of every
        table in which something else answers. ``shadow``: of how many requests it gets a copy. ``model``: the one that
        is followed, the gateway's first by default."""
        self._guide = guide
        self._keep = keep_seconds
        self._on_switch = on_switch
        self._shadow = shadow
        self._model = model
        self._opening: dict[str, asyncio.Task[Serving]] = {}
        self._opened: dict[str, Serving] = {}
        self._failed: dict[str, _Failure] = {}
        self._told: dict[tuple[str, str], float] = {}
        self._spare_until = 0.0
        self._reported: Mapping[str, float] | None = None

    async def start(self, gateway: Gateway) -> None:
        """Open the champion, or the fallback where that cannot be. Raises ``UserError`` when there is none, and what
        opening it raises."""
        view = await asyncio.to_thread(self._guide.look, _NOBODY)
        if view.routing is None:
            raise UserError("nothing has been promoted yet; run: treadle run")
        try:
            champion = await self._open(view.routing.champion, gateway)
        except TreadleError as error:
            if view.routing.fallback is None:
                raise
            fallback = await self._open(view.routing.fallback, gateway)
            await self._note_failure(view.routing.champion, error)
            gateway.replace(Table(fallback=_called(fallback, view)), self._model)
        else:
            gateway.replace(Table(_called(champion, view)), self._model)

    @asynccontextmanager
    async def following(self, gateway: Gateway, endpoint: str) -> AsyncIterator[None]:
        """Follow for as long as the block lasts."""
        await asyncio.to_thread(self._guide.begin, endpoint)
        with suppress(TreadleError):  # it is said again below
            await self._report(self._of(gateway).table)
        task = asyncio.create_task(self._run(gateway), name="treadle-follower")
        try:
            yield
        finally:
            task.cancel()
            for opening in self._opening.values():
                opening.cancel()
            opened = await asyncio.gather(task, *self._opening.values(), return_exceptions=True)
            for serving in [*opened[1:], *self._opened.values()]:
                if isinstance(serving, Serving):
                    await serving.engine.close()
            with suppress(TreadleError):
                await asyncio.to_thread(self._guide.end)

    def _of(self, gateway: Gateway) -> ServedModel:
        return self._model or gateway.first

    async def _open(self, release: str, gateway: Gateway) -> Serving:
        """Where a server has several models, by its own name alone: a key for another must not be good for it."""
        serving = await self._guide.open(release)
        name, found = self._of(gateway).name, serving.release.base
        if name and found != name:
            await serving.engine.close()
            raise UserError(f"it was made as a release of {found}, and is to answer for {name}; release it anew")
        return serving

    async def _run(self, gateway: Gateway) -> None:
        told = ""
        while True:
            try:
                await self._once(gateway)
                told = ""
            except Exception as error:  # whatever it is, what answers goes on answering
                said = f"{type(error).__name__}: {error}"
                if said != told:
                    logger.warning("who ought to answer%s cannot be found out: %s", self._for(gateway), said)
                    told = said
                await asyncio.sleep(_INTERVAL)

    def _for(self, gateway: Gateway) -> str:
        name = self._of(gateway).name
        return f" for {name}" if name else ""

    async def _once(self, gateway: Gateway) -> None:
        model = self._of(gateway)
        held = frozenset(each.release.digest for each in model.table.held())
        view = await asyncio.to_thread(self._guide.look, held)
        wanted = view.routing.all() if view.routing else set()
        await self._collect(wanted)
        self._open_missing(wanted - held, gateway)
        self._exchange(gateway, view)
        await self._report(model.table)
        await self._watch(model.table)
        if self._opening:  # switch as soon as one is there
            await asyncio.wait(self._opening.values(), timeout=_INTERVAL, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(_INTERVAL)

    async def _collect(self, wanted: set[str]) -> None:
        """Take what has been opened, and stop opening what nobody wants any more."""
        for release, task in list(self._opening.items()):
            if not task.done():
                if release not in wanted:
                    task.cancel()
                continue
            del self._opening[release]
            if task.cancelled():
                continue
            error = task.exception()
            if error is None:
                self._opened[release] = task.result()
                self._failed.pop(release, None)
            elif release in wanted:
                await self._note_failure(release, error)
        for release in set(self._opened) - wanted:
            await self._opened.pop(release).engine.close()
        for release in set(self._failed) - wanted:
            del self._failed[release]

    def _open_missing(self, missing: set[str], gateway: Gateway) -> None:
        now = asyncio.get_running_loop().time()
        for release in missing - set(self._opening) - set(self._opened):
            failure = self._failed.get(release)
            if failure is None or failure.again <= now:
                self._opening[release] = asyncio.create_task(self._open(release, gateway), name=f"opening {release}")

    async def _note_failure(self, release: str, error: BaseException) -> None:
        failure = self._failed.setdefault(release, _Failure(0.0, _FIRST_PAUSE / 2))
        failure.pause = min(_LONGEST_PAUSE, 2 * failure.pause)
        failure.again = asyncio.get_running_loop().time() + failure.pause
        logger.warning("release %s cannot be opened, again in %.0f s: %s", release, failure.pause, error)
        if not failure.told:
            await asyncio.to_thread(self._guide.cannot, release, type(error).__name__)
            failure.told = True

    def _exchange(self, gateway: Gateway, view: View) -> None:
        """Make the table what it ought to be, as far as the engines are open."""
        before = self._of(gateway).table
        table = self._table(before, view)
        if table == before:
            return
        for serving in table.held():
            self._opened.pop(serving.release.digest, None)
        gateway.replace(table, self._model)
        if self._on_switch is not None and _roles(table) != _roles(before):
            self._on_switch(table)

    def _table(self, before: Table, view: View) -> Table:
        if view.routing is None:
            return Table()
        there = {each.release.digest: each for each in [*before.held(), *self._opened.values()]}
        there = {digest: _called(each, view) for digest, each in there.items() if digest not in view.gone}
        former = there.get(before.champion.release.digest) if before.champion else None
        champion = there.get(view.routing.champion, former)
        canary = there.get(view.routing.canary) if view.routing.canary else None
        table = Table(champion)
        if canary is not None and canary is not champion and champion is not None:
            table = Table(champion, canary, view.routing.share)
        fallback = there.get(view.routing.fallback) if view.routing.fallback else None
        shadow = there.get(view.routing.shadow) if view.routing.shadow else None
        table = replace(
            table,
            fallback=None if fallback is champion else fallback,
            shadow=None if shadow is champion else self._shadowing(shadow),
        )
        return self._with_spare(table, before, there)

    def _shadowing(self, serving: Serving | None) -> Shadow | None:
        rules = self._shadow
        if serving is None or rules is None:
            return None
        return Shadow(serving, rules.share, rules.waiting, rules.at_once)

    def _with_spare(self, table: Table, before: Table, there: Mapping[str, Serving]) -> Table:
        """Keep the champion that was replaced, or the one kept already until its time is over."""
        now = asyncio.get_running_loop().time()
        answering = {each.release.digest for each in table.answering()}
        last = before.champion.release.digest if before.champion else None
        if last is not None and last not in answering and last in there and table.champion is not None:
            self._spare_until = now + self._keep
            return replace(table, spare=there[last]) if self._keep else table
        kept = before.spare.release.digest if before.spare else None
        if kept is not None and kept not in answering and kept in there and now < self._spare_until:
            return replace(table, spare=there[kept])
        return table

    async def _watch(self, table: Table) -> None:
        """Tell of servers behind a release that are left alone."""
        now = asyncio.get_running_loop().time()
        for serving in table.held():
            for each in upstreams_of(serving.engine):
                name = (serving.release.digest, each.place)
                if each.breaker != "closed" and now - self._told.get(name, -_TOLD_AGAIN) >= _TOLD_AGAIN:
                    self._told[name] = now
                    await asyncio.to_thread(self._guide.failing, *name)

    async def _report(self, table: Table) -> None:
        shares = _shares(table)
        if shares != (self._reported or {}):  # nothing, before anything, is no news
            await asyncio.to_thread(self._guide.report, shares)
            self._reported = shares


class Followers:
    """Those of all models of a server, the first's first; what befalls one is nothing to the others."""

    def __init__(self, followers: Sequence[Follower]) -> None:
        self._followers = followers

    async def start(self, gateway: Gateway) -> None:
        """Open what each has. Where one has nothing, or it cannot be opened, the others answer, and it is tried again.
        Raises what the first raises where none has anything that answers."""
        starting = (each.start(gateway) for each in self._followers)
        ended = await asyncio.gather(*starting, return_exceptions=True)  # at once: one may take long
        for error, model in zip(ended, gateway.models, strict=True):
            if error is not None and len(ended) > 1:
                said = error if isinstance(error, TreadleError) else f"{type(error).__name__}: {error}"
                logger.warning("%s does not answer yet: %s", model.name, said)
        if ended[0] is not None and None not in ended:
            raise ended[0]

    @asynccontextmanager
    async def following(self, gateway: Gateway, endpoint: str) -> AsyncIterator[None]:
        """Follow for as long as the block lasts."""
        async with AsyncExitStack() as stack:
            for each in self._followers:
                await stack.enter_async_context(each.following(gateway, endpoint))
            yield


def _called(serving: Serving, view: View) -> Serving:
    """With the aliases it goes by now."""
    aliases = view.aliases.get(serving.release.digest, serving.release.aliases)
    if aliases == serving.release.aliases:
        return serving
    return replace(serving, release=replace(serving.release, aliases=aliases))


def _shares(table: Table) -> dict[str, float]:
    if table.champion is None and table.fallback is not None:
        return {table.fallback.release.digest: 1.0}
    return {each.release.digest: table.share_of(each) for each in table.answering()}


def _roles(table: Table) -> tuple[dict[str, float], str | None, str | None]:
    """What is told when it changes."""
    shadow = table.shadow.serving if table.shadow is not None else None
    fallback, copied = (None if each is None else each.release.digest for each in (table.fallback, shadow))
    return _shares(table), fallback, copied
