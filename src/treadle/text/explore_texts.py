"""The parts of the report that look into the texts: the map, languages, words and runs of words, measures."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from treadle.text import chart
from treadle.text.chart import text
from treadle.text.overview import MEASURES, Overview
from treadle.text.page import REGION_COLORS, beside, section, titled
from treadle.text.quality import FIELD as SCORE
from treadle.text.text_map import TextMap, lay_out

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WIDE, _HIGH, _EDGE = 960, 620, 26
_WORDS = 20
_FEWEST_TEXTS = 3  # of a region, that must use a word before it names the region
_CELLS = 24
_FEWEST_MEASURED = 5  # documents; of fewer nothing is drawn
_PLANES = (
    ("word_count", "stop_words"),
    ("mean_word_length", "letter_words"),
    ("symbols", "duplicate_lines"),
    ("word_count", SCORE),
    ("stop_words", SCORE),
)
_NAMES = {
    "characters": "characters",
    "word_count": "words",
    "stop_words": "stop words, of 8",
    SCORE: "classifier score",
}
# English function words; what is left says more of what the texts are about.
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a about after all also an and any are as at be because been but by can could did do does for from "
        "had has have he her him his i if in into is it its may me more most my no not of on one only or "
        "other our out she so some such than that the their them then there these they this to up upon us was "
        "we were what when which who will with would you your ",
    )
)


def text_map(overview: Overview) -> str:
    """Texts as points: alike is near. Pointing at one shows what it says; without a script its title does."""
    points = overview.points
    drawn = lay_out([point.words for point in points], fewest_texts=_FEWEST_TEXTS, unsaid=_FUNCTION_WORDS)
    if drawn is None:
        return ""
    radius = 6 if len(points) < 400 else 4.6 if len(points) < 1200 else 3.8
    circles = []
    for point, (x, y), region in zip(points, drawn.places, drawn.region_of, strict=True):
        about = " · ".join(part for part in (point.source, point.language) if part)
        said = point.excerpt or "about a person; its text is not shown"
        circles.append(
            f'<circle class="r{region % REGION_COLORS}" cx="{_EDGE + x * (_WIDE - 2 * _EDGE):.0f}"'
            f' cy="{_EDGE + y * (_HIGH - 2 * _EDGE):.0f}" r="{radius}">'
            f"<title>{text(point.locator)}\n{text(about)}\n{text(said)}</title></circle>"
        )
    label = f"Map of {len(points):,} texts; arrow keys go from one to the next. The table below names its regions."
    picture = (
        f'<div class="map"><div class="tools" hidden><label>Find <input type="search" placeholder="a word">'
        f'</label><output aria-live="polite"></output></div><svg tabindex="0" role="img" aria-label="{label}"'
        f' viewBox="0 0 {_WIDE} {_HIGH}" xmlns="http://www.w3.org/2000/svg">{"".join(circles)}{_labels(drawn)}'
        "</svg></div>"
    )
    of = "" if len(points) == overview.documents else f" of {overview.documents:,}"
    intro = (
        f"{len(points):,}{of} texts; those that use the same words lie near each other. The axes mean nothing, and"
        " neither does the distance between far apart groups."
    )
    return section("Map of the texts", picture, _regions(drawn), intro=intro)


def _labels(drawn: TextMap) -> str:
    """The regions' words, moved apart where they would cover each other."""
    placed: list[tuple[float, float, float]] = []
    found = []
    for region in sorted(drawn.regions, key=lambda region: -region.texts):
        said = " · ".join(region.words)
        if not said or region.texts < _FEWEST_TEXTS * 2:
            continue
        half = len(said) * 4.2
        x = min(max(_EDGE + region.x * (_WIDE - 2 * _EDGE), half + 8), _WIDE - half - 8)
        y = _EDGE + region.y * (_HIGH - 2 * _EDGE)
        for _ in range(12):
            if not any(abs(x - ox) < half + width and abs(y - oy) < 20 for ox, oy, width in placed):
                break
            y = y + 21 if y < _HIGH - 50 else y - 150
        placed.append((x, y, half))
        found.append(f'<text class="label" x="{x:.0f}" y="{y:.0f}" text-anchor="middle">{text(said)}</text>')
    return "".join(found)


def _regions(drawn: TextMap) -> str:
    rows = "".join(
        f'<tr><td>{text(", ".join(region.words)) or "mixed"}</td><td class="n">{region.texts:,}</td></tr>'
        for region in sorted(drawn.regions, key=lambda region: -region.texts)
    )
    head = '<tr><th scope="col">typical words of a region</th><th scope="col" class="n">texts</th></tr>'
    return f'<details class="numbers"><summary>As a table</summary><table>{head}{rows}</table></details>'


