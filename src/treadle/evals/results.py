"""An evaluation as files: ``scores.json`` with intervals and ``items.jsonl`` with everything they were worked
out from.

Scores can be worked out again from the items alone, so two evaluations made at different times are compared
item by item, and a metric can be added later without running the model again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from treadle.core.digest import canonical_json
from treadle.core.errors import Corrupt, UserError
from treadle.evals.intervals import LEVEL, Comparison, Interval, compare, interval
from treadle.evals.item import Item, Output
from treadle.evals.metric import Metric, score_rows

FORMAT = 1
SCORES_FILE = "scores.json"
ITEMS_FILE = "items.jsonl"
# Keys that came after the format's first version, and what they are where there is none.
_LATER = {"tools", "calls", "choices", "gold", "rejected_log_likelihood"}
_NONE = (None, (), -1)
_MAX_LINE = 16 << 20  # bytes of one item


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Items with what one model made of them."""

    name: str
    items: tuple[Item, ...]
    outputs: tuple[Output, ...]

    def scores(self, metrics: Sequence[Metric], *, seed: int) -> dict[str, Interval]:
        """Each metric with its interval."""
        return {
            metric.name: interval(score_rows(metric, self.items, self.outputs), metric.reduce, seed=seed)
            for metric in metrics
        }

    def against(self, baseline: Evaluation, metric: Metric, *, seed: int, level: float = LEVEL) -> Comparison:
        """This one minus ``baseline``, paired on the items both have; ``UserError`` when those are fewer than
        two.
        """
        theirs = {item.id: output for item, output in zip(baseline.items, baseline.outputs, strict=True)}
        shared = [
            (item, output, theirs[item.id])
            for item, output in zip(self.items, self.outputs, strict=True)
            if item.id in theirs
        ]
        if len(shared) < 2:
            raise UserError(
                f"{self.name} and {baseline.name} share {len(shared)} items;"
                " evaluate both on the same split to compare them"
            )
        items = [item for item, _, _ in shared]
        return compare(
            score_rows(metric, items, [ours for _, ours, _ in shared]),
            score_rows(metric, items, [other for _, _, other in shared]),
            metric.reduce,
            higher_is_better=metric.higher_is_better,
            seed=seed,
            level=level,
        )

    def slices(self, by: str, metric: Metric, *, seed: int, min_items: int = 2) -> dict[str, Interval]:
        """The metric for each value of a field; values with fewer than ``min_items`` items are left out."""
        groups: dict[str, list[int]] = {}
        for place, item in enumerate(self.items):
            if by in item.fields:
                groups.setdefault(str(item.fields[by]), []).append(place)
        found = {}
        for value, places in sorted(groups.items()):
            if len(places) >= max(min_items, 2):
                rows = score_rows(metric, [self.items[i] for i in places], [self.outputs[i] for i in places])
                found[value] = interval(rows, metric.reduce, seed=seed)
        return found


def write_evaluation(
    folder: Path, evaluation: Evaluation, metrics: Sequence[Metric], *, seed: int, info: Mapping[str, Any] | None = None
) -> dict[str, Interval]:
    """Write both files; ``info`` (model, split, prompt) joins ``scores.json``, and so does a metric's ``signature``.

    Returns the scores.
    """
    scores = evaluation.scores(metrics, seed=seed)
    each = {metric.name: _each(metric, evaluation) for metric in metrics}
    lines = []
    for place, (item, output) in enumerate(zip(evaluation.items, evaluation.outputs, strict=True)):
        values = {name: column[place] for name, column in each.items()}
        lines.append(canonical_json({"item": _written(item), "output": _written(output), "values": values}) + b"\n")
    (folder / ITEMS_FILE).write_bytes(b"".join(lines))
    about = {
        **(info or {}),
        "format": FORMAT,
        "name": evaluation.name,
        "n": len(evaluation.items),
        "seed": seed,
        "scores": {
            metric.name: {
                **scores[metric.name].to_json(),
                "higher_is_better": metric.higher_is_better,
                **({"signature": metric.signature} if hasattr(metric, "signature") else {}),
            }
            for metric in metrics
        },
    }
    (folder / SCORES_FILE).write_bytes(canonical_json(about))
    return scores


def read_evaluation(folder: Path) -> Evaluation:
    """An evaluation written earlier; ``Corrupt`` when the folder holds none of this format."""
    try:
        about = json.loads((folder / SCORES_FILE).read_bytes())
        if about["format"] != FORMAT:
            raise Corrupt(f"{folder} is an evaluation of format {about['format']}; this Treadle reads format {FORMAT}")
        rows = list(_read_lines(folder / ITEMS_FILE))
        items = tuple(_item(row["item"]) for row in rows)
        return Evaluation(str(about["name"]), items, tuple(_output(row["output"]) for row in rows))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{folder} holds no evaluation: {error}") from None


def _each(metric: Metric, evaluation: Evaluation) -> list[float]:
    rows = score_rows(metric, evaluation.items, evaluation.outputs)
    return [float(value) for value in metric.reduce(rows)]


def _written(value: Item | Output) -> dict[str, Any]:
    """Without what only some tasks have, where there is none: older rows stay as they were."""
    row = asdict(value)
    return {key: found for key, found in row.items() if key not in _LATER or found not in _NONE}


def _item(row: dict[str, Any]) -> Item:
    lists = [key for key in ("messages", "documents", "tools", "calls", "choices") if key in row]
    several: dict[str, Any] = {key: tuple(row[key]) for key in lists}
    return Item(**{**row, **several})


def _output(row: dict[str, Any]) -> Output:
    return Output(**{**row, "choices": tuple(row.get("choices", ()))})


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        while line := file.readline(_MAX_LINE):
            yield json.loads(line)
