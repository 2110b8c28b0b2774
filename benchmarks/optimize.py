"""What optimizing gives, beside Hugging Face's float32: ``python -m benchmarks.optimize [--quick] [--only NAME]``.

Two projects are laid out: SmolLM2 on questions and answers (GSM8K), and MiniLM trained on the intents of BANKING77.
``treadle optimize`` measures its ways on the test split of each; in the same run, in a process of its own, transformers
does the same work in float32: ``generate`` one prompt after the other, and labels for batches of sixteen texts.

    generate   tokens a second of processor time, of the fastest way that loses at most 1 % of perplexity, over theirs
    classify   texts a second of processor time, of the fastest way whose accuracy is within the limit, over theirs

``generate_batched`` is over theirs with the same four prompts in one batch, which is what we answer together.
``perplexity_ratio`` and ``accuracy_lost`` are those of the two ways. All sides have the same two threads.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import print_report, versions

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TREADLE_TEST_DATA", ROOT.parent / "shared" / "data"))
TOKENS, AT_ONCE, BATCH, TEXTS = 48, 4, 16, 256
SYSTEM = "You answer in a few sentences."
FILES = {
    "chat": f"""
develop:
  base_model: smollm2-135m-instruct
  max_length: 512
  evaluate: {{metrics: [log_likelihood], baselines: []}}
deploy: {{quantize: null, system_prompt: {SYSTEM}}}
""",
    "classify": """
develop:
  base_model: all-minilm-l6-v2
  evaluate: {metrics: [accuracy], baselines: []}
