"""``treadle evaluate REF --shadow``: what a release on trial answered in the background, compared with what was shown.

Each copy is set beside the answer to the same request, and both are resampled together. Of several figures each
interval is widened so that all of them hold together (Bonferroni).

Not covered: which of two different texts is better. A copy is begun when its request was answered, so it finds the
machine less busy, or busier, than the other did, and what both begin with in a cache that the other filled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from treadle.asking import find_release
from treadle.core.errors import UserError
from treadle.evals.intervals import LEVEL, Interval, compare, interval
from treadle.project import Project
from treadle.record.interaction import SHADOW, Interaction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class _Side:
    """What is compared of one interaction. ``texts`` is None where none is kept."""

    release: str
    ok: bool
    texts: int | None
    figures: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Paired:
    """The means of the copies and of what was shown, over ``n`` pairs, and their difference; ``more`` and ``less``
    count the copies that have more and less of it than what was shown. ``decided`` as in `Comparison`."""

    shadow: float
    shown: float
    difference: float
    low: float
    high: float
    more: int
    less: int
    n: int
    decided: bool
    level: float


@dataclass(frozen=True)
class Compared:
    """``pairs`` of a copy and the answer that was shown; ``alone`` are copies whose request left nothing else.

    ``same``: the part of the pairs with texts that are alike; None where fewer than two have any. ``figures`` by
    name; times in seconds. All but ``failed`` are over the pairs in which both answered.
    """

    ref: str
    release: str
    against: tuple[str, ...]
    pairs: int
    alone: int
    same: Interval | None
    figures: dict[str, Paired]

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "ref": self.ref,
            "release": self.release,
            "against": list(self.against),
            "pairs": self.pairs,
            "alone": self.alone,
            "same": None if self.same is None else self.same.to_json(),
            "figures": {name: asdict(each) for name, each in self.figures.items()},
        }


def compare_shadow(project: Project, ref: str, against: str | None = None) -> Compared:
    """The copies that a release answered beside what was shown, by any release or by that of ``against``. Raises
    ``UserError`` where there are fewer than two."""
    release = find_release(project, ref).digest
    other = None if against is None else find_release(project, against).digest
    copies: dict[str, _Side] = {}
    for row in project.record.recorder.interactions(release):
        if row.origin == SHADOW and row.copy_of is not None and row.status != "cancelled":
            copies[row.copy_of] = _side(row)
    found: list[tuple[_Side, _Side]] = []
    alone = len(copies)
    for row in _shown(project, copies):
        alone -= 1
        if row.status != "cancelled" and other in (None, row.release):
            found.append((copies[row.id], _side(row)))
    if len(found) < 2:
        by = f" beside answers of {against}" if against else ""
        raise UserError(
            f"evaluate {ref} --shadow: of its copies {len(found)} can be compared{by}; expected at least 2: set"
            " deploy.shadow to it and let treadle serve answer requests"
        )
    return _compared(project, ref, release, found, alone)


def _shown(project: Project, copies: dict[str, _Side]) -> Iterator[Interaction]:
    """Each that was copied, once."""
    seen = set()
    for row in project.record.recorder.interactions():
        if row.id in copies and row.id not in seen:
            seen.add(row.id)
            yield row


def _side(row: Interaction) -> _Side:
    texts = None
    if row.answer is not None:
        texts = hash((row.answer, row.alternatives))  # within this process
    found = sum(sum(done["found"].values()) for done in row.guardrails)
    figures = {
        "total": row.seconds.total,
        "ttft": row.seconds.ttft,
        "tokens_per_second": row.tokens_per_second,
        "prompt_tokens": float(row.tokens.prompt),
        "completion_tokens": float(row.tokens.completion),
        "guardrail_findings": float(found),
    }
    return _Side(row.release, row.status == "ok", texts, figures)


def _compared(project: Project, ref: str, release: str, found: Sequence[tuple[_Side, _Side]], alone: int) -> Compared:
    seed = project.file.seed
    answered = [(copy, shown) for copy, shown in found if copy.ok and shown.ok]
    columns = {"failed": [(float(not copy.ok), float(not shown.ok)) for copy, shown in found]}
    for name in answered[0][0].figures if answered else ():
        pairs = [(copy.figures[name], shown.figures[name]) for copy, shown in answered]
        columns[name] = [(a, b) for a, b in pairs if a is not None and b is not None]
    columns = {name: pairs for name, pairs in columns.items() if len(pairs) > 1}
    level = 1 - (1 - LEVEL) / len(columns)
    figures = {name: _paired(pairs, seed, level) for name, pairs in columns.items()}
    alike = [copy.texts == shown.texts for copy, shown in answered if None not in (copy.texts, shown.texts)]
    same = interval(_rows([float(each) for each in alike]), _mean, seed=seed) if len(alike) > 1 else None
    against = tuple(sorted({shown.release for _, shown in found}))
    return Compared(ref, release, against, len(found), alone, same, figures)


def _paired(pairs: list[tuple[float, float]], seed: int, level: float) -> Paired:
    shadow, shown = ([pair[side] for pair in pairs] for side in (0, 1))
    found = compare(_rows(shadow), _rows(shown), _mean, higher_is_better=True, seed=seed, level=level)
    return Paired(
        shadow=sum(shadow) / len(shadow),
        shown=sum(shown) / len(shown),
        difference=found.difference,
        low=found.low,
        high=found.high,
        more=found.better,
        less=found.worse,
        n=found.n,
        decided=found.decided,
        level=level,
    )


def _rows(values: list[float]) -> NDArray[np.float64]:
    """Values with what they count for, so that sums give means."""
    import numpy as np

    return np.array([[value, 1.0] for value in values])


def _mean(totals: NDArray[Any]) -> NDArray[Any]:
    means: NDArray[Any] = totals[..., 0] / totals[..., 1]
    return means
