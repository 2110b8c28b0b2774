"""What the file says of `prepare`."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from treadle.core.config import Settings
from treadle.record.interaction_filter import moment
from treadle.text.dataset import SPLITS

EXAMPLES = "examples"


class TimeSettings(Settings):
    """Sides by the time of documents, in place of shares."""

    validation: str = Field(description="what is older is learned from: 2026-03-01, or with a time of day")
    test: str = Field(description="versions are compared on what is from then on; what lies between is validation")
    undated: Literal["drop", "train"] = Field("drop", description="what becomes of examples without a time")

    @field_validator("validation", "test", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return value.isoformat() if isinstance(value, date) else value  # YAML reads a time as one

    @model_validator(mode="after")
    def _in_order(self) -> TimeSettings:
        for name, value in (("validation", self.validation), ("test", self.test)):
            try:
                moment(value)
            except (ValueError, OverflowError):
                raise ValueError(f"{name} is {value[:40]!r}; expected a time such as 2026-03-01") from None
        if moment(self.validation) > moment(self.test):
            raise ValueError("validation is later than test; expected an earlier time, or the same for no validation")
        return self


class SplitSettings(Settings):
    """How examples are divided, so that no group is on two sides."""

    by: str | None = Field(None, description="field whose values stay together: module, customer_id ...")
    train: float = Field(0.8, ge=0, le=1, description="share of the examples to learn from")
    validation: float = Field(0.1, ge=0, le=1, description="share to choose settings by")
    test: float = Field(0.1, ge=0, le=1, description="share that versions are compared on")
    holdout: int = Field(0, ge=0, description="training-side examples kept back for later turns")
    limit: dict[str, int] = Field(default_factory=dict, description="most examples per split")
    time: TimeSettings | None = Field(None, description="sides by time, in place of train, validation and test")

    @model_validator(mode="after")
    def _sums_to_one(self) -> SplitSettings:
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise ValueError("train, validation and test must add up to 1")
        unknown = sorted(set(self.limit) - set(SPLITS))
        if unknown:
            raise ValueError(f"limit names {unknown[0]!r}; splits are {', '.join(SPLITS)}")
        return self


class EvaluationSettings(Settings):
    """An evaluation set that nothing is learned from. What else may be set depends on the type."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="what rules and reports call it")
    type: str = Field("files", description="a source, as in collect.sources, with its settings: path ...")
    dataset: str | None = Field(None, description="instead of a source, a version whose test split it is: dataset@v1")


class EarlierSettings(Settings):
    """What earlier versions have, and this one is to do without."""

    versions: list[str] = Field(default_factory=list, description="dataset@v1 ...")
    near: float | None = Field(0.8, ge=0.1, le=1, description="similarity of a near duplicate; null for exact ones")


class ExamplesSettings(Settings):
    """Documents that show what is good, or bad. What else may be set depends on the type."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = Field("files", description="a source, as in collect.sources, with its settings: path ...")
    dataset: str | None = Field(None, description="instead of a source, a version whose documents they are: dataset@v1")


class QualitySettings(Settings):
    """A classifier trained on one's own examples; documents that it scores below the threshold are dropped."""

    good: ExamplesSettings = Field(description="documents to be like")
    bad: ExamplesSettings = Field(description="documents not to be like")
    threshold: float = Field(0.5, ge=0, le=1, description="least score of a document that stays")


class TeacherSettings(Settings):
    """Who writes synthetic examples: a base model, a version of this project, or a model behind an address."""

    model: str | None = Field(None, description="a base model, or with url the name the server knows")
    version: str | None = Field(None, description="instead, a version of this project with its release: model@v1")
    url: str | None = Field(None, description="of an OpenAI-style server, such as https://host/v1")
    api_key: str | None = Field(None, description="for the server, as ${env:NAME}")
    engine: str = Field("auto", description="which of our engines runs it, where there is no url")
    temperature: float = Field(0.0, ge=0, le=2, description="0: always the likeliest words")
    top_p: float = Field(1.0, gt=0, le=1, description="share of the likeliest words drawn from")
    max_tokens: int = Field(512, ge=1, le=100_000, description="of one reply, at most")
    timeout: float = Field(120.0, gt=0, le=3600, description="seconds for one reply of a server")
    retries: int = Field(3, ge=0, le=20, description="how often a server that fails is asked again")
    at_once: int = Field(4, ge=1, le=64, description="prompts a server is sent at the same time")

    @model_validator(mode="after")
    def _one(self) -> TeacherSettings:
        if (self.model is None) == (self.version is None):
            raise ValueError("expected either model or version")
        if self.url is None and self.api_key is not None:
            raise ValueError("api_key is for a server; give its url, or leave it out")
        if self.url is not None and self.model is None:
            raise ValueError("a server needs the name of its model; give model beside url")
        return self


