"""Fine-tuning SmolLM2 on questions and answers beside TRL's ``SFTTrainer``, for ``benchmarks.train``.

Each way sees the same conversations of GSM8K once, and learns the assistant's tokens. ``loss``: nats a token of the
assistant's in held-out conversations.
"""

from __future__ import annotations

import gzip
import importlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.train_peer import peak_mb, plain_arguments, step_watch

DATA = Path(os.environ.get("TREADLE_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
HELD_OUT = 40
ROUNDS = 2


def lay_out(folder: Path, *, quick: bool) -> dict[str, Any]:
    """The base, and conversations as tokens."""
    from treadle.lm.base_model import resolve
    from treadle.lm.tokenizer import ChatTokenizer

    base = resolve("smollm2-135m-instruct").path
    (folder / "model").symlink_to(base)
    tokenizer = ChatTokenizer.load(base)
    with gzip.open(DATA / "1-instruct-qa" / "gsm8k_train.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for _, line in zip(range(HELD_OUT + (30 if quick else 170)), file, strict=False)]
    encoded = [
        tokenizer.encode_for_training(
            [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
        )
        for row in rows
    ]
    examples = [(list(ids), [bool(each) for each in answer]) for ids, answer in encoded if len(ids) <= 256]
    (folder / "examples.json").write_text(json.dumps(examples))
    return {"tokens": sum(len(ids) for ids, _ in examples[:-HELD_OUT])}


def work(way: str, folder: Path) -> dict[str, Any]:
    """Train in this process."""
    from treadle.lm.packing import TokenizedExample

    examples = [TokenizedExample(*each) for each in json.loads((folder / "examples.json").read_text())]
    with tempfile.TemporaryDirectory(prefix="treadle-trained-") as out:
        model = Path(out) / "model"
        found = (ours if way == "treadle" else theirs)(folder, model, examples[:-HELD_OUT], way)
        peak = peak_mb()
        return {**found, "loss": held_out(model, examples[-HELD_OUT:]), "peak_mb": peak}


def held_out(folder: Path, examples: Any) -> float:
    """Nats a token of the assistant's."""
    import torch
    import transformers

    from treadle.lm.training import answer_loss

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        nats = sum(float(answer_loss(model, examples, [[place]], 256)) for place in range(len(examples)))
    return nats / sum(sum(each.answer[1:]) for each in examples)


def ours(folder: Path, out: Path, examples: Any, _way: str) -> dict[str, Any]:
    """With the settings that a file without any has, and as many steps as see every conversation once."""
    from treadle.lm.packing import pack
    from treadle.lm.training import TrainingSettings, train

    plain = TrainingSettings()
    rows = len(pack(examples, width=plain.width, seed=17).rows)
    settings = TrainingSettings(token_budget=rows // plain.rows * plain.rows * plain.width, seed=17)
    ends: list[float] = []
    done = train(folder / "model", out, examples, settings, on_step=lambda _: ends.append(time.perf_counter()))
    a_step = done.tokens / done.steps
    return {
        "tokens_per_second": (done.tokens - a_step) / (ends[-1] - ends[0]),
        "environment": {name: str(value) for name, value in done.environment.items()},
    }


def theirs(folder: Path, out: Path, examples: Any, way: str) -> dict[str, Any]:
    """``SFTTrainer`` with our settings, or as it comes."""
    import torch

    from treadle.lm import torch_runtime
    from treadle.lm.training import TrainingSettings

    trl, datasets = importlib.import_module("trl"), importlib.import_module("datasets")
    transformers = importlib.import_module("transformers")
    asked: dict[str, Any] = {}
    if way == "equal":
        plain = TrainingSettings()
        asked = {
            "learning_rate": plain.learning_rate,
            "per_device_train_batch_size": plain.rows,
            "packing": True,
            "max_length": plain.width,
            "gradient_checkpointing": False,
            "warmup_steps": plain.warmup,
            "bf16": torch_runtime.precision("auto", torch_runtime.device()) == "bfloat16",
        }
    arguments = trl.SFTConfig(**plain_arguments(out), **asked)
    rows = [{"input_ids": each.ids, "assistant_masks": [int(one) for one in each.answer]} for each in examples]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    watch = step_watch(way)
    trainer = trl.SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[watch],
    )
    trainer.train()
    torch_runtime.save(model.to("cpu", torch.float32), folder / "model", out)
    found: dict[str, Any] = watch.found(sum(len(each.ids) for each in examples))
    return found
