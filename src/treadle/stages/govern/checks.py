"""The gates that ship: quality against baselines and champion, personal data in the answers, licenses.

A gate is a function ``gate(evidence, **settings) -> GateResult``, found through the entry-point group
``treadle.checks`` or as
``module:function``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from treadle.core.errors import UserError, nearest
from treadle.record.gate import GateResult
from treadle.record.version import NO_BASE_LICENSE
from treadle.stages.govern.evidence import UNRECORDED, Evidence

CHAMPION = "champion"
_SEED = 17


def quality(
    evidence: Evidence,
    *,
    metric: str,
    beats: str | None = None,
    not_worse_than: str | None = None,
    on: Literal["tests", "cases"] = "tests",
) -> GateResult:
    """Paired with another evaluation on the same items, beyond the 95 % interval.

    ``beats``: the interval of the difference lies wholly on the better side. ``not_worse_than``: it does not lie
    wholly on the worse side. ``on: cases`` compares with the champion on what users corrected and nobody learned from.
    Without a champion, or without enough cases, the gate passes and says so.
    """
    if (beats is None) == (not_worse_than is None):
        raise UserError("gate quality: give exactly one of beats and not_worse_than")
    other = beats or not_worse_than or ""
    name = f"quality {metric} {'beats' if beats else 'not worse than'} {other}" + (" on cases" if on == "cases" else "")
    ours, theirs = ("model", other) if on == "tests" else ("model on cases", f"{other} on cases")
    if on == "cases" and ours not in evidence.evaluations:
        return GateResult(name, True, "there are not enough cases yet")
    if theirs not in evidence.evaluations:
        if other == CHAMPION:
            return GateResult(name, True, "there is no champion yet")
        known = [key for key in evidence.evaluations if key != "model" and " " not in key]
        raise UserError(f"gate quality: {other!r} was not evaluated;{nearest(other, known)}")
    from treadle.evals.intervals import MIN_ITEMS
    from treadle.evals.metric import load_metric

    measure = load_metric(metric, evidence.folder)
    found = evidence.evaluations[ours].items().against(evidence.evaluations[theirs].items(), measure, seed=_SEED)
    wins = found.decided and found.wins
    loses = found.decided and not found.wins
    passed = wins if beats else not loses
    word = "better" if wins else "worse" if loses else "undecided"
    if found.n < MIN_ITEMS:
        word = f"undecided: fewer than {MIN_ITEMS} items"
    detail = (
        f"{found.difference:+.3g} [{found.low:+.3g}, {found.high:+.3g}] against {other}, {word}"
        f" ({found.better} items better, {found.worse} worse of {found.n})"
    )
    return GateResult(name, passed, detail, found.to_json())


def personal_data(
    evidence: Evidence, *, max_findings: Annotated[int, Field(ge=0)] = 0, kinds: list[str] | None = None
) -> GateResult:
    """Personal data in the answers that the model gave while it was evaluated."""
    from treadle.text.personal_data import KINDS, find

    outputs = evidence.evaluations["model"].items().outputs
    wanted = tuple(kinds) if kinds is not None else KINDS
    counts: dict[str, int] = {}
    for output in outputs:
        for span in find(output.text, wanted):
            counts[span.kind] = counts.get(span.kind, 0) + 1
    total = sum(counts.values())
    detail = f"{total} findings in {len(outputs)} answers, at most {max_findings} allowed"
    return GateResult("personal_data", total <= max_findings, detail, {"findings": total, "kinds": counts})


def answers(evidence: Evidence, *, max_empty: Annotated[float, Field(ge=0, le=1)] = 0.02) -> GateResult:
    """Few answers without a word in them, of those given while it was evaluated; ``max_empty`` is a share."""
    outputs = evidence.evaluations["model"].items().outputs
    empty = sum(not any(character.isalnum() for character in output.text) for output in outputs)
    passed = empty <= max_empty * len(outputs)
    detail = f"{empty} of {len(outputs)} answers are empty, at most {max_empty:.0%} allowed"
    return GateResult("answers", passed, detail, {"empty": empty, "answers": len(outputs)})


def license(evidence: Evidence, *, allow: list[str]) -> GateResult:  # noqa: A001 (the gate's name)
    """Every document, and the base model where there is one, have one of the allowed licenses."""
    licenses = {**evidence.licenses}
    if evidence.base_license != NO_BASE_LICENSE:
        licenses[evidence.base_license] = licenses.get(evidence.base_license, 0)
    refused = {name: count for name, count in licenses.items() if name not in allow}
    if refused:
        shown = ", ".join(
            f"{name} ({count} documents)" if count else f"{name} (base model)" for name, count in refused.items()
        )
        missing = "; give license of each source, and improve.corrections.license" if UNRECORDED in refused else ""
        return GateResult("license", False, f"not allowed: {shown}{missing}", {"refused": refused})
    return GateResult("license", True, f"only {', '.join(sorted(licenses))}", {"licenses": licenses})
