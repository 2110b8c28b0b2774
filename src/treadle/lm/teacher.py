"""A teacher: whoever answers prompts so that examples can be made of the answers. One of our own engines is one."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from treadle.lm.engines import BlockingEngine
    from treadle.lm.tokenizer import ChatTokenizer

_TOGETHER = 16  # prompts that an engine is given at a time


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a teacher chooses its words: ``temperature`` 0 takes the likeliest, at most ``max_tokens`` of them."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation to be answered. ``id`` stands for everything that the answer depends on."""

    id: str
    messages: tuple[dict[str, Any], ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What the teacher said; ``cut`` when it had no room to end. ``refused`` says why there is no text.

    ``by`` is what an endpoint calls the model that answered.
    """

    text: str = ""
    cut: bool = False
    refused: str = ""
    by: str = ""


class Teacher(Protocol):
    """Answers prompts."""

    def answer(self, prompts: Sequence[Prompt], known: Container[str]) -> Iterator[tuple[Prompt, Reply]]:
        """Replies as they come, in any order; prompts whose ids are ``known`` need none.

        ``UserError`` when the teacher is lost; what came before has been given.
        """
        ...


class EngineTeacher:
    """An engine of ours. Prompts go to it in groups that depend on the list alone, so that an attempt that goes on
    where another stopped gets the same words."""

    def __init__(self, engine: BlockingEngine, tokenizer: ChatTokenizer, sampling: Sampling) -> None:
        self._engine, self._tokenizer, self._sampling = engine, tokenizer, sampling

    def answer(self, prompts: Sequence[Prompt], known: Container[str]) -> Iterator[tuple[Prompt, Reply]]:
        """As ``Teacher.answer``. ``EngineGone`` when the engine's process is lost."""
        for start in range(0, len(prompts), _TOGETHER):
            group = prompts[start : start + _TOGETHER]
            if not all(prompt.id in known for prompt in group):
                yield from self._answered(group)

    def _answered(self, group: Sequence[Prompt]) -> Iterator[tuple[Prompt, Reply]]:
        from treadle.lm.engine import GenerateRequest

        sampling, room = self._sampling, min(self._engine.context_length, self._tokenizer.context_length)
        asked, requests = [], []
        for prompt in group:
            ids = tuple(self._tokenizer.encode_chat(prompt.messages))
            if len(ids) + sampling.max_tokens > room:
                told = f"{len(ids)} tokens and {sampling.max_tokens} of the reply are more than the model's {room}"
                yield prompt, Reply(refused=told)
                continue
            asked.append(prompt)
            requests.append(
                GenerateRequest(
                    prompt.id,
                    ids,
                    max_tokens=sampling.max_tokens,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    seed=prompt.seed,
                )
            )
        for prompt, text in zip(asked, self._engine.generate_all(requests), strict=True):
            # One token less: the one that ends the answer stands for no text.
            yield prompt, Reply(text, cut=len(self._tokenizer.encode(text)) >= sampling.max_tokens)
