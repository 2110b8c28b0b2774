"""Fine-tuning MiniLM on the intents of BANKING77 beside ``Trainer``, for ``benchmarks.train``.

Each way sees the same texts once. ``loss``: nats a text of the test part.
"""

from __future__ import annotations

import importlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.optimize import intents
from benchmarks.train_peer import peak_mb, plain_arguments, step_watch

ROUNDS = 3


def lay_out(folder: Path, *, quick: bool) -> dict[str, Any]:
    """The base, texts with labels to learn from and to judge by."""
    from treadle.lm.base_model import resolve
    from treadle.lm.classification import Encoder

    base = resolve("all-minilm-l6-v2").path
    (folder / "model").symlink_to(base)
    for part, every in (("train", 40 if quick else 4), ("test", 20 if quick else 6)):
        rows = [[row["text"], row["category"]] for row in list(intents(part, quick=False))[::every]]
        (folder / f"{part}.json").write_text(json.dumps(rows))
    texts = [text for text, _ in json.loads((folder / "train.json").read_text())]
    lengths = [len(each) for each in Encoder(base, 256)(texts)[0]]
    (folder / "lengths.json").write_text(json.dumps(lengths))
    return {"tokens": sum(lengths)}


def work(way: str, folder: Path) -> dict[str, Any]:
    """Train in this process."""
    rows, judged = (json.loads((folder / f"{part}.json").read_text()) for part in ("train", "test"))
    tokens = sum(json.loads((folder / "lengths.json").read_text()))
    with tempfile.TemporaryDirectory(prefix="treadle-trained-") as out:
        model = Path(out) / "model"
        found = (ours if way == "treadle" else theirs)(folder, model, rows, tokens, way)
        peak = peak_mb()
        return {**found, "loss": held_out(model, judged), "peak_mb": peak}


def held_out(folder: Path, rows: list[list[str]]) -> float:
    """Nats a text."""
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    nats = 0.0
    with torch.inference_mode():
        for begin in range(0, len(rows), 32):
            part = rows[begin : begin + 32]
            batch = tokenizer([text for text, _ in part], padding="longest", truncation=True, return_tensors="pt")
            targets = torch.tensor([int(model.config.label2id[label]) for _, label in part])
            nats += float(torch.nn.functional.cross_entropy(model(**batch).logits, targets, reduction="sum"))
    return nats / len(rows)


def plain_settings() -> Any:
    """Those of a file that names none, and one pass; the rate of learning is the task's own."""
    from treadle.evals.task import load_task
    from treadle.lm.fitting import FitSettings

    return FitSettings(load_task("classify").learning_rate, epochs=1, seed=17)


def ours(folder: Path, out: Path, rows: list[list[str]], tokens: int, _way: str) -> dict[str, Any]:
    """With the settings that a file without any has, once over the texts."""
    from treadle.lm.classification import train_classifier

    ends: list[float] = []
    settings = plain_settings()
    done = train_classifier(
        folder / "model",
        out,
        [text for text, _ in rows],
        [label for _, label in rows],
        settings,
        on_step=lambda _: ends.append(time.perf_counter()),
    )
    return {
        "tokens_per_second": tokens * (1 - 1 / done.steps) / (ends[-1] - ends[0]),
        "environment": {name: str(value) for name, value in done.environment.items()},
    }


def theirs(folder: Path, out: Path, rows: list[list[str]], tokens: int, way: str) -> dict[str, Any]:
    """``Trainer`` with our settings, or as it comes with texts padded to the longest of their batch."""
    import torch

    from treadle.lm import torch_runtime

    transformers = importlib.import_module("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    names = sorted({label for _, label in rows})
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder / "model",
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: place for place, name in enumerate(names)},
        dtype=torch.float32,
    )
    asked: dict[str, Any] = {}
    if way == "equal":
        plain = plain_settings()
        asked = {
            "learning_rate": plain.learning_rate,
            "per_device_train_batch_size": plain.batch_size,
            "bf16": torch_runtime.precision("auto", torch_runtime.device()) == "bfloat16",
            "warmup_steps": plain.warmup,
            "weight_decay": plain.weight_decay,
            "train_sampling_strategy": "group_by_length",
        }
    encoded = tokenizer([text for text, _ in rows], truncation=True, max_length=256, padding=False)["input_ids"]
    dataset = [{"input_ids": ids, "labels": names.index(label)} for ids, (_, label) in zip(encoded, rows, strict=True)]
    watch = step_watch(way)
    transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(**plain_arguments(out), **asked),
        train_dataset=dataset,
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        callbacks=[watch],
    ).train()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    found: dict[str, Any] = watch.found(tokens)
    return found
