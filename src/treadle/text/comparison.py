"""Two versions of a text collection against each other: what came, what went, and whose words became more frequent."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from treadle.text.overview import Overview

_WORDS = 14  # on either side
_SURE = 1.96  # standard errors


@dataclass(frozen=True, slots=True)
class Change:
    """A word, its share in a million words of each side, and how many standard errors its log-odds moved."""

    word: str
    before: float
    after: float
    z: float


@dataclass(frozen=True, slots=True)
class Membership:
    """Documents by id: ``changed`` have the same id and another text or fields (an earlier step changed them)."""

    added: int
    removed: int
    shared: int
    changed: int | None = None
    added_names: tuple[str, ...] = ()
    removed_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the page shows of two versions."""

    before: str
    after: str
    members: Membership
    more: list[Change] = field(default_factory=list)
    less: list[Change] = field(default_factory=list)


def changed_words(before: Overview, after: Overview) -> tuple[list[Change], list[Change]]:
    """Words that became more frequent, and less, by log-odds with a Dirichlet prior from both together (Monroe,
    Colaresi and Quinn 2008, "Fightin' Words"); only those beyond 1.96 standard errors, the surest first.
    """
    old, new = before.words.counts, after.words.counts
    total_old, total_new = old.total(), new.total()
    if not total_old or not total_new:
        return [], []
    least = {name for overview in (before, after) for name, _ in overview.shown(overview.words, 20_000)}
    prior_total = float(total_old + total_new)
    strength = min(prior_total, 1_000.0) / prior_total  # the prior weighs as much as a thousand words
    changes = []
    for word in least:
        n_old, n_new = old[word], new[word]
        prior = (n_old + n_new) * strength
        weight = prior_total * strength
        odds_new = math.log((n_new + prior) / (max(total_new + weight - n_new - prior, 0.5)))
        odds_old = math.log((n_old + prior) / (max(total_old + weight - n_old - prior, 0.5)))
        error = math.sqrt(1 / (n_new + prior) + 1 / (n_old + prior))
        changes.append(Change(word, n_old / total_old * 1e6, n_new / total_new * 1e6, (odds_new - odds_old) / error))
    changes.sort(key=lambda change: (-change.z, change.word))
    more = [change for change in changes if change.z > _SURE][:_WORDS]
    less = [change for change in reversed(changes) if change.z < -_SURE][:_WORDS]
    return more, less
