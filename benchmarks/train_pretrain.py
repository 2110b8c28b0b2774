"""Pretraining from nothing beside ``Trainer``, for ``benchmarks.train``.

A Llama of 10M parameters learns from books (``6-pretraining-docs``), each way from the same weights and on the same
rows of 512 tokens. ``loss``: nats a token of held-out rows.
"""

from __future__ import annotations

import importlib
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.data_pack import books
from benchmarks.train_peer import peak_mb, plain_arguments, step_watch

WIDTH, BATCH, HELD_OUT = 512, 8, 16
RATE = 1e-3
ROUNDS = 2


def lay_out(folder: Path, *, quick: bool) -> dict[str, Any]:
    """A model from nothing, and rows to learn from and to judge by."""
    import numpy as np
    from tokenizers import Tokenizer

    from treadle.lm.initial_model import create_model
    from treadle.lm.initial_tokenizer import learn_tokenizer, vocabulary_for

    steps, size = (3, "1M") if quick else (60, "10M")
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
    return {"parameters": int(found["parameters"]), "tokens": steps * BATCH * WIDTH}


def work(way: str, folder: Path) -> dict[str, Any]:
    """Train in this process."""
    import numpy as np

    rows = np.load(folder / "rows.npy")
    train, held_out = rows[:-HELD_OUT], rows[-HELD_OUT:]
    with tempfile.TemporaryDirectory(prefix="treadle-trained-") as out:
        model = Path(out) / "model"
        found = ours(folder, model, train) if way == "treadle" else theirs(folder, model, train, way)
        peak = peak_mb()
        from treadle.lm.pretraining import held_out as judge

        judged = judge(model, packed(held_out), "causal")
    loss = sum(judged.nats) / sum(judged.learned)
    return {**found, "loss": loss, "peak_mb": peak}


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

    transformers = importlib.import_module("transformers")
    device = torch_runtime.device()
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
    arguments = transformers.TrainingArguments(**plain_arguments(out), **asked)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    dataset = [{"input_ids": row, "labels": row} for row in map(torch.from_numpy, rows)]
    watch = step_watch(way)
    transformers.Trainer(model=model, args=arguments, train_dataset=dataset, callbacks=[watch]).train()
    torch_runtime.save(model.to("cpu", torch.float32), folder / "model", out)
    found: dict[str, Any] = watch.found(rows.size)
    return found


def packed(rows: Any) -> Any:
    """Rows of one piece each."""
    import numpy as np

    from treadle.lm.packed_rows import PackedRows

    ends = np.arange(WIDTH, rows.size + 1, WIDTH)
    return PackedRows(rows.ravel(), ends, np.arange(1, len(rows) + 1), WIDTH)