def languages(overview: Overview) -> str:
    """Shares of languages among the texts looked at, or how to get them."""
    if overview.language_missing:
        return section("Languages", f'<p class="note">{text(overview.language_missing)}</p>')
    picture = chart.bars(overview.languages, title="documents by language", color="third", most=10)
    note = f"Guessed from the start of {overview.sampled:,} documents." if picture else ""
    return section("Languages", picture, f'<p class="note">{note}</p>' if note else "")


def vocabulary(overview: Overview) -> str:
    """The commonest words and runs, and how the vocabulary grows."""
    if not overview.words.counts:
        return ""
    words = dict(overview.shown(overview.words, _WORDS, _FUNCTION_WORDS))
    pairs = dict(overview.shown(overview.pairs, _WORDS * 6))
    pairs = {pair: n for pair, n in pairs.items() if not set(pair.split()) <= _FUNCTION_WORDS}
    triples = dict(overview.shown(overview.triples, 14))
    lists = beside(
        titled("Words", chart.bars(words, title="commonest words", most=_WORDS)),
        titled(
            "Pairs, by documents", chart.bars(dict(list(pairs.items())[:14]), title="commonest pairs", color="third")
        ),
        titled("Triples, by documents", chart.bars(triples, title="commonest triples", color="third")),
    )
    growth = ""
    if len(overview.growth) > 2:
        points = {"different words": [(float(x), float(y)) for x, y in overview.growth]}
        growth = chart.curves(
            points, title="vocabulary growth", unit="words read", log=False, percent=False, high="different words"
        )
        growth = titled("Growth", growth)
    once = sum(1 for n in overview.words.counts.values() if n == 1)
    total, different = overview.words.counts.total() + overview.words.given_up, len(overview.words.counts)
    more = "more than " if overview.words.given_up else ""
    note = (
        f"{total:,} words, {more}{different:,} different ones, {once:,} of them once. English function words are left"
        " out of the list of words" + (", as is what fewer than three documents say." if overview.about_people else ".")
    )
    return section("Words", lists, growth, f'<p class="note">{note}</p>')


def measures(overview: Overview) -> str:
    """What the filters measure: how the measures go together, and pairs of them."""
    import numpy as np

    if len(overview.measures) < _FEWEST_MEASURED:
        return ""
    values = np.array(overview.measures)
    names = [_NAMES.get(name, name.replace("_", " ")) for name in MEASURES]
    varied = [column for column in range(len(names)) if _varies(values[:, column])]
    if len(varied) < 2:
        return ""
    grid = chart.grid(
        [names[column] for column in varied],
        [[_together(values[:, one], values[:, other]) for other in varied] for one in varied],
        title="rank correlation of each two measures",
    )
    planes = [_plane(values, MEASURES.index(across), MEASURES.index(up), names) for across, up in _PLANES]
    intro = (
        f"Of {len(overview.measures):,} documents: each two measures of the filters as a rank correlation (1: they rise"
        " together, -1: one falls), and pairs of them as densities, darker where more documents lie."
    )
    return section("Quality measures", f'<div class="scroll">{grid}</div>', beside(*planes), intro=intro)


def _varies(values: NDArray[np.float64]) -> bool:
    """Whether there are enough of them, and not all the same."""
    import numpy as np

    there = values[~np.isnan(values)]
    return len(there) >= _FEWEST_MEASURED and bool(np.ptp(there) > 0)


def _together(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Spearman's rank correlation over the documents that have both."""
    import numpy as np

    both = ~(np.isnan(one) | np.isnan(other))
    if not (_varies(one[both]) and _varies(other[both])):
        return math.nan
    return float(np.corrcoef(_ranks(one[both]), _ranks(other[both]))[0, 1])


def _plane(values: NDArray[np.float64], across: int, up: int, names: Sequence[str]) -> str:
    import numpy as np

    values = values[~np.isnan(values[:, [across, up]]).any(axis=1)]
    if not (_varies(values[:, across]) and _varies(values[:, up])):
        return ""
    sides, told = [], []
    for column in (across, up):
        found = values[:, column]
        low, high = float(found.min()), float(np.quantile(found, 0.995))
        high = high if high > low else float(found.max())
        scaled = np.clip(found, low, high)
        if high > 50 * max(low, 1):
            scaled, ends = np.log1p(scaled), (math.log1p(low), math.log1p(high))
        else:
            ends = (low, high)
        place = (scaled - ends[0]) / (ends[1] - ends[0]) * _CELLS
        sides.append(np.clip(place.astype(np.int64), 0, _CELLS - 1))
        told.append((names[column], chart.short(low), chart.short(high)))
    cells = np.bincount(sides[0] * _CELLS + sides[1], minlength=_CELLS * _CELLS).reshape(_CELLS, _CELLS)
    title = f"{names[across]} against {names[up]}"
    return f"<div>{chart.density(cells.tolist(), title=title, across=told[0], up=told[1])}</div>"


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0, equal values sharing their mean."""
    import numpy as np

    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - counts / 2)[inverse], dtype=np.float64)
