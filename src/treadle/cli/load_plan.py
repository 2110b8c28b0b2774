"""``treadle load --plan``: replicas and cost for a trace and an objective."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from treadle.cli.output import say
from treadle.core.errors import UserError

if TYPE_CHECKING:
    from treadle.loading.asking import Questions
    from treadle.loading.client import Client
    from treadle.loading.plan import Plan
    from treadle.loading.trace import Arrival
    from treadle.record.slo import Slo

_LEVEL_SECONDS = 8.0
_AT_LEAST = 0.99
_HOURS = 730  # in a month


async def planned(
    client: Client, questions: Questions, arrivals: list[Arrival], slo: Slo, given: dict[str, Any], *, quiet: bool
) -> dict[str, Any]:
    """Measure one replica, plan, and with ``--check`` replay one replica's part of the trace on it."""
    from statistics import median

    from treadle.core.duration import parse_seconds
    from treadle.loading.client import Asked
    from treadle.loading.curve import measure
    from treadle.loading.outcome import outcome
    from treadle.loading.plan import plan, simulate
    from treadle.loading.trace import Arrival

    prompt, answer = median(a.prompt for a in arrivals), max(8, median(a.answer for a in arrivals))
    if not quiet:
        say(f"measuring with prompts of {prompt:,.0f} and answers of {answer:,.0f} tokens, the trace's medians")
    curve = await measure(
        client,
        lambda times: questions.body(Arrival(0.0, round(prompt), max(2, round(answer * times)))),
        _LEVEL_SECONDS,
        None
        if quiet
        else lambda level: say(f"{level.at_once:4} at once  {level.tokens_per_second:8,.1f} tokens a second"),
    )
    at_least = _AT_LEAST if given["at_least"] is None else given["at_least"]
    times = given["times"] or 1.0
    if not quiet:
        say("simulating the trace, which takes up to a minute for very many requests")
    found = await asyncio.to_thread(plan, curve, arrivals, slo, at_least, times=times)
    told: dict[str, Any] = {"curve": curve.public(), "at_least": at_least, "slo": slo.given()} | found.public()
    if given["price"] is not None:
        told["cost"] = _cost(found, given["price"])
    if given["check"] is None:
        return told
    try:
        seconds = parse_seconds(given["check"])
    except ValueError as error:
        raise UserError(f"--check {given['check']}: {error}") from None
    part = [each for each in found.one_replica() if each.at < seconds]
    if not part:
        raise UserError(f"--check {given['check']}: no request falls into that time; make it longer")
    answers = await client.replay([Asked(each.at, questions.body(each)) for each in part])
    measured = outcome(answers, slo)
    # A model may end an answer before the trace does: the simulation is of what was really written.
    lengths = [each.answer_tokens or arrival.answer for each, arrival in zip(answers, part, strict=True)]
    really = [Arrival(a.at, a.prompt, max(1, tokens)) for a, tokens in zip(part, lengths, strict=True)]
    told["check"] = {"seconds": seconds, "requests": len(part), "errors": measured["errors"]} | {
        "planned": _shown(simulate(curve, really, 1, slo)),
        "measured": _shown(measured | {"share": measured["slo"]["share"]}),
    }
    return told


def _shown(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in ("ttft", "total", "share")}


def _cost(found: Plan, price: float) -> dict[str, float]:
    answers = sum(each.answer for each in found.arrivals)
    tokens = found.cells * answers / max(found.arrivals[-1].at, 1.0)  # a second
    hour = found.replicas * price
    return {
        "per_hour": round(hour, 4),
        "per_month": round(hour * _HOURS, 2),
        "per_million_answer_tokens": round(hour / (tokens * 3600) * 1e6, 4),
    }


def lines(told: dict[str, Any]) -> list[str]:
    """The same for people."""
    slo = ", ".join(f"{name} {seconds:g} s" for name, seconds in told["slo"].items())
    cells = f" in {told['cells']:,} cells" if told["cells"] > 1 else ""
    rate = f"for {told['requests_per_second']:,.1f} requests a second"
    found = [f"{told['replicas']:,} replicas{cells} {rate}: {told['share']:.2%} of the requests keep {slo}"]
    if cost := told.get("cost"):
        token = f"{cost['per_million_answer_tokens']:,.2f} a million tokens of answers"
        found.append(f"cost      {cost['per_hour']:,.2f} an hour, {cost['per_month']:,.0f} a month, {token}")
    if check := told.get("check"):
        for name in ("planned", "measured"):
            each = check[name]
            times = ", ".join(
                f"{what} p50 {each[what]['p50']:.2f} p95 {each[what]['p95']:.2f} s"
                for what in ("ttft", "total")
                if each[what]
            )
            found.append(
                f"{name:9} {times}; {each['share']:.1%} kept it, of one replica's {check['requests']:,} requests"
            )
        found += [f"error     {kind}: {number:,}" for kind, number in check["errors"].items()]
    return found
