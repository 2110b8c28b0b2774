"""Where collect and prepare spend their time: ``python -m benchmarks.data_profile [--quick]``.

Every file of ``6-pretraining-docs`` is read, cleaned by each transform in turn, written as a corpus, tokenized and
packed, in one process. Each part has what the one before left, whole, so its seconds by the clock are its own. The
first pass of a process also compiles and loads; the second is printed. ``seconds`` by part, ``shares`` of the total,
and ``mb_per_s`` of UTF-8 (10^6 bytes) that went into the part. There is no peer.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.data_pack import ours
from benchmarks.report import print_report, versions
from treadle.lm.base_model import resolve
from treadle.text.accounting import Accounting
from treadle.text.corpus import read_documents, write_corpus
from treadle.text.document import Document
from treadle.text.source import SourceContext, open_source, read_sources
from treadle.text.transform import load_transforms, run_transforms

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TREADLE_TEST_DATA", ROOT.parent / "shared" / "data")) / "6-pretraining-docs"
STEPS: tuple[Any, ...] = (
    "repair_encoding",
    "normalize",
    {"languages": {"keep": ["en", "de", "fr", "es", "it", "nl"]}},
    "gopher_repetition",
    "gopher_quality",
    "c4",
    "fineweb",
    "deduplicate",
    "deduplicate_lines",
    "deduplicate_near",
    "redact",
)

Shards = list[Sequence[Document]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Where collect and prepare spend their time.")
    parser.add_argument("--quick", action="store_true", help="two books, within a minute")
    quick = parser.parse_args().quick
    parts: dict[str, tuple[float, int]] = {}
    for _ in range(2):
        with tempfile.TemporaryDirectory(prefix="treadle-profile-") as name:
            parts = profile(Path(name), "*.epub" if quick else "*")
    total = sum(seconds for seconds, _ in parts.values())
    figures: dict[str, Any] = {
        "seconds": {name: round(seconds, 3) for name, (seconds, _) in parts.items()},
        "shares": {name: round(seconds / total, 3) for name, (seconds, _) in parts.items()},
        "mb_per_s": {name: round(size / 1e6 / max(seconds, 1e-6), 1) for name, (seconds, size) in parts.items()},
        "load": round(os.getloadavg()[0], 1),
        "versions": versions(("treadle", "pyarrow", "tokenizers", "numba")),
    }
    print_report("data_profile", {}, figures)


def profile(folder: Path, pattern: str) -> dict[str, tuple[float, int]]:
    """Seconds and bytes of text, by part."""
    parts: dict[str, tuple[float, int]] = {}
    began = time.perf_counter()
    source = open_source({"type": "files", "path": str(DATA / pattern)}, SourceContext(ROOT, str))
    shards: Shards = list(read_sources([source], Accounting()))
    parts["read files"] = time.perf_counter() - began, size_of(shards)
    began = time.perf_counter()
    write_corpus(folder, iter(shards))
    parts["write corpus"] = time.perf_counter() - began, size_of(shards)
    began = time.perf_counter()
    shards = list(read_documents(folder))
    parts["read corpus"] = time.perf_counter() - began, size_of(shards)
    for step in STEPS:
        size = size_of(shards)
        transforms = load_transforms([step], None, key=b"k" * 32)
        began = time.perf_counter()
        shards = list(run_transforms(shards, transforms, Accounting()))
        parts[transforms[0].name] = time.perf_counter() - began, size
    texts = [document.text for shard in shards for document in shard]
    parts["tokenize, pack"] = ours(texts, resolve("smollm2-135m-instruct").path, folder)["seconds"], size_of(shards)
    return parts


def size_of(shards: Shards) -> int:
    """Bytes of UTF-8."""
    return sum(len(document.text.encode()) for shard in shards for document in shard)


if __name__ == "__main__":
    main()
