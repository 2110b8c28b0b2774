"""Watching a turn: a live view of the eight stages on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from treadle.core.driver import Silent, StepResult

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress, TaskID

_EVERY = 10.0  # seconds between two lines of progress in a log


class Lines(Silent, AbstractContextManager["Lines"]):
    """One line a step, with the stage before it; progress every few seconds."""

    def __init__(self) -> None:
        self._stage = ""
        self._told = 0.0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to put back."""

    def stage(self, name: str) -> None:
        """Remember the stage."""
        self._stage = name

    def started(self, step: str, reason: str) -> None:
        """Start the clock of progress lines."""
        self._told = time.monotonic()

    def progress(self, step: str, done: float, total: float | None, unit: str, note: str) -> None:
        """A line now and then."""
        if time.monotonic() - self._told >= _EVERY:
            self._told = time.monotonic()
            self._line(f"{step} {_amount(done, total, unit)} {note}".rstrip())

    def finished(self, result: StepResult) -> None:
        """One line a step."""
        self._line(describe(result))

    def say(self, line: str) -> None:
        """A line of what a stage found."""
        self._line(line)

    def _line(self, text: str) -> None:
        click.echo(f"{self._stage:<9} {text}")


class Live(Lines):
    """As ``Lines``, with a bar for the step that runs, what it says of itself, and the eight stages beneath."""

    def __init__(self, stages: tuple[str, ...]) -> None:
        from rich.live import Live as Screen

        super().__init__()
        self._stages = stages
        self._done: set[str] = set()
        self._bars: Progress = _bars()
        self._task: TaskID | None = None
        self._note = ""
        self._screen = Screen(get_renderable=self._drawn, console=self._bars.console)

    def __enter__(self) -> Live:
        self._screen.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stage and error is None:
            self._done.add(self._stage)
        self._screen.stop()

    def stage(self, name: str) -> None:
        """Move on in the picture."""
        if self._stage:
            self._done.add(self._stage)
        super().stage(name)

    def started(self, step: str, reason: str) -> None:
        """A bar for the step."""
        self._task = self._bars.add_task(f"{step} ({reason})", total=None, amount="")

    def progress(self, step: str, done: float, total: float | None, unit: str, note: str) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total, amount=_amount(done, total, unit))
            self._note = note

    def finished(self, result: StepResult) -> None:
        """Turn the bar into a line."""
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task, self._note = None, ""
            self._screen.refresh()
        super().finished(result)

    def _line(self, text: str) -> None:
        self._screen.console.print(f"{self._stage:<9} {text}", markup=False, highlight=False)

    def _drawn(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        note = [Text(f"  {self._note}", no_wrap=True, overflow="ellipsis")] if self._note else []
        return Group(self._bars, *note, Text.from_markup(self._picture()))

    def _picture(self) -> str:
        marks = []
        for name in self._stages:
            mark = "[green]●[/]" if name in self._done else "[bold cyan]◉[/]" if name == self._stage else "[dim]○[/]"
            marks.append(f"{mark} {name}")
        return " ".join(marks)  # the eight fit a terminal of 80 columns


def watching(stages: tuple[str, ...], *, quiet: bool) -> Lines | Live | Quiet:
    """The view that fits: nothing for ``--json``, live on a terminal, lines otherwise."""
    if quiet:
        return Quiet()
    return Live(stages) if sys.stdout.isatty() else Lines()


class Quiet(Silent, AbstractContextManager["Quiet"]):
    """Says nothing; what there is to say comes as JSON."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to put back."""


def describe(result: StepResult) -> str:
    """A step's result in a line: what it is, how it went, what it gave."""
    name = result.step.partition(".")[2] or result.step
    made = ", ".join(f"{kind} {digest[:11]}" for kind, digest in result.outputs.items())
    if result.status == "cached":
        return f"{name:<18} cached        {made}"
    if result.status == "skipped":
        return f"{name:<18} would run: {result.reason}"
    if result.status == "failed":
        return f"{name:<18} failed after {_clock(result.seconds)}: {result.reason}"
    return f"{name:<18} {_clock(result.seconds):<13} {made}".rstrip()


def _clock(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 60 else f"{int(seconds // 60)}m{int(seconds % 60):02}s"


def _amount(done: float, total: float | None, unit: str) -> str:
    return f"{done:,.0f}/{total:,.0f} {unit}" if total else f"{done:,.0f} {unit}"


def _bars() -> Any:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    return Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True, max_width=30)),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
