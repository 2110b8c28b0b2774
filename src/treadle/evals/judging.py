"""A model as judge: which of two answers is better, asked twice with their places swapped.

A verdict counts where both times name the same answer, or a tie; where the judge prefers a place to an answer, that is
a tie and is counted as ``swayed``. A reply that does not hold exactly one of the marks is ``unparsed``: nobody guesses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from treadle.core.config import Settings, load
from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.errors import UserError
from treadle.evals.item import Item, Output
from treadle.evals.metric import Need, Rows, ratio
from treadle.lm.teacher import Prompt, Teacher

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHIPPED = Path(__file__).with_name("judges") / "pairwise.yaml"
_PLACES = ("{question}", "{first}", "{second}")


class JudgeTemplate(Settings):
    """What a judge is told, with places for ``{question}``, ``{first}``, ``{second}`` and ``{reference}``."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,59}$", description="what reports call it")
    version: int = Field(ge=1, description="raised when its words change")
    system: str = Field("", max_length=20_000, description="what the judge is told first")
    prompt: str = Field(max_length=20_000, description="what it is asked")
    first: str = Field("[[A]]", min_length=1, description="the mark of a verdict for the first answer")
    second: str = Field("[[B]]", min_length=1, description="for the second")
    tie: str = Field("[[C]]", min_length=1, description="for neither")

    @model_validator(mode="after")
    def _whole(self) -> JudgeTemplate:
        missing = [place for place in _PLACES if place not in self.prompt]
        if missing:
            raise ValueError(f"prompt: there is no {missing[0]} in it")
        marks = (self.first, self.second, self.tie)
        if any(one in other for one in marks for other in marks if one is not other):
            raise ValueError("first, second and tie: one mark holds another, so a reply could mean both")
        return self

    def verdict(self, reply: str) -> str:
        """``first``, ``second``, ``tie``; empty where the reply holds none of the marks, or several."""
        found = [name for name in ("first", "second", "tie") if getattr(self, name) in reply]
        return found[0] if len(found) == 1 else ""

    def prompts(self, pair: Pair) -> list[Prompt]:
        """The pair as it is, and with its answers swapped."""
        return [self._prompt(pair, pair.one, pair.other), self._prompt(pair, pair.other, pair.one)]

    def _prompt(self, pair: Pair, first: str, second: str) -> Prompt:
        values = {"{question}": pair.question, "{first}": first, "{second}": second, "{reference}": pair.reference}
        text = _filled(self.prompt, values)
        messages = [{"role": "system", "content": self.system}] if self.system.strip() else []
        messages.append({"role": "user", "content": text})
        return Prompt(blake3_bytes(canonical_json(messages)), tuple(messages), 0)


class JudgeSettings(Settings):
    """Who judges: a model behind an address, a base model, or a version of this project."""

    model: str | None = Field(None, description="a base model, or with url the name the server knows")
    version: str | None = Field(None, description="instead, a version of this project: model@v1")
    url: str | None = Field(None, description="of an OpenAI-style server, such as https://host/v1")
    api_key: str | None = Field(None, description="for the server, as ${env:NAME}")
    template: str | None = Field(None, description="a file with one's own words")
    max_tokens: int = Field(512, ge=1, le=100_000, description="of a reply")
    timeout: float = Field(120.0, gt=0, le=3600, description="seconds for one reply of a server")
    at_once: int = Field(4, ge=1, le=64, description="prompts a server is sent at the same time")
    people: dict[str, Any] | None = Field(
        None, description="a source of pairs that people chose from: chosen, rejected"
    )

    @model_validator(mode="after")
    def _one(self) -> JudgeSettings:
        if (self.model is None) == (self.version is None):
            raise ValueError("expected either model or version")
        if (self.url is None and self.api_key is not None) or (self.url is not None and self.model is None):
            raise ValueError("url needs the name of its model, and api_key needs url")
        return self


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to a question."""

    id: str
    question: str
    one: str
    other: str
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict for each pair: ``one``, ``other``, ``tie``, ``swayed`` (by places) or ``unparsed``."""

    verdicts: tuple[str, ...]
    replies: tuple[tuple[str, str], ...]


def load_template(path: Path | None) -> JudgeTemplate:
    """The words in a file, or those that ship."""
    return load(path or _SHIPPED, JudgeTemplate)