class MakeSettings(Settings):
    """How many examples of a kind a teacher is asked for."""

    count: int = Field(100, ge=1, le=1_000_000, description="prompts, at most")
    per: int = Field(1, ge=1, le=50, description="examples that each prompt asks for")
    template: str | None = Field(None, description="a file with one's own prompt: name, version, prompt")


class InstructionSettings(MakeSettings):
    """Questions and answers about documents."""

    grounded: float = Field(0.6, ge=0, le=1, description="least share of an answer's words that its document has")
    characters: int = Field(4000, ge=200, le=1_000_000, description="of a document that the teacher is shown")


class SynthesizeSettings(Settings):
    """Examples from a teacher, to learn from and never to be tested on."""

    teacher: TeacherSettings = Field(description="who writes them")
    instructions: InstructionSettings | None = Field(None, description="questions and answers about documents")
    paraphrases: MakeSettings | None = Field(None, description="questions, or texts to classify, in other words")
    hard_negatives: MakeSettings | None = Field(None, description="wrong answers, or texts near another label")
    share: float = Field(0.5, gt=0, lt=1, description="of the training examples, at most")

    @model_validator(mode="after")
    def _something(self) -> SynthesizeSettings:
        if not (self.instructions or self.paraphrases or self.hard_negatives):
            raise ValueError(
                "expected instructions, paraphrases or hard_negatives, such as `paraphrases: {count: 100}`"
            )
        return self


class TokenizerSettings(Settings):
    """A tokenizer of one's own, for a model that is trained from nothing."""

    kind: Literal["bpe", "unigram", "wordpiece"] = Field("bpe", description="bpe, unigram, wordpiece")
    vocabulary: int = Field(32_000, ge=300, le=1_000_000, description="tokens, the special ones included")
    special: list[str] = Field(["<|endoftext|>"], description="tokens of their own; the first ends a text")


class FeatureSettings(Settings):
    """Texts as numbers, for classical models beside the one that is trained."""

    kind: Literal["tfidf"] = Field("tfidf", description="words and runs of words, counted and weighed")
    words: int = Field(2, ge=1, le=5, description="in the longest run")
    vocabulary: int = Field(200_000, ge=1, le=10_000_000, description="words and runs of words, at most")


class PrepareSettings(Settings):
    """What is done to the text, in order, before a model sees it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: list[str | dict[str, Any]] = Field(
        ["normalize", "deduplicate", "redact"], description="transforms, then `examples: MAKER`"
    )
    earlier: EarlierSettings = EarlierSettings()
    quality: QualitySettings | None = Field(None, description="drop documents that are like one's own bad examples")
    split: SplitSettings = SplitSettings()
    decontaminate: list[EvaluationSettings] = Field(
        default_factory=list, description="evaluation sets that no example may give away"
    )
    synthesize: SynthesizeSettings | None = Field(None, description="examples from a teacher, to learn from")
    tokenizer: TokenizerSettings | None = Field(None, description="train a tokenizer on the cleaned text")
    features: FeatureSettings | None = Field(None, description="the examples as a matrix that scikit-learn reads")
    on: str | dict[str, Any] = Field(
        "process", description="where transforms run: process, pool, ray, or one with settings: {pool: {workers: 4}}"
    )

    @model_validator(mode="after")
    def _examples_last(self) -> PrepareSettings:
        places = [place for place, item in enumerate(self.steps) if isinstance(item, dict) and EXAMPLES in item]
        if places and places != [len(self.steps) - 1]:
            raise ValueError("`examples:` comes once, as the last of the steps")
        names = [each.name for each in self.decontaminate]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"decontaminate names {twice!r} twice; each set needs a name of its own")
        return self
