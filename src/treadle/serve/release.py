"""A release as the server has it: what the API says of it, and the engine and the tokenizer that run it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from treadle.lm.engine import Engine
from treadle.record.interaction import Tokens
from treadle.serve.guardrail import NO_GUARDRAILS, Guardrails


class Encoder(Protocol):
    """The part of a tokenizer that the gateway uses; `lm.tokenizer.ChatTokenizer` is one."""

    def encode_chat(
        self, messages: Sequence[Any], *, tools: Sequence[Any] | None = None, add_generation_prompt: bool = True
    ) -> list[int]:
        """Token ids of a conversation; ``UserError`` when the chat template refuses it."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text."""
        ...

    def encode_answer(self, messages: Sequence[Any]) -> tuple[list[int], list[int]]:
        """Token ids of a conversation before its last answer, and of that answer."""
        ...

    def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Token ids of a text and of what continues it."""
        ...

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a text to be continued as it stands."""
        ...

    def room(self, limit: int, prompt: int) -> int:
        """How many tokens of an answer a context of ``limit`` leaves beside a prompt."""
        ...


@dataclass(frozen=True, slots=True)
class Price:
    """What tokens cost, per million; ``currency`` is an ISO 4217 code."""

    currency: str
    prompt: float
    completion: float

    def nano(self, tokens: Tokens) -> int:
        """What so many tokens cost, in billionths of the unit, rounded up."""
        return math.ceil((tokens.prompt * self.prompt + tokens.completion * self.completion) * 1000)


@dataclass(frozen=True, slots=True)
class ServedRelease:
    """What the API says of a release. ``name`` is ``NAME@vN``, ``created`` in seconds since 1970."""

    name: str
    digest: str
    aliases: tuple[str, ...] = ()
    task: str = "chat"
    asking: str = "chat"
    created: int = 0
    system_prompt: str | None = None
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    price: Price | None = None

    @property
    def base(self) -> str:
        """The name without its version: the project's, for which any of its releases may answer."""
        return self.name.partition("@")[0]

    def is_named(self, asked: str) -> bool:
        """True for the name with its version, for ``NAME@alias`` and for the digest: this one and no other."""
        return asked in (self.name, self.digest) or asked in [f"{self.base}@{alias}" for alias in self.aliases]


@dataclass(frozen=True, slots=True)
class Serving:
    """A release with the engine and the tokenizer that run it."""

    release: ServedRelease
    engine: Engine
    tokenizer: Encoder | None = None
    guardrails: Guardrails = NO_GUARDRAILS
