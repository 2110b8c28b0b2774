"""What `develop` may be told: from which model, how, and for how long; how good the result is."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from treadle.core.config import Settings
from treadle.core.errors import UserError
from treadle.lm.initial_model import Architecture, parameters_of


class InitSettings(Settings):
    """A model from nothing: random weights, in place of a base model."""

    architecture: Architecture = Field(description="a family that the task can be learned by")
    model: str | None = Field(None, description="module:Class of your own, with the architecture's kind of tokenizer")
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
    batch: int = Field(8, ge=1, le=4096, description="rows of an optimizer step")
    learning_rate: float | None = Field(
        None, gt=0, description="highest, after warm-up; by default 2e-4, of a model from nothing 1e-3"
    )
    schedule: Literal["linear", "cosine", "warmup-stable-decay", "constant"] = Field(
        "cosine", description="how the learning rate goes"
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps in which it rises")


class PreferSettings(Settings):
    """Pairs of a wanted and a rejected answer are learned from."""

    method: Literal["dpo"] = Field("dpo", description="direct preference optimization")
    beta: float = Field(0.1, gt=0, le=100, description="how closely the model stays to what it was")
    learning_rate: float | None = Field(None, gt=0, description="highest, after warm-up; by default 2e-5, lora 2e-4")
    epochs: int = Field(1, ge=1, description="passes over the pairs")
    tokens: int | None = Field(None, ge=1, description="training budget in tokens, in place of epochs")
    batch: int = Field(8, ge=1, le=4096, description="pairs of an optimizer step")
    instead: bool = Field(False, description="in place of fine-tuning, not after it")


class DistillSettings(Settings):
    """A smaller model learns from the one that was trained, or from a version of it."""

    teacher: str | None = Field(
        None, description="a version of a model, such as model@v1; by default the model that this turn trains"
    )
    layers: Annotated[int, Field(ge=1, le=1024)] | Literal["half"] = Field(
        "half", description="of the teacher's, that the student begins with"
    )
    temperature: float = Field(2.0, gt=0, le=100, description="how much of what the teacher doubts is learned")
    learning_rate: float | None = Field(
        None, gt=0, description="by default as develop.learning_rate; where that is of adapters, the task's own"
    )
    epochs: int = Field(3, ge=1, description="passes over the training split")


class StopSettings(Settings):
    """Training ends before its time when it does not become better."""

    patience: int = Field(3, ge=1, le=10_000, description="looks at the validation split without a better one")


class EvaluateSettings(Settings):
    """How good a model is, and compared with what."""

    metrics: list[str] | None = Field(None, description="by name, or module:function of your own")
    baselines: list[str] | None = Field(
        None, description="those of the task, such as chat: base, few_shot; classify: majority, tfidf"
    )
    max_tokens: int = Field(64, ge=1, description="of an answer while evaluating")


class DevelopSettings(Settings):
    """From which model, how, and for how long."""

    base_model: str | None = Field(None, description="a known model, a hub id, a folder or a GGUF; or else init")
    init: InitSettings | None = Field(None, description="a model from nothing, in place of base_model")
    method: Literal["full", "lora"] = Field(
        "full", description="all weights, or low-rank adapters and a new head, merged but for deploy.adapter"
    )
    fit: str | None = Field(
        None, description="a way to train by name, or module:function of your own, in place of the task's"
    )
    learning_rate: float | None = Field(
        None, gt=0, description="highest, after warm-up; by default the task's own: 1e-4, of adapters 1e-3 (chat 1e-4)"
    )
    tokens: int = Field(34_000, ge=1, description="chat: training budget in tokens")
    epochs: int = Field(3, ge=1, description="all but chat: passes over the training split")
    max_length: int = Field(256, ge=8, description="tokens of one example, at most")
    pretrain: PretrainSettings | None = Field(None, description="read the cleaned text first")
    prefer: PreferSettings | None = Field(None, description="chat: learn from pairs of answers, after fine-tuning")
    distill: DistillSettings | None = Field(None, description="chat, classify: a smaller model learns from this one")
    keep_best: str | None = Field(
        None,
        description="the weights that are best by this on the validation split are kept: loss; classify, tag, qa, "
        "embed and prefer also accuracy, classify and tag f1",
    )
    stop_early: StopSettings | None = Field(
        None, description="end when the validation split shows nothing better, and keep the best (by loss unless said)"
    )
    look_every: int | None = Field(
        None, ge=1, description="steps from one look at the validation split to the next; by default a quarter epoch"
    )
    on: str | dict[str, Any] = Field(
        "process", description="where trainings run: process, torchrun, or one with its settings"
    )
    evaluate: EvaluateSettings = EvaluateSettings()

    @property
    def looks(self) -> dict[str, Any] | None:
        """How trainings are judged under way; None where they are not."""
        if self.keep_best is None and self.stop_early is None:
            return None
        patience = self.stop_early.patience if self.stop_early else None
        return {"metric": self.keep_best or "loss", "patience": patience, "every": self.look_every}

    @model_validator(mode="after")
    def _looked_at_for_something(self) -> DevelopSettings:
        if self.look_every is not None and self.looks is None:
            raise ValueError("look_every: nothing comes of looking; add keep_best or stop_early")
        return self

    @model_validator(mode="after")
    def _one_beginning(self) -> DevelopSettings:
        if (self.base_model is None) is (self.init is None):
            both = "both are given" if self.init else "neither is given"
            raise ValueError(f"expected base_model, or init for a model from nothing; {both}")
        if self.init is not None and self.pretrain is None and self.method == "lora":
            raise ValueError("method: lora leaves random weights as they are; add develop.pretrain, or take full")
        if self.init is not None and self.init.model is not None and self.pretrain is not None:
            raise ValueError("pretrain: a class of one's own is only fine-tuned here; leave out pretrain or init.model")
        if self.init is not None:
            packed = self.pretrain.width if self.pretrain else 0
            for name, width in (("max_length", self.max_length), ("pretrain.width", packed)):
                if width > self.init.context:
                    raise ValueError(f"{name} is {width} tokens, and init.context {self.init.context}; raise that")
        return self
