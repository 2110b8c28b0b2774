"""From a row of a table to a document: which column is the text, the label, the time, the person."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from treadle.core.errors import UserError, nearest
from treadle.text import chat
from treadle.text.document import Document, document_id
from treadle.text.rows import Row
from treadle.text.tool_calls import spoken

_MILLISECONDS_FROM = 100_000_000_000  # seconds of the year 5138; a larger number of an epoch is milliseconds
_SHOWN_COLUMNS = 8
_MISSING = object()  # where a row has no such column
# Two texts that belong together, as columns are called in the datasets of sentence-transformers and in others.
PAIRS = (
    ("anchor", "positive"),
    ("query", "positive"),
    ("query", "passage"),
    ("title", "body"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
)
# A source and a target, as translations and summaries have them; a document's own text may be the source as well.
TRANSLATIONS = (("source", "target"), ("src", "tgt"), ("source_text", "target_text"))
SUMMARIES = (
    ("document", "summary"),
    ("article", "highlights"),
    ("article", "summary"),
    ("article", "abstract"),
    ("dialogue", "summary"),
    ("text", "summary"),
    ("source", "target"),
)


class UnusableRowError(ValueError):
    """Why a row that was read makes no document, in words that do not quote it."""


class Fields(BaseModel):
    """Which column holds what. A dot reaches into a column that is a mapping: ``meta.created``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str | None = None
    label: str | None = None
    time: str | None = None
    subject: str | None = None
    messages: str | None = None
    prompt: str | None = None
    response: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class _Content:
    """What a row says: its text, the columns that is made of, and the messages where it is a conversation."""

    text: str
    keys: frozenset[str] = frozenset()
    messages: list[chat.Message] | None = None
    rejected: list[chat.Message] | None = None


