"""Training beside Hugging Face's ``Trainer`` and TRL: ``python -m benchmarks.train [--quick] [--only KIND]``.

Three kinds: a Llama of 10M parameters from nothing on books (``pretrain``), SmolLM2 on questions and answers (``sft``,
beside TRL's ``SFTTrainer``), MiniLM on the intents of BANKING77 (``classify``). Each way starts from the same weights
and sees the same texts once; in turn, each in a process of its own, loading not counted. Of each kind

    KIND_equal      ours over theirs in tokens a second (padding not counted), both in our number type, batch, schedule
    KIND_defaults   over theirs as it comes
    KIND_memory     their peak at equal settings over ours; ``memory``: the least of these

``loss``: on held-out texts, by one function for all. The peer's defaults are ended after three minutes
(``defaults_trained``: the part of the texts that they saw until then); the others always end.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import print_report, versions

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("pretrain", "sft", "classify")
WAYS = ("treadle", "equal", "defaults")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Training beside Hugging Face's Trainer and TRL.")
    parser.add_argument("--quick", action="store_true", help="a few steps, once")
    parser.add_argument("--only", choices=KINDS, help="one kind alone")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        kind, way, folder = arguments.worker
        print(json.dumps(of(kind).work(way, Path(folder))))
        return
    ratios: dict[str, float] = {}
    figures: dict[str, Any] = {}
    for kind in [arguments.only] if arguments.only else KINDS:
        compare(kind, ratios, figures, quick=arguments.quick)
    ratios["memory"] = min(value for name, value in ratios.items() if name.endswith("_memory"))
    figures["load"] = round(os.getloadavg()[0], 1)
    figures["versions"] = versions(("treadle", "torch", "transformers", "accelerate", "trl", "tokenizers"))
    print_report(f"train --only {arguments.only}" if arguments.only else "train", ratios, figures)


def of(kind: str) -> Any:
    """The module of a kind: ``lay_out(folder, quick)`` and ``work(way, folder)``."""
    return importlib.import_module(f"benchmarks.train_{kind}")


def compare(kind: str, ratios: dict[str, float], figures: dict[str, Any], *, quick: bool) -> None:
    """Every way of a kind in turn; put ratios and figures where they belong."""
    measured: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="treadle-train-") as folder:
        about = of(kind).lay_out(Path(folder), quick=quick)
        for _ in range(1 if quick else of(kind).ROUNDS):
            for way in WAYS:
                command = [sys.executable, "-m", "benchmarks.train", "--worker", kind, way, folder]
                done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
                measured[way].append(json.loads(done.stdout.splitlines()[-1]))
    speed = {way: statistics.median(each["tokens_per_second"] for each in found) for way, found in measured.items()}
    peak = {way: max(each["peak_mb"] for each in found) for way, found in measured.items()}
    ratios[f"{kind}_equal"] = speed["treadle"] / speed["equal"]
    ratios[f"{kind}_defaults"] = speed["treadle"] / speed["defaults"]
    ratios[f"{kind}_memory"] = peak["equal"] / peak["treadle"]
    figures[kind] = {
        **about,
        "tokens_per_second": {way: round(value) for way, value in speed.items()},
        "loss": {way: round(found[0]["loss"], 4) for way, found in measured.items()},
        "peak_mb": peak,
        **ended_early(measured["defaults"]),
        "environment": measured["treadle"][0]["environment"],
    }


def ended_early(found: list[dict[str, Any]]) -> dict[str, float]:
    """The part that was trained where the peer's defaults were too slow to wait for; its loss is of that part."""
    least = min(each["trained"] for each in found)
    return {"defaults_trained": round(least, 3)} if least < 1 else {}


if __name__ == "__main__":
    main()
