"""Conversations: a generator that answers."""

from __future__ import annotations

from treadle.evals.report import answer_all
from treadle.evals.task import BASE, FEW_SHOT, Task

TASK = Task(
    name="chat",
    maker="chat",
    metrics=("log_likelihood", "perplexity", "rouge_l"),
    answer=answer_all,
    gives=frozenset({"answer", "likelihood", "preference"}),
    baselines=(BASE, FEW_SHOT),
    architectures=("llama", "gpt2"),
    heads=("ForCausalLM", "LMHeadModel"),
    gguf=True,
)
