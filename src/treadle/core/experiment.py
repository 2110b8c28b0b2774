"""A run of the user's own code: opened in a ``with`` block, told what happens, closed with what came of it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any, Literal, Self

from treadle.core.artifact_formats import check_format, has_format
from treadle.core.artifacts import Artifact, Builder
from treadle.core.errors import UserError
from treadle.core.executors import InProcess
from treadle.core.intake import Odd
from treadle.core.run import Points, Run
from treadle.core.runs import SYSTEM, Runs, shown
from treadle.core.secrets import conceal, find
from treadle.core.system_metrics import SystemMetrics
from treadle.core.tee import Tee
from treadle.core.texts import Texts, check_name, is_word

KIND = "experiment"
STEP = f"{KIND}."  # a run called NAME stands among the steps as experiment.NAME
LOG_FILE = "log.txt"  # of the artifact `log`
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_ARTIFACT_KIND = re.compile(r"[a-z][a-z0-9_.-]{0,39}\Z")

Resolve = Callable[[str], tuple[str, str]]


class Experiment(Run):
    """A run of the user's own code. Leave the ``with`` block, or call ``finish``, and it is closed.

    It belongs to the process that started it; threads may share it.
    """

    def __init__(
        self,
        runs: Runs,
        name: str,
        folder: Path,
        *,
        params: Mapping[str, Any],
        tags: Mapping[str, Any],
        seed: int | None,
        resolve: Resolve,
        closing: Callable[[], object] = lambda: None,
    ) -> None:
        texts = Texts(runs.keys)
        body = {
            "kind": KIND,
            "version": 1,
            "key": "",
            "name": check_run_name(name),
            "parameters": texts.settings(params),
            "tags": texts.tags(tags),
            "inputs": {},
            "seed": seed,
            "texts": texts.keep(runs.store),
        }
        identifier = runs.begin(STEP + name, body, folder)
        super().__init__(runs, identifier, seed or 0, lambda *_: None, folder, InProcess())
        self.name = name
        self._runs = runs
        self._resolve = resolve
        self._closing = closing
        self._began = time.monotonic()
        self._last: dict[str, float] = {}
        self._outputs: dict[str, Artifact] = {}
        self._inputs: dict[str, str] = {}
        self._process = os.getpid()
        self._open = True
        self._system: SystemMetrics | None = None
        self._tee: Tee | None = None

    # -- while it goes on

    def log(self, step: int | None = None, **metrics: float) -> None:
        """Numbers at a step of your own counting; the last of each is the run's metric. Survives ``kill -9``."""
        self._check()
        super().log(step, **metrics)

    def log_many(self, points: Points) -> None:
        """Many points at once, each a step and its numbers by name, in one write."""
        self._check()
        super().log_many(points)

    def _line(self, step: int | None, metrics: Mapping[str, float], moment: str) -> bytes:
        for name in metrics:
            if name not in self._last:
                check_name("metrics", name)
        line = super()._line(step, metrics, moment)
        self._last.update(metrics)
        return line

    def summary(self, **metrics: float) -> None:
        """The run's final numbers; they stand before what was logged. What is no finite number is left out."""
        self._check()
        for name, value in metrics.items():
            if shown(check_name("metrics", name), float(value)):
                super().summary(**{name: value})

    def tag(self, **tags: Any) -> None:
        """Tags to find the run by; a later value replaces an earlier one. Texts lie in the store, not in the ledger."""
        self._check()
        texts = Texts(self._runs.keys)
        self._runs.note(self.id, tags=texts.tags(tags), texts=texts.keep(self.store))

    def note(self, text: str) -> None:
        """A remark for people, kept in the store with secrets concealed."""
        self._check()
        self._runs.note(self.id, note=self._runs.keep_text(text))

    def artifact(self, path: str | Path | Artifact, *, kind: str = "artifact", name: str | None = None) -> Artifact:
        """Store a copy of a file or a folder as an artifact that this run made; links in it are followed. Files that
        did not change since they were stored before are not read again.

        ``name`` is what it is called among the run's outputs: the file's name by default, or the kind where that is
        more than one plain word.
        """
        self._check()
        if name is not None:
            _check_word(name)
        made = path if isinstance(path, Artifact) else self._copy(Path(path), kind)
        called = name or (made.kind if isinstance(path, Artifact) else Path(path).stem)
        if not _is_plain(called):
            called = made.kind
            if self._outputs.get(called, made) != made:
                called = f"{called}_{len(self._outputs) + 1}"
        self._runs.note(self.id, outputs={called: made})
        self._outputs[called] = made
        return made

    def input(self, ref: str | Artifact, *, name: str | None = None) -> Artifact:
        """Say that the run takes an artifact: ``dataset@v2``, ``@champion``, ``b3:...``; lineage goes through it."""
        self._check()
        if name is not None:
            _check_word(name)
        digest, kind = (ref.digest, ref.kind) if isinstance(ref, Artifact) else self._resolve(ref)
        called = name or kind or "artifact"
        if name is None and self._inputs.get(called, digest) != digest:
            called = f"{called}_{len(self._inputs) + 1}"
        self._inputs[called] = digest
        self._runs.note(self.id, inputs={called: digest})
        return Artifact(digest, self.store)

    def _copy(self, path: Path, kind: str) -> Artifact:
        if not _ARTIFACT_KIND.match(kind):
            raise UserError(f"kind {kind!r}: expected a word in lower case such as model, at most 40 characters")
        try:
            if not has_format(kind):
                with suppress(Odd):
                    return _kind(kind)(self.store.add(path), self.store)
            with Builder(_kind(kind), self.store) as builder:
                if path.is_dir():
                    shutil.copytree(
                        path,
                        builder.path,
                        copy_function=shutil.copyfile,
                        dirs_exist_ok=True,
                        ignore=lambda folder, names: _loops(path, Path(folder), names),
                    )
                else:
                    shutil.copyfile(path, builder.path / path.name)
                check_format(kind, builder.path)
                return builder.commit()
        except shutil.Error as error:  # of a folder, where only the text tells what it was
            said = str(error.args[0][0][2])
            number = re.match(r"\[Errno (\d+)\]", said)
            raise _cannot_store(path, int(number[1]) if number else None, said) from None
        except OSError as error:
            raise _cannot_store(path, error.errno, str(error.strerror)) from None

    # -- beside it

    def watch(self, *, system: float | None, capture: bool) -> None:
        """Sample the machine every ``system`` seconds; with ``capture``, keep what is printed."""
        if system is not None:
            self._system = SystemMetrics(self._log_system, system)
        if capture:
            self._tee = Tee(self.scratch / LOG_FILE)

    def _log_system(self, figures: Mapping[str, float]) -> None:
        super().log(None, **{SYSTEM + name: value for name, value in figures.items()})

    # -- its end

    def finish(self, status: Literal["done", "failed"] = "done", error: str | None = None) -> None:
        """Close it: ``done``, or ``failed`` with the text of the error. A second call does nothing."""
        if not self._open or os.getpid() != self._process:
            return
        self._open = False
        made = []  # what has no row yet
        try:
            if self._system is not None:
                self._system.stop()
            if self._tee is not None:
                self._outputs["log"] = self._keep_log(self._tee.stop())
                made.append(self._outputs["log"])
        finally:
            self._close(status, error, made)

    def _close(self, status: str, error: str | None, made: list[Artifact]) -> None:
        try:
            last = {name: float(value) for name, value in self._last.items()}
            self.metrics = {name: value for name, value in last.items() if shown(name, value)} | self.metrics
            seconds = time.monotonic() - self._began
            self._runs.finish(self, status, seconds=seconds, outputs=self._outputs, made=made, error=error)
        finally:
            self._closing()

    def _keep_log(self, text: str) -> Artifact:
        with Builder(_kind("log"), self.store) as builder:
            (builder.path / LOG_FILE).write_text(conceal(text), encoding="utf-8")
            (builder.path / "salt").write_text(token_hex(16))  # its digest tells nothing of what was printed
            return builder.commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        else:
            self.finish("failed", "".join(traceback.format_exception(kind, error, trace)))

    def _check(self) -> None:
        if not self._open:
            raise UserError(f"run {self.id} is closed; start another one")
        if os.getpid() != self._process:
            raise UserError(f"run {self.id} belongs to process {self._process}; start a run in each process")


