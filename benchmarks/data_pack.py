"""Tokenizing and packing beside Hugging Face's: ``python -m benchmarks.data_pack [--quick]``.

Both take the English books and articles of ``6-pretraining-docs`` (gutenberg, standardebooks, wikitext,
tinyshakespeare), cut at paragraphs into documents of some 4,000 characters, and write rows of 1,024 tokens of SmolLM2's
tokenizer; in turn, each in a process of its own, importing and loading not counted. ``pack`` compares ours with the
quicker of their two ways: ``datasets.map`` to tokenize, batched, and then ``group_texts`` (which runs documents into
each other) or TRL's ``pack_dataset`` (best fit). All in one process, as is their default; their tokenizer uses every
core by threads.

``fill``: tokens over places. ``same_ids``: whether our ids equal the tokenizer's, document by document.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.report import print_report, versions

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TREADLE_TEST_DATA", ROOT.parent / "shared" / "data")) / "6-pretraining-docs"
WIDTH = 1_024
DOCUMENT = 4_000  # characters
WAYS = ("treadle", "group_texts", "trl")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Tokenizing and packing beside datasets and TRL.")
    parser.add_argument("--quick", action="store_true", help="a quarter of the text, once")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        way, texts, model = arguments.worker
        print(json.dumps(work(way, json.loads(Path(texts).read_text()), Path(model))))
        return
    from treadle.lm.base_model import resolve

    model = resolve("smollm2-135m-instruct").path
    texts = list(documents())
    texts = texts[::4] if arguments.quick else texts
    measured: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="treadle-pack-") as folder:
        path = Path(folder) / "texts.json"
        path.write_text(json.dumps(texts))
        for _ in range(1 if arguments.quick else 3):
            for way in WAYS:
                command = [sys.executable, "-m", "benchmarks.data_pack", "--worker", way, str(path), str(model)]
                done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
                measured[way].append(json.loads(done.stdout.splitlines()[-1]))
    seconds = {way: statistics.median(each["seconds"] for each in found) for way, found in measured.items()}
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    figures = {
        "documents": len(texts),
        "megabytes": round(megabytes, 1),
        "seconds": {way: round(value, 2) for way, value in seconds.items()},
        "mb_per_s": {way: round(megabytes / value, 2) for way, value in seconds.items()},
        "fill": {way: found[0]["fill"] for way, found in measured.items()},
        "tokens": {way: found[0]["tokens"] for way, found in measured.items()},
        "peak_mb": {way: max(each["peak_mb"] for each in found) for way, found in measured.items()},
        "same_ids": same_ids(texts, model),
        "load": round(os.getloadavg()[0], 1),
        "versions": versions(("treadle", "tokenizers", "datasets", "transformers", "trl", "numpy")),
    }
    ratios = {"pack": min(seconds["group_texts"], seconds["trl"]) / seconds["treadle"]}
    print_report("data_pack", ratios, figures)


def documents() -> Iterator[str]:
    """Paragraphs gathered to documents."""
    for text in books():
        held: list[str] = []
        size = 0
        for paragraph in text.split("\n\n"):
            held.append(paragraph)
            size += len(paragraph)
            if size > DOCUMENT:
                yield "\n\n".join(held)
                held, size = [], 0
        if any(paragraph.strip() for paragraph in held):
            yield "\n\n".join(held)


def books() -> Iterator[str]:
    """The texts as they are kept."""
    for name in ("nltk_gutenberg.tar.gz", "standardebooks_text.tar.gz"):
        with tarfile.open(DATA / name) as archive:
            for member in archive:
                if member.isfile() and (file := archive.extractfile(member)):
                    yield _decoded(file.read())
    for name in ("tinyshakespeare.txt.gz", "wikitext2_valid.txt.gz"):
        yield _decoded(gzip.decompress((DATA / name).read_bytes()))


def work(way: str, texts: list[str], model: Path) -> dict[str, Any]:
    """Tokenize and pack in this process."""
    with tempfile.TemporaryDirectory(prefix="treadle-pack-") as folder:
        found = ours(texts, model, Path(folder)) if way == "treadle" else theirs(way, texts, model, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**found, "peak_mb": round(peak)}


def ours(texts: list[str], model: Path, folder: Path) -> dict[str, Any]:
    """Encode in bulk, best fit, and rows written as they go."""
    from treadle.lm.bulk_encoder import BulkEncoder
    from treadle.lm.packed_documents import write_packed
    from treadle.lm.tokens import write_info

    encoder = BulkEncoder(_tokenizer(model))
    named = [("doc:" + hashlib.sha256(text.encode()).hexdigest(), text) for text in texts]
    began = time.perf_counter()
    writer = write_packed(folder, "train", named, encoder, width=WIDTH, ids="uint16")
    write_info(folder, "uint16", {"train": writer}, {"width": WIDTH})
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "fill": round(writer.tokens / writer.rows / WIDTH, 4), "tokens": writer.tokens}


def theirs(way: str, texts: list[str], model: Path, folder: Path) -> dict[str, Any]:
    """``datasets.map`` with the tokenizer, then one of two ways to pack."""
    os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
    from transformers import AutoTokenizer

    datasets, trl = (importlib.import_module(name) for name in ("datasets", "trl"))
    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(model)
    datasets.Dataset.from_dict({"text": texts}).save_to_disk(folder / "texts")
    kept = datasets.load_from_disk(folder / "texts")
    began = time.perf_counter()
    found = kept.map(lambda batch: tokenizer(batch["text"]), batched=True, remove_columns=["text"])
    if way == "trl":
        packed = trl.pack_dataset(found.select_columns(["input_ids"]), WIDTH, strategy="bfd")
    else:
        packed = found.map(_group_texts, batched=True)
    seconds = time.perf_counter() - began
    tokens = sum(len(row) for row in packed["input_ids"])
    return {"seconds": seconds, "fill": round(tokens / len(packed) / WIDTH, 4), "tokens": tokens}


def same_ids(texts: list[str], model: Path) -> bool:
    """Our ids beside the tokenizer's own."""
    from treadle.lm.bulk_encoder import BulkEncoder

    tokenizer = _tokenizer(model)
    encoded = BulkEncoder(tokenizer).encode(texts)
    start = 0
    for end, theirs_ in zip(
        encoded.ends.tolist(), tokenizer.encode_batch(texts, add_special_tokens=False), strict=True
    ):
        if encoded.ids[start:end].tolist() != theirs_.ids:
            return False
        start = end
    return True


def _group_texts(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
    """As in transformers' example run_clm.py, by Hugging Face (Apache 2.0)."""
    joined = {key: list(chain(*values)) for key, values in batch.items()}
    total = len(joined["input_ids"]) // WIDTH * WIDTH
    rows = {key: [values[at : at + WIDTH] for at in range(0, total, WIDTH)] for key, values in joined.items()}
    return {**rows, "labels": rows["input_ids"].copy()}


def _tokenizer(model: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _decoded(data: bytes) -> str:
    try:
        return io.TextIOWrapper(io.BytesIO(data), "utf-8").read()
    except UnicodeDecodeError:
        return data.decode("latin-1")


if __name__ == "__main__":
    main()
