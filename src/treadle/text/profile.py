"""How a body of texts looks, kept small, and whether other texts look different: drift.

A profile holds counts of hashed words, the distribution of lengths and the shares of scripts. It holds no
text and no word. Two things are tested, each at half the false-alarm rate asked for: the Jensen-Shannon
distance between word distributions, and the Wasserstein distance between lengths (in log words).

Off-the-shelf thresholds cry wolf: nearly every small window differs from the whole by some fixed measure. So
the thresholds are calibrated when the profile is made: again and again a quiet window is drawn from one half
of the texts and compared with the other half, and the quantiles of what is reached are stored for several
window sizes. ``drift`` makes the same comparison with one such half, so that window and reference are of the
sizes calibrated for; a reference of all texts would be a little sharper, and its thresholds a guess. Beyond
the last drawn quantile the tail is taken to be exponential (the generalized Pareto of Pickands 1975 with
shape 0).

What it does not know: texts that come in bursts (one user's session) are not independent draws, and a window
of them alarms more often than the rate says; looking again at overlapping windows does so too.
"""

from __future__ import annotations

import json
import math
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from treadle.core.digest import canonical_json
from treadle.core.errors import Corrupt, UserError
from treadle.text.words import words_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
PROFILE_FILE = "profile.json"
COUNTS_FILE = "profile.npz"
BUCKETS = 1_024  # hashed words; finer finds no more drift and costs memory
MIN_TEXTS = 30  # fewer texts than this, and a window is too few to say anything
_WINDOW_SIZES = (30, 100, 300, 1_000, 2_000)
_RATES = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0001)
_DRAWS = 600  # quiet windows per size
_SAMPLE = 6_000  # texts that windows are drawn from
_LENGTH_POINTS = 201  # quantiles of log length that are kept
_TAIL = 0.1  # share of the draws that the tail is fitted to
STATISTICS = ("words", "length")

Decision = Literal["yes", "no", "too few"]


@dataclass(frozen=True, slots=True)
class Drift:
    """``decided`` is yes when a statistic passed its threshold. ``shares`` are the window's scripts, for a
    person to read.
    """

    decided: Decision
    n: int
    statistics: dict[str, float]
    thresholds: dict[str, float]
    false_alarm_rate: float
    shares: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Profile:
    """Of the reference half: ``words``, the share of each bucket, and ``lengths``, quantiles of log(1 +
    words).

    ``quiet`` holds thresholds by statistic, of shape (window sizes, rates); ``texts`` and ``shares`` are of
    all texts.
    """

    texts: int
    words: NDArray[np.float64]
    lengths: NDArray[np.float64]
    shares: dict[str, float]
    sizes: tuple[int, ...]
    quiet: dict[str, NDArray[np.float64]]

    def threshold(self, statistic: str, n: int, rate: float) -> float:
        """What ``statistic`` of a quiet window of ``n`` texts passes with chance ``rate``: a power of n,
        linear in log rate.

        Windows larger than half of the texts get that half's threshold, which is too high for them: fewer
        alarms.
        """
        table = self.quiet[statistic]
        by_size = [np.interp(-math.log(rate), -np.log(_RATES), row) for row in table]
        return float(np.exp(np.interp(math.log(n), np.log(self.sizes), np.log(np.maximum(by_size, 1e-12)))))

    def save(self, folder: Path) -> None:
        """Write ``profile.json`` and ``profile.npz``."""
        about = {"format": FORMAT, "texts": self.texts, "shares": self.shares, "sizes": self.sizes, "rates": _RATES}
        (folder / PROFILE_FILE).write_bytes(canonical_json(about))
        arrays: dict[str, Any] = {f"quiet_{name}": table for name, table in self.quiet.items()}
        np.savez(folder / COUNTS_FILE, words=self.words, lengths=self.lengths, **arrays)


