"""Conversations with tools from one file: a model whose template knows no tools learns to call one, and is judged by
its calls."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from small_project import Project, make_project
from task_results import keep
from treadle.cycle import begin
from treadle.lm.tokenizer import ChatTokenizer
from treadle.project import open_project
from treadle.turning import go

CALCULATOR = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Works out an expression.",
        "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
    },
}
FILE = """\
name: reckoner
task: chat
collect:
  sources: [{type: files, path: ../data/talks.jsonl, license: MIT}]
prepare:
  steps: [normalize]
  split: {train: 0.82, validation: 0.03, test: 0.15}
develop:
  base_model: smollm2-135m-instruct
  learning_rate: 3e-4
  tokens: 26000
  max_length: 384
  evaluate: {metrics: [tool_call_match, log_likelihood], baselines: [base], max_tokens: 40}
"""
STEP = re.compile(r"<<([^=<>]+)=([^<>]+)>>")


def _call(name: str, arguments: dict[str, Any], number: int) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": f"c{number}", "type": "function", "function": function}],
    }


def talks(shared: Path, count: int) -> list[dict[str, Any]]:
    """Of GSM8K's solutions, whose annotations are calls of a calculator: each question with its calls and their
    results, as far as one of the calls (the first, the second, by turns)."""
    rows = []
    with gzip.open(shared / "1-instruct-qa" / "gsm8k_train.jsonl.gz", "rt") as file:
        for line in file:
            row = json.loads(line)
            steps = STEP.findall(row["answer"])
            if len(steps) < 2 or len(row["question"]) > 250:
                continue
            messages: list[dict[str, Any]] = [{"role": "user", "content": row["question"]}]
            last = len(rows) % 2
            for number, (expression, result) in enumerate(steps[: last + 1]):
                messages.append(_call("calculator", {"expression": expression}, number))
                if number < last:
                    messages.append({"role": "tool", "tool_call_id": f"c{number}", "content": result})
            rows.append({"messages": messages, "tools": [CALCULATOR]})
            if len(rows) == count:
                return rows
    raise AssertionError("too few questions")


def test_tools_go_all_the_way(tmp_path: Path, base: Path) -> None:
    project = make_project(tmp_path, base)
    rows = [json.loads(line) for line in project.data.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["tools"] = [{"type": "function", "function": {"name": "calculator", "description": "Adds."}}]
        row["messages"][1] = _call("calculator", {"expression": f"{number}+1"}, number)
    project.data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    project.edit("fields: {messages: messages, subject: customer, time: time}", "fields: {subject: customer}")
    project.edit("tokens: 3000\n  max_length: 256", "tokens: 1500\n  max_length: 480")
    project.edit("metrics: [log_likelihood, perplexity, rouge_l], ", "metrics: [tool_call_match, log_likelihood], ")
    with open_project(project.folder) as opened:
        turn = begin(opened)
        go(turn, "develop")
        report = turn.developed.evaluations["model"]
        tokens = turn.prepared.tokens
        assert tokens is not None
        learned = tokens.examples("train")[0]
        text = ChatTokenizer.load(base).decode([i for i, said in zip(learned.ids, learned.answer, strict=True) if said])
        whole = ChatTokenizer.load(base).decode(learned.ids)
    assert text.startswith('<tool_call>\n{"name": "calculator", "arguments": {"expression": "')
    assert '"description": "Adds."' in whole
    items = report.items()
    assert all(item.tools and item.calls for item in items.items)
    assert 0 <= report.value("tool_call_match") <= 1
    expected = len(ChatTokenizer.load(base).encode('<tool_call>\n{"name": "calculator"'))
    assert all(output.reference_tokens > expected for output in items.outputs)


@pytest.mark.slow
def test_a_calculator_for_the_questions_of_gsm8k(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "project").mkdir()
    rows = talks(shared_data, 260)
    (tmp_path / "data" / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "project" / "treadle.yaml").write_text(FILE)
    project = Project(tmp_path / "project")
    with open_project(project.folder) as opened:
        turn = begin(opened)
        go(turn, "develop")
        evaluations = {name: report.scores() for name, report in turn.developed.evaluations.items()}
    keep("tools", "GSM8K, calls of a calculator, 260 conversations; SmolLM2-135M-Instruct", evaluations)
    model, base = evaluations["model"], evaluations["base"]
    assert model["log_likelihood"]["low"] > base["log_likelihood"]["high"]
    assert (
        model["tool_call_match"]["value"] >= base["tool_call_match"]["value"]
    )  # so small a model rarely gets one right
    assert project.json("verify")["ok"]