@dataclass(slots=True)
class _Timed:
    """Whether a row had the column of the time, and the columns of the first that did not."""

    found: bool = False
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RowMapping:
    """How the rows of one source become documents."""

    fields: Fields
    keyed: Callable[[str], str]
    personal: bool = False
    where: str = "files"  # what begins the errors
    _moved: frozenset[str] = field(init=False, default=frozenset())
    _timed: _Timed = field(init=False, default_factory=_Timed, compare=False)

    def __post_init__(self) -> None:
        given = self.fields
        if (given.chosen is None) != (given.rejected is None):
            raise UserError(f"{self.where}: fields names only one of chosen and rejected; a preference needs both")
        if given.chosen is None and (given.prompt is None) != (given.response is None):
            raise UserError(f"{self.where}: fields names only one of prompt and response; a pair needs both")
        if sum(name is not None for name in (given.text, given.messages, given.response, given.chosen)) > 1:
            raise UserError(
                f"{self.where}: fields names more than one of text, messages, prompt with response, and chosen with"
                " rejected; keep one"
            )
        if given.subject is not None and given.subject == given.id:
            raise UserError(
                f"{self.where}: fields uses the same column as subject and id; an id is kept as it is, a person is not"
            )
        moved = (given.text, given.time, given.messages, given.prompt, given.response, given.chosen, given.rejected,
                 given.id, given.subject)  # fmt: skip
        object.__setattr__(self, "_moved", frozenset(name for name in moved if name is not None))

    def document(self, row: Row, source: str, file: str, common: Mapping[str, Any]) -> Document:
        """The document of a row; ``UnusableRowError`` when it has none of the columns it should have, or
        bad ones.
        """
        if isinstance(row.value, str) and self.fields == Fields():
            row = Row(row.offset, row.number, row.raw, {"text": row.value})
        if not isinstance(row.value, dict):
            raise UnusableRowError("not a mapping of names to values")
        values: dict[str, Any] = row.value
        content = self._content(values)
        fields = {key: value for key, value in values.items() if key not in content.keys and key not in self._moved}
        if content.messages:
            fields["messages"] = content.messages
        if content.rejected is not None:
            fields["rejected"] = content.rejected
        if self.fields.label is not None:
            fields["label"] = _label(_required(values, self.fields.label, "label"))
        subject = self._subject(values, fields)
        locator = f"{file}:{row.number}"
        if self.fields.id is not None:
            locator = f"{file}#{_scalar(_required(values, self.fields.id, 'id'), 'id')}"
        return Document(
            id=document_id(source, locator, row.raw),
            source=source,
            locator=locator,
            text=content.text,
            time=self._time(values),
            subject=subject,
            fields=fields,
            **common,
        )

    def _content(self, values: dict[str, Any]) -> _Content:
        given = self.fields
        if given.text is not None:
            return _Content(_text(_required(values, given.text, "text")))
        try:
            found = self._conversation(values)
        except chat.MalformedChatError as error:
            raise UnusableRowError(str(error)) from None
        if found is not None:
            return _Content(_spoken(found.messages), found.keys, found.messages, found.rejected)
        for key in ("text", "content"):
            if key in values:
                return _Content(_text(values[key]), frozenset({key}))
        for names in PAIRS:
            if self._free(names) and all(isinstance(values.get(name), str) for name in names):
                return _Content(_text("\n\n".join(values[name] for name in names)))
        context, question = values.get("context"), values.get("question")
        if isinstance(context, str) and isinstance(question, str):
            return _Content(_text(f"{context}\n\n{question}"))
        tokens = values.get("tokens")
        if isinstance(tokens, list) and all(isinstance(token, str) for token in tokens):
            return _Content(_text(" ".join(tokens)))
        told = self._source_and_target(values)
        if told is not None:
            return _Content(_text(told))
        raise UnusableRowError(
            f"no text among {_columns(values)}; say which column it is with `fields: {{text: ...}}`, or of a pair with"
            " prompt and response"
        )

    def _free(self, names: Sequence[str]) -> bool:
        """Whether nobody said what these columns are: a label or a person is none of the text."""
        return not {*self._moved, self.fields.label} & {*names}

    def _source_and_target(self, values: dict[str, Any]) -> str | None:
        """Both, as one text. Columns of these names may be something else where another has more to say."""
        spoken = values.get("translation")  # a text a language
        if self._free(("translation",)) and isinstance(spoken, Mapping) and _are_texts([*spoken.values()]):
            return "\n\n".join(spoken.values())
        for names in (*TRANSLATIONS, *SUMMARIES):
            found: list[Any] = [values.get(name) for name in names]
            texts = [" ".join(each) if _are_texts(each) else each for each in found]
            if not self._free(names) or not _are_texts(texts):
                continue
            others = [len(each) for name, each in values.items() if name not in names and isinstance(each, str)]
            if max(others, default=0) <= max(map(len, texts)):
                return "\n\n".join(texts)
        return None

    def _conversation(self, values: dict[str, Any]) -> chat.Conversation | None:
        given, none = self.fields, frozenset[str]()
        if given.messages is not None:
            return chat.Conversation(chat.from_messages(_required(values, given.messages, "messages")), none)
        if given.chosen is not None and given.rejected is not None:
            prompt = None if given.prompt is None else _required(values, given.prompt, "prompt")
            chosen, rejected = (_required(values, name, name) for name in (given.chosen, given.rejected))
            return chat.from_preference(prompt, chosen, rejected)
        if given.prompt is not None and given.response is not None:
            prompt = _required(values, given.prompt, "prompt")
            return chat.Conversation(chat.from_pair(prompt, _required(values, given.response, "response")), none)
        return chat.recognize(values)

    def _subject(self, values: dict[str, Any], fields: dict[str, Any]) -> str | None:
        """The keyed digest of the person; it also stands in the fields under the column's name, to split
        by.
        """
        if self.fields.subject is None:
            return None
        subject = self.keyed(_scalar(_required(values, self.fields.subject, "subject"), "subject"))
        fields[self.fields.subject] = subject
        return subject

    def _time(self, values: dict[str, Any]) -> str | None:
        if self.fields.time is None:
            return None
        value = _reached(values, self.fields.time, _MISSING)
        if value is _MISSING:
            self._timed.columns = self._timed.columns or tuple(map(str, values))
            return None
        self._timed.found = True
        return None if value is None or value == "" else source_time(value)

    def check_time(self) -> None:
        """``UserError`` where none of the rows that were mapped has the column of the time: a row may do without, but
        a name that no row knows is misspelled.
        """
        time, columns = self.fields.time, self._timed.columns
        if time is not None and columns and not self._timed.found:
            raise UserError(f"{self.where}: no row has the column {time!r} of fields.time;{nearest(time, columns)}")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def source_time(value: Any) -> str:
    """ISO 8601: a date as it is, a moment in UTC (one without a zone is taken to be); numbers count
    seconds or milliseconds since 1970.
    """
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value / 1000 if abs(value) >= _MILLISECONDS_FROM else value
            moment = datetime.fromtimestamp(seconds, UTC)
        elif isinstance(value, str) and len(value.strip()) == 10:
            return datetime.fromisoformat(value.strip()).date().isoformat()
        elif isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
        else:
            raise UnusableRowError("time is neither ISO 8601 nor a number of seconds")
        zoned = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise UnusableRowError("time is neither ISO 8601 nor a number of seconds") from None
    return zoned.isoformat().replace("+00:00", "Z")


def _reached(values: Mapping[str, Any], path: str, missing: Any = None) -> Any:
    if path in values:
        return values[path]
    value: Any = values
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return missing
        value = value[part]
    return value


def _required(values: Mapping[str, Any], path: str, role: str) -> Any:
    value = _reached(values, path)
    if value is None:
        raise UnusableRowError(f"no {role}: column {path!r} is missing or empty; there are {_columns(values)}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise UnusableRowError("the text is not a text")
    if not value.strip():
        raise UnusableRowError("the text is empty")
    return value


def _scalar(value: Any, role: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise UnusableRowError(f"the {role} is neither a text nor a number")
    return str(value).strip()


def _label(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _scalar(value, "label")


def _spoken(messages: list[chat.Message]) -> str:
    """What was said, without who said it."""
    return "\n\n".join(filter(None, map(spoken, messages)))


def _columns(values: Mapping[str, Any]) -> str:
    names = sorted(str(name)[:40] for name in values)
    more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    return ", ".join(names[:_SHOWN_COLUMNS]) + more
