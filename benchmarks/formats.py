"""Reading documents: ``python -m benchmarks.formats [--quick]``.

Character accuracy by format: mean and median over the documents that come with their text. HTML beside trafilatura is
``python -m benchmarks.data_html``.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

from benchmarks.ground_truth import Case, cases
from benchmarks.report import print_report, versions

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TREADLE_TEST_DATA", ROOT.parent / "shared" / "data"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Reading documents.")
    parser.add_argument("--quick", action="store_true", help="fewer pages")
    accuracy = accuracies(list(cases(DATA)), quick=parser.parse_args().quick)
    for kind, each in accuracy.items():
        print(f"{kind:10} {each['documents']:4} documents  mean {each['mean']:.3f}  median {each['median']:.3f}")
    packages = ("treadle", "resiliparse", "pypdfium2", "lxml", "pylatexenc", "charset-normalizer")
    figures: dict[str, Any] = {"accuracy": accuracy, "load": round(os.getloadavg()[0], 1)}
    print_report("formats", {}, figures | {"versions": versions(packages)})


def accuracies(every: list[Case], *, quick: bool) -> dict[str, dict[str, float]]:
    """Mean and median by format; texts in many encodings are a format of their own."""
    found: dict[str, list[float]] = {}
    for number, case in enumerate(every):
        if quick and not case.markdown and number % 4:
            continue
        name = {"txt": "encodings"}.get(case.kind, case.kind if case.markdown else "html_udhr")
        found.setdefault(name, []).append(case.accuracy())
    return {
        name: {
            "documents": len(values),
            "mean": round(statistics.fmean(values), 4),
            "median": round(statistics.median(values), 4),
        }
        for name, values in sorted(found.items())
    }


if __name__ == "__main__":
    main()
