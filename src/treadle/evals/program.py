"""Another tool's evaluation of a model that answers at an address: what is asked of such a tool, and of its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from treadle.core.errors import UserError
from treadle.evals.item import Item, Output
from treadle.evals.metric import Need, Rows, ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

GROUP = "treadle.programs"
_MAX_RESULTS = 1 << 28  # bytes of a file of results


@dataclass(frozen=True, slots=True)
class Address:
    """Where the model answers as OpenAI's does: ``url`` ends in ``/v1``."""

    url: str
    model: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ProgramItem:
    """What a tool says of one item; ``values`` by the name of its metric."""

    id: str
    asked: str
    reference: str
    answer: str
    values: Mapping[str, float]


class Program(Protocol):
    """An evaluation tool. ``package`` is the distribution whose version counts, ``executable`` what is run."""

    package: str
    executable: str

    def arguments(self, address: Address, task: str, out: Path) -> list[str]:
        """Behind the executable; results go to the folder ``out``."""
        ...

    def environment(self, address: Address) -> dict[str, str]:
        """What it finds in its environment: the key, which stands in no argument."""
        ...

    def read(self, out: Path) -> list[ProgramItem]:
        """Every item; ``UserError`` where the folder holds no results of this tool."""
        ...


class Reported:
    """The mean of what a tool said of each item."""

    higher_is_better = True
    needs: Need = "answer"

    def __init__(self, name: str) -> None:
        self.name = name

    def score(self, items: Sequence[Item], outputs: Sequence[Output]) -> Rows:
        """(value, 1) per item, as it stands among the item's fields."""
        return [(float(item.fields[f"score.{self.name}"]), 1.0) for item in items]

    def reduce(self, totals: NDArray[Any]) -> NDArray[Any]:
        """The mean."""
        return ratio(totals)


def as_evaluated(found: Sequence[ProgramItem]) -> tuple[list[Item], list[Output], list[Reported]]:
    """Items, outputs, and a metric for each value that all of them have; ``UserError`` where there is none."""
    shared = set.intersection(*(set(each.values) for each in found)) if found else set()
    if len(found) < 2 or not shared:
        raise UserError(f"the program gave {len(found)} items, and no value that all have; a score needs two or more")
    items = [
        Item(
            each.id,
            text=each.asked,
            reference=each.reference,
            fields={f"score.{name}": each.values[name] for name in sorted(shared)},
        )
        for each in found
    ]
    return items, [Output(each.answer) for each in found], [Reported(name) for name in sorted(shared)]


def results(out: Path, pattern: str) -> Path:
    """The newest file of results under a folder; ``UserError`` where there is none, or one too large."""
    files = sorted(out.rglob(pattern), key=lambda path: path.stat().st_mtime)
    if not files or files[-1].stat().st_size > _MAX_RESULTS:
        raise UserError(f"the program left no {pattern} of at most {_MAX_RESULTS >> 20} MiB")
    return files[-1]
