"""lm-evaluation-harness on task files, run by the Python of its own environment: ``evaluate_peer.py MODEL FOLDER N``.

One line of JSON: the seconds its model took (loading and building tasks not counted), and for each task the
log-likelihoods of every item, its metrics, and their values for each item.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any


def main(model: str, folder: str, batch: str) -> None:
    """Evaluate and print."""
    hugging_face = importlib.import_module("lm_eval.models.huggingface")
    evaluator, tasks = importlib.import_module("lm_eval.evaluator"), importlib.import_module("lm_eval.tasks")
    torch = importlib.import_module("torch")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lm = hugging_face.HFLM(pretrained=model, dtype="float32", device=device, batch_size=int(batch))
    seconds: dict[str, float] = {}
    found: dict[str, Any] = {}
    for name in sorted(path.stem for path in Path(folder).glob("*.yaml")):
        took = 0.0

        def timed(method: Any) -> Any:
            def call(*arguments: Any, **settings: Any) -> Any:
                nonlocal took
                began = time.perf_counter()
                made = method(*arguments, **settings)
                took += time.perf_counter() - began
                return made

            return call

        kept = {method: getattr(lm, method) for method in ("loglikelihood", "loglikelihood_rolling")}
        for method, original in kept.items():
            setattr(lm, method, timed(original))
        manager = tasks.TaskManager(include_path=folder, include_defaults=False)
        said = evaluator.simple_evaluate(
            model=lm, tasks=[name], task_manager=manager, log_samples=True, bootstrap_iters=0, verbosity="ERROR"
        )
        for method, original in kept.items():
            setattr(lm, method, original)
        seconds[name] = took
        found[name] = read(said, name)
    print(json.dumps({"seconds": seconds, "tasks": found}))


def read(said: dict[str, Any], name: str) -> dict[str, Any]:
    """What is compared of one task's results."""
    samples = sorted(said["samples"][name], key=lambda sample: sample["doc_id"])
    likelihoods, values = [], []
    for sample in samples:
        answers = sample["filtered_resps"]
        likelihoods.append([each[0] if isinstance(each, list | tuple) else each for each in answers])
        values.append({metric: sample[metric] for metric in sample["metrics"]})
    scores = {
        key.partition(",")[0]: value
        for key, value in said["results"][name].items()
        if isinstance(value, float) and "stderr" not in key
    }
    return {"likelihoods": likelihoods, "values": values, "scores": scores}


if __name__ == "__main__":
    main(*sys.argv[1:])
