"""An interaction: one request and its answer, with the release that gave it.

Every request that reaches an engine leaves exactly one, the failed and the cancelled ones too. Text is held as the
project's ``monitor.record`` says (``redacted``, ``full`` or ``none``); a request with ``"store": false`` keeps no text
and never becomes training data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from treadle.core.errors import Corrupt
from treadle.core.identifiers import new_id

FORMAT = 1  # of the row that `to_dict` writes; later numbers only add keys
_ID = re.compile(r"int-[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")

Status = Literal["ok", "failed", "cancelled"]
IMPORTED = "import"  # the origin of a row that came from another endpoint's logs

SHADOW = "shadow"  # the origin of a copy that was answered in the background and shown to nobody

SMOKE = {"treadle": "smoke"}  # the metadata of Treadle's own questions to a new release


def new_interaction_id() -> str:
    """``int-`` and a ULID: sorts by time."""
    return new_id("int")


def is_interaction_id(text: str) -> bool:
    """True for a well-formed id, whether or not such an interaction exists."""
    return _ID.match(text) is not None


def is_smoke(metadata: Mapping[str, str] | None) -> bool:
    """Whether a request with this metadata is Treadle's own, to try a new release."""
    return metadata is not None and SMOKE.items() <= metadata.items()


@dataclass(frozen=True, slots=True)
class Given:
    """A piece of context that was sent with the request, exactly: this text and no other.

    ``digest`` is the keyed digest of the text before redaction, so it can be compared by whoever holds the key and
    tells nothing once the key is gone. ``title`` and ``text`` follow the rules for text.
    """

    document: str | None
    digest: str
    title: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """Counts; ``cached`` prompt tokens came out of the prefix cache, ``None`` where the engine does not say."""

    prompt: int = 0
    completion: int = 0
    cached: int | None = None


@dataclass(frozen=True, slots=True)
class Seconds:
    """From the arrival of the request: until the engine had it, until the first token, until the end."""

    queue: float = 0.0
    ttft: float | None = None
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What the request cost by the release's price list; ``currency`` is an ISO 4217 code."""

    currency: str
    amount: float


@dataclass(frozen=True, slots=True)
class Interaction:
    """One row of the journal. See the module's text; ``None`` always means "not known" or "not kept".

    ``time`` is the arrival (ISO 8601, UTC). ``release`` is the digest, ``model`` the name it was served under.
    ``user`` is the keyed digest of the request's ``user``, ``key`` the id of the API key, never the key.
    ``messages`` are as the client sent them, without the release's system prompt and without ``given``. ``answer`` is
    the first choice and ``alternatives`` the others; a classifier's answers are its labels, with ``confidence`` their
    probabilities. ``share`` is the release's part of the traffic at that moment where it was drawn by lot, None where
    it was asked for by name. ``guardrails``: what each that found something did, on which side, and how often; no text.
    ``error`` is a code such as ``engine_unavailable``, never a text. ``upstream``: of an answer that another server
    gave, its ``place`` (host and port), the ``model`` and ``fingerprint`` that it reported, how many ``attempts``
    there were, what it ``overstated`` (tokens that it claimed beyond what can be, which nobody paid), and the places of
    ``others`` that made some of the vectors.
    ``instead_of``: the interaction that failed, where another release answered the same request.
    ``copy_of``: the interaction whose request this one repeated (``origin`` is ``shadow``). ``uncounted``: its key was
    let in while the database could not say what was left of its limits.
    """

    id: str
    request: str
    time: str
    release: str
    model: str
    endpoint: str
    status: Status
    store: bool
    finish_reason: str | None = None
    error: str | None = None
    user: str | None = None
    key: str | None = None
    messages: tuple[dict[str, str], ...] | None = None
    answer: str | None = None
    alternatives: tuple[str, ...] = ()
    confidence: tuple[float, ...] = ()
    given: tuple[Given, ...] = ()
    tokens: Tokens = Tokens()
    seconds: Seconds = Seconds()
    tokens_per_second: float | None = None
    cost: Cost | None = None
    stream: bool = False
    parameters: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] | None = None
    origin: str = "traffic"
    purpose: str | None = None
    retain_until: str | None = None
    share: float | None = None
    guardrails: tuple[dict[str, Any], ...] = ()
    upstream: dict[str, Any] | None = None
    instead_of: str | None = None
    copy_of: str | None = None
    uncounted: bool = False

    @property
    def asked_for(self) -> bool:
        """Whether somebody sent this request: not Treadle, no copy, and no second try at one that is recorded too."""
        return self.origin != SHADOW and self.instead_of is None and not is_smoke(self.metadata)

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON can carry it, with the number of its format."""
        row: dict[str, Any] = {"format": FORMAT}
        for name in _NAMES:
            row[name] = getattr(self, name)
        row["guardrails"] = list(self.guardrails)
        row["messages"] = None if self.messages is None else list(self.messages)
        row["alternatives"] = list(self.alternatives)
        row["confidence"] = list(self.confidence)
        row["given"] = [
            {"document": g.document, "digest": g.digest, "title": g.title, "text": g.text} for g in self.given
        ]
        tokens, seconds, cost = self.tokens, self.seconds, self.cost
        row["tokens"] = {"prompt": tokens.prompt, "completion": tokens.completion, "cached": tokens.cached}
        row["seconds"] = {"queue": seconds.queue, "ttft": seconds.ttft, "total": seconds.total}
        row["cost"] = None if cost is None else {"currency": cost.currency, "amount": cost.amount}
        return row

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Interaction:
        """Read what `to_dict` wrote; keys of later formats are passed over. Raises ``Corrupt``."""
        try:
            known = {name: row[name] for name in _NAMES if name in row}
            messages = known.get("messages")
            known["messages"] = None if messages is None else tuple(dict(m) for m in messages)
            known["guardrails"] = tuple(dict(g) for g in known.get("guardrails", ()))
            known["alternatives"] = tuple(known.get("alternatives", ()))
            known["confidence"] = tuple(known.get("confidence", ()))
            known["given"] = tuple(Given(**g) for g in known.get("given", ()))
            known["tokens"] = Tokens(**known.get("tokens", {}))
            known["seconds"] = Seconds(**known.get("seconds", {}))
            if known.get("cost") is not None:
                known["cost"] = Cost(**known["cost"])
            return cls(**known)
        except (TypeError, ValueError, AttributeError) as error:
            raise Corrupt(f"not an interaction's row: {error}; run: treadle verify") from error


_NAMES = tuple(f.name for f in fields(Interaction))
