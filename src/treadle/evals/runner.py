"""The evaluation runner: items go through an engine, and come out with an answer and the reference's
likelihood.

The engine sees token ids only. A prompt is encoded for scoring as it is for generating, and the reference is
scored with the token that ends its turn, exactly what training learns and generation emits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from treadle.core.errors import UserError
from treadle.evals.item import Item, Output
from treadle.evals.metric import Metric
from treadle.lm.conversation import with_system_prompt
from treadle.lm.engine import ClassScores, GenerateRequest, Score
from treadle.lm.scored_pair import answer_pair
from treadle.text.dataset import Example
from treadle.text.questions import START
from treadle.text.tool_calls import spoken

MAX_ANSWER_TOKENS = 64
REJECTED = "rejected"  # the field with the same conversation as somebody liked it less

Messages = Sequence[Mapping[str, str]]
Progress = Callable[[int, int], None]


class EvaluatedEngine(Protocol):
    """What the runner asks of an engine (``lm.engines.BlockingEngine`` is one); calls block until all is
    done.
    """

    def generate_all(self, requests: Sequence[GenerateRequest], on_progress: Progress | None = None) -> Sequence[str]:
        """The text of one whole answer per request, in their order."""
        ...

    def score(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], on_progress: Progress | None = None
    ) -> Sequence[Score]:
        """Log-probabilities of each continuation after its prompt."""
        ...


class Classifier(Protocol):
    """An engine that gives a distribution over labels."""

    def classify(self, texts: Sequence[str], on_progress: Progress | None = None) -> Sequence[ClassScores]:
        """One distribution per text."""
        ...


class Encoder(Protocol):
    """The part of ``ChatTokenizer`` that is needed here."""

    context_length: int

    def encode_chat(self, messages: Any, *, tools: Any = None, add_generation_prompt: bool = True) -> list[int]:
        """Ids of a conversation, ready to be answered."""
        ...

    def encode_for_training(self, messages: Any, *, tools: Any = None) -> tuple[list[int], list[bool]]:
        """Ids of a conversation with its answers, and which of them the assistant says."""
        ...

    def room(self, limit: int, prompt: int) -> int:
        """How many tokens of an answer a context of ``limit`` leaves beside a prompt."""
        ...


def items_from(examples: Sequence[Example]) -> list[Item]:
    """Items of a split. ``UserError`` for an example without a reference."""
    items = []
    for example in examples:
        if not example.answer and example.fields.get(START, 0) is not None:
            raise UserError(f"example {example.id} has no reference answer or label, so nothing can be measured on it")
        items.append(
            Item(
                id=example.id,
                messages=example.messages[:-1],
                text=example.text,
                reference=example.answer,
                documents=example.documents,
                fields=example.fields,
                tools=example.tools,
                calls=tuple(example.messages[-1].get("tool_calls") or ()) if example.messages else (),
            )
        )
    return items


def rejected_items(items: Sequence[Item]) -> dict[int, Item]:
    """By the place of its item: the same question with the rejected answer as the reference, where an item has one.

    Conversations that part before the last answer are no two answers to one question, and are left out.
    """
    found = {}
    for place, item in enumerate(items):
        rejected = item.fields.get(REJECTED)
        if isinstance(rejected, list | tuple) and rejected and _said(rejected[:-1]) == _said(item.messages):
            calls = tuple(rejected[-1].get("tool_calls") or ())
            found[place] = replace(item, reference=spoken(rejected[-1]), calls=calls)
    return found


def _said(messages: Messages) -> list[str]:
    return [spoken(message) for message in messages if message["role"] != "system"]


def run_chat(
    engine: EvaluatedEngine,
    tokenizer: Encoder,
    items: Sequence[Item],
    *,
    metrics: Sequence[Metric],
    system_prompt: str = "",
    worked: Sequence[Example] = (),
    max_tokens: int = MAX_ANSWER_TOKENS,
    on_progress: Progress | None = None,
) -> list[Output]:
    """An output per item, in order. Only what the metrics need is run: greedy answers, likelihoods, or both.

    ``system_prompt`` goes before items that have none, ``worked`` examples are shown before every question.
    ``on_progress`` gets (done, all) of answers and likelihoods together. ``UserError`` names the first item
    that is too long for the model.
    """
    needs = {metric.needs for metric in metrics}
    if "probabilities" in needs:
        raise UserError("metrics over labels need a classifier; this is a chat model")
    pairs = [encode_item(tokenizer, item, system_prompt=system_prompt, worked=worked) for item in items]
    for item, (prompt, reference) in zip(items, pairs, strict=True):
        room = max(len(reference), max_tokens)
        if room > tokenizer.room(tokenizer.context_length, len(prompt)):
            raise UserError(
                f"item {item.id}: {len(prompt)} prompt tokens and {room} of the answer are more than the model's"
                f" {tokenizer.context_length}; show fewer worked examples or drop longer texts in prepare"
            )
    wanted = len(items) * len(needs & {"answer", "likelihood"})

    def report_from(start: int) -> Progress:
        return lambda done, _: on_progress(start + done, wanted) if on_progress else None

    answers: Sequence[str] = [""] * len(items)
    scores: Sequence[Score | None] = [None] * len(items)
    if "answer" in needs:
        requests = [
            GenerateRequest(item.id, tuple(prompt), max_tokens=max_tokens)
            for item, (prompt, _) in zip(items, pairs, strict=True)
        ]
        answers = engine.generate_all(requests, report_from(0))
    if "likelihood" in needs:
        scores = engine.score(pairs, report_from(wanted - len(items)))
    return [
        _output(item, answer, score, len(reference))
        for item, answer, score, (_, reference) in zip(items, answers, scores, pairs, strict=True)
    ]


def run_classifier(engine: Classifier, items: Sequence[Item], *, on_progress: Progress | None = None) -> list[Output]:
    """The most probable label of each item, with the distribution."""
    return [output_of(scores) for scores in engine.classify([item.text for item in items], on_progress)]


def output_of(scores: ClassScores) -> Output:
    """The output of a distribution; of equally probable labels the first by name. ``UserError`` where it is none."""
    if not all(map(math.isfinite, scores.probabilities)):
        raise UserError("the model's answer is no number: its weights are damaged, or were rounded too much")
    probabilities = dict(zip(scores.labels, scores.probabilities, strict=True))
    best = min(probabilities, key=lambda label: (-probabilities[label], label))
    return Output(text=best, probabilities=probabilities)


def encode_item(
    tokenizer: Encoder, item: Item, *, system_prompt: str = "", worked: Sequence[Example] = ()
) -> tuple[list[int], list[int]]:
    """Prompt ids, and reference ids with the token that ends the turn."""
    asked = with_worked_examples(with_system_prompt(item.messages, system_prompt), worked)
    told: dict[str, Any] = {"role": "assistant", "content": item.reference}
    if item.calls:
        words = item.reference.split("\n")[: -len(item.calls)]
        told = {"role": "assistant", "content": "\n".join(words), "tool_calls": list(item.calls)}
    return answer_pair(tokenizer, [*asked, told], item.tools or None)


def with_worked_examples(messages: Messages, worked: Sequence[Example]) -> list[Mapping[str, str]]:
    """The conversation with questions and answers of ``worked`` shown first, after the system prompt."""
    system = [message for message in messages[:1] if message["role"] == "system"]
    shown = [message for example in worked for message in example.messages if message["role"] != "system"]
    return [*system, *shown, *messages[len(system) :]]


def _output(item: Item, answer: str, score: Score | None, tokens: int) -> Output:
    if score is None:
        return Output(text=answer.strip())
    if len(score.logprobs) != tokens:
        raise UserError(
            f"item {item.id}: the engine scored {len(score.logprobs)} of {tokens} reference tokens;"
            " it cannot be used for likelihoods"
        )
    return Output(text=answer.strip(), log_likelihood=score.total, reference_tokens=tokens)