deploy: {quantize: null}
""",
}
WAYS = {
    "chat": (
        *("bfloat16", "gguf-q8_0", "openvino-int8-rows", "gguf-f16", "gguf-q8_0-f32", "gguf-q4_1", "gguf-q4_0"),
        "openvino-int4",
        *("magnitude-30", "layers-67-q8_0"),
    ),
    "classify": (
        *("bfloat16", "openvino", "openvino-f32", "onnx", "onnx-one-by-one", "onnx-int8", "onnx-int8-rows"),
        *("magnitude-30", "layers-67", "layers-50"),
    ),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Optimized models beside Hugging Face's float32.")
    parser.add_argument("--quick", action="store_true", help="fewer items and ways, a classifier that learned little")
    parser.add_argument("--only", choices=("chat", "classify"), help="one of the two")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=Path, help="lay the projects out here, and go on with what is there")
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(theirs(arguments.worker[0], Path(arguments.worker[1]))))
        return
    ratios: dict[str, float] = {}
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="treadle-optimize-") as scratch:
        for task in [arguments.only] if arguments.only else ["chat", "classify"]:
            folder = (arguments.keep or Path(scratch)) / task
            found, peer = measured(task, folder, quick=arguments.quick)
            told(task, found, peer, ratios, figures)
    figures["load"] = round(os.getloadavg()[0], 1)
    packages = ("treadle", "torch", "transformers", "openvino", "openvino-genai", "onnx", "onnxruntime")
    figures["versions"] = versions(packages)
    print_report(f"optimize --only {arguments.only}" if arguments.only else "optimize", ratios, figures)


def measured(task: str, folder: Path, *, quick: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ``treadle optimize`` says, and the peer's figures."""
    model = folder / "model"
    if not (folder / "treadle.yaml").is_file():
        lay_out(task, folder, quick=quick)
        treadle(folder, "import", "model", str(model.resolve()))
        treadle(folder, "run", "--until", "track")
    ways = WAYS[task][:4] if quick else WAYS[task]
    asked = [word for way in ways for word in ("--try", way)]
    items = "24" if quick else "150" if task == "chat" else "1000"
    found = treadle(folder, "optimize", "model@v1", "--items", items, *asked)
    command = [sys.executable, "-m", "benchmarks.optimize", "--worker", task, str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return found, json.loads(done.stdout.splitlines()[-1])


def told(
    task: str, found: dict[str, Any], peer: dict[str, Any], ratios: dict[str, float], figures: dict[str, Any]
) -> None:
    """Put ratios and figures where they belong."""
    points = {point["name"]: point for point in found["points"]}
    best = max((p for p in points.values() if p["verdict"] == "kept"), key=lambda p: float(p["speed"]))
    name = "generate" if task == "chat" else "classify"
    ratios[name] = best["speed"] / peer["per_cpu_second"]
    if task == "chat":
        ratios["generate_batched"] = best["speed"] / peer["batched"]
        figures["perplexity_ratio"] = round(1 + best["loss"], 4)
    else:
        ratios["classify_one_by_one"] = best["speed"] / peer["one_by_one"]
        figures["accuracy_lost"] = round(best["loss"], 4)
    figures["points"] = max(len(points), figures.get("points", 0))
    figures[name] = {
        "way": best["name"],
        "loss_interval": f"{best['low']:.4f} to {best['high']:.4f}",
        "unchanged": round(points["unchanged"]["value"], 4),
        "theirs_per_cpu_second": {key: round(value, 1) for key, value in peer.items()},
        "per_cpu_second": {key: round(point["speed"], 1) for key, point in points.items()},
        "lost": {key: round(point["loss"], 4) for key, point in points.items()},
        "megabytes": {key: round(point["size"] / 1e6, 1) for key, point in points.items()},
        "refused": ", ".join(key for key, point in points.items() if point["verdict"] == "refused") or "none",
    }


def treadle(folder: Path, *arguments: str) -> dict[str, Any]:
    """What a command says."""
    command = [sys.executable, "-m", "treadle", "-C", str(folder), *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def lay_out(task: str, folder: Path, *, quick: bool) -> None:
    """A project's file, its rows and a model that comes from outside."""
    folder.mkdir(parents=True)
    rows = list(questions(quick=quick) if task == "chat" else intents("train", quick=quick))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = "" if task == "chat" else ", fields: {text: text, label: category}"
    from treadle.lm.base_model import resolve

    if task == "chat":
        (folder / "model").symlink_to(resolve("smollm2-135m-instruct").path)
    else:
        train_classifier(folder / "model", rows, quick=quick)
        rows = list(intents("test", quick=quick))
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = "{train: 0.4, validation: 0.05, test: 0.55}"
    (folder / "treadle.yaml").write_text(
        f"name: bench\ntask: {task}\ncollect:\n  sources:\n"
        f"    - {{type: files, path: rows.jsonl, license: MIT{fields}}}\n"
        f"prepare: {{steps: [normalize, deduplicate], split: {split}}}\n{FILES[task]}"
    )


def questions(*, quick: bool) -> Iterator[dict[str, str]]:
    """Questions with their answers; few when it has to be quick."""
    with gzip.open(DATA / "1-instruct-qa" / "gsm8k_train.jsonl.gz", "rt") as file:
        for _, line in zip(range(100 if quick else 300), file, strict=False):
            row = json.loads(line)
            yield {"question": row["question"], "answer": row["answer"]}


def intents(part: str, *, quick: bool) -> Iterator[dict[str, str]]:
    """Questions of bank customers with their intents; every fourth when it has to be quick."""
    with gzip.open(DATA / "2-classification-ner" / f"banking77_{part}.csv.gz", "rt") as file:
        for number, row in enumerate(csv.DictReader(file)):
            if not quick or number % 4 == 0:
                yield {"text": row["text"], "category": row["category"]}


def train_classifier(out: Path, rows: list[dict[str, str]], *, quick: bool) -> None:
    """MiniLM with a head, on the training part of the intents: every second row, three times over."""
    from treadle.lm import classification
    from treadle.lm.base_model import resolve
    from treadle.lm.fitting import FitSettings

    taken = rows if quick else rows[::2]
    settings = FitSettings(learning_rate=3e-4, epochs=1 if quick else 3, batch_size=32, max_length=64, seed=17)
    texts, labels = [row["text"] for row in taken], [row["category"] for row in taken]
    classification.train_classifier(resolve("all-minilm-l6-v2").path, out, texts, labels, settings)


def theirs(task: str, folder: Path) -> dict[str, float]:
    """transformers in float32, in this process: tokens or texts a second of processor time."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch
    import transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    with torch.inference_mode():
        if task == "chat":
            return generated(folder / "model", tokenizer, [row["question"] for row in rows[:AT_ONCE]])
        return labeled(folder / "model", tokenizer, [row["text"] for row in rows[:TEXTS]])


def generated(folder: Path, tokenizer: Any, asked: list[str]) -> dict[str, float]:
    """``generate``, one by one and all together."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer.padding_side = "left"
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}],
            tokenize=False,
            add_generation_prompt=True,
        )
        for text in asked
    ]
    how = {"do_sample": False, "min_new_tokens": TOKENS, "max_new_tokens": TOKENS}
    encoded = [tokenizer(prompt, return_tensors="pt") for prompt in prompts]
    together = tokenizer(prompts, return_tensors="pt", padding=True)
    model.generate(**encoded[0], do_sample=False, max_new_tokens=8)
    began = time.process_time()
    for each in encoded:
        model.generate(**each, **how)
    alone = time.process_time() - began
    began = time.process_time()
    model.generate(**together, **how)
    batched = time.process_time() - began
    tokens = len(prompts) * TOKENS
    return {"per_cpu_second": tokens / alone, "batched": tokens / batched}


def labeled(folder: Path, tokenizer: Any, texts: list[str]) -> dict[str, float]:
    """Batches as they come, and one by one."""
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    found = {}
    for name, size in (("per_cpu_second", BATCH), ("one_by_one", 1)):
        done, began = 0, time.process_time()
        while time.process_time() - began < 4:
            for start in range(0, len(texts), size):
                batch = tokenizer(texts[start : start + size], return_tensors="pt", padding=True, truncation=True)
                model(**batch).logits.softmax(-1)
            done += len(texts)
        found[name] = done / (time.process_time() - began)
    return found


if __name__ == "__main__":
    main()
