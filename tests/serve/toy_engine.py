"""A small engine that really generates: it continues a prompt with the prompt's own words, one token each.

Tokens are words with the space before them. Deterministic, so a test can say what must come; it can be told to be
slow, to fail, or to end without a word.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from treadle.core.errors import TreadleError, UserError
from treadle.lm.engine import Chunk, ClassScores, Engine, EngineStats, Extract, GenerateRequest, Score, TaggedSpan

_PIECES = re.compile(r"\s*\S+|\s+$")


class ToyTokenizer:
    """Words to numbers and back, learned as they come."""

    def __init__(self) -> None:
        self.words: list[str] = [""]
        self.numbers: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        ids = []
        for word in _PIECES.findall(text):
            if word not in self.numbers:
                self.numbers[word] = len(self.words)
                self.words.append(word)
            ids.append(self.numbers[word])
        return ids

    def encode_prompt(self, text: str) -> list[int]:
        return self.encode(text)

    def encode_answer(self, messages: Sequence[Any]) -> tuple[list[int], list[int]]:
        return self.encode_chat(messages[:-1]), [*self.encode(messages[-1]["content"]), 0]

    def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        return self.encode(context), self.encode(continuation)

    def room(self, limit: int, prompt: int) -> int:
        return limit - prompt

    def encode_chat(
        self, messages: Sequence[Any], *, tools: Sequence[Any] | None = None, add_generation_prompt: bool = True
    ) -> list[int]:
        self.tools = tools
        roles = [m["role"] for m in messages]
        if "system" in roles[1:]:
            raise UserError(
                "/srv/model: the model's chat template refuses these messages: a system message comes first"
            )
        text = "".join(f" <{m['role']}> {m['content']}" for m in messages)
        return self.encode(text + (" <assistant>" if add_generation_prompt else ""))

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.words[i] for i in ids)


class ToyEngine:
    """Answers with what stands behind the last ``<user>``, word by word, over and over until ``max_tokens``."""

    name = "toy"

    def __init__(self, tokenizer: ToyTokenizer, *, context_length: int = 400, pace: float = 0.0) -> None:
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.pace = pace
        self.failing: Exception | None = None
        self.fail_times = -1  # how often `generate` still fails; negative: always
        self.fail_after: int | None = None
        self.silent = False
        self.cut = 0  # letters a chunk; 0: a whole word
        self.held = ""  # what it says, if anything else, where an answer is held to a schema
        self.requests: list[GenerateRequest] = []
        self.cancelled: list[str] = []
        self.running = 0
        self.closed = False
        self.scored: list[Any] = []

    @classmethod
    async def open(cls, folder: Path, *, threads: int | None = None, settings: dict[str, Any] | None = None) -> Engine:
        return cls(ToyTokenizer())

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        self.requests.append(request)
        words = self.tokenizer.decode(request.prompt_ids).rpartition("<user>")[2].partition("<assistant>")[0].split()
        if request.schema is not None and self.held:
            words = self.held.split()
        words = words or ["nothing"]
        if request.temperature > 0 and request.seed is not None:
            words = words[request.seed % len(words) :] + words[: request.seed % len(words)]
        ended = False
        self.running += 1
        text = ""
        try:
            await asyncio.sleep(0)
            for number in range(request.max_tokens):
                if self.failing is not None and number == (self.fail_after or 0) and self.fail_times:
                    self.fail_times -= 1
                    raise self.failing
                await asyncio.sleep(self.pace)
                if number == len(words):
                    break
                piece = (" " if number else "") + words[number]
                text += piece
                found = [text.find(stop) for stop in request.stop if stop in text]
                if found:
                    piece = piece[: max(0, len(piece) - (len(text) - min(found)))]
                    ended = True
                    yield Chunk(piece, 1, "stop", (-0.5,) if request.logprobs else ())
                    return
                parts = [piece[at : at + self.cut] for at in range(0, len(piece), self.cut)] if self.cut else [piece]
                yield Chunk(parts[0], 1, None, (-0.5,) if request.logprobs else ())
                for part in parts[1:]:
                    yield Chunk(part, 0, None)
            else:
                ended = True
                yield Chunk("", 0, "length")
                return
            ended = True
            if not self.silent:
                yield Chunk("", 0, "stop")
        finally:
            self.running -= 1
            if not ended:
                self.cancelled.append(request.id)

    async def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
        """Words of the prompt are likelier than others."""
        if self.failing is not None:
            raise self.failing
        self.scored = list(pairs)
        return [Score(tuple(-1.0 if i in prompt else -2.0 for i in continuation)) for prompt, continuation in pairs]

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        if self.failing is not None:
            raise self.failing
        return [[float(len(text)), text.count("a") / 2, 1.0] for text in texts]

    async def classify(self, texts: Sequence[str]) -> list[ClassScores]:
        if self.failing is not None:
            raise self.failing
        await asyncio.sleep(self.pace)
        return [ClassScores(("bad", "good"), (0.25, 0.75) if "good" in text else (0.9, 0.1)) for text in texts]

    async def tag(self, texts: Sequence[str]) -> list[list[TaggedSpan]]:
        if self.failing is not None:
            raise self.failing
        return [[TaggedSpan(*found.span(), "NAME", 0.75) for found in re.finditer("[A-Z]\\w+", t)] for t in texts]

    async def extract(self, pairs: Sequence[tuple[str, str]]) -> list[Extract]:
        """The first word of the text that the question has as well; nothing without one."""
        if self.failing is not None:
            raise self.failing
        found = []
        for question, text in pairs:
            words = [word for word in re.finditer(r"\w+", text) if word[0] in re.findall(r"\w+", question)]
            found.append(Extract(*(words[0].span() if words else (0, 0)), 0.5))
        return found

    def stats(self) -> EngineStats:
        if self.closed:
            raise TreadleError("the engine is closed")
        return EngineStats(running=self.running, queued=0, memory_bytes=1 << 20)

    async def close(self) -> None:
        self.closed = True
