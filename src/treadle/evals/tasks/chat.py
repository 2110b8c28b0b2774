"""Conversations: a generator that answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treadle.evals.report import answer_all
from treadle.evals.task import BASE, FEW_SHOT, Task
from treadle.lm.fitting import Carry, Fitted
from treadle.text.dataset import Example


def distill(teacher: Path, out: Path, examples: Sequence[Example], settings: Any, carry: Carry) -> Fitted:
    """A student with fewer of the teacher's layers (``lm.distilled_generator``)."""
    from treadle.lm.conversation import with_system_prompt
    from treadle.lm.distilled_generator import distill_generator
    from treadle.lm.packing import TokenizedExample
    from treadle.lm.tokenizer import ChatTokenizer

    tokenizer = ChatTokenizer.load(teacher)

    def encoded(examples: Sequence[Example]) -> list[TokenizedExample]:
        told = ((with_system_prompt(each.messages, settings.system_prompt), each.tools) for each in examples)
        return [TokenizedExample(*tokenizer.encode_for_training(said, tools=tools)) for said, tools in told]

    found: Fitted = carry(distill_generator, (teacher, out, encoded(examples)), settings.at(encoded))
    return found


TASK = Task(
    name="chat",
    maker="chat",
    metrics=("log_likelihood", "perplexity", "rouge_l"),
    answer=answer_all,
    distill=distill,
    gives=frozenset({"answer", "likelihood", "preference"}),
    baselines=(BASE, FEW_SHOT),
    architectures=("llama", "gpt2"),
    heads=("ForCausalLM", "LMHeadModel"),
    gguf=True,
)
