"""Examples out of documents: the makers that ship, the door for one's own, and the count that every maker is
held to.

A maker is a function ``maker(documents, **settings)`` that yields an ``Example`` for what it makes and a
``Dropped`` for each document it makes nothing of. ``prepare.steps`` names it: a built-in name, one from the
entry-point group ``treadle.examples``, or ``module:function``. A document that a maker neither uses nor drops
is an error, so that nothing can get lost here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError, nearest
from treadle.core.plugins import load
from treadle.core.settings import check
from treadle.text.accounting import Accounting, Dropped, Note
from treadle.text.dataset import ROLES, Example
from treadle.text.docstrings import family
from treadle.text.document import Document
from treadle.text.rule_log import Log
from treadle.text.tool_calls import ToolCallError, answered, declared, spoken, tool_message

GROUP = "treadle.examples"
MAX_MESSAGES = 200
MAX_CONVERSATION_CHARACTERS = 200_000

# Column names people use for one question and one answer, tried in this order where there are no `messages`.
_PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("input", "output"),
)

_CHAT_RULES = {
    "no_messages": "there are neither messages nor one question and one answer",
    "not_a_conversation": "a message is not {role, content}",
    "other_role": "a message is of another role than system, user, assistant and tool",
    "bad_tool_call": "a call of a tool is malformed, is not answered, or an answer has no call",
    "empty_message": "a message has no text",
    "no_answer": "no answer follows a user's message",
    "too_long": "more messages or characters than the limit",
}

Maker = Callable[..., Iterable[Example | Dropped]]


@dataclass(frozen=True, slots=True)
class Made:
    """Examples, and the account of the documents: kept are those an example was made from."""

    examples: tuple[Example, ...]
    accounting: Accounting


NO_GROUP = "split.no_group"  # counts examples without a value of the field that the split is made by
RAREST = "min_per_label"  # a setting of makers: how many texts of a label there have to be to learn it


def load_maker(name: str, folder: Path | None = None) -> tuple[Maker, str]:
    """The maker of that name and the version of its code; ``UserError`` with the nearest known name when
    there is none.
    """
    plugin = load(GROUP, name, folder)
    if not callable(plugin.value):
        raise UserError(f"examples: {name!r} is not a function; expected maker(documents, **settings)")
    return plugin.value, plugin.version


def rarest(maker: Maker, settings: Mapping[str, Any]) -> int:
    """How many texts of a label the maker asks for; 0 where it asks for none."""
    asked = signature(maker).parameters.get(RAREST)
    return int(settings.get(RAREST, asked.default)) if asked else 0


def make_examples(
    documents: Sequence[Document],
    maker: Maker,
    *,
    name: str = "",
    by: str | None = None,
    settings: Mapping[str, Any] | None = None,
    log: Log | None = None,
) -> Made:
    """Run a maker over all documents and hold it to account.

    ``by`` says what the split will be made by (``module``, ``subject``, any field): it fills the group of
    examples whose maker left it empty. Those that have no value of it are each a group of their own, and counted.
    ``log`` hears of each document that was dropped.

    Raises ``UserError`` for a setting the maker does not take, when a document was neither used nor dropped, and when
    no example has a value of ``by``: then the field is misspelled, and nothing would be kept together.
    """
    name = name or getattr(maker, "__name__", "maker")
    documents_parameter = next(iter(signature(maker).parameters))
    values = check(maker, settings or {}, where=f"examples ({name})", provided=(documents_parameter,))
    known = {document.id: document for document in documents}
    examples: list[Example] = []
    left_out: dict[str, Dropped] = {}
    alone = 0
    for made in maker(documents, **values):
        if isinstance(made, Dropped):
            left_out[made.document.id] = made
            continue
        strange = [document for document in made.documents if document not in known]
        if strange or not made.documents:
            raise UserError(
                f"examples: {name} made an example of {strange or 'no document'}; expected ids it was given"
            )
        group = made.group or group_of(known[made.documents[0]], by)
        alone += by is not None and not made.group and group == made.documents[0]
        examples.append(replace(made, group=group))
    used = {document for example in examples for document in example.documents}
    lost = [document for document in known if document not in used and document not in left_out]
    if lost:
        raise UserError(
            f"examples: {name} neither used nor dropped {len(lost)} documents, {lost[0]} first;"
            " yield Dropped for what is not used"
        )
    if by is not None and alone and alone == len(examples):
        raise UserError(_without_groups(by, documents))
    accounting = Accounting(read=len(known), kept=len(used), log=log)
    if alone:
        accounting.note(Note(NO_GROUP, alone))
    for document, dropped in left_out.items():
        if document not in used:
            accounting.drop(replace(dropped, rule=f"examples.{dropped.rule}"))
    return Made(tuple(examples), accounting.close())


def group_of(document: Document, by: str | None) -> str:
    """The value a document is split by; where it has none, it is a group of its own."""
    if by is None:
        return document.id
    value: Any = document.subject if by == "subject" else document.fields.get(by, "")
    if by == "module" and isinstance(value, str):
        value = family(value)
    return str(value) if value not in (None, "") else document.id


def _without_groups(by: str, documents: Sequence[Document]) -> str:
    if by == "subject":
        return (
            "prepare.split.by: no example says whose it is; name the column with `fields: {subject: ...}` of its source"
        )
    plain = (name for each in documents for name, value in each.fields.items() if isinstance(value, str | int | float))
    return f"prepare.split.by: no example has a field {by!r};{nearest(by, sorted(set(plain))) or ' there are none'}"


def chat(
    documents: Sequence[Document],
    *,
    system_prompt: str = "",
    max_characters: int = MAX_CONVERSATION_CHARACTERS,
) -> Iterator[Example | Dropped]:
    """One example a conversation, up to its last answer.

    A document has ``messages`` (OpenAI style, with calls of tools, and the ``tools`` beside them) or one question
    and one answer under usual names (``prompt`` and ``completion``, ``question`` and ``answer``, ...).
    ``system_prompt`` is put before conversations that have none. Where the document is a preference, the conversation
    as somebody liked it less stays beside it, as ``rejected`` among the fields.
    """
    for document in documents:
        messages, rule = _conversation(document)
        if not rule and sum(len(spoken(message)) for message in messages) > max_characters:
            rule = "too_long"
        if rule:
            yield Dropped(document, rule, _CHAT_RULES[rule])
            continue
        if system_prompt and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": system_prompt}, *messages]
        tools, fields = declared(document.fields.get("tools")), plain_fields(document)
        rejected, rule = _checked(document.fields.get("rejected"))
        if not rule and sum(len(spoken(message)) for message in rejected) <= max_characters:
            fields["rejected"] = rejected
        yield Example((document.id,), messages=tuple(messages), tools=tools, fields=fields)


def classification(documents: Sequence[Document], *, min_per_label: int = 5) -> Iterator[Example | Dropped]:
    """One example a labeled text; a label with fewer than ``min_per_label`` texts cannot be learned or judged
    and is dropped.
    """
    labels = [_label(document) for document in documents]
    counts = Counter(
        label for document, label in zip(documents, labels, strict=True) if label and document.text.strip()
    )
    for document, label in zip(documents, labels, strict=True):
        if not document.text.strip():
            yield Dropped(document, "no_text", "the text is empty")
        elif not label:
            yield Dropped(document, "no_label", "there is no label")
        elif counts[label] < min_per_label:
            yield Dropped(document, "rare_label", f"fewer than {min_per_label} texts have this label")
        else:
            yield Example((document.id,), text=document.text, label=label, fields=plain_fields(document))


def _conversation(document: Document) -> tuple[list[dict[str, Any]], str]:
    """Messages up to the last answer, or the rule by which there are none."""
    raw = document.fields.get("messages")
    return _checked(_pair(document) if raw is None else raw)


def _checked(raw: Any) -> tuple[list[dict[str, Any]], str]:
    if not isinstance(raw, list) or not raw:
        return [], "no_messages"
    if len(raw) > MAX_MESSAGES:
        return [], "too_long"
    messages: list[dict[str, Any]] = []
    for item in raw:
        message = _message(item, len(messages) + 1)
        if isinstance(message, str):
            return [], message
        messages.append(message)
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    if not any(message["role"] == "user" for message in messages):
        return [], "no_answer"
    try:
        answered(messages, 1)
    except ToolCallError:
        return [], "bad_tool_call"
    return messages, ""


def _message(item: Any, place: int) -> dict[str, Any] | str:
    """A message as it is kept, or the rule by which it is none."""
    if not isinstance(item, dict) or not isinstance(item.get("role"), str):
        return "not_a_conversation"
    if item["role"] not in ROLES:
        return "other_role"
    content = item.get("content")
    if item["role"] == "tool" or item.get("tool_calls"):
        try:
            return tool_message(item, content if isinstance(content, str) else "", place) or "bad_tool_call"
        except ToolCallError:
            return "bad_tool_call"
    if not isinstance(content, str) or not content.strip():
        return "empty_message"
    return {"role": item["role"], "content": content}


def _pair(document: Document) -> list[dict[str, Any]]:
    for asked, told in _PAIRS:
        question, answer = document.fields.get(asked), document.fields.get(told)
        if isinstance(question, str) and isinstance(answer, str):
            return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return []


def _label(document: Document) -> str:
    value = document.fields.get("label")
    return "" if value is None or isinstance(value, (dict, list)) else str(value).strip()


def plain_fields(document: Document) -> dict[str, Any]:
    """Short scalar fields, which slices of an evaluation are made by, and where the document lies."""
    asked_or_answered = {name for pair in _PAIRS for name in pair}
    plain = {
        name: value
        for name, value in document.fields.items()
        if name not in asked_or_answered and isinstance(value, (str, int, float, bool)) and len(str(value)) <= 200
    }
    return {**plain, "locator": document.locator}
