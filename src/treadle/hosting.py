"""Several projects behind one server (``deploy.also_serve``): a model by the name of each.

The first project has the server: its address, its keys, budgets and limits. What answers for a model, and the record
that its requests go to, are those of its own project, which is followed by itself. A project that cannot be opened now,
for its database is away, is tried again and again, and the others answer meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from treadle.asking import find_release
from treadle.core.config import load
from treadle.core.errors import TreadleError, UserError
from treadle.lm.own_model import named_class
from treadle.project import FILE, File, Project, ledger_of, open_folder, store_folder
from treadle.record.feedback import Feedback
from treadle.record.interaction import Interaction
from treadle.record.release import Release
from treadle.serve.following import View
from treadle.serve.release import Serving
from treadle.serve.served_model import ServedModel
from treadle.stages.deploy.serving import FindRelease, RecordGuide, bound_database

_SETTING = "deploy.also_serve"
_AGAIN = 5.0  # seconds before a project that could not be opened is tried again
Tell = Callable[[str], object]


@dataclass(frozen=True)
class Neighbor:
    """Another project whose model the server answers for."""

    file: File
    model: ServedModel
    guide: NeighborGuide


def guide_of(project: Project, tell: Tell, *, fixed: Release | None = None, apart: bool = False) -> RecordGuide:
    """What a server follows of a project, with the releases that stand beside the champion; ``fixed`` is followed
    instead. ``tell`` hears of names that stand for nothing yet; ``apart``: it is not the project that is open."""
    settings = project.file.deploy
    shadow = settings.shadow.release if settings.shadow else None
    return RecordGuide(
        project.record,
        fixed,
        fallback=_finder(project, "fallback", settings.fallback, tell),
        shadow=_finder(project, "shadow", shadow, tell),
        project=project.folder if apart else None,
        threads=settings.threads,
    )


@contextmanager
def neighbors_of(project: Project, tell: Tell, keyed: Callable[[], bool]) -> Iterator[list[Neighbor]]:
    """Those that the project's file names, each opened when it can be and closed when the block ends. ``keyed`` says
    whether the server asks for a key. ``UserError`` where a folder is no project's, or two cannot stand side by
    side."""
    found: list[Neighbor] = []
    stack = ExitStack()
    known = [(project.folder, project.file)]
    for named in project.file.deploy.also_serve:
        folder = (project.folder / named).resolve()
        file = _file_of(named, folder)
        for other in known:
            _check_pair(named, (folder, file), other)
        known.append((folder, file))
        recording = file.monitor.recording(file.govern.purpose)
        model = ServedModel(file.name, _NotOpen(file.name), recording, sticky=file.deploy.sticky)
        guide = NeighborGuide(folder, file, model, tell, keyed)
        stack.callback(guide.close)
        found.append(Neighbor(file, model, guide))
    with stack:
        yield found


def _file_of(named: str, folder: Path) -> File:
    if not (folder / FILE).is_file():
        raise UserError(f"{_SETTING}: there is no {FILE} in {named}; expected the folder of another project")
    try:
        return load(folder / FILE, File)
    except UserError as error:
        raise UserError(f"{_SETTING}: {named}: {error}") from None


def _check_pair(named: str, new: tuple[Path, File], other: tuple[Path, File]) -> None:
    (_, file), (other_folder, other_file) = new, other
    if file.name == other_file.name:
        raise UserError(
            f"{_SETTING}: the project in {named} is called {file.name}, as the one in {other_folder} is; requests tell"
            " models apart by these names, so leave one out"
        )
    ledgers = [ledger_of(*each) for each in (new, other)]
    stores = [store_folder(*each).resolve() for each in (new, other)]
    if stores[0] == stores[1] or (ledgers[0] is not None and ledgers[0] == ledgers[1]):
        raise UserError(
            f"{_SETTING}: the project in {named} has its record where the one in {other_folder} has it; expected"
            " projects with a record of their own"
        )
    prices = [each.deploy.price.currency for each in (file, other_file) if each.deploy.price is not None]
    if len(set(prices)) > 1:
        raise UserError(
            f"{_SETTING}: the prices of {file.name} are in {prices[0]}, those of {other_file.name} in {prices[1]}; one"
            " key pays for both, so write them in one currency"
        )


class NeighborGuide:
    """`serve.following.Guide` of a project that is opened when it is first looked at, or later when it can be."""

    def __init__(self, folder: Path, file: File, model: ServedModel, tell: Tell, keyed: Callable[[], bool]) -> None:
        self._folder, self._file, self._model = folder, file, model
        self._tell, self._keyed = tell, keyed
        self._stack = ExitStack()
        self._opened: tuple[Project, RecordGuide] | None = None
        self._failed = ""
        self._again = 0.0
        self._endpoint: str | None = None
        self._begun = self._closed = self._settled = self._warned = False
        self._lock = threading.Lock()

    def look(self, held: frozenset[str]) -> View:
        """As `Guide.look`. Nothing answers where the project wants a key of who asks, and the server does not."""
        project, guide = self._open()
        self._model.withheld = not self._may_answer(project)
        if not self._model.withheld:
            return guide.look(held)
        said = (
            f"{self._model.name} has API keys, and this server, where those of another project are good, asks for none;"
            " make one there with treadle keys create"
        )
        if self._endpoint is None:
            raise UserError(said)
        if not self._warned:
            self._warned = True
            self._tell(said)
        return View(None)

    def _may_answer(self, project: Project) -> bool:
        if not self._settled and project.record.api_keys.all():
            self._settled = self._keyed()  # and then for ever
            return self._settled
        return True

    async def open(self, release: str) -> Serving:
        """As `Guide.open`."""
        import asyncio

        project, guide = await asyncio.to_thread(self._open)
        await asyncio.to_thread(_refuse_own_class, project, release)
        return await guide.open(release)

    def begin(self, endpoint: str) -> None:
        """As `Guide.begin`, when the project is looked at next: the others do not wait for it."""
        self._endpoint = endpoint

    def report(self, shares: Mapping[str, float]) -> None:
        """As `Guide.report`."""
        self._open()[1].report(shares)

    def cannot(self, release: str, reason: str) -> None:
        """As `Guide.cannot`."""
        self._open()[1].cannot(release, reason)

    def failing(self, release: str, place: str) -> None:
        """As `Guide.failing`."""
        self._open()[1].failing(release, place)

    def end(self) -> None:
        """As `Guide.end`."""
        with self._lock:
            if self._opened is not None and self._begun:
                self._opened[1].end()

    def close(self) -> None:
        """Close the project; it is not opened again."""
        with self._lock:
            self._closed, self._opened = True, None
            self._stack.close()

    def _open(self) -> tuple[Project, RecordGuide]:
        """What is open. Raises what opening it raises, for a while without trying it again."""
        with self._lock:
            if self._closed:
                raise TreadleError(f"{self._folder} is closed")
            if self._opened is None:
                if self._failed and time.monotonic() < self._again:
                    raise TreadleError(self._failed)
                try:
                    self._opened = self._opened_now()
                except Exception as error:  # whatever it is, the others answer
                    said = str(error) if isinstance(error, TreadleError) else f"{type(error).__name__}: {error}"
                    self._failed, self._again = said, time.monotonic() + _AGAIN
                    if isinstance(error, TreadleError):
                        raise
                    raise TreadleError(said) from error
            if self._endpoint is not None and not self._begun:
                self._opened[1].begin(self._endpoint)
                self._begun = True
            return self._opened

    def _opened_now(self) -> tuple[Project, RecordGuide]:
        with ExitStack() as stack:
            project = stack.enter_context(open_folder(self._folder, self._file))
            bound_database(project.record)
            guide = guide_of(project, self._tell, apart=True)
            self._model.recorder = project.record.recorder
            self._stack = stack.pop_all()
        return project, guide


def _refuse_own_class(project: Project, release: str) -> None:
    folder = Release(release, project.record.store).path("release.json").parent / "model"
    if (name := named_class(folder)) is not None:
        raise UserError(
            f"{name} is code of {project.folder}, and an engine has that of the server's own project alone; run treadle"
            " serve there"
        )


def _finder(project: Project, setting: str, ref: str | None, tell: Tell) -> FindRelease | None:
    """What finds the release that a name of the file stands for at that moment; None where there is none yet, which is
    told now."""
    if ref is None:
        return None

    def find() -> str | None:
        try:
            return find_release(project, ref).digest
        except UserError:
            return None

    try:
        find_release(project, ref)
    except UserError as error:
        tell(f"deploy.{setting}: {error}; it is taken as soon as there is one")
    return find


class _NotOpen:
    """The record of a project that is not open: it takes nothing, and nothing can be found in it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _refuse(self) -> NoReturn:
        raise TreadleError(f"the record of {self._name} is not open")

    def interaction(self, row: Interaction) -> None:
        """Refused."""
        self._refuse()

    def feedback(self, row: Feedback) -> None:
        """Refused."""
        self._refuse()

    def find_interaction(self, interaction: str) -> Interaction | None:
        """Refused."""
        self._refuse()

    def feedback_on(self, interaction: str) -> Sequence[Feedback]:
        """Refused."""
        self._refuse()

    def keyed(self, person: str) -> str:
        """Refused."""
        self._refuse()

    def keyed_text(self, text: str) -> str:
        """Refused."""
        self._refuse()
