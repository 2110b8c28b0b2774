"""The mirror to Comet, by its own client: runs with parameters, metrics over time and tags.

The experiment's key is made of the run's id, so a later piece goes on in the same experiment. Offline
(``COMET_OFFLINE=true``), each piece is an archive that ``comet upload`` takes. Not mirrored: versions and aliases.
Online it was never run: there is no account here, and points of a piece that broke off may be there twice.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from treadle.core.errors import MissingExtra
from treadle.core.fact import Row
from treadle.core.sink import Ref, View
from treadle.integrations.run_pieces import Piece, pieces, scratch, span_of

_KEY = "treadle"  # Comet wants 32 to 50 letters and digits; a run's id has 26
_TRUE = ("true", "1", "yes", "on")
# Nothing of the machine, the user or the code: what may leave is decided by Treadle.
_QUIET = {
    "log_code": False,
    "log_graph": False,
    "auto_param_logging": False,
    "auto_metric_logging": False,
    "auto_output_logging": False,
    "log_env_details": False,
    "log_git_metadata": False,
    "log_git_patch": False,
    "parse_args": False,
    "auto_log_co2": False,
    "display_summary_level": 0,
}


class CometMirror:
    """Runs, their points and tags, in a project of the same name (``COMET_PROJECT_NAME`` names another)."""

    variables: ClassVar[str] = "COMET_API_KEY or COMET_OFFLINE=true"

    def __init__(self, view: View, *, offline: bool) -> None:
        self._view = view
        self._offline = offline
        self._project = os.environ.get("COMET_PROJECT_NAME") or view.project
        self._folder = Path(os.environ.get("COMET_OFFLINE_DIRECTORY") or view.folder / ".cometml-runs").absolute()
        server = os.environ.get("COMET_URL_OVERRIDE") or "https://www.comet.com"
        self.place = str(self._folder) if offline else f"{server.rpartition('@')[2]}/{self._project}"

    @classmethod
    def open(cls, view: View) -> Self | None:
        """On where there is a key, or COMET_OFFLINE is true."""
        offline = os.environ.get("COMET_OFFLINE", "").lower() in _TRUE
        if not offline and not os.environ.get("COMET_API_KEY"):
            return None
        return cls(view, offline=offline)

    def deliver(self, batch: Sequence[Row], *, again: bool) -> list[str]:
        """As ``Sink``."""
        there = self._there() if self._offline else ()
        for piece in pieces(self._view, batch, there):
            self._bring(piece)
        return []

    def _there(self) -> Iterator[tuple[str, int, int]]:
        for path in self._folder.glob(f"{_KEY}*.zip"):
            span = span_of(path.name)
            if span is not None:
                yield "run-" + path.name[len(_KEY) :].partition("-")[0].upper(), *span

    def _bring(self, piece: Piece) -> None:
        if not self._offline:
            self._fill(self._start(piece, None), piece)
            return
        with scratch(self._folder, ".treadle-") as folder:
            self._fill(self._start(piece, folder), piece)
            (made,) = folder.glob("*.zip")
            made.rename(self._folder / f"{key_of(piece.run.id)}-{piece.span}.zip")

    def _start(self, piece: Piece, folder: Path | None) -> Any:
        comet = _client()
        return comet.start(
            project_name=self._project,
            experiment_key=key_of(piece.run.id),
            mode="get_or_create",
            online=not self._offline,
            experiment_config=comet.ExperimentConfig(
                name=piece.run.name,
                tags=piece.labels(),
                offline_directory=str(folder) if folder else None,
                **_QUIET,
            ),
        )

    def _fill(self, experiment: Any, piece: Piece) -> None:
        experiment.log_parameters(dict(piece.run.parameters), nested_support=False)
        experiment.log_others({**piece.facts(), **{f"tags.{name}": value for name, value in piece.run.tags.items()}})
        for point in piece.points:
            experiment.log_metrics(point.values, step=point.place if point.step is None else point.step)
        if piece.finished:
            experiment.log_metrics(piece.final(self._view))
            experiment.log_other("treadle.status", piece.run.status)
        experiment.end()

    def retract(self, refs: Sequence[Ref]) -> list[str]:
        """Archives that are still here are deleted; Comet has no call for a piece of an experiment."""
        told = []
        for ref in refs:
            if ref.run is None:
                continue
            for path in self._folder.glob(f"{key_of(ref.run)}-*.zip") if self._offline else ():
                path.unlink()
            told.append(
                f"{ref.run}: tags were erased; delete the experiment at Comet where it was sent, then: {_AGAIN}"
            )
        return told

    def close(self) -> None:
        """Nothing is open between two pieces."""


_AGAIN = "treadle mirror comet --all"


def key_of(run: str) -> str:
    """The key of the experiment that a run is at Comet."""
    return _KEY + run.removeprefix("run-").lower()


def _client() -> Any:
    os.environ.setdefault("COMET_DISABLE_AUTO_LOGGING", "1")  # nothing of what else runs here is watched
    try:
        import comet_ml
    except ImportError:
        raise MissingExtra("comet_ml", extra="comet") from None
    logging.getLogger("comet_ml").setLevel(logging.ERROR)
    return comet_ml
