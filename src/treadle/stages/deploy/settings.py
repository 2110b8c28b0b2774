"""What `deploy` may be told: what a release is made of, how small, and where and under which rules it answers."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from treadle.core.config import Settings
from treadle.core.duration import Duration, Span, seconds_of
from treadle.core.errors import UserError, nearest
from treadle.lm.engines import AUTO
from treadle.lm.upstream_settings import UpstreamSettings
from treadle.record.shadow import ShadowSettings
from treadle.record.slo import Slo

Side = Literal["in", "out"]
UPSTREAM = "upstream"  # the engine
_STICKY = ("user", "key")
_HEADER = re.compile(r"[A-Za-z0-9_]+(-[A-Za-z0-9_]+)+")  # with a hyphen, or a word that is misspelled would be one


class QuantizeSettings(Settings):
    """How the weights are made smaller, and what that may cost."""

    format: Literal["q8_0", "q4_k", "q4_1", "q4_0", "f16"] = Field(
        "q8_0", description="GGUF weights of 8, 4 or 16 bits; q4_k is the best of 4"
    )
    max_loss: float = Field(0.01, ge=0, description="relative rise in perplexity above which it is refused")
    items: int = Field(60, ge=8, description="test items that the rise is measured on")


class OptimizationSettings(Settings):
    """One of the ways that `treadle optimize` measures, in place of `quantize`, and what it may cost."""

    way: str = Field(description="gguf-q8_0, onnx, or another of the optimizations that are installed, or module:Class")
    max_loss: float = Field(
        0.01, ge=0, description="rise in perplexity (relative) or fall in accuracy above which it is refused"
    )
    items: int | None = Field(None, ge=8, description="test items that it is measured on; 150 chat, 1000 classify")


class PriceSettings(Settings):
    """What a million tokens cost, for budgets and the record."""

    currency: str = Field("USD", pattern=r"^[A-Z]{3}$", description="ISO 4217 code")
    prompt: float = Field(ge=0, le=1e6, description="a million tokens read")
    completion: float = Field(ge=0, le=1e6, description="a million tokens written")


class DeploySettings(Settings):
    """What a release is, and where it answers."""

    engine: str = Field(
        "auto", description="auto, openvino, transformers, upstream (servers elsewhere), or another installed engine"
    )
    upstream: UpstreamSettings | None = Field(None, description="for engine: upstream; part of the release")
    engine_settings: dict[str, str | bool | int | float] = Field(
        default_factory=dict, description="of the engine that is named, such as memory: 0.8; part of the release"
    )
    threads: int | None = Field(
        None, ge=1, le=4096, description="of the engine; all processors by default, fewer leave a training the rest"
    )
    quantize: QuantizeSettings | None = QuantizeSettings()
    optimization: OptimizationSettings | None = None
    adapter: Literal["merged", "separate"] = Field(
        "merged",
        description="of develop.method lora: in the weights, or beside the base, for engines transformers and vllm",
    )
    system_prompt: str | None = Field(None, description="said before every conversation that has no system message")
    host: str = Field("127.0.0.1", description="address that treadle serve listens on")
    port: int = Field(8000, ge=0, le=65535, description="0 takes a free one")
    max_tokens: int = Field(256, ge=1, description="of an answer, unless the request says less")
    price: PriceSettings | None = Field(None, description="part of the release; what keys with a budget in money pay")
    guardrails: dict[Side, list[str | dict[str, Any]]] = Field(
        default_factory=dict,
        description="what requests (in) and answers (out) are looked through for; part of the release",
    )
    max_in_flight: int = Field(256, ge=1, le=100_000, description="requests held at once; beyond them 429 is answered")
    timeout: Span = Field("10m", description="for a whole answer; one that takes longer ends with an error")
    slo: Slo | None = Field(None, description="what answers are to keep: the server holds no more requests than that")
    when_database_is_away: Literal["refuse", "degrade"] = Field(
        "refuse", description="refuse: no key is good then; degrade: keys known already are, their use counted later"
    )
    degrade_for: Duration = Field("10m", description="how long at most, and thus a key that was revoked meanwhile")
    hosts: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")]] = Field(
        default_factory=list,
        description="names by which a server without a key may be asked, beside localhost and addresses",
    )
    sticky: str = Field(
        "user",
        max_length=100,
        description="whose requests stay with one release while a canary is tried: of a user, a key, or a header's"
        " value (its name, such as x-session-id)",
    )
    fallback: str | None = Field(
        None, min_length=1, description="release that answers what the champion cannot: @previous, model@v1 or b3:..."
    )
    shadow: ShadowSettings | None = Field(None, description="a release that gets copies of requests, shown to nobody")
    also_serve: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list,
        max_length=64,
        description="folders of other projects for whose models treadle serve answers as well, by this one's keys",
    )
    smoke_requests: int = Field(60, ge=0, description="test questions a new release answers before it is judged")

    @property
    def degrade_seconds(self) -> float:
        """How long known keys are good without their database."""
        return seconds_of(self.degrade_for) if self.when_database_is_away == "degrade" else 0.0

    @property
    def local_engine(self) -> str:
        """The engine that evaluates here, where the model is."""
        return "auto" if self.engine == UPSTREAM else self.engine

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        """Servers elsewhere run what they run; nothing here is made smaller for them."""
        if (self.engine == UPSTREAM) != (self.upstream is not None):
            raise ValueError("engine: upstream and the section upstream go together; give both, or neither")
        if self.engine_settings and self.engine in (AUTO, UPSTREAM):
            raise ValueError(
                f"engine_settings are of one engine, and {self.engine} is none; name it, as engine: openvino"
            )
        if self.upstream is not None and self.optimization is not None:
            raise ValueError("optimization is for engines here; leave it out with engine: upstream")
        if self.adapter == "separate":
            shrunk = "quantize" if self.quantize and "quantize" in self.model_fields_set else "optimization"
            if shrunk == "quantize" or self.optimization is not None:
                raise ValueError(
                    f"adapter: separate keeps the base as it is; leave out {shrunk}, or set adapter: merged"
                )
            if self.upstream is not None:
                raise ValueError("adapter: separate is for engines here; leave it out with engine: upstream")
        return self

    @field_validator("sticky")
    @classmethod
    def _known_sticky(cls, value: str) -> str:
        """A header's name in small letters."""
        if value in _STICKY:
            return value
        if _HEADER.fullmatch(value):
            return value.lower()
        raise ValueError(
            f"expected user, key, or a header's name with a hyphen in it, such as x-session-id; got {value!r};"
            f"{nearest(value, _STICKY)}"
        )

    @field_validator("guardrails")
    @classmethod
    def _known_guardrails(cls, value: dict[Side, list[str | dict[str, Any]]]) -> dict[Side, list[str | dict[str, Any]]]:
        """Before anything is trained for it; the project's own are looked at when the cycle is planned."""
        from treadle.serve.guardrail_settings import described

        for side, each in ((side, each) for side, listed in value.items() for each in listed):
            if ":" not in (each if isinstance(each, str) else next(iter(each), "")):
                try:
                    described({side: [each]}, None)
                except UserError as error:
                    raise ValueError(str(error)) from None
        return value