def load_profile(folder: Path) -> Profile:
    """The profile in a folder; ``Corrupt`` when it is none or of another format."""
    try:
        about = json.loads((folder / PROFILE_FILE).read_bytes())
        if about["format"] != FORMAT:
            raise Corrupt(f"{folder} holds a profile of format {about['format']}; this Treadle reads {FORMAT}")
        with np.load(folder / COUNTS_FILE, allow_pickle=False) as arrays:
            quiet = {name: arrays[f"quiet_{name}"] for name in STATISTICS}
            return Profile(
                int(about["texts"]), arrays["words"], arrays["lengths"], about["shares"], tuple(about["sizes"]), quiet
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{folder} holds no profile: {error}") from None


def make_profile(texts: Iterable[str], *, seed: int, groups: Sequence[str] | None = None) -> Profile:
    """The profile of ``texts``, calibrated on them. ``UserError`` when there are fewer than twice
    ``MIN_TEXTS``.

    ``groups`` (a module, a customer for each text) says what real traffic comes in bursts of: quiet windows are then
    drawn from a tenth of the groups, so that questions about other modules than usual are not taken for drift.
    """
    rows, lengths, scripts = [], [], Counter[str]()
    for text in texts:
        words = words_of(text)
        rows.append([_bucket(word) for word in words])
        lengths.append(math.log1p(len(words)))
        scripts.update(_scripts(text))
    if len(rows) < 2 * MIN_TEXTS:
        raise UserError(
            f"profile: {len(rows)} texts are too few to know how they vary; expected at least {2 * MIN_TEXTS}"
        )
    rng = np.random.default_rng(seed)
    # In the order of length, so that sorted places have sorted lengths.
    chosen = sorted(rng.permutation(len(rows))[:_SAMPLE].tolist(), key=lambda row: (lengths[row], row))
    owner = np.repeat(np.arange(len(chosen)), [len(rows[row]) for row in chosen])
    buckets = np.array([bucket for row in chosen for bucket in rows[row]], dtype=np.int64)
    ordered = np.array([lengths[row] for row in chosen])
    members = _members([groups[row] for row in chosen]) if groups else None
    sizes, quiet = _calibrate(owner, buckets, ordered, rng, members)
    reference = np.sort(rng.permutation(len(chosen))[len(chosen) // 2 :])
    total = np.bincount(buckets[np.isin(owner, reference)], minlength=BUCKETS).astype(np.float64)
    words_shares = total / max(float(total.sum()), 1.0)
    return Profile(len(rows), words_shares, _at_quantiles(ordered[reference]), _shares(scripts), sizes, quiet)


def drift(profile: Profile, texts: Sequence[str], *, false_alarm_rate: float = 0.01) -> Drift:
    """Whether a window of texts differs from the profile more than quiet windows do.

    Of windows that do not differ, at most about ``false_alarm_rate`` are called drift (0.0001 to 0.4).
    """
    if not 1e-4 <= false_alarm_rate <= 0.4:
        raise UserError(f"drift: false_alarm_rate {false_alarm_rate} is outside 0.0001 to 0.4")
    scripts = Counter[str]()
    for text in texts:
        scripts.update(_scripts(text))
    if len(texts) < MIN_TEXTS:
        return Drift("too few", len(texts), {}, {}, false_alarm_rate, _shares(scripts))
    split = [words_of(text) for text in texts]
    counts = np.bincount(
        np.array([_bucket(word) for words in split for word in words], dtype=np.int64), minlength=BUCKETS
    )
    lengths = _quantiles(np.array([math.log1p(len(words)) for words in split]))
    statistics = {
        "words": float(_js_distance(counts[None, :].astype(np.float64), profile.words)[0]),
        "length": float(np.abs(lengths - profile.lengths).mean()),
    }
    each = false_alarm_rate / len(STATISTICS)
    thresholds = {name: profile.threshold(name, len(texts), each) for name in STATISTICS}
    passed = any(statistics[name] > thresholds[name] for name in STATISTICS)
    return Drift("yes" if passed else "no", len(texts), statistics, thresholds, false_alarm_rate, _shares(scripts))


def _calibrate(
    owner: NDArray[np.int64],
    buckets: NDArray[np.int64],
    lengths: NDArray[np.float64],
    rng: np.random.Generator,
    members: Sequence[NDArray[np.int64]] | None = None,
) -> tuple[tuple[int, ...], dict[str, NDArray[np.float64]]]:
    """Thresholds of quiet windows by size. ``owner`` and ``buckets`` are of words, ``lengths`` of texts, ascending.

    One draw shuffles the texts: windows of every size are the first so many of one half, compared with the other half.
    """
    half = len(lengths) // 2
    sizes = sorted({size for size in _WINDOW_SIZES if size < half} | {min(half, _WINDOW_SIZES[-1])})
    # Texts between two sizes are one part, the rest of their half is a part that is not used, the other half the last.
    ends = np.array([*sizes, half, len(lengths)])
    parts = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    part_of = np.empty(len(lengths), dtype=np.int64)
    draws: dict[str, list[NDArray[np.float64]]] = {name: [] for name in STATISTICS}
    for _ in range(_DRAWS):
        order = rng.permutation(len(lengths)) if members is None else _in_bursts(members, rng)
        part_of[order] = parts
        counts = np.bincount(part_of[owner] * BUCKETS + buckets, minlength=len(ends) * BUCKETS)
        counts = counts.reshape(len(ends), BUCKETS).astype(np.float64)
        draws["words"].append(_js_distance(np.cumsum(counts[: len(sizes)], axis=0), counts[-1]))
        rest = _at_quantiles(lengths[np.sort(order[half:])])
        gaps = [np.abs(_at_quantiles(lengths[np.sort(order[:size])]) - rest).mean() for size in sizes]
        draws["length"].append(np.array(gaps))
    by_size = {name: np.stack(found, axis=1) for name, found in draws.items()}
    return tuple(sizes), {name: np.stack([_thresholds(row) for row in rows]) for name, rows in by_size.items()}


def _members(groups: Sequence[str]) -> list[NDArray[np.int64]]:
    """The places of each group's texts."""
    found: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        found.setdefault(group, []).append(place)
    return [np.array(places, dtype=np.int64) for places in found.values()]


def _in_bursts(members: Sequence[NDArray[np.int64]], rng: np.random.Generator) -> NDArray[np.int64]:
    """All places, whole groups after each other, shuffled within tenths."""
    order = np.concatenate([members[group] for group in rng.permutation(len(members))])
    tenth = max(1, len(order) // 10)
    for start in range(0, len(order), tenth):
        rng.shuffle(order[start : start + tenth])
    return order


def _thresholds(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """The value passed with each of ``_RATES``; rates too small for the draws by an exponential tail."""
    start = float(np.quantile(draws, 1 - _TAIL))
    excess = float((draws[draws > start] - start).mean()) if (draws > start).any() else 0.0
    tail = [start + excess * math.log(_TAIL / rate) for rate in _RATES]
    enough = 20 / len(draws)  # below this an empirical quantile rests on fewer than 20 draws
    plain = np.quantile(draws, [1 - rate for rate in _RATES])
    return np.array([plain[i] if rate >= max(enough, _TAIL) else tail[i] for i, rate in enumerate(_RATES)])


def _js_distance(counts: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Jensen-Shannon distance (square root of the divergence, base 2: 0 to 1) of each row from its reference."""
    p = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    q = reference / np.maximum(reference.sum(axis=-1, keepdims=True), 1e-300)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(p > 0, p * np.log2(p / middle), 0.0).sum(axis=-1)
        right = np.where(q > 0, q * np.log2(q / middle), 0.0).sum(axis=-1)
    return np.asarray(np.sqrt(np.maximum((left + right) / 2, 0.0)))


def _quantiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return _at_quantiles(np.sort(values))


def _at_quantiles(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantiles of sorted values (along the last axis) at the middle of equal steps.

    The mean distance of two such lines is their Wasserstein-1 distance.
    """
    places = (np.arange(_LENGTH_POINTS) + 0.5) / _LENGTH_POINTS * ordered.shape[-1]
    return np.asarray(ordered[..., places.astype(np.int64)])


@lru_cache(maxsize=200_000)
def _bucket(word: str) -> int:
    return zlib.crc32(word.encode("utf-8", "surrogatepass")) % BUCKETS


def _scripts(text: str) -> Counter[str]:
    """Letters by script, from the first 2,000 characters."""
    return Counter(_script(character) for character in text[:2_000] if character.isalpha())


@lru_cache(maxsize=20_000)
def _script(character: str) -> str:
    """The first word of the letter's Unicode name: LATIN, CYRILLIC, CJK, ARABIC ..."""
    return unicodedata.name(character, "UNKNOWN").partition(" ")[0].lower()


def _shares(scripts: Counter[str]) -> dict[str, float]:
    total = sum(scripts.values())
    return {name: round(count / total, 4) for name, count in scripts.most_common(8)} if total else {}
