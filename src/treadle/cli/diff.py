"""``treadle diff``."""

from __future__ import annotations

from typing import Any

import click

from treadle.cli.output import emit, here, json_option, say
from treadle.project import open_project
from treadle.stages.track.difference import SHOWN, Difference, difference
from treadle.stages.track.flips import Flips

_WIDTH = 70  # characters of a question
_MOST = 10_000


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--metric", default="", help="What tells items apart; by default whether they are right.")
@click.option(
    "--limit", type=click.IntRange(1, _MOST), default=SHOWN, show_default=True, help="Documents and items in each list."
)
@json_option
def diff(a: str, b: str, metric: str, limit: int, as_json: bool) -> None:
    """What changed between two versions, artifacts or runs: settings, documents, metrics, items, environment.

    Items are those that both were asked and that one answered better: right before and wrong now, or the other way.

    \b
    Example:
      treadle diff model@v1 model@v2
      treadle diff model@v1 model@v2 --metric rouge_l --limit 5
    """
    with open_project(here()) as project:
        found = difference(project.record, a, b, metric=metric, shown=limit)
    if as_json:
        emit(found.public())
        return
    _pairs("settings", found.settings)
    for name, (before, after) in found.metrics.items():
        sure = found.intervals.get(name, [None, None])
        say(f"{'metrics':<12} {name}: {_figure(before, sure[0])} -> {_figure(after, sure[1])}")
    _documents(found)
    for ref, request in found.erased.items():
        say(f"{'documents':<12} {ref} was erased by {request}: what it was made from cannot be compared any more")
    if found.items is not None:
        _items(found.items)
    _pairs("environment", found.environment)
    turned = found.items is not None and found.items.better + found.items.worse
    listed = found.added or found.removed or found.erased
    if not (found.settings or found.metrics or found.environment or listed or turned):
        say("nothing changed")


def _pairs(title: str, part: dict[str, list[Any]]) -> None:
    for name, (before, after) in part.items():
        say(f"{title:<12} {name}: {before} -> {after}")


def _figure(value: Any, interval: list[float] | None) -> str:
    return f"{value}" if interval is None else f"{value:.4g} [{interval[0]:.4g}, {interval[1]:.4g}]"


def _documents(found: Difference) -> None:
    counts = found.documents
    if not counts:
        return
    line = f"{counts['a']:,} -> {counts['b']:,}: {counts['added']:,} added, {counts['removed']:,} removed"
    say(f"{'documents':<12} {line}" + (f", {counts['changed']:,} of them changed" if counts["changed"] else ""))
    added, removed = (counts[name] - counts["changed"] for name in ("added", "removed"))  # changed ones are listed last
    for sign, names, count in (
        ("~", found.changed, counts["changed"]),
        ("+", found.added[:added], added),
        ("-", found.removed[:removed], removed),
    ):
        for name in names:
            say(f"  {sign} {name}")
        _rest(sign, count - len(names))


def _items(found: Flips) -> None:
    words = (
        ("wrong before and right now", "right before and wrong now") if found.right_or_wrong else ("better", "worse")
    )
    line = f"{found.metric}: of {found.n:,} that both were asked, {found.count_better:,} {words[0]}"
    say(f"{'items':<12} {line}, {found.count_worse:,} {words[1]}")
    if found.paired is not None:
        pair = found.paired
        said = "" if pair.decided else ", which may be chance"
        say(f"  on the same items {pair.difference:+.4g} [{pair.low:.4g}, {pair.high:.4g}]{said}")
    for sign, flips, count in (("+", found.better, found.count_better), ("-", found.worse, found.count_worse)):
        for flip in flips:
            question = " ".join(flip.question.split())
            short = question if len(question) <= _WIDTH else question[: _WIDTH - 3] + "..."
            say(f"  {sign} {flip.item[:16]} {flip.value_a:.4g} -> {flip.value_b:.4g}  {short}")
        _rest(sign, count - len(flips))


def _rest(sign: str, count: int) -> None:
    if count > 0:
        say(f"  {sign} ... and {count:,} more")
