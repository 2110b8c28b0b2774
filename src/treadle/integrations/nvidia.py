"""Use and memory of NVIDIA graphics cards, by ``nvidia-smi``, for the metrics of a run.

Not covered: which process uses a card; figures are the whole card's.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

_SECONDS = 5
_QUERY = ("--query-gpu=index,utilization.gpu,memory.used", "--format=csv,noheader,nounits")


def sampler() -> Callable[[], dict[str, float]] | None:
    """A function that asks once; None where there is no ``nvidia-smi``."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, *_QUERY]

    def sample() -> dict[str, float]:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
        except (OSError, subprocess.SubprocessError):  # the driver is busy or gone
            return {}
        return figures(done.stdout)

    return sample


def figures(said: str) -> dict[str, float]:
    """``gpuN_percent`` and ``gpuN_memory_mb`` from what it says; a figure that a card does not have is left out."""
    found: dict[str, float] = {}
    for line in said.splitlines():
        index, *values = (part.strip() for part in line.split(","))
        for name, value in zip(("percent", "memory_mb"), values, strict=False):
            if value.replace(".", "", 1).isdigit():
                found[f"gpu{index}_{name}"] = float(value)
    return found