def _cannot_store(path: Path, number: int | None, said: str) -> UserError:
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return UserError(f"{path} cannot be stored: {os.strerror(number)}; free some space or make the store writable")
    return UserError(f"{path} cannot be stored: {said}; name a file or a folder that is there")


def check_run_name(name: str) -> str:
    """The name of a run; ``UserError`` for free text."""
    if not _NAME.match(name):
        raise UserError(
            f"run {name[:80]!r}: expected letters, digits, '.', '_' and '-', at most 100; use note() for more"
        )
    return name


def _is_plain(name: str) -> bool:
    return is_word(name) and not find(name)


def _check_word(name: str) -> None:
    """The name of an output or input stands in the ledger."""
    if not _is_plain(name):
        raise UserError(
            f"name {name[:80]!r}: expected one plain word, letters, digits and . _ - /; use note() for more"
        )


def _kind(name: str) -> type[Artifact]:
    return type("Made", (Artifact,), {"kind": name})


def _loops(top: Path, folder: Path, names: list[str]) -> set[str]:
    """Links in a folder under ``top`` to a folder that they lie in: what is there is read already."""
    links = [name for name in names if (folder / name).is_symlink()]
    if not links:
        return set()
    depth = len(folder.relative_to(top).parts)
    inside = [Path(os.path.realpath(each)) for each in (folder, *folder.parents)[: depth + 1]]
    return {name for name in links if any(each.is_relative_to(os.path.realpath(folder / name)) for each in inside)}
