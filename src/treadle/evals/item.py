"""What was asked and what came back: the two things every metric sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its reference.

    ``messages`` are those before the answer (without worked examples), ``reference`` is the answer. For
    classification ``text`` is what is classified and ``reference`` the label. ``fields`` are what slices are
    made by. ``tools`` are the functions that may be called; ``calls`` those of the reference, which ``reference`` has
    as JSON too, one a line. Of several ``choices`` the one at ``gold`` is right, and is the ``reference``.
    """

    id: str
    messages: tuple[dict[str, str], ...] = ()
    text: str = ""
    reference: str = ""
    documents: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Mapping[str, Any], ...] = ()
    calls: tuple[Mapping[str, Any], ...] = ()
    choices: tuple[str, ...] = ()
    gold: int = -1


@dataclass(frozen=True, slots=True)
class Output:
    """What a model made of an item: an answer, a judgment of the reference, or a distribution over labels.

    ``text`` is the answer or the label chosen. ``log_likelihood`` (nats, a sum) and ``reference_tokens`` are
    of the reference answer with the token that ends its turn; None and 0 when it was not scored.
    ``rejected_log_likelihood`` is that of the item's rejected answer, where it has one and a metric asked.
    ``choices`` are the log-likelihoods of an item's choices, in their order.
    """

    text: str = ""
    log_likelihood: float | None = None
    reference_tokens: int = 0
    probabilities: Mapping[str, float] = field(default_factory=dict)
    rejected_log_likelihood: float | None = None
    choices: tuple[float, ...] = ()