def judge(teacher: Teacher, template: JudgeTemplate, pairs: Sequence[Pair]) -> Judged:
    """Ask about every pair twice. ``UserError`` where the judge is lost, or refuses a prompt."""
    asked = [template.prompts(pair) for pair in pairs]
    prompts = {prompt.id: prompt for both in asked for prompt in both}
    said: dict[str, str] = {}
    for prompt, reply in teacher.answer(list(prompts.values()), ()):
        said[prompt.id] = "" if reply.refused else reply.text
    replies = [(said.get(both[0].id, ""), said.get(both[1].id, "")) for both in asked]
    return Judged(tuple(_verdict(template, *each) for each in replies), tuple(replies))


def _verdict(template: JudgeTemplate, straight: str, swapped: str) -> str:
    first, second = template.verdict(straight), template.verdict(swapped)
    if not first or not second:
        return "unparsed"
    meant = {"first": "one", "second": "other", "tie": "tie"}
    back = {"first": "other", "second": "one", "tie": "tie"}
    return meant[first] if meant[first] == back[second] else "swayed"


class WinRate:
    """Share of pairs that the candidate wins; a tie, and a judge that is swayed by places, count half."""

    name = "win_rate"
    higher_is_better = True
    needs: Need = "answer"

    def score(self, items: Sequence[Item], outputs: Sequence[Output]) -> Rows:
        """(won, 1) per item; ``outputs`` are verdicts."""
        return [({"one": 1.0, "other": 0.0}.get(output.text, 0.5), 1.0) for output in outputs]

    def reduce(self, totals: NDArray[Any]) -> NDArray[Any]:
        """The mean."""
        return ratio(totals)


class Kappa:
    """Cohen's kappa of a judge and people: agreement beyond what their habits alone would give (Cohen 1960)."""

    name = "kappa"
    higher_is_better = True
    needs: Need = "answer"

    def score(self, items: Sequence[Item], outputs: Sequence[Output]) -> Rows:
        """Per item a table of people by judge with 1 in one cell, row by row."""
        import numpy as np

        rows = np.zeros((len(items), 3, 3))
        place = {"one": 0, "other": 1}
        for number, (item, output) in enumerate(zip(items, outputs, strict=True)):
            rows[number, place.get(item.reference, 2), place.get(output.text, 2)] = 1
        return rows.reshape(len(items), 9)  # type: ignore[return-value]

    def reduce(self, totals: NDArray[Any]) -> NDArray[Any]:
        """(observed - expected) / (1 - expected); 0 where all is one answer."""
        import numpy as np

        table = totals.reshape(*totals.shape[:-1], 3, 3)
        count = np.maximum(table.sum(axis=(-2, -1)), 1)
        observed = np.trace(table, axis1=-2, axis2=-1) / count
        expected = (table.sum(axis=-1) * table.sum(axis=-2)).sum(axis=-1) / count**2
        below = 1 - expected
        return np.asarray(np.divide(observed - expected, below, out=np.zeros_like(below), where=below > 1e-12))


class Agreement(WinRate):
    """Share of pairs in which the judge says what people say; a tie agrees with nobody who chose."""

    name = "agreement"

    def score(self, items: Sequence[Item], outputs: Sequence[Output]) -> Rows:
        """(same, 1) per item."""
        return [(float(item.reference == output.text), 1.0) for item, output in zip(items, outputs, strict=True)]


def pairs_of(ours: Sequence[tuple[Item, Output]], theirs: Sequence[tuple[Item, Output]]) -> list[Pair]:
    """Both models' answers to the items that both have; ``UserError`` where those are fewer than two."""
    others = {item.id: output for item, output in theirs}
    pairs = [
        Pair(item.id, _asked(item), output.text, others[item.id].text, item.reference)
        for item, output in ours
        if item.id in others
    ]
    if len(pairs) < 2 or not any(pair.one or pair.other for pair in pairs):
        raise UserError("judge: expected answers of both models to two items or more; ask for a metric over answers")
    return pairs


def _asked(item: Item) -> str:
    said = [message["content"] for message in item.messages if message["role"] == "user"]
    return "\n".join(said) or item.text


def _filled(text: str, values: dict[str, str]) -> str:
    """Every place filled once, so that what an answer says is never taken for a place."""
    import re

    return re.sub("|".join(map(re.escape, values)), lambda place: values[place[0]], text)
