"""Training beside Hugging Face's ``Trainer``: ``python -m benchmarks.train [--quick]``.

A Llama of 10M parameters from nothing learns from books (``6-pretraining-docs``), each way from the same weights and on
the same rows of 512 tokens; in turn, each in a process of its own, loading not counted.

    pretrain_equal      ours over theirs in tokens a second, both in our number type, with our batch and schedule
    pretrain_defaults   over theirs as it comes: float32 and 8 rows a step
    memory              their peak at equal settings over ours

``loss``: nats a token of held-out rows, by one function for all. Fine-tuning and classifying are not measured here yet.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.data_pack import books
from benchmarks.report import print_report, versions

ROOT = Path(__file__).resolve().parent.parent
WIDTH, BATCH, HELD_OUT = 512, 16, 16
RATE = 1e-3
WAYS = ("treadle", "equal", "defaults")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Training beside Hugging Face's Trainer.")
    parser.add_argument("--quick", action="store_true", help="three steps of a model of 1M parameters, once")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(work(arguments.worker[0], Path(arguments.worker[1]))))
        return
    steps, size = (3, "1M") if arguments.quick else (60, "10M")
    measured: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="treadle-train-") as folder:
        parameters = lay_out(Path(folder), steps, size)
        for _ in range(1 if arguments.quick else 3):
            for way in WAYS:
                command = [sys.executable, "-m", "benchmarks.train", "--worker", way, folder]
                done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
                measured[way].append(json.loads(done.stdout.splitlines()[-1]))
    speed = {way: statistics.median(each["tokens_per_second"] for each in found) for way, found in measured.items()}
    peak = {way: max(each["peak_mb"] for each in found) for way, found in measured.items()}
    figures = {
        "parameters": parameters,
        "tokens": steps * BATCH * WIDTH,
        "tokens_per_second": {way: round(value) for way, value in speed.items()},
        "loss": {way: round(found[0]["loss"], 4) for way, found in measured.items()},
        "peak_mb": peak,
        "environment": measured["treadle"][0]["environment"],
        "load": round(os.getloadavg()[0], 1),
        "versions": versions(("treadle", "torch", "transformers", "accelerate", "tokenizers")),
    }
    ratios = {
        "pretrain_equal": speed["treadle"] / speed["equal"],
        "pretrain_defaults": speed["treadle"] / speed["defaults"],
        "memory": peak["equal"] / peak["treadle"],
    }
    print_report("train", ratios, figures)


def lay_out(folder: Path, steps: int, size: str) -> int:
    """A model from nothing, and rows to learn from and to judge by; the number of parameters."""
    import numpy as np
    from tokenizers import Tokenizer

    from treadle.lm.initial_model import create_model
    from treadle.lm.initial_tokenizer import learn_tokenizer, vocabulary_for

    texts = []
    for text in books():
        texts.append(text[: 1 << 20])
        if sum(map(len, texts)) > 6 * (steps * BATCH + HELD_OUT) * WIDTH:
            break
    words, asked = folder / "tokenizer", vocabulary_for(size)
    words.mkdir()
    learn_tokenizer(words, lambda: texts, architecture="llama", kind="bpe", vocabulary=asked, special=())
    found = create_model(folder / "model", words, architecture="llama", size=size, context=WIDTH, seed=17)
    encoded = Tokenizer.from_file(str(words / "tokenizer.json")).encode_batch(texts, add_special_tokens=False)
    ids = np.concatenate([np.array(each.ids, dtype=np.int64) for each in encoded])
    count = steps * BATCH + HELD_OUT
    rows = np.resize(ids[: len(ids) // WIDTH * WIDTH].reshape(-1, WIDTH), (count, WIDTH))
    np.save(folder / "rows.npy", rows)
    return int(found["parameters"])


def work(way: str, folder: Path) -> dict[str, Any]:
    """Train in this process."""
    import numpy as np

    rows = np.load(folder / "rows.npy")
    train, held_out = rows[:-HELD_OUT], rows[-HELD_OUT:]
    with tempfile.TemporaryDirectory(prefix="treadle-trained-") as out:
        model = Path(out) / "model"
        found = ours(folder, model, train) if way == "treadle" else theirs(folder, model, train, way)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        from treadle.lm.pretraining import held_out as judge

        judged = judge(model, packed(held_out), "causal")
    loss = sum(judged.nats) / sum(judged.learned)
    return {**found, "loss": loss, "peak_mb": round(peak)}


def ours(folder: Path, out: Path, rows: Any) -> dict[str, Any]:
    """With the settings that a file without any has."""
    from treadle.lm.pretraining import PretrainingSettings, pretrain

    began: list[float] = []
    settings = PretrainingSettings(rows.size, batch=BATCH, learning_rate=RATE, seed=17)
    done = pretrain(
        folder / "model", out, packed(rows), settings, on_step=lambda _report: began.append(time.perf_counter())
    )
    # The first step waits for what is made once, here as there.
    seconds = began[-1] - began[0]
    return {
        "tokens_per_second": (rows.size - BATCH * WIDTH) / seconds,
        "environment": {name: str(value) for name, value in done.environment.items()},
    }


def theirs(folder: Path, out: Path, rows: Any, way: str) -> dict[str, Any]:
    """``Trainer`` with our settings, or with none but the learning rate."""
    import torch

    from treadle.lm import torch_runtime

    torch_runtime.patient_threads()
    transformers = importlib.import_module("transformers")
    device = torch_runtime.device()
    began: list[float] = []

    class Watch(transformers.TrainerCallback):  # type: ignore[name-defined,misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            began.append(time.perf_counter())

    asked: dict[str, Any] = {"learning_rate": RATE}
    if way == "equal":
        asked |= {
            "per_device_train_batch_size": BATCH,
            "bf16": torch_runtime.precision("auto", device) == "bfloat16",
            "lr_scheduler_type": "cosine",
            "warmup_steps": max(1, round(0.05 * len(rows) / BATCH)),
            "weight_decay": 0.1,
            "adam_beta2": 0.95,
        }
    arguments = transformers.TrainingArguments(
        output_dir=str(out.parent / "trainer"),
        num_train_epochs=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
        use_cpu=device == "cpu",
        seed=17,
        **asked,
    )
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    dataset = [{"input_ids": row, "labels": row} for row in map(torch.from_numpy, rows)]
    transformers.Trainer(model=model, args=arguments, train_dataset=dataset, callbacks=[Watch()]).train()
    torch_runtime.save(model.to("cpu", torch.float32), folder / "model", out)
    a_step = arguments.per_device_train_batch_size * WIDTH
    return {"tokens_per_second": (rows.size - a_step) / (began[-1] - began[0])}


def packed(rows: Any) -> Any:
    """Rows of one piece each."""
    import numpy as np

    from treadle.lm.packed_rows import PackedRows

    ends = np.arange(WIDTH, rows.size + 1, WIDTH)
    return PackedRows(rows.ravel(), ends, np.arange(1, len(rows) + 1), WIDTH)


if __name__ == "__main__":
    main()
