"""A GPT from nothing against ``xz -9``: ``python -m benchmarks.books [--quick]``.

A Llama of 10M parameters reads books (``6-pretraining-docs``) as far as 18 minutes go on this machine (so many
tokens as its pace over the first steps promises), with the settings that a file without any has; its tokenizer is
learned from the same books. Held-out books are coded by both:

    xz        bits a byte by ``xz -9e`` of all held-out books in one file, over the model's

The model's bits are what an arithmetic coder would need: the likelihood of every token, and for the first of each row,
which has nothing before it, the logarithm of the vocabulary. The weights themselves are not counted. ``minutes`` are of
training on two cores; 20 wanted.
"""

from __future__ import annotations

import argparse
import lzma
import math
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import print_report, versions
from benchmarks.train_pretrain import BATCH, RATE, WIDTH, packed

DATA = Path(os.environ.get("TREADLE_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
EVERY = 9  # the book that is held out
MINUTES = 18.0
PACED = 12  # steps that show how fast the machine is
SAME = 0.02  # share of a held-out book's lines that another has: another edition of it


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="A GPT from nothing against xz -9.")
    parser.add_argument("--quick", action="store_true", help="six steps of a model of 1M parameters")
    arguments = parser.parse_args()
    tokens, size = (6 * BATCH * WIDTH, "1M") if arguments.quick else (None, "10M")
    learned, held_out = divided()
    with tempfile.TemporaryDirectory(prefix="treadle-books-") as folder:
        figures = measured(Path(folder), list(learned.values()), list(held_out.values()), tokens, size)
    theirs = 8 * len(lzma.compress(b"".join(held_out.values()), preset=9 | lzma.PRESET_EXTREME))
    xz = theirs / sum(map(len, held_out.values()))
    figures |= {
        "xz_bits_per_byte": round(xz, 4),
        "held_out": ", ".join(held_out),
        "books": len(learned),
        "load": round(os.getloadavg()[0], 1),
        "versions": versions(("treadle", "torch", "transformers", "tokenizers")),
    }
    print_report("books", {"xz": xz / figures["bits_per_byte"]}, figures)


def measured(
    folder: Path, learned: list[bytes], held_out: list[bytes], tokens: int | None, size: str
) -> dict[str, Any]:
    """Train on so many ``tokens``, by default those of 18 minutes, and the bits a byte of the held-out books."""
    import numpy as np
    from tokenizers import Tokenizer

    from treadle.lm.initial_model import create_model
    from treadle.lm.initial_tokenizer import learn_tokenizer, vocabulary_for
    from treadle.lm.pretraining import PretrainingSettings, pretrain
    from treadle.lm.pretraining import held_out as judge

    words, vocabulary = folder / "tokenizer", vocabulary_for(size)
    words.mkdir()
    texts = [text.decode() for text in learned]
    learn_tokenizer(words, lambda: texts, architecture="llama", kind="bpe", vocabulary=vocabulary, special=())
    made = create_model(folder / "begun", words, architecture="llama", size=size, context=WIDTH, seed=17)
    tokenizer = Tokenizer.from_file(str(words / "tokenizer.json"))

    def rows(parts: list[str]) -> Any:
        encoded = tokenizer.encode_batch(parts, add_special_tokens=False)
        ids = np.concatenate([np.array(each.ids, dtype=np.int64) for each in encoded])
        return ids[: len(ids) // WIDTH * WIDTH].reshape(-1, WIDTH)

    learned_rows = packed(rows(texts))
    if tokens is None:
        tokens = round(pace(folder, learned_rows) * MINUTES * 60)
    settings = PretrainingSettings(tokens, batch=BATCH, learning_rate=RATE, seed=17)
    done = pretrain(folder / "begun", folder / "model", learned_rows, settings)
    judged_rows = rows([text.decode() for text in held_out])
    judged = judge(folder / "model", packed(judged_rows), "causal")
    read = sum(len(tokenizer.decode(row.tolist()).encode()) for row in judged_rows)
    bits = sum(judged.nats) / math.log(2) + len(judged_rows) * math.log2(vocabulary)
    return {
        "bits_per_byte": round(bits / read, 4),
        "held_out_bytes": read,
        "parameters": int(made["parameters"]),
        "vocabulary": vocabulary,
        "tokens": done.tokens,
        "minutes": round(done.seconds / 60, 1),
        "tokens_per_second": round(done.tokens / done.seconds),
    }


def pace(folder: Path, rows: Any) -> float:
    """Tokens a second over some steps of a training that is thrown away."""
    from treadle.lm.pretraining import PretrainingSettings, pretrain

    ends: list[float] = []
    settings = PretrainingSettings((PACED + 1) * BATCH * WIDTH, batch=BATCH, learning_rate=RATE, seed=17)
    pretrain(
        folder / "begun", folder / "paced", rows, settings, on_step=lambda _report: ends.append(time.perf_counter())
    )
    return (len(ends) - 1) * BATCH * WIDTH / (ends[-1] - ends[0])


def divided() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Books to learn from and held-out ones, by name; none that is held out is learned from in another edition."""
    every = {name: data for name, data in books() if len(data) > 50_000}
    held_out = {name: every[name] for name in sorted(every)[::EVERY]}
    judged = {name: set(data.splitlines()) for name, data in held_out.items()}
    learned = {}
    for name, data in every.items():
        lines = {line for line in data.splitlines() if len(line) > 40}
        if name not in held_out and all(len(lines & each) <= SAME * len(each) for each in judged.values()):
            learned[name] = data
    return learned, held_out


def books() -> Iterator[tuple[str, bytes]]:
    """Names and texts, in UTF-8."""
    for archive in ("nltk_gutenberg.tar.gz", "standardebooks_text.tar.gz"):
        with tarfile.open(DATA / "6-pretraining-docs" / archive) as opened:
            for member in opened:
                if member.isfile() and (file := opened.extractfile(member)):
                    yield Path(member.name).stem, file.read().decode("utf-8", "replace").encode()


if __name__ == "__main__":
    main()
