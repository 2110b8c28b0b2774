"""A training that other processes carry out, as a folder that all of them see.

    job.pickle        what to call, with what; made by the process that asks, for processes of its own user
    progress.jsonl    finished steps, written by the first process
    error-<rank>      why a process ended
    result.pickle     what came of it; there once all is done

The folder is private (0700) and goes with the run. An array that is mapped from a file is named, not copied.
"""

from __future__ import annotations

import importlib
import io
import json
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from treadle.core.cipher import Cipher
from treadle.core.errors import TreadleError, UserError
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.course import OnStep, OutOfMemory, StepReport
from treadle.lm.team import Team

_JOB, _PROGRESS, _RESULT, _ERROR = "job.pickle", "progress.jsonl", "result.pickle", "error-"
_ALIVE, _ASKED = "alive-", "asked"


@dataclass(frozen=True)
class Job:
    """``function`` (module:name) is called with ``arguments``, ``settings`` behind them, and ``checkpoints``,
    ``on_step`` and ``team`` by name. ``strategy``: how the processes share the model."""

    function: str
    arguments: tuple[Any, ...]
    settings: Any
    checkpoints: tuple[Path, float, Cipher | None] | None
    strategy: str

    def run(self, on_step: OnStep | None, team: Team) -> Any:
        """Do this process's part."""
        module, _, name = self.function.partition(":")
        function = getattr(importlib.import_module(module), name)
        if self.checkpoints is None:
            return function(*self.arguments, self.settings, on_step=on_step, team=team)
        folder, every, cipher = self.checkpoints
        with Checkpoints(folder, every=every, cipher=cipher) as kept:
            return function(*self.arguments, self.settings, checkpoints=kept, on_step=on_step, team=team)

    def with_(self, **settings: Any) -> Job:
        """The same with other settings."""
        return replace(self, settings=replace(self.settings, **settings))


def job_of(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    settings: Any,
    checkpoints: Checkpoints | None,
    strategy: str = "ddp",
) -> Job:
    """A call as a job."""
    kept = (checkpoints.folder, checkpoints.every, checkpoints.cipher) if checkpoints is not None else None
    return Job(f"{function.__module__}:{function.__name__}", arguments, settings, kept, strategy)


class JobFolder:
    """Where those who ask and those who work find each other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0

    def write(self, job: Job) -> None:
        """Put a job there, and take away what is left of another."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in self.path.iterdir():
            old.unlink()
        self._read = 0
        try:
            _put(self.path / _JOB, job)
        except TypeError as error:  # keys that only this process holds
            raise UserError(f"develop.on: this training cannot be given to other processes ({error})") from None

    def job(self) -> Job:
        """What is to be done."""
        return cast("Job", pickle.loads((self.path / _JOB).read_bytes()))  # noqa: S301 - written by this user's own process

    # -- those who work

    def report(self, report: StepReport) -> None:
        """A step is done."""
        with (self.path / _PROGRESS).open("a") as file:
            file.write(json.dumps(asdict(report)) + "\n")

    def done(self, result: Any) -> None:
        """All is done."""
        _put(self.path / _RESULT, result)

    def beat(self, rank: int) -> None:
        """A process is there."""
        (self.path / f"{_ALIVE}{rank}").touch()

    def failed(self, rank: int, error: TreadleError) -> None:
        """A process cannot go on."""
        about = {"message": str(error), "ours": not isinstance(error, UserError)}
        if isinstance(error, OutOfMemory):
            about["micro"] = error.micro
        (self.path / f"{_ERROR}{rank}").write_text(json.dumps(about))

    # -- those who ask

    def reports(self) -> list[StepReport]:
        """The steps that were finished since it was last asked."""
        path = self.path / _PROGRESS
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(self._read)
            lines, end, _ = file.read().rpartition(b"\n")
        self._read += len(lines) + len(end)
        return [StepReport(**json.loads(line)) for line in lines.splitlines()]

    def result(self) -> Any:
        """What came of it; ``TreadleError`` when nothing did."""
        path = self.path / _RESULT
        if not path.exists():
            raise TreadleError("the processes of a training ended and left no result; run the same command again")
        return pickle.loads(path.read_bytes())  # noqa: S301 - as above

    def silent(self, seconds: float) -> str | None:
        """The process that was there and has not been heard of for so long, by the clock of the folder's disk."""
        now = self.path / _ASKED
        now.touch()
        for path in sorted(self.path.glob(f"{_ALIVE}*")):
            if now.stat().st_mtime - path.stat().st_mtime > seconds:
                return path.name.removeprefix(_ALIVE)
        return None

    def is_done(self) -> bool:
        """Whether there is a result."""
        return (self.path / _RESULT).exists()

    def error(self) -> TreadleError | None:
        """Why a process could not go on, the first of them that said so."""
        for path in sorted(self.path.glob(f"{_ERROR}*")):
            about = json.loads(path.read_text())
            if "micro" in about:
                return OutOfMemory(about["message"], int(about["micro"]))
            return (TreadleError if about["ours"] else UserError)(about["message"])
        return None


def _put(path: Path, value: Any) -> None:
    held = io.BytesIO()
    _Pickler(held).dump(value)
    partial = path.with_suffix(".partial")
    partial.write_bytes(held.getvalue())
    partial.replace(path)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        import mmap

        import numpy as np

        if isinstance(value, np.memmap) and isinstance(value.base, mmap.mmap) and value.filename is not None:
            return _mapped, (str(value.filename), value.dtype.str, value.offset, value.shape)
        return NotImplemented


def _mapped(name: str, kind: str, offset: int, shape: tuple[int, ...]) -> Any:
    import numpy as np

    return np.memmap(name, dtype=kind, mode="r", offset=offset, shape=shape)
