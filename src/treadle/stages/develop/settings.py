"""What `develop` may be told: from which model, how, and for how long; how good the result is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from treadle.core.config import Settings

DEFAULT_METRICS = {"chat": ["log_likelihood", "perplexity", "rouge_l"], "classify": ["accuracy", "f1_macro", "ece"]}
BASELINES = {"chat": ("base", "few_shot"), "classify": ("majority", "tfidf")}


class PretrainSettings(Settings):
    """The base model reads the cleaned text before it is fine-tuned."""

    tokens: int = Field(ge=1, description="training budget in tokens")
    width: int = Field(512, ge=16, le=1 << 20, description="tokens of a packed row")
    batch: int = Field(16, ge=1, le=4096, description="rows of an optimizer step")
    learning_rate: float = Field(2e-4, gt=0, description="highest, after warm-up")
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

    base_model: str = Field(description="a known model, a hub id, a folder or a GGUF")
    method: Literal["full", "lora"] = Field("full", description="all weights, or a low-rank adapter that is merged")
    learning_rate: float = Field(1e-4, gt=0, description="highest, after warm-up")
    tokens: int = Field(34_000, ge=1, description="chat: training budget in tokens")
    epochs: int = Field(3, ge=1, description="classify: passes over the training split")
    max_length: int = Field(256, ge=8, description="tokens of one example, at most")
    pretrain: PretrainSettings | None = Field(None, description="read the cleaned text first")
    evaluate: EvaluateSettings = EvaluateSettings()

    @model_validator(mode="after")
    def _known_baselines(self) -> DevelopSettings:
        known = {name for names in BASELINES.values() for name in names}
        for name in self.evaluate.baselines or ():
            if name not in known:
                raise ValueError(f"evaluate.baselines: {name!r} is not one of {', '.join(sorted(known))}")
        return self
