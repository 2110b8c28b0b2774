"""An evaluation task as data: where its items come from, how prompt, choices and answer are made of them, and what
counts. A YAML file, or a function that returns the same keys, in which functions of a row may stand for templates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, ValidationError, model_validator

from treadle.core import plugins
from treadle.core.config import LIMIT, Settings, load, read_yaml
from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.errors import UserError
from treadle.evals.task_template import Template, compile_template, first_name

GROUP = "treadle.evaluations"
FORMS = "treadle.task_forms"
DEFAULT_METRICS = {
    "generate": ["exact_text", "token_f1"],
    "perplexity": ["word_perplexity", "byte_perplexity", "bits_per_byte"],
    "multiple_choice": ["acc", "acc_norm"],
}
NEEDS = {
    "generate": {"answer"},
    "perplexity": {"likelihood"},
    "multiple_choice": {"choices", "probabilities", "likelihood"},
}
_MADE = ("prompt", "choices", "answer")


class FewShot(Settings):
    """Worked examples before every item: the first ``count`` of a source, or of ``samples``."""

    count: int = Field(ge=1, le=64, description="how many")
    items: dict[str, Any] | None = Field(None, description="a source, as in collect; by default the task's own items")
    samples: list[dict[str, Any]] | None = Field(None, max_length=64, description="rows, written out")
    separator: str = Field("\n\n", description="between two examples")


class EvaluationTask(Settings):
    """What is asked, and how it counts."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", description="what reports call it")
    version: int | str = Field(description="raised when scores before and after cannot be compared")
    kind: Literal["generate", "perplexity", "multiple_choice"] = Field(description="what the model does")
    items: dict[str, Any] = Field(description="a source, as in collect; or dataset: a version, its test split")
    prompt: str = Field("", description="a column, or a template")
    choices: str | list[str] | None = Field(None, description="multiple_choice: a column of lists, or templates")
    answer: str = Field("", description="the reference; the choice that is right, by number or words; the text scored")
    description: str = Field("", max_length=20_000, description="said before everything")
    delimiter: str = Field(" ", max_length=100, description="between prompt and answer")
    few_shot: FewShot | None = None
    chat: bool = Field(False, description="through the model's chat template, in place of bare text")
    until: list[str] = Field(default_factory=list, max_length=64, description="generate: what ends an answer")
    max_tokens: int = Field(256, ge=1, le=1 << 16, description="generate: of an answer")
    metrics: list[str] | None = Field(None, description="by name, or module:function")
    seen: Literal["mark", "refuse"] = Field("mark", description="what happens where training has items of it")

    @model_validator(mode="after")
    def _fits(self) -> EvaluationTask:
        if self.kind == "perplexity" and (self.prompt or self.few_shot or self.choices or self.chat):
            raise ValueError("perplexity scores the answer alone; leave out prompt, choices, few_shot and chat")
        if (self.kind == "multiple_choice") is (self.choices is None):
            raise ValueError("choices belong to multiple_choice, and it needs them")
        return self


@dataclass(frozen=True)
class LoadedTask:
    """A task, and the functions that stand for its templates; ``code`` is the version of the project's code that they
    are of, ``function`` its name."""

    task: EvaluationTask
    functions: Mapping[str, Callable[[Mapping[str, Any]], Any]]
    function: str = ""
    code: str = ""

    @property
    def digest(self) -> str:
        """Of all that decides what is asked."""
        return blake3_bytes(canonical_json([self.task.model_dump(), self.function, self.code]))

    def template(self, name: str) -> Template:
        """What makes ``prompt``, ``choices`` or ``answer`` of a row."""
        if name in self.functions:
            return self.functions[name]
        value, where = getattr(self.task, name), f"task {self.task.name}: {name}"
        if isinstance(value, list):
            made = [compile_template(each, where) if "{" in each else _constant(each) for each in value]
            return lambda row: [each(row) for each in made]
        return compile_template(value, where) if value else _constant("")

    def text_column(self) -> str:
        """The column that is a row's text where the source does not say."""
        named = self.task.answer if self.task.kind == "perplexity" else self.task.prompt
        return first_name(named) if named else ""


class TaskForm(Protocol):
    """Another tool's form of such files."""

    def recognizes(self, keys: Mapping[str, Any]) -> bool:
        """Whether a file with these keys is of this form."""
        ...

    def read(self, keys: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The same task with our keys; ``UserError`` names what cannot be said with them."""
        ...


def load_evaluation_task(name: str, folder: Path) -> LoadedTask:
    """The task in a YAML file, of an entry point, or of ``module:function``; ``UserError`` where it is none."""
    if name.endswith((".yaml", ".yml")):
        return LoadedTask(_read_file(folder / name), {})
    plugin = plugins.load(GROUP, name, folder)
    if not callable(plugin.value):
        raise UserError(f"task {name}: expected a function that returns a task's keys")
    given = plugin.value()
    if not isinstance(given, Mapping):
        raise UserError(f"task {name}: expected a mapping of a task's keys, got {type(given).__name__}")
    functions = {key: given[key] for key in _MADE if callable(given.get(key))}
    plain: dict[str, Any] = {key: value for key, value in given.items() if key not in functions}
    if "choices" in functions:
        plain["choices"] = []
    return LoadedTask(_checked(plain, f"task {name}"), functions, name, plugin.version)


def _read_file(path: Path) -> EvaluationTask:
    if not path.is_file() or path.stat().st_size > LIMIT:
        raise UserError(f"task: there is no file {path} of at most {LIMIT} bytes; expected a task in YAML")
    value, _ = read_yaml(path.read_text(encoding="utf-8", errors="replace"), path.name)
    if isinstance(value, dict):
        for form in plugins.names(FORMS):
            reader: TaskForm = plugins.load(FORMS, form).value()
            if reader.recognizes(value):
                return _checked(reader.read(value, path.name), path.name)
    return load(path, EvaluationTask)


def _checked(value: Mapping[str, Any], where: str) -> EvaluationTask:
    try:
        return EvaluationTask.model_validate(dict(value), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{where}: {place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}"
        ) from None


def _constant(value: str) -> Template:
    return lambda _: value
