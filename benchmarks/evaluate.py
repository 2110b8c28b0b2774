"""Evaluating beside lm-evaluation-harness: ``python -m benchmarks.evaluate [--quick]``.

SmolLM2-135M-Instruct in float32 on five tasks made of ``1-instruct-qa`` (``benchmarks.evaluate_tasks``), which both
sides read from the same files in lm-eval's form. Each side runs in a process of its own, in turn; loading the model and
making items is not counted, encoding texts is. lm-eval gets batches of 16, with which it is quicker than with its
default of 1; what it computes twice, because prompts begin alike, is what is saved here.

    lm_eval       its seconds over ours, for all tasks together; and ``ratios`` of each task among the figures

``mismatches``: items with a log-likelihood more than 1e-4 nats off, or another value of a metric. Texts have thousands
of nats, which lm-eval adds up in 32 bits, so theirs are compared in nats a token. ``largest`` is the largest difference
that was seen, in nats.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.evaluate_tasks import TASKS, write_tasks
from benchmarks.peers import PEERS, environment
from benchmarks.report import print_report, versions

ROOT = Path(__file__).resolve().parent.parent
PEER = PEERS / "lm-eval"
VERSION = "0.4.13"
BATCH = 16
TOLERANCE = 1e-4  # nats
# What lm-eval asks for besides what is here; its own requirements would fetch torch again.
PACKAGES = (
    "datasets", "dill", "evaluate", "more_itertools", "multiprocess", "pytablewriter", "DataProperty", "mbstrdecoder",
    "pathvalidate", "tabledata", "tcolorpy", "typepy", "chardet", "sqlitedict", "word2number", "xxhash",
)  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Evaluating beside lm-evaluation-harness.")
    parser.add_argument("--quick", action="store_true", help="five items a task, once")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(ours(*map(Path, arguments.worker))))
        return
    from treadle.lm.base_model import resolve

    make_peer()
    model, items, rounds = (
        resolve("smollm2-135m-instruct").path,
        5 if arguments.quick else 20,
        1 if arguments.quick else 2,
    )
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    with tempfile.TemporaryDirectory(prefix="treadle-evaluate-") as folder:
        write_tasks(Path(folder), items)
        for _ in range(rounds):
            found["ours"].append(asked([sys.executable, "-m", "benchmarks.evaluate", "--worker", str(model), folder]))
            script = Path(__file__).with_name("evaluate_peer.py")
            found["theirs"].append(asked([str(PEER / "bin" / "python"), str(script), str(model), folder, str(BATCH)]))
    seconds = {
        side: {task: statistics.median(each["seconds"][task] for each in runs) for task in TASKS}
        for side, runs in found.items()
    }
    off, largest = differences(found["ours"][0]["tasks"], found["theirs"][0]["tasks"])
    figures = {
        "mismatches": len(off),
        "largest": {task: float(f"{value:.2g}") for task, value in largest.items()},
        "items": items * len(TASKS),
        "ratios": {task: round(seconds["theirs"][task] / seconds["ours"][task], 2) for task in TASKS},
        "seconds": {side: round(sum(took.values()), 1) for side, took in seconds.items()},
        "load": round(os.getloadavg()[0], 1),
        "versions": {**versions(("treadle", "torch", "transformers", "tokenizers")), "lm-eval": VERSION},
    }
    for line in off[:20]:
        print(line, file=sys.stderr)
    total = {side: sum(took.values()) for side, took in seconds.items()}
    print_report("evaluate", {"lm_eval": total["theirs"] / total["ours"]}, figures)


def make_peer() -> None:
    """lm-eval in an environment of its own that sees the packages here, made on first use."""
    environment("lm-eval", f"lm_eval=={VERSION}", *PACKAGES, ours=True, without_dependencies=True)


def asked(command: list[str]) -> dict[str, Any]:
    """What one side said."""
    with tempfile.TemporaryDirectory(prefix="treadle-datasets-") as cache:
        quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": cache, "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **quiet}, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(done.stderr[-2_000:])
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def ours(model: Path, folder: Path) -> dict[str, Any]:
    """Every task in this process."""
    from treadle.evals.evaluation_task import load_evaluation_task
    from treadle.evals.metric import load_metric, score_rows
    from treadle.evals.report import evaluation_engine
    from treadle.evals.task_items import items_of, worked_rows
    from treadle.evals.task_runner import TaskRunner
    from treadle.lm.tokenizer import ChatTokenizer

    seconds, found, tokenizer = {}, {}, ChatTokenizer.load(model)
    with evaluation_engine(model, "transformers", folder, exact=True, by_torch_too=True) as engine:
        engine.score([([1], [2])])
        for name in TASKS:
            loaded = load_evaluation_task(f"{name}.yaml", folder)
            rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
            few, items = loaded.task.few_shot, items_of(worked_rows(rows, loaded), loaded.task.kind)
            worked = worked_rows(few.samples, loaded) if few is not None and few.samples else []
            runner = TaskRunner(engine, tokenizer, loaded.task, worked)
            began = time.perf_counter()
            outputs = runner.run(items)
            seconds[name] = time.perf_counter() - began
            metrics = [load_metric(each) for each in loaded.task.metrics or ()]
            scored = {metric.name: score_rows(metric, items, outputs) for metric in metrics}
            found[name] = {
                "likelihoods": [list(output.choices or (output.log_likelihood,)) for output in outputs],
                "tokens": [output.reference_tokens for output in outputs],
                "scores": {metric.name: float(metric.reduce(scored[metric.name].sum(axis=0))) for metric in metrics},
                "values": [
                    {metric.name: float(metric.reduce(scored[metric.name][place])) for metric in metrics}
                    for place in range(len(items))
                ],
            }
    return {"seconds": seconds, "tasks": found}


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[list[str], dict[str, float]]:
    """A line for each item that differs, and the largest difference of each task."""
    lines, largest = [], {}
    for task in TASKS:
        one, other = ours[task], theirs[task]
        largest[task] = 0.0
        if len(one["likelihoods"]) != len(other["likelihoods"]):
            raise SystemExit(f"{task}: {len(one['likelihoods'])} items here and {len(other['likelihoods'])} there")
        for place, (here, there) in enumerate(zip(one["likelihoods"], other["likelihoods"], strict=True)):
            apart = max(abs(first - second) for first, second in zip(here, there, strict=True))
            largest[task] = max(largest[task], apart)
            each = apart / one["tokens"][place] if task == "text" else apart
            same = task == "text" or one["values"][place] == other["values"][place]
            if each > TOLERANCE or not same:
                lines.append(
                    f"{task} {place}: {apart:.2g} nats, {one['values'][place]} here, {other['values'][place]} there"
                )
        for metric, value in other["scores"].items():
            if abs(one["scores"][metric] / value - 1 if value else one["scores"][metric]) > TOLERANCE:
                lines.append(f"{task} {metric}: {one['scores'][metric]} here, {value} there")
    return lines, largest


if __name__ == "__main__":
    main()
