"""What the engine ``upstream`` is told: where the servers are, and how long they are waited for."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from treadle.core.config import Settings
from treadle.core.errors import UserError
from treadle.core.secrets import is_reference, resolve
from treadle.lm.endpoint_address import check_endpoint

WHERE = "deploy.upstream"


class BreakerSettings(Settings):
    """When a server that fails is left alone, and for how long."""

    failures: int = Field(5, ge=1, le=1000, description="failures within the window that open it")
    window: float = Field(30.0, gt=0, le=3600, description="seconds")
    pause: float = Field(10.0, gt=0, le=3600, description="seconds until one request may try again")


class UpstreamSettings(Settings):
    """Servers that speak OpenAI's API and all run this release's model."""

    urls: list[str] = Field(
        min_length=1, max_length=64, description="http://host:port/v1, or ${env:NAME}; several share the requests"
    )
    model: str = Field(min_length=1, max_length=500, description="what the servers call the model")
    api_key: str | None = Field(None, description="for the servers, as ${env:NAME}")
    ask: Literal["chat", "tokens"] = Field(
        "chat",
        description="chat: messages, which the servers put into their own template; tokens: this release's template,"
        " as token ids (vLLM, SGLang, llama.cpp)",
    )
    structured: bool = Field(False, description="whether the servers hold answers to a JSON Schema")
    spread: Literal["least_busy", "round_robin"] = Field(
        "least_busy", description="which address is asked first: the least busy, or each in turn"
    )
    retries: int = Field(2, ge=0, le=20, description="attempts after the first, while nothing was streamed yet")
    timeout: float = Field(300.0, gt=0, le=86_400, description="seconds for the whole answer, retries included")
    silence: float = Field(60.0, gt=0, le=3600, description="seconds without a byte before a server counts as hung")
    connect: float = Field(5.0, gt=0, le=60, description="seconds to connect")
    breaker: BreakerSettings = BreakerSettings()

    @model_validator(mode="after")
    def _addresses(self) -> Self:
        """What can be known without the environment; `addresses` looks at the rest."""
        try:
            for url in self.urls:
                if not is_reference(url):
                    check_endpoint(url, self.api_key, WHERE)
            if self.api_key is not None:
                check_endpoint("https://host", self.api_key, WHERE)
        except UserError as error:
            raise ValueError(str(error)) from None
        if len(set(self.urls)) < len(self.urls):
            raise ValueError("urls: the same address twice")
        return self

    def addresses(self) -> list[str]:
        """The addresses themselves; ``UserError`` for a variable that is not set, or holds no address."""
        found = [resolve(url).rstrip("/") for url in self.urls]
        for url in found:
            check_endpoint(url, self.api_key, WHERE)
        return found
