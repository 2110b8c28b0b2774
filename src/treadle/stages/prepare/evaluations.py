"""What the file says of evaluation sets, as the steps that keep them apart take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.record.version import Version, Versions
from treadle.stages.prepare.settings import EvaluationSettings
from treadle.text.dataset import Dataset
from treadle.text.source import SourceContext, open_source


@dataclass(frozen=True)
class EvaluationSources:
    """Where the sets come from: ``tests`` are datasets, ``settings`` what a step is told of them and of the others."""

    tests: tuple[Dataset, ...]
    settings: dict[str, Any]


def find_sets(driver: Driver, sets: Sequence[EvaluationSettings], versions: Versions) -> EvaluationSources:
    """All sets that the file names; ``UserError`` for one that is not there."""
    context = SourceContext(driver.folder, driver.runs.keyed_person)
    sources, datasets = _sources(sets), [each for each in sets if each.dataset]
    told = {
        "sources": [list(source) for source in sources],
        "fingerprints": [open_source(given, context, where).fingerprint() for _, given, where in sources],
        "names": [each.name for each in datasets],
    }
    tests = tuple(Dataset(dataset_version(versions, str(each.dataset)).digest, driver.runs.store) for each in datasets)
    return EvaluationSources(tests, told)


def _sources(sets: Sequence[EvaluationSettings]) -> list[tuple[str, dict[str, Any], str]]:
    """Name, settings and place in the file of the sets that a source gives."""
    found = []
    for place, each in enumerate(sets):
        given = {key: value for key, value in each.model_dump().items() if key not in {"name", "dataset"}}
        where = f"prepare.decontaminate[{place}]"
        if each.dataset is None:
            found.append((each.name, given, where))
        elif given != {"type": "files"}:
            raise UserError(f"{where}: expected a source or a dataset, not both")
    return found


def dataset_version(versions: Versions, ref: str) -> Version:
    """The version of a dataset that a reference names; ``UserError`` when it is none."""
    found = versions.resolve(ref)
    if found is None or found.kind != "dataset":
        raise UserError(f"prepare: {ref!r} is no version of a dataset; expected one such as dataset@v1")
    return found
