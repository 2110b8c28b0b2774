"""A task put to an engine: prompts and answers as tokens, and what the model makes of them.

Bare text is encoded as lm-evaluation-harness does: prompt and answer together, cut where the prompt alone ends, spaces
at its end counted to the answer. A text to be scored begins behind the tokenizer's first token; one that is longer than
the context is scored in pieces, each behind what fits before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from treadle.core.errors import UserError
from treadle.evals.item import Item, Output
from treadle.evals.runner import EvaluatedEngine, Progress, encode_item
from treadle.lm.engine import GenerateRequest, Score
from treadle.lm.scored_pair import Pair, text_pair

if TYPE_CHECKING:
    from treadle.evals.evaluation_task import EvaluationTask
    from treadle.lm.tokenizer import ChatTokenizer
    from treadle.text.dataset import Example


@dataclass(frozen=True, slots=True)
class TaskRunner:
    """``worked`` examples are shown before every item; ``system_prompt`` is for tasks that chat."""

    engine: EvaluatedEngine
    tokenizer: ChatTokenizer
    task: EvaluationTask
    worked: Sequence[Example] = ()
    system_prompt: str = ""

    def run(self, items: Sequence[Item], on_progress: Progress | None = None) -> list[Output]:
        """An output for each item; ``UserError`` names the first that is too long for the model."""
        match self.task.kind:
            case "generate":
                return self._generate(items, on_progress)
            case "perplexity":
                return self._roll(items, on_progress)
            case "multiple_choice":
                return self._choose(items, on_progress)

    def _generate(self, items: Sequence[Item], on_progress: Progress | None) -> list[Output]:
        task, requests = self.task, []
        until = tuple(task.until) or ((self.separator,) if not task.chat else ())
        for item in items:
            ids = self.tokenizer.encode_chat(self._messages(item)) if task.chat else self._prompt_ids(item)
            self._check(item, len(ids) + task.max_tokens)
            requests.append(GenerateRequest(item.id, tuple(ids), max_tokens=task.max_tokens, stop=until))
        return [Output(text=text) for text in self.engine.generate_all(requests, on_progress)]

    def _roll(self, items: Sequence[Item], on_progress: Progress | None) -> list[Output]:
        pairs: list[Pair] = []
        counts = []
        for item in items:
            windows = list(rolling(self.tokenizer.encode_whole(item.reference), self._first(), self._room()))
            counts.append(len(windows))
            pairs += windows
        scores, outputs = iter(self.engine.score(pairs, on_progress)), []
        for count in counts:
            found = [next(scores) for _ in range(count)]
            tokens = sum(len(each.logprobs) for each in found)
            outputs.append(Output(log_likelihood=sum(each.total for each in found), reference_tokens=tokens))
        return outputs

    def _choose(self, items: Sequence[Item], on_progress: Progress | None) -> list[Output]:
        pairs = [pair for item in items for pair in self._pairs(item)]
        scores = iter(self.engine.score(pairs, on_progress))
        return [_chosen(item, [next(scores) for _ in item.choices]) for item in items]

    def _pairs(self, item: Item) -> Iterator[Pair]:
        for choice in item.choices:
            if self.task.chat:
                asked = Item(item.id, messages=tuple(self._messages(item)), reference=choice)
                pair = encode_item(self.tokenizer, asked)
            else:
                pair = text_pair(self.tokenizer, self._context(item), self.task.delimiter + choice)
            if not pair[1]:
                raise UserError(f"item {item.id}: a choice has no token of its own behind the prompt; see delimiter")
            self._check(item, sum(map(len, pair)))
            yield pair

    @property
    def separator(self) -> str:
        """What stands between two worked examples, and by default ends an answer."""
        return self.task.few_shot.separator if self.task.few_shot else "\n\n"

    def _context(self, item: Item) -> str:
        shown = "".join(f"{each.text}{self.task.delimiter}{each.label}{self.separator}" for each in self.worked)
        return f"{self.task.description}{shown}{item.text}"

    def _messages(self, item: Item) -> list[dict[str, str]]:
        system = self.task.description or self.system_prompt
        turns = [{"role": "system", "content": system}] if system else []
        for each in self.worked:
            turns.append({"role": "user", "content": each.text})
            turns.append({"role": "assistant", "content": each.label or ""})
        return [*turns, {"role": "user", "content": item.text}]

    def _prompt_ids(self, item: Item) -> list[int]:
        return self.tokenizer.encode_whole(self._context(item)) or [self._first()]

    def _first(self) -> int:
        first = self.tokenizer.first_id
        if first is None:
            raise UserError("the tokenizer names neither a first nor a last token, behind which a text could be scored")
        return first

    def _room(self) -> int:
        """Tokens that are scored at a time, the one before them left out."""
        return (self.tokenizer.context_length or 1 << 20) - 1

    def _check(self, item: Item, tokens: int) -> None:
        if self.tokenizer.context_length and tokens > self.tokenizer.context_length:
            raise UserError(
                f"item {item.id}: {tokens} tokens with the answer, and the model's context holds"
                f" {self.tokenizer.context_length}; show fewer worked examples or leave longer items out"
            )


def rolling(ids: Sequence[int], first: int, room: int) -> Iterator[Pair]:
    """Every token of a text once, in pieces of ``room``: the last piece is filled up with what stands before it."""
    for start in range(0, len(ids), room):
        end = min(start + room, len(ids))
        before = [first] if not start else list(ids[max(end - room - 1, 0) : start])
        yield before, list(ids[start:end])


def _chosen(item: Item, scores: Sequence[Score]) -> Output:
    totals = [each.total for each in scores]
    best, highest = max(range(len(totals)), key=totals.__getitem__), max(totals)
    weights = [math.exp(each - highest) for each in totals]
    shares = {str(place): weight / sum(weights) for place, weight in enumerate(weights)}
    gold = scores[item.gold]
    return Output(
        text=item.choices[best],
        log_likelihood=gold.total,
        reference_tokens=len(gold.logprobs),
        probabilities={item.choices[int(place)]: share for place, share in shares.items()},
        choices=tuple(totals),
    )
