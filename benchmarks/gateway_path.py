"""Where the time of a request goes in the gateway: ``python -m benchmarks.gateway_path [--quick]``.

The gateway of ``benchmarks.gateway``, asked over 16 connections. ``cpu_us``: microseconds of processor time a request
costs it, in the kernel too, with no profiler; those of sealing the journal are in it. ``share_percent``: of the event
loop's thread alone, by what the functions are for, as cProfile sees them; it makes many small calls dearer than they
are, so these are shares and not times. What Python does itself counts for whoever asked for it.
"""

from __future__ import annotations

import argparse
import cProfile
import multiprocessing
import pstats
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks import http_load
from benchmarks.gateway import BODY, CHAT, CONNECTIONS, opened
from benchmarks.report import print_report, versions
from benchmarks.serve import prepare

# By a part of a file's name; the first that fits.
PARTS = (
    ("http", ("uvicorn/", "serve/connection", "serve/client", "serve/app", "serve/incoming", "starlette/")),
    ("key_and_limits", ("serve/keyring", "serve/meter", "record/api_key", "serve/gateway", "serve/admission", "hmac")),
    ("template_and_tokens", ("jinja2/", "<template>", "lm/tokenizer", "lm/chat_template", "lm/spelled")),
    ("personal_data", ("treadle/text/", "re2")),
    ("record", ("serve/entry", "treadle/record/", "treadle/core/", "json/")),
    ("metrics", ("serve/metrics", "prometheus_client/")),
    ("engine", ("serve/exchange", "lm/engine", "benchmarks/")),
    ("request_and_answer", ("treadle/",)),
)
Function = tuple[str, int, str]
_spawn = multiprocessing.get_context("spawn")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Where the time of a request goes in the gateway.")
    parser.add_argument("--quick", action="store_true", help="within 30 seconds, less exact")
    count = 3_000 if parser.parse_args().quick else 20_000
    with tempfile.TemporaryDirectory() as scratch:
        folder = prepare(Path(scratch, "model"))
        cost = _asked(folder, count, profiled=False)
        shares = _asked(folder, count // 4, profiled=True)
    figures: dict[str, Any] = {"requests": count, "cpu_us": round(cost), "share_percent": shares}
    figures["versions"] = versions(("uvicorn", "uvloop", "starlette", "msgspec", "tokenizers"))
    print_report("gateway_path", {}, figures)


def _asked(folder: Path, count: int, *, profiled: bool) -> Any:
    """What a gateway of its own process says after so many requests, and a fifth of them to warm up."""
    here, there = _spawn.Pipe()
    process = _spawn.Process(target=_profiled if profiled else _timed, args=(folder, there))
    process.start()
    try:
        url, key = here.recv()
        request = http_load.request_bytes(CHAT, BODY, key)
        http_load.side_by_side(url, request, count // 5, CONNECTIONS)
        here.send(None)
        here.recv()
        http_load.side_by_side(url, request, count, CONNECTIONS)
        here.send(count)
        return here.recv()
    finally:
        process.terminate()
        process.join()


def _timed(folder: Path, connection: Connection) -> None:
    """Microseconds of a request."""
    with opened(folder) as address:
        connection.send(address)
        connection.recv()
        before = time.process_time()
        connection.send(None)
        count = connection.recv()
        connection.send((time.process_time() - before) / count * 1e6)
        connection.recv()


def _profiled(folder: Path, connection: Connection) -> None:
    """By part of the path, its share of the time in percent."""
    profile = cProfile.Profile()
    with opened(folder, profile.enable) as address:
        connection.send(address)
        connection.recv()
        connection.send(None)
        connection.recv()
    profile.create_stats()
    connection.send(shares(pstats.Stats(profile)))


def shares(stats: pstats.Stats) -> dict[str, float]:
    """What each part's functions took themselves, in percent; waiting is not counted."""
    seconds: Counter[str] = Counter()
    entries: dict[Function, Any] = stats.stats  # type: ignore[attr-defined]
    for function, (_, _, own, _, callers) in entries.items():
        if function[0] != "~" and (part := _part(function)):
            seconds[part] += own
            continue
        for caller, (_, _, of_caller, _) in callers.items():  # what is built in, or the standard library's
            seconds[_part(caller) or "python"] += of_caller
    del seconds["python"]
    total = sum(seconds.values())
    return {part: round(100 * took / total, 1) for part, took in seconds.most_common()}


def _part(function: Function) -> str | None:
    name = function[0].replace("\\", "/")
    return next((part for part, pieces in PARTS if any(piece in name for piece in pieces)), None)


if __name__ == "__main__":
    main()
