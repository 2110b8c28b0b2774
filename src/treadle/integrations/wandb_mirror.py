"""The mirror to Weights & Biases, by its own client: runs with configuration, metrics over time, tags and summary.

The run's id there is its id here, so a later piece goes on in the same run. Offline, each piece is a folder
``wandb/offline-run-*`` that ``wandb sync`` takes. Online, points have their place in the run as W&B's step, and what is
there already is left out by W&B. Not mirrored: versions and aliases. Online it was never run: there is no account here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from treadle.core.errors import MissingExtra
from treadle.core.fact import Row
from treadle.core.sink import Ref, View
from treadle.integrations.run_pieces import Piece, pieces, scratch, span_of

STEP = "treadle_step"  # the x axis of the charts: the step that the run counted itself
_LONGEST_TAG = 64  # characters: what W&B takes
_OFF, _OFFLINE = ("disabled",), ("offline", "dryrun")
# Nothing of the machine, the user or the code: what may leave is decided by Treadle.
_QUIET = {
    "console": "off",
    "host": "",
    "silent": True,
    "save_code": False,
    "disable_git": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}


class WandbMirror:
    """Runs, their points and tags, in a project of the same name (``WANDB_PROJECT`` names another)."""

    variables: ClassVar[str] = "WANDB_API_KEY or WANDB_MODE=offline"

    def __init__(self, view: View, *, offline: bool) -> None:
        self._view = view
        self._offline = offline
        self._project = os.environ.get("WANDB_PROJECT") or view.project
        self._base = Path(os.environ.get("WANDB_DIR") or view.folder).absolute()
        self._folder = self._base / "wandb"
        server = os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"
        self.place = str(self._folder) if offline else f"{server.rpartition('@')[2]}/{self._project}"

    @classmethod
    def open(cls, view: View) -> Self | None:
        """On where there is a key, or WANDB_MODE says offline."""
        mode = os.environ.get("WANDB_MODE", "")
        if mode in _OFF or not (mode in _OFFLINE or os.environ.get("WANDB_API_KEY")):
            return None
        return cls(view, offline=mode in _OFFLINE)

    def deliver(self, batch: Sequence[Row], *, again: bool) -> list[str]:
        """As ``Sink``."""
        there = self._there() if self._offline else ()
        for piece in pieces(self._view, batch, there):
            self._bring(piece)
        return []

    def _there(self) -> Iterator[tuple[str, int, int]]:
        for path in self._folder.glob("offline-run-*-run-*"):
            span = span_of(path.name)
            if span is not None:
                yield _run_of(path), *span

    def _bring(self, piece: Piece) -> None:
        if not self._offline:
            self._fill(self._start(piece, self._base), piece)
            return
        with scratch(self._base, ".wandb-treadle-") as folder:
            run = self._start(piece, folder)
            self._fill(run, piece)
            made = Path(run.settings.sync_dir)
            self._folder.mkdir(parents=True, exist_ok=True)
            made.rename(self._folder / made.name)

    def _start(self, piece: Piece, base: Path) -> Any:
        wandb = _client()
        (base / "wandb").mkdir(parents=True, exist_ok=True)  # the client would go to /tmp instead
        settings = _QUIET | ({"x_sync_dir_suffix": piece.span} if self._offline else {})
        return wandb.init(
            dir=str(base),
            id=piece.run.id,
            name=piece.run.name,
            project=self._project,
            mode="offline" if self._offline else "online",
            resume="allow",
            config={**piece.run.parameters, **piece.facts()},
            tags=[label for label in piece.labels() if len(label) <= _LONGEST_TAG],
            settings=wandb.Settings(**settings),
        )

    def _fill(self, run: Any, piece: Piece) -> None:
        run.config.update({f"tags.{name}": value for name, value in piece.run.tags.items()}, allow_val_change=True)
        run.define_metric(STEP, hidden=True)
        run.define_metric("*", step_metric=STEP)
        for point in piece.points:
            known = (
                {"_timestamp": point.moment} if point.step is None else {"_timestamp": point.moment, STEP: point.step}
            )
            run.log({**point.values, **known}, step=point.place)
        if piece.finished:
            run.summary.update(dict(piece.run.metrics))
        run.finish(exit_code=0 if piece.run.status in ("done", "running") else 1)

    def retract(self, refs: Sequence[Ref]) -> list[str]:
        """Folders that are still here are deleted; W&B itself has no call for a piece of a run."""
        told = []
        for ref in refs:
            if ref.run is None:
                continue
            for path in self._folder.glob(f"offline-run-*-{ref.run}-*") if self._offline else ():
                shutil.rmtree(path)
            told.append(f"{ref.run}: tags were erased; delete the run at W&B where it was sent, then: {_AGAIN}")
        return told

    def close(self) -> None:
        """Nothing is open between two pieces."""


_AGAIN = "treadle mirror wandb --all"


def _run_of(path: Path) -> str:
    """The run of a folder ``offline-run-<time>-run-<id>-<first>-<last>``."""
    return "run-" + path.name.rpartition("-run-")[2].partition("-")[0]


def _client() -> Any:
    try:
        import wandb
    except ImportError:
        raise MissingExtra("wandb", extra="wandb") from None
    return wandb
