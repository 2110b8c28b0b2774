"""A real trace at 70 % and at 200 % of what a release can do: ``python -m benchmarks.load [--quick]``.

The release is that of ``benchmarks.serve``: SmolLM2 by OpenVINO, behind the gateway without keys, in a process of its
own. The trace is ten minutes of the Azure conversation trace (one with ``--quick``), scaled to the machine: prompts and
answers cut to what it reads and writes in seconds, and as many of the requests, or as many times more, as make 70 or
200 % of what it answers of that size. Below capacity there may be no error; above, the excess has to be refused with
429 within 50 ms, and what was accepted to keep the objective.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.report import print_report, versions
from benchmarks.serve import SYSTEM_PROMPT, prepare
from benchmarks.server import serve, worker
from treadle.loading.asking import Questions
from treadle.loading.client import Asked, Client, Target
from treadle.loading.outcome import outcome
from treadle.loading.trace import Arrival, busier, read_trace, scaled
from treadle.record.slo import parse_slo

DATA = Path(os.environ.get("TREADLE_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
TRACE = DATA / "7-load-drift-feedback/azure_llm_2023_conv.csv.gz"
PROMPT, ANSWER = 256, 64  # tokens at most
_BEGIN = 600.0  # seconds into the trace, whose first minutes are quiet
SLO = parse_slo("ttft=4s,total=20s")
MEASURED = 32  # requests at once at which capacity is measured


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="A real trace below and above capacity.")
    parser.add_argument("--quick", action="store_true", help="a minute instead of ten")
    seconds = 60.0 if parser.parse_args().quick else 600.0
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        folder = prepare(Path(scratch, "model"))
        with worker(_serve, folder) as (url, _):
            figures = asyncio.run(measured(url, seconds))
    figures |= {"load_before": round(before, 2), "versions": versions(("openvino-genai", "uvicorn", "uvloop"))}
    print_report("load", figures.pop("ratios"), figures)


async def measured(url: str, seconds: float) -> dict[str, Any]:
    """Figures, and the ratios ``refusal`` (50 ms over the slowest of 99 %) and ``kept`` (share over .99)."""
    trace = scaled(read_trace(TRACE), speed=1, seconds=None, prompt=PROMPT, answer=ANSWER)
    client = Client(Target(url, "/v1/chat/completions"))
    questions = Questions("chat", model=None, seed=1)
    await questions.calibrate(client)
    capacity = await _capacity(client, questions, trace, 40.0 if seconds < 100 else 120.0)
    figures: dict[str, Any] = {"capacity_requests_per_second": round(capacity, 3), "slo": SLO.given()}
    found = {}
    for share in (0.7, 2.0):
        arrivals = resized(trace, seconds, round(share * capacity * seconds))
        answers = await client.replay([Asked(each.at, questions.body(each)) for each in arrivals])
        found[share] = outcome(answers, SLO)
        kept = ("requests", "answered", "refused", "errors", "ttft", "total", "refusal", "tokens_per_second", "slo")
        figures[f"at_{share:.0%}"] = {name: found[share][name] for name in kept}
        await asyncio.sleep(2)
    await client.close()
    over = found[2.0]
    figures["ratios"] = {"kept": over["slo"]["share_of_answered"] / 0.99}
    if over["refusal"]:
        figures["ratios"]["refusal"] = 0.05 / over["refusal"]["p99"]
    return figures


def resized(trace: list[Arrival], seconds: float, count: int) -> list[Arrival]:
    """The trace's minutes from the tenth on, with so many requests: its bursts stay."""
    there = [replace(each, at=each.at - _BEGIN) for each in trace if _BEGIN <= each.at < _BEGIN + seconds]
    return busier(there, count / len(there))


async def _capacity(client: Client, questions: Questions, trace: list[Arrival], seconds: float) -> float:
    """Requests of the trace's own sizes that are answered in a second, ``MEASURED`` at once and in time; the first half
    is left out, in which the server finds out how many it can hold."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    arrivals = iter(trace)
    answers = await client.hold(lambda: questions.body(next(arrivals)) if loop.time() < ends else None, MEASURED)
    good = [each for each in answers if each.error is None and seconds / 2 <= each.ended < seconds]
    return max(len(good), 1) / (seconds / 2)


def _serve(folder: Path, connection: Connection) -> None:
    from treadle.lm.engines import open_engine

    serve(folder, connection, lambda: open_engine("openvino", folder), slo=SLO, system_prompt=SYSTEM_PROMPT)


if __name__ == "__main__":
    main()
