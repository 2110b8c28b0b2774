"""Tasks out of ``1-instruct-qa`` for the benchmark, in lm-evaluation-harness's form, which both sides read.

facts       OpenBookQA: four answers, no examples
goals       PIQA: two long answers, no examples
concepts    CommonsenseQA: five answers, three worked examples
passages    BoolQ: yes or no about a passage
text        the passages themselves, scored as text
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import yaml

DATA = Path(os.environ.get("TREADLE_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
TASKS = ("facts", "goals", "concepts", "passages", "text")
_CHOICE = ("acc", "acc_norm")


def write_tasks(folder: Path, items: int) -> None:
    """A YAML file and the rows of each task, ``items`` of them."""
    facts, goals = lettered("lt_openbookqa_test"), lettered("lt_piqa_validation")
    concepts = lettered("lt_commonsenseqa_validation")
    passages = read("lt_boolq_dev")[:items]
    asked = {"doc_to_choice": "choices", "doc_to_target": "gold"}
    shown = {"num_fewshot": 3, "fewshot_config": {"sampler": "first_n", "samples": concepts[-3:]}}
    write(folder, "facts", facts[:items], {"doc_to_text": "{{question}}", **asked})
    write(folder, "goals", goals[:items], {"doc_to_text": "Question: {{question}}\nAnswer:", **asked})
    write(folder, "concepts", concepts[:items], {"doc_to_text": "Q: {{question}}\nA:", **asked, **shown})
    rows = [
        {"passage": row["passage"].strip(), "question": row["question"], "gold": int(row["answer"] == "True")}
        for row in passages
    ]
    about = {"doc_to_text": "{{passage}}\nQuestion: {{question}}?\nAnswer:", "doc_to_choice": ["no", "yes"]}
    write(folder, "passages", rows, {**about, "doc_to_target": "gold"})
    scored = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{passage}}"}
    write(folder, "text", [{"passage": row["passage"]} for row in rows], scored)


def write(folder: Path, name: str, rows: list[dict[str, Any]], task: dict[str, Any]) -> None:
    """One task."""
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rolling = task.get("output_type") == "loglikelihood_rolling"
    metrics = ("word_perplexity", "byte_perplexity", "bits_per_byte") if rolling else _CHOICE
    whole = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "metric_list": [{"metric": metric} for metric in metrics],
        "metadata": {"version": 1},
        **task,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))


def lettered(name: str) -> list[dict[str, Any]]:
    """Questions with their choices, and the place of the right one."""
    rows = []
    for row in read(name):
        choices = [line[3:].strip() for line in row["options"].strip().split("\n")]
        right = row["answer"][3:].strip()
        if right in choices and all(choices) and row["question"].strip():
            rows.append({"question": row["question"].strip(), "choices": choices, "gold": choices.index(right)})
    return rows


def read(name: str) -> list[dict[str, Any]]:
    """The rows of one of its files."""
    with gzip.open(DATA / "1-instruct-qa" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
