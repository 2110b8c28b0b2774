"""The one protocol behind which every engine stands.

An engine turns token ids into token ids. Chat templates, guards, keys and records are the caller's business, so that
all engines answer alike. What an engine cannot do it refuses with ``UserError``; it never guesses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from treadle.core.errors import TreadleError

FinishReason = Literal["stop", "length", "cancelled", "error", "content_filter"]  # the last is a guardrail's


class EngineGone(TreadleError):
    """The engine's process ended, hung or was closed while it was asked; asking again may work."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One prompt to continue. ``temperature`` 0 is greedy. ``stop`` strings are cut from the text by the engine.

    The same ``seed`` gives the same answer on the same engine; without one each request draws its own. ``max_tokens``
    beyond the context ends there with ``length``. ``schema``: a JSON Schema that the answer keeps to,
    refused by engines without ``holds_schema``. ``alternatives``: how many of the most probable tokens are told of at
    each place, beside ``logprobs``; at most the engine's ``most_alternatives``, 0 where it has none. ``ignore_eos`` is
    for load tests: always ``max_tokens`` tokens. ``said`` is what the ids were made of (a text, or messages with the
    ``tools`` they were shown with), for engines that hand a request on to a server with a template of its own.
    ``whole``: nobody sees the answer before its end, so an engine that loses it on the way may begin anew, with a chunk
    that says ``restarted``.
    """

    id: str
    prompt_ids: tuple[int, ...]
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: bool = False
    ignore_eos: bool = False
    schema: str | None = None
    alternatives: int = 0
    said: str | tuple[Mapping[str, Any], ...] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    whole: bool = False


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token by the bytes it stands for, which may be part of a character; one that controls is spelled out.
    ``logprob`` in nats."""

    token: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class Reported:
    """What a server behind an engine says of its answer: tokens, None where it does not; its own names for the model
    and for what runs it. ``place`` is the server's, ``attempts`` how often somebody had to be asked."""

    place: str
    attempts: int = 1
    model: str | None = None
    fingerprint: str | None = None
    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None


class ReportedVectors(list[list[float]]):
    """Vectors that servers behind an engine made, and what each of those says of them."""

    def __init__(self, vectors: Iterable[list[float]], reported: Sequence[Reported]) -> None:
        super().__init__(vectors)
        self.reported = tuple(reported)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the answer: ``text`` is whole UTF-8, ``tokens`` counts the tokens it stands for (may be 0).

    ``logprobs``, where asked for: natural log, one a token, before temperature and ``top_p``. The token that ends the
    answer counts, and stands for no text. ``alternatives``, where asked for: for each of these, first the token itself
    and then the most probable ones at its place, that one among them or not. ``error`` says that the engine's process
    was lost; the text before it is what came until then. ``reported`` stands in the last one, of engines that ask a
    server; its counts go before ``tokens``. ``restarted``: what came before is void, and the answer begins here.
    """

    text: str
    tokens: int = 0
    finish_reason: FinishReason | None = None
    logprobs: tuple[float, ...] = ()
    alternatives: tuple[tuple[TokenLogprob, ...], ...] = ()
    reported: Reported | None = None
    restarted: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """Natural-log probabilities of each continuation token given what precedes it."""

    logprobs: tuple[float, ...]

    @property
    def total(self) -> float:
        """Log-likelihood of the whole continuation, in nats."""
        return sum(self.logprobs)


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Probability per label, summing to 1."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TaggedSpan:
    """The characters from ``start`` to before ``end`` are of a type; ``score`` is its probability."""

    start: int
    end: int
    type: str
    score: float


@dataclass(frozen=True, slots=True)
class Extract:
    """The answer stands from ``start`` to before ``end``; both are 0 where the text holds none. ``score`` is its
    probability."""

    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class EngineStats:
    """``running`` and ``queued`` in requests, ``memory_bytes`` resident in the engine's process."""

    running: int = 0
    queued: int = 0
    memory_bytes: int = 0


class Engine(Protocol):
    """Opened on a release's model folder; closed once. All methods may be called concurrently from one event loop."""

    name: str
    context_length: int

    @classmethod
    async def open(cls, folder: Path, *, threads: int | None = None, settings: dict[str, Any] | None = None) -> Engine:
        """Load the model in ``folder`` and warm it up; ``UserError`` when the folder holds no model it can run."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """Stream the answer; the last chunk carries ``finish_reason``. Closing the iterator cancels the request.

        ``UserError`` at the call: ids outside the vocabulary, a prompt that leaves no room, settings out of range.
        ``EngineGone`` when there is no process to ask and none could be started.
        """
        ...

    async def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
        """Score each (prompt ids, continuation ids), batched as the engine likes.

        The prompt needs at least one token. ``EngineGone`` when the process is lost meanwhile, here and below.
        """
        ...

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector of length 1 a text: the mean over its tokens. Texts beyond the context are cut there."""
        ...

    async def classify(self, texts: Sequence[str]) -> list[ClassScores]:
        """One distribution over the model's labels a text. Texts beyond the context are cut there."""
        ...

    async def tag(self, texts: Sequence[str]) -> list[list[TaggedSpan]]:
        """The spans that the model finds in each text, in order, none within another; texts may be of any length."""
        ...

    async def extract(self, pairs: Sequence[tuple[str, str]]) -> list[Extract]:
        """Where the answer to each (question, text) stands in its text, which may be of any length."""
        ...

    def stats(self) -> EngineStats:
        """What is going on, without waiting."""
        ...

    async def close(self) -> None:
        """End the engine and its process; requests in flight finish as ``cancelled``."""
        ...
