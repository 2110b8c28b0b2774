"""Items of a task out of documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from treadle.evals.evaluation_task import LoadedTask
from treadle.evals.item import Item
from treadle.evals.task_template import RowError
from treadle.text.accounting import Dropped
from treadle.text.dataset import Example
from treadle.text.document import Document

_SHORT = 200  # characters of a field that slices are made by
_CHOICES, _GOLD = "task.choices", "task.gold"


def make_task_examples(documents: Sequence[Document], task: LoadedTask, column: str) -> Iterator[Example | Dropped]:
    """One example a document, as ``text.examples`` has them: ``text`` is the prompt, or what is scored, ``label`` the
    right answer; ``column`` is the one that became the document's text."""
    maker = _Maker(task)
    for document in documents:
        row = {**document.fields, "text": document.text, "locator": document.locator}
        if column:
            row[column] = document.text
        for message in document.fields.get("messages") or ():
            row[{"user": "question", "assistant": "answer"}.get(message["role"], message["role"])] = message["content"]
        try:
            yield maker.example((document.id,), row)
        except RowError as error:
            yield Dropped(document, "no_item", str(error))


def examples_of(examples: Sequence[Example], task: LoadedTask) -> Iterator[Example]:
    """The same of the examples of a dataset; those that make no item are left out."""
    maker = _Maker(task)
    for each in examples:
        row = {**each.fields, "question": each.question, "answer": each.answer, "text": each.text, "label": each.label}
        try:
            yield maker.example(each.documents, row)
        except RowError:
            continue


def worked_rows(rows: Sequence[Mapping[str, Any]], task: LoadedTask) -> list[Example]:
    """Examples of rows that the task itself holds; ``RowError`` for one that makes none."""
    maker = _Maker(task)
    return [maker.example(("task",), row) for row in rows]


def items_of(examples: Sequence[Example], kind: str) -> list[Item]:
    """What metrics see."""
    found = []
    for each in examples:
        fields = {name: value for name, value in each.fields.items() if name not in (_CHOICES, _GOLD)}
        found.append(
            Item(
                id=each.id,
                text="" if kind == "perplexity" else each.text,
                reference=each.text if kind == "perplexity" else each.label or "",
                documents=each.documents,
                fields=fields,
                choices=tuple(each.fields.get(_CHOICES, ())),
                gold=int(each.fields.get(_GOLD, -1)),
            )
        )
    return found


class _Maker:
    def __init__(self, task: LoadedTask) -> None:
        self._kind = task.task.kind
        self._prompt, self._choices, self._answer = (task.template(each) for each in ("prompt", "choices", "answer"))

    def example(self, documents: tuple[str, ...], row: Mapping[str, Any]) -> Example:
        answer, fields = self._answer(row), _plain(row)
        if self._kind == "perplexity":
            return Example(documents, text=_text(answer, "answer"), fields=fields)
        prompt = _text(self._prompt(row), "prompt")
        if self._kind == "generate":
            return Example(documents, text=prompt, label=_text(answer, "answer"), fields=fields)
        choices = self._choices(row)
        if not isinstance(choices, list | tuple) or len(choices) < 2:
            raise RowError("choices: expected a list of two or more texts")
        texts = [_text(each, "choices") for each in choices]
        gold = _right(answer, texts)
        return Example(documents, text=prompt, label=texts[gold], fields={**fields, _CHOICES: texts, _GOLD: gold})


def _right(answer: Any, choices: list[str]) -> int:
    """Which choice is meant: by its place, counted from 0, or by its words."""
    if isinstance(answer, str) and answer in choices:
        return choices.index(answer)
    if isinstance(answer, str) and answer.strip().isdecimal():
        answer = int(answer)
    if isinstance(answer, int) and 0 <= answer < len(choices):
        return int(answer)
    raise RowError("answer: expected the place of a choice, counted from 0, or its words")


def _text(value: Any, name: str) -> str:
    if isinstance(value, bool | int | float):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise RowError(f"{name}: expected text")
    return value


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in row.items() if isinstance(value, str | int | float) and len(str(value)) <= _SHORT
    }
