"""Chat completions of a model that finds answers in a text: what the text is, and the one chunk that is the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Self

from treadle.lm.engine import Chunk, GenerateRequest
from treadle.serve.aside import aside
from treadle.serve.entry import ContextPiece
from treadle.serve.errors import invalid, unsupported
from treadle.serve.exchange import Generation
from treadle.serve.release import Serving
from treadle.serve.requests import ChatRequest


@dataclass(frozen=True, slots=True)
class Reading:
    """A question and the text that may hold its answer. An answer has few tokens, and ``max_tokens`` cuts none off."""

    serving: Serving
    question: str
    text: str

    @classmethod
    def of(
        cls, serving: Serving, body: ChatRequest, messages: Sequence[dict[str, str]], context: Sequence[ContextPiece]
    ) -> Self:
        """The last user message asks; the text is what system messages and ``context`` say, else the release's system
        prompt. Raises 400 where there is none, and for what chooses among several answers.
        """
        for name, asks in (("n", (body.n or 1) > 1), ("stop", bool(body.stop)), ("logprobs", bool(body.logprobs))):
            if asks:
                raise unsupported(name, "what chooses among the answers of a model that finds one in a text")
        asked = [message["content"] for message in messages if message["role"] == "user"]
        if not asked or not asked[-1].strip():
            raise invalid("messages", "messages: expected a question from the user")
        told = [message["content"] for message in messages if message["role"] == "system"]
        text = "\n\n".join(each for each in [*told, *(piece.text for piece in context)] if each.strip())
        text = text or serving.release.system_prompt or ""
        if not text.strip():
            raise invalid(
                "messages",
                f"messages: {serving.release.name} finds answers in a text, and there is none; send it as the system"
                " message, or in context",
                code="no_context",
            )
        return cls(serving, asked[-1], text)

    async def prepare(self) -> Generation:
        """What is counted and recorded of the request."""
        encoder = self.serving.tokenizer
        ids: list[int] = []
        if encoder is not None:
            size = len(self.question) + len(self.text)
            ids = await aside(size, lambda: [*encoder.encode(self.question), *encoder.encode(self.text)])
        return Generation(tuple(ids), self.serving.release.max_tokens, temperature=0.0, top_p=1.0)

    async def answer(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """The characters of the text that answer; none where it does not say."""
        (found,) = await self.serving.engine.extract([(self.question, self.text)])
        said = self.text[found.start : found.end]
        encoder = self.serving.tokenizer
        yield Chunk(said, len(encoder.encode(said)) if encoder is not None and said else 0, "stop")
