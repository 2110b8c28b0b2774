"""Examples of questions whose answer stands in a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from treadle.text.accounting import Dropped
from treadle.text.dataset import Example
from treadle.text.document import Document
from treadle.text.examples import plain_fields

START = "start"  # the field of an example that says where in its text the answer begins; None: the text holds none
REFERENCES = "references"  # and the field that has all answers that are right, where there are several

_RULES = {
    "no_question": "there is no context with a question",
    "no_answers": "there are no answers as SQuAD writes them: text and answer_start",
    "not_in_context": "an answer does not stand in its context",
}


def questions(documents: Sequence[Document]) -> Iterator[Example | Dropped]:
    """One example a ``question`` about its ``context``, with ``answers`` as SQuAD has them: ``text`` and
    ``answer_start``, in lists or as a list of both; none where the context does not say. Or ``messages``: the context
    as the system's, the question, the answer.
    """
    for document in documents:
        context, question, answers = _asked(document.fields)
        rule, found = "", list[tuple[int, str]]()
        if not isinstance(context, str) or not isinstance(question, str) or not context.strip() or not question.strip():
            rule = "no_question"
        elif answers is None:
            rule = "no_answers"
        else:
            placed = [_placed(context, start, text) for start, text in answers]
            found = [each for each in placed if each is not None]
            rule = "not_in_context" if len(found) < len(placed) else ""
        if rule:
            yield Dropped(document, rule, _RULES[rule])
            continue
        start, text = found[0] if found else (None, "")
        fields = {name: value for name, value in plain_fields(document).items() if name != "context"} | {START: start}
        if len(found) > 1:
            fields[REFERENCES] = [said for _, said in found]
        told = (("system", context), ("user", question), ("assistant", text))
        messages = tuple({"role": role, "content": str(content)} for role, content in told)
        yield Example((document.id,), messages=messages, fields=fields)


def _asked(fields: Mapping[str, Any]) -> tuple[Any, Any, list[tuple[int, str]] | None]:
    """Context, question and answers, as far as they are there."""
    messages = fields.get("messages")
    if not isinstance(messages, list):
        return fields.get("context"), fields.get("question"), _answers(fields.get("answers"))
    said = {each.get("role"): each.get("content") for each in messages if isinstance(each, dict)}
    answer = said.get("assistant")
    return said.get("system"), said.get("user"), [(0, answer)] if isinstance(answer, str) and answer.strip() else None


def _answers(value: Any) -> list[tuple[int, str]] | None:
    """(start, text) of each; None for what is not answers."""
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            return None
        value = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(value, list):
        return None
    found = []
    for each in value:
        text, start = (each.get("text"), each.get("answer_start")) if isinstance(each, dict) else (None, None)
        if not isinstance(text, str) or not text.strip() or not isinstance(start, int) or isinstance(start, bool):
            return None
        found.append((start, text))
    return found


def _placed(context: str, start: int, text: str) -> tuple[int, str] | None:
    """Where the answer stands, nearest to where it is said to: cleaning a text moves what is in it."""
    if context[max(start, 0) : max(start, 0) + len(text)] == text:
        return max(start, 0), text
    places, at = list[int](), context.find(text)
    while at >= 0:
        places.append(at)
        at = context.find(text, at + 1)
    return (min(places, key=lambda place: abs(place - start)), text) if places else None
