"""``treadle load``."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from treadle.cli.number import Number
from treadle.cli.output import emit, here, json_option, say
from treadle.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from treadle.loading.asking import Questions
    from treadle.loading.client import Answered, Client
    from treadle.loading.trace import Arrival
    from treadle.record.slo import Slo

T = TypeVar("T")

_KEY = "${env:TREADLE_API_KEY}"
_NAMES = {"ttft": "first token", "between_tokens": "between tokens", "total": "total", "refusal": "refused after"}


@click.command()
@click.argument("url")
@click.option("--rate", type=Number(0, 1e6, min_open=True), help="Requests a second, coming by chance.")
@click.option("--concurrency", type=click.IntRange(1, 900), help="So many at once, each as one before it has ended.")
@click.option("--replay", metavar="TRACE", help="A trace, .csv (Azure) or .jsonl, also .gz; or `journal`.")
@click.option("--plan", metavar="TRACE", help="How many replicas the trace needs to keep --slo; measures this one.")
@click.option("--check", metavar="TIME", help="After --plan, replay one replica's part of the trace so long.")
@click.option("--price", type=Number(0), help="Of a replica for an hour, for --plan.")
@click.option("--for", "duration", metavar="TIME", help="How long, such as 90s.  [default: 60s; a trace: all of it]")
@click.option("--speed", type=Number(0, 1e6, min_open=True), default=1.0, help="The trace so much faster.")
@click.option("--times", type=Number(0, 1e6, min_open=True), help="The trace with so many times the requests.")
@click.option("--slo", metavar="LIMITS", help="What an answer is to keep: ttft=1s,per_token=100ms,total=10s.")
@click.option("--at-least", type=Number(0, 1), help="Exit 1 if a smaller share of requests keeps --slo.")
@click.option("--model", help="Whom to ask, where a server has several.")
@click.option(
    "--endpoint",
    type=click.Choice(["chat", "completions", "classify", "tag", "embeddings"]),
    default="chat",
    show_default=True,
    help="What to ask for.",
)
@click.option("--prompts", metavar="FILE", type=click.Path(path_type=Path), help="Prompts to ask in turn, one a line.")
@click.option("--prompt-tokens", type=click.IntRange(1), help="Of each prompt; of a trace, the most.  [default: 64]")
@click.option("--answer-tokens", type=click.IntRange(1), help="Of each answer; of a trace, the most.  [default: 64]")
@click.option("--key", default=_KEY, show_default=True, help="Where the API key stands.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the times and of made-up prompts.")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Write the report, one HTML file.")
@json_option
def load(url: str, as_json: bool, out: Path | None, **given: Any) -> int:
    """Put load on an OpenAI-style server, and measure what its users would see.

    A request goes out when it is due, whether or not those before it were answered, and its time counts from then: a
    server that falls behind cannot hide it. (--concurrency waits, as a fixed number of users would.) Requests carry
    `store: false`: the record has no text of them.

    \b
    Example:
      treadle load http://127.0.0.1:8000 --rate 2 --for 60s --slo ttft=1s,total=10s
      treadle load http://127.0.0.1:8000 --replay journal --speed 2 --out load.html
      treadle load http://127.0.0.1:8000 --plan trace.csv --slo ttft=1s,total=10s --price 0.40 --check 60s
      treadle load http://127.0.0.1:8000 --plan trace.csv --times 2000 --slo ttft=4s,total=20s
    """
    from treadle.loading.outcome import outcome
    from treadle.loading.picture import page_of
    from treadle.record.slo import parse_slo

    slo = parse_slo(given["slo"]) if given["slo"] else None
    if given["at_least"] is not None and slo is None:
        raise UserError("--at-least: needs --slo, which says what is counted")
    if (given["check"] or given["price"] is not None) and not given["plan"]:
        raise UserError("--check and --price: go with --plan")
    arrivals, how = _arrivals(given)
    if out is not None and not out.absolute().parent.is_dir():
        raise UserError(f"--out {out}: there is no such folder; make it first")
    if given["plan"]:
        return _plan(url, arrivals, slo, given, as_json=as_json)
    answers = asyncio.run(_with(url, given, lambda client, questions: _sent(client, questions, arrivals, given)))
    found: dict[str, Any] = {"url": url, "how": how} | outcome(answers, slo)
    if out is not None:
        out.write_text(page_of(found, answers, shlex.join(["treadle", *_arguments()])), "utf-8")
        found["report"] = str(out)
    if as_json:
        emit(found)
    else:
        for line in _told(found):
            say(line)
    too_few = given["at_least"] is not None and found["slo"]["share"] < given["at_least"]
    return 1 if too_few or not found["answered"] else 0


def _arrivals(given: dict[str, Any]) -> tuple[list[Arrival] | None, str]:
    """What is due when (None: as long as the time lasts), and the same in words."""
    from treadle.core.duration import parse_seconds
    from treadle.loading.trace import JOURNAL, busier, from_interactions, read_trace, scaled, steady

    ways = [name for name in ("rate", "concurrency", "replay", "plan") if given[name] is not None]
    if len(ways) != 1:
        raise UserError("expected one of --rate, --concurrency, --replay and --plan, such as --rate 2")
    if given["times"] is not None and ways[0] not in ("replay", "plan"):
        raise UserError("--times: goes with --replay and --plan")
    if given["speed"] != 1 and ways[0] not in ("replay", "plan"):
        raise UserError("--speed: goes with --replay and --plan")
    try:
        seconds = parse_seconds(given["duration"]) if given["duration"] else None
    except ValueError as error:
        raise UserError(f"--for {given['duration']}: {error}") from None
    prompt, answer = given["prompt_tokens"], given["answer_tokens"]
    if ways == ["concurrency"]:
        return None, f"{given['concurrency']} at once"
    if ways == ["rate"]:
        lasting = seconds or 60.0
        if given["rate"] * lasting > 5_000_000:
            raise UserError("--rate: more than 5,000,000 requests; make --for shorter")
        made = steady(given["rate"], lasting, prompt=prompt or 64, answer=answer or 64, seed=given["seed"])
        if not made:
            raise UserError("--rate: no request falls into that time; make --for longer")
        return made, f"{given['rate']:g} requests a second"
    name = given["replay"] or given["plan"]
    if name == JOURNAL:
        from treadle.project import open_project

        with open_project(here()) as project:
            trace = from_interactions(project.record.recorder.interactions())
    else:
        trace = read_trace(Path(name))
    due = scaled(trace, speed=given["speed"], seconds=seconds, prompt=prompt, answer=answer)
    how = f"{Path(name).name}, {given['speed']:g} times as fast"
    if given["times"] is None:
        return due, how
    if due and given["replay"]:  # a plan is of one part of that many, and makes no more of them than it needs
        due = busier(due, given["times"], seed=given["seed"])
    return due, f"{how}, {given['times']:g} times the requests"


def _plan(url: str, arrivals: list[Arrival] | None, slo: Slo | None, given: dict[str, Any], *, as_json: bool) -> int:
    from treadle.cli.load_plan import lines, planned

    if slo is None:
        raise UserError("--plan: needs --slo, which says what the replicas are to keep")
    if not arrivals:
        raise UserError("--plan: no request of the trace falls into that time; make --for longer")
    found = asyncio.run(
        _with(url, given, lambda client, questions: planned(client, questions, arrivals, slo, given, quiet=as_json))
    )
    if as_json:
        emit({"url": url, "plan": found})
    else:
        for line in lines(found):
            say(line)
    return 0


async def _with(url: str, given: dict[str, Any], work: Callable[[Client, Questions], Awaitable[T]]) -> T:
    """Do it with a client of that server, once the server answers."""
    from treadle.core.secrets import is_reference, resolve
    from treadle.loading.asking import Questions, read_prompts
    from treadle.loading.client import Client, Target

    if not is_reference(given["key"]):
        raise UserError("--key: a key does not stand on a command line; write '${env:NAME}'")
    key = None if given["key"] == _KEY and not os.environ.get("TREADLE_API_KEY") else resolve(given["key"])
    prompts = read_prompts(given["prompts"]) if given["prompts"] else []
    questions = Questions(given["endpoint"], model=given["model"], prompts=prompts, seed=given["seed"])
    client = Client(Target(url, questions.path, key))
    try:
        await questions.calibrate(client)
        return await work(client, questions)
    finally:
        await client.close()


async def _sent(
    client: Client, questions: Questions, arrivals: list[Arrival] | None, given: dict[str, Any]
) -> list[Answered]:
    from treadle.loading.client import Asked

    if arrivals is None:
        return await _held(client, questions, given)
    return await client.replay([Asked(each.at, questions.body(each)) for each in arrivals])


async def _held(client: Client, questions: Questions, given: dict[str, Any]) -> list[Answered]:
    from treadle.core.duration import parse_seconds
    from treadle.loading.trace import Arrival

    loop = asyncio.get_running_loop()
    ends = loop.time() + parse_seconds(given["duration"] or "60s")
    each = Arrival(0.0, given["prompt_tokens"] or 64, given["answer_tokens"] or 64)
    return await client.hold(lambda: questions.body(each) if loop.time() < ends else None, given["concurrency"])


def _told(found: dict[str, Any]) -> list[str]:
    speed = f"{found['answered_per_second']:g} a second, {found['tokens_per_second']:,.1f} tokens a second"
    lines = [f"{found['answered']:,} of {found['requests']:,} answered in {found['seconds']:,.1f} s, {speed}"]
    for name, said in _NAMES.items():
        if times := found[name]:
            told = ", ".join(f"{each} {times[each] * 1e3:,.0f}" for each in ("p50", "p95", "p99", "max"))
            lines.append(f"{said:14}  {told} ms")
    if slo := found.get("slo"):
        share, of_all = f"{slo['share_of_answered']:.2%}", f"{slo['share']:.2%}"
        told = f"kept by {share} of the answers, {of_all} of the requests; {slo['goodput']:g} a second"
        lines.append(f"objective       {told}")
    lines += [f"error           {kind}: {number:,}" for kind, number in found["errors"].items()]
    late = found["sent_late"]
    if late and late["p99"] > 0.05:
        lines.append(f"note            this client fell behind: 1 % were sent over {late['p99'] * 1e3:,.0f} ms late")
    return lines + ([f"report          {found['report']}"] if "report" in found else [])


def _arguments() -> list[str]:
    return sys.argv[1:]
