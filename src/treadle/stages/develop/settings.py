"""What `develop` may be told: from which model, how, and for how long; how good the result is."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from treadle.core.config import Settings
from treadle.core.errors import UserError
from treadle.lm.initial_model import Architecture, parameters_of

DEFAULT_METRICS = {"chat": ["log_likelihood", "perplexity", "rouge_l"], "classify": ["accuracy", "f1_macro", "ece"]}
BASELINES = {"chat": ("base", "few_shot"), "classify": ("majority", "tfidf")}
FROM_NOTHING_BASELINES = ("base",)  # of chat: it learns little from worked examples, and has no room for them
# Which families a model from nothing may be of, by task.
FAMILIES: dict[str, tuple[Architecture, ...]] = {"chat": ("llama", "gpt2"), "classify": ("bert", "t5")}


class InitSettings(Settings):
    """A model from nothing: random weights, in place of a base model."""

    architecture: Architecture = Field(description="chat: llama, gpt2; classify: bert, t5")
    size: str = Field(description="parameters: 10M, 1.5B; width and depth are chosen by it")
    context: int = Field(512, ge=16, le=1 << 20, description="tokens it can read at once")
    vocabulary: int | None = Field(
        None, ge=300, le=1_000_000, description="tokens of its tokenizer; by default those that fit its size"
    )
    tokenizer: str | None = Field(
        None, description="a base model whose tokenizer it takes; by default it learns one from the text"
    )

    @field_validator("size")
    @classmethod
    def _size(cls, value: str) -> str:
        try:
            parameters_of(value)
        except UserError as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _one_vocabulary(self) -> InitSettings:
        if self.vocabulary is not None and self.tokenizer is not None:
            raise ValueError("vocabulary is of a tokenizer that is learned, and tokenizer names one; leave out either")
        return self


class PretrainSettings(Settings):
    """The model reads the cleaned text before it is fine-tuned."""

    tokens: int = Field(ge=1, description="training budget in tokens")
    width: int = Field(512, ge=16, le=1 << 20, description="tokens of a packed row")
    batch: int = Field(16, ge=1, le=4096, description="rows of an optimizer step")
    learning_rate: float | None = Field(
        None, gt=0, description="highest, after warm-up; by default 2e-4, of a model from nothing 1e-3"
    )
    schedule: Literal["linear", "cosine", "warmup-stable-decay", "constant"] = Field(
        "cosine", description="how the learning rate goes"
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps in which it rises")


class EvaluateSettings(Settings):
    """How good a model is, and compared with what."""

    metrics: list[str] | None = Field(None, description="by name, or module:function of your own")
    baselines: list[str] | None = Field(None, description="chat: base, few_shot; classify: majority, tfidf")
    max_tokens: int = Field(64, ge=1, description="of an answer while evaluating")


class DevelopSettings(Settings):
    """From which model, how, and for how long."""

    base_model: str | None = Field(None, description="a known model, a hub id, a folder or a GGUF; or else init")
    init: InitSettings | None = Field(None, description="a model from nothing, in place of base_model")
    method: Literal["full", "lora"] = Field("full", description="all weights, or a low-rank adapter that is merged")
    learning_rate: float = Field(1e-4, gt=0, description="highest, after warm-up")
    tokens: int = Field(34_000, ge=1, description="chat: training budget in tokens")
    epochs: int = Field(3, ge=1, description="classify: passes over the training split")
    max_length: int = Field(256, ge=8, description="tokens of one example, at most")
    pretrain: PretrainSettings | None = Field(None, description="read the cleaned text first")
    on: str | dict[str, Any] = Field(
        "process", description="where trainings run: process, torchrun, or one with its settings"
    )
    evaluate: EvaluateSettings = EvaluateSettings()

    @model_validator(mode="after")
    def _one_beginning(self) -> DevelopSettings:
        if (self.base_model is None) is (self.init is None):
            both = "both are given" if self.init else "neither is given"
            raise ValueError(f"expected base_model, or init for a model from nothing; {both}")
        if self.init is not None:
            packed = self.pretrain.width if self.pretrain else 0
            for name, width in (("max_length", self.max_length), ("pretrain.width", packed)):
                if width > self.init.context:
                    raise ValueError(f"{name} is {width} tokens, and init.context {self.init.context}; raise that")
        return self

    @model_validator(mode="after")
    def _known_baselines(self) -> DevelopSettings:
        known = {name for names in BASELINES.values() for name in names}
        for name in self.evaluate.baselines or ():
            if name not in known:
                raise ValueError(f"evaluate.baselines: {name!r} is not one of {', '.join(sorted(known))}")
        return self
