"""Track: every dataset and model gets a version; aliases point at versions and remember where they pointed.

Runs, with their settings, metrics, inputs and outputs, are tracked by the driver from the first step on; nothing has
to be added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from treadle.core.artifacts import Artifact
from treadle.core.driver import Driver
from treadle.core.runs import Run
from treadle.lm.model import Model
from treadle.record.version import Version, Versions
from treadle.text.dataset import Dataset


@dataclass(frozen=True)
class Tracked:
    """The versions of this turn; None while planning something that does not exist yet."""

    dataset: Version | None
    model: Version | None


def track(driver: Driver, versions: Versions, dataset: Dataset, model: Model) -> Tracked:
    """Register the dataset and the model; the same artifact keeps its number."""

    def register(run: Run) -> dict[str, Artifact]:
        versions.register("dataset", dataset.digest, run.id)
        versions.register("model", model.digest, run.id)
        return {}

    driver.act("track.register", register, inputs=(dataset, model))
    return Tracked(versions.find("dataset", dataset.digest), versions.find("model", model.digest))


def standing(versions: Versions) -> Callable[[Model], Model | None]:
    """Whom a candidate has to match: the champion, or the one before when the candidate is the champion itself.

    Asked again with nothing changed, the answer is the same, so nothing is judged twice.
    """

    def against(candidate: Model) -> Model | None:
        champion, previous = (versions.alias("model", alias) for alias in ("champion", "previous"))
        other = previous if champion and champion.digest == candidate.digest else champion
        return Model(other.digest, versions.store) if other and versions.store.has(other.digest) else None

    return against
