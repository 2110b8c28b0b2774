"""How fast one replica is with so many requests at once: measured by holding that many for a few seconds each.

They begin one after the other, and their answers are of several lengths, as traffic's are. Begun together and equally
long they would stay together, all prompts read in one go and no answer held up by another's prompt: a plan by that
promised half of the real times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from statistics import fmean
from typing import Any

from treadle.core.errors import UserError
from treadle.loading.client import Answered, Client

LEVELS = (1, 2, 4, 8, 16, 32, 64)
_GAIN = 1.05  # a level that brings less than this is the last
_GOLDEN = (5**0.5 - 1) / 2  # whose multiples' fractions spread evenly, however many there are
_SLOWER = 1.5  # about as many times as long an answer takes with twice the requests


@dataclass(frozen=True, slots=True)
class Level:
    """With ``at_once`` requests: seconds until the first token for ``prompt`` tokens, seconds a token after it."""

    at_once: int
    prompt: float
    ttft: float
    per_token: float
    tokens_per_second: float


class Curve:
    """The levels, and what lies between and beyond them."""

    def __init__(self, levels: Sequence[Level]) -> None:
        self.levels = list(levels)
        self._paces: dict[int, tuple[float, float]] = {}

    def prompts(self, tokens: int) -> float:
        """How many usual prompts one of so many tokens is: as long as it is, so long it takes; a short one never less
        than a tenth of a usual one."""
        return max(tokens / self.levels[0].prompt, 0.1)

    def paces(self, at_once: int) -> tuple[float, float]:
        """Seconds for a usual prompt, and for each further token, with so many requests."""
        if (found := self._paces.get(at_once)) is None:
            found = self._at(at_once, lambda level: level.ttft), self._at(at_once, lambda level: level.per_token)
            self._paces[at_once] = found
        return found

    def public(self) -> list[dict[str, Any]]:
        """As JSON."""
        return [{name: round(value, 6) for name, value in asdict(level).items()} for level in self.levels]

    def _at(self, at_once: int, value: Callable[[Level], float]) -> float:
        first, last = self.levels[0], self.levels[-1]
        if at_once <= first.at_once:
            return value(first)
        if at_once >= last.at_once:  # no faster in all than at the last level: each takes longer by as much
            return value(last) * at_once / last.at_once
        pairs = zip(self.levels, self.levels[1:], strict=False)
        low, high = next(pair for pair in pairs if at_once <= pair[1].at_once)
        share = (at_once - low.at_once) / (high.at_once - low.at_once)
        return value(low) + share * (value(high) - value(low))


async def measure(
    client: Client, make: Callable[[float], bytes], seconds: float, on_level: Callable[[Level], None] | None = None
) -> Curve:
    """Hold 1, 2, 4 ... requests, each number for ``seconds`` or three answers, until more bring nothing or some are
    refused. ``make`` gives a request whose answer is so many times as long as usual, from half to one and a half times.

    Raises ``UserError`` when not even one at a time is answered.
    """
    loop = asyncio.get_running_loop()
    levels: list[Level] = []
    lengths = (0.5 + number * _GOLDEN % 1 for number in count())
    total = 0.0  # seconds of an answer, at the level before
    for at_once in LEVELS:
        begun = total * _SLOWER  # by then all have
        lasts = begun + max(seconds, 2 * begun)
        ends = loop.time() + lasts
        answers = await client.hold(
            lambda ends=ends: make(next(lengths)) if loop.time() < ends else None,  # type: ignore[misc]
            at_once,
            apart=begun / at_once,
        )
        good = [each for each in answers if each.error is None and each.answer_tokens > 1]
        if not good or len(good) < len(answers):
            break
        good = _never_fewer(good, begun * (1 - 1 / at_once), lasts)
        total = fmean(each.total for each in good)
        rate = at_once * fmean(each.answer_tokens for each in good) / total
        per_token = [(each.total - each.ttft) / (each.answer_tokens - 1) for each in good]
        ttft, prompt = fmean(each.ttft for each in good), fmean(each.prompt_tokens for each in good)
        levels.append(Level(at_once, max(prompt, 1.0), max(ttft, 1e-6), max(fmean(per_token), 1e-6), rate))
        if on_level is not None:
            on_level(levels[-1])
        if len(levels) > 1 and rate < levels[-2].tokens_per_second * _GAIN:
            break
    if not levels:
        raise UserError(
            "not even one request at a time was answered with two tokens or more, so nothing can be planned"
        )
    return Curve(levels)


def _never_fewer(answers: list[Answered], begun: float, ends: float) -> list[Answered]:
    """Those during which there was the whole number all the time, or else from the beginning, or else all."""
    among = [each for each in answers if each.due >= begun]
    return [each for each in among if each.ended <= ends] or among or answers
