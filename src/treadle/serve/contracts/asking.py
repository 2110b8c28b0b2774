"""From what the platforms send to our own requests, and from our answers to what they can be told.

Platforms have instances: a text, or an object with one. What is asked of each is the release's business: a text is a
user's message to a model that chats, and what is to be labeled, tagged or embedded by one that does that.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from treadle.serve.contracts.contract import Handler
from treadle.serve.errors import ApiError, from_decoding, invalid
from treadle.serve.generate import ENDED_BY_US, chat, completions
from treadle.serve.incoming import Incoming, check_model
from treadle.serve.meter import Meter
from treadle.serve.release import ServedRelease, Serving
from treadle.serve.replies import traced
from treadle.serve.requests import ChatMessage, Context, MaxTokens, Metadata, Seed, Stop, Temperature, TopP, User
from treadle.serve.table import Chosen
from treadle.serve.tasks import classify, embeddings, tag

_MOST_TEXTS = 256
_MOST_CONVERSATIONS = 64
_AT_ONCE = 8  # conversations of one request that are under way together, so that one client does not fill the engine
_ENDED = ("timeout", *ENDED_BY_US)  # which befalls the others as well, and then they pay as they would alone
_WORK: dict[str, Handler] = {"classify": classify, "tag": tag, "embed": embeddings}
_ALIKE = {"max_new_tokens": "max_tokens", "max_output_tokens": "max_tokens", "stop_sequences": "stop"}


class Encoded(Struct, forbid_unknown_fields=True, kw_only=True):
    """A text as the base64 of its UTF-8."""

    b64: str


class Parameters(Struct, forbid_unknown_fields=True, kw_only=True):
    """How to answer, in our words and in those of the platforms; the first is for those who know OpenAI's."""

    user: User | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    max_tokens: MaxTokens | None = None
    max_new_tokens: MaxTokens | None = None
    max_output_tokens: MaxTokens | None = msgspec.field(default=None, name="maxOutputTokens")
    temperature: Temperature | None = None
    top_p: TopP | None = None
    stop: Stop | None = None
    stop_sequences: Stop | None = msgspec.field(default=None, name="stopSequences")
    seed: Seed | None = None


class Instance(Parameters, kw_only=True):
    """One thing to answer: a ``text``, a ``question`` (with ``context``), ``messages``, or a ``prompt`` that is
    continued as it stands."""

    b64: str | None = None
    text: str | Encoded | None = None
    question: str | Encoded | None = None
    context: str | Annotated[list[Context], Meta(max_length=64)] | None = None
    prompt: str | Encoded | None = None
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=4096)] | None = None


Given = str | Instance


@dataclass(frozen=True, slots=True)
class Prediction:
    """What came of one instance: by name, ``text``, or ``label``, ``score`` and ``probabilities``, or ``spans``, or
    ``embedding``."""

    interaction: str
    columns: Mapping[str, Any]

    @property
    def value(self) -> Any:
        """The one column, or all of them by name."""
        return next(iter(self.columns.values())) if len(self.columns) == 1 else dict(self.columns)


@dataclass(frozen=True, slots=True)
class Predictions:
    """One for each instance, in order, and the release that gave them all."""

    found: Sequence[Prediction]
    release: ServedRelease

    @property
    def interactions(self) -> list[str]:
        """Each once: texts of one batch are one interaction, conversations are one each."""
        return list(dict.fromkeys(each.interaction for each in self.found))

    def headers(self) -> dict[str, str]:
        """Which interactions these are, for platforms whose bodies have no room for it."""
        return traced(",".join(self.interactions), self.release.digest)


class Asked(Incoming):
    """One of our own requests that a platform's came to; what answers it is kept, and not sent. What answers was chosen
    once for all of them."""

    def __init__(self, outer: Incoming, body: Mapping[str, Any], chosen: Chosen) -> None:
        vars(self).update(vars(outer))  # its key, its client, and what else it was admitted with
        self._chosen = chosen
        self.given = msgspec.json.encode(body)
        self.answer: dict[str, Any] = {}

    def choose(self, model: str | None, user: str | None) -> Chosen:
        """What was chosen."""
        return self._chosen

    async def reply(self, content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Keep it."""
        self.status, self.answer = status, content


async def predict(
    incoming: Incoming, instances: Sequence[Given], parameters: Parameters, chosen: Chosen
) -> Predictions:
    """Answer them all, or none. No await may come between ``incoming.choose`` and this. Raises as the handlers that are
    asked do."""
    release = chosen.serving.release
    limit = _MOST_TEXTS if release.asking in _WORK else _MOST_CONVERSATIONS
    if not 1 <= len(instances) <= limit:
        raise invalid("instances", f"instances: {len(instances)} came; expected 1 to {limit}")
    ask, common = (_listed if release.asking in _WORK else _each), _fields(parameters)
    with incoming.gateway.keeping(chosen.serving):
        found, by = await ask(incoming, chosen, instances, common)
    if len(by) > 1:  # the fallback stood in for some of them: it answers all, since one release is named for all
        other = [each for each in by if each.engine is not chosen.serving.engine][-1]
        with incoming.gateway.keeping(other):
            found, by = await ask(incoming, Chosen(other, None), instances, common)
    return Predictions(found, by[0].release)


async def _listed(
    incoming: Incoming, chosen: Chosen, instances: Sequence[Given], common: dict[str, Any]
) -> tuple[list[Prediction], list[Serving]]:
    """What came of them, and which releases answered, each once."""
    release, texts = chosen.serving.release, []
    for place, instance in enumerate(instances):
        what = {"text": instance} if isinstance(instance, str) else _instance(instance, place)
        if list(what) != ["text"]:
            raise invalid(
                f"instances[{place}]",
                f"instances[{place}]: {release.name} takes a text; expected {{'text': ...}} alone",
            )
        texts.append(what["text"])
    asked = Asked(incoming, common | {"input": texts}, chosen)
    try:
        await _WORK[release.asking](asked)
    except ApiError as error:
        if error.param == "input":
            error.param = "instances"
        raise
    answer = asked.answer
    return [Prediction(answer["id"], _columns(each)) for each in answer["data"]], [asked.answered_by or chosen.serving]


async def _each(
    incoming: Incoming, chosen: Chosen, instances: Sequence[Given], common: dict[str, Any]
) -> tuple[list[Prediction], list[Serving]]:
    bodies = [_conversation(common, instance, place) for place, instance in enumerate(instances)]
    if incoming.meter is not None:
        _check_rate(incoming.meter, len(bodies))
    every = [(handler, Asked(incoming, body, chosen)) for handler, body in bodies]
    gateway, by = incoming.gateway, list[Serving]()
    turns = asyncio.Semaphore(max(1, min(_AT_ONCE, gateway.admission.limit - gateway.in_flight)))

    async def one(place: int, handler: Handler, asked: Asked) -> dict[str, Any]:
        try:
            async with turns:
                await handler(asked)
        except ApiError as error:
            error.param = _param(error.param, instances[place], place)
            if error.code not in _ENDED:
                for _, each in every:
                    each.in_vain = True
            raise
        answered_by = asked.answered_by or chosen.serving
        if all(answered_by.engine is not each.engine for each in by):
            by.append(answered_by)
        return asked.answer

    if len(every) == 1:
        answers = [await one(0, *every[0])]
    else:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(place, *each)) for place, each in enumerate(every)]
        except BaseExceptionGroup as failed:  # the first to fail ends the others
            raise failed.exceptions[0] from None
        answers = [task.result() for task in tasks]
    return [Prediction(answer["id"], {"text": _said(answer)}) for answer in answers], by


def _param(ours: str | None, instance: Given, place: int) -> str | None:
    """What is wrong with the request that an instance came to, as the client sent it."""
    name = re.split(r"[.\[]", ours or "", maxsplit=1)[0]
    if isinstance(instance, Instance) and getattr(instance, name, None) is not None:
        return f"instances[{place}].{ours}"
    return f"instances[{place}]" if name == "messages" else ours


def _check_rate(meter: Meter, count: int) -> None:
    """Raises 400 for more at once than the key can ever have."""
    for limit in meter.key.rules.limits:
        if limit.what == "requests" and limit.most < count:
            raise invalid(
                "instances",
                f"instances: {count} came, each counts as a request, and this key has {limit}; send fewer at once",
            )


def _conversation(common: dict[str, Any], instance: Given, place: int) -> tuple[Handler, dict[str, Any]]:
    what = {"text": instance} if isinstance(instance, str) else _instance(instance, place)
    kinds = [name for name in ("text", "question", "prompt", "messages") if name in what]
    if len(kinds) != 1:
        raise invalid(
            f"instances[{place}]",
            f"instances[{place}]: expected one of text, question, prompt, messages; got {', '.join(kinds) or 'none'}",
        )
    body = common | what
    if kinds == ["prompt"]:
        return completions, body
    if isinstance(body.get("context"), str):
        body["context"] = [{"text": body["context"]}]
    if kinds != ["messages"]:
        body["messages"] = [{"role": "user", "content": body.pop(kinds[0])}]
    return chat, body


def _instance(instance: Instance, place: int) -> dict[str, Any]:
    fields = _fields(instance)
    where = f"instances[{place}]"
    if "b64" in fields:
        if "text" in fields:
            raise invalid(where, f"{where}: expected text or b64, got both")
        fields["text"] = Encoded(b64=fields.pop("b64"))
    return {
        name: text_of(value, f"{where}.{name}") if isinstance(value, Encoded) else value
        for name, value in fields.items()
    }


def _fields(given: Parameters) -> dict[str, Any]:
    """What is set, under our names."""
    fields: dict[str, Any] = {}
    for name in given.__struct_fields__:
        value, ours = getattr(given, name), _ALIKE.get(name, name)
        if value is None:
            continue
        if ours in fields and fields[ours] != value:
            raise invalid(name, f"{name}: contradicts {ours}; send one of them")
        fields[ours] = value
    return fields


def text_of(encoded: Encoded, where: str) -> str:
    """The text in the base64. Raises 400."""
    try:
        return base64.b64decode(encoded.b64, validate=True).decode()
    except (binascii.Error, ValueError):
        raise invalid(where, f"{where}: expected the base64 of a text in UTF-8") from None


def instance_of(row: Mapping[str, Any], place: int) -> Instance:
    """A row of columns as an instance. Raises 400."""
    try:
        return msgspec.convert(row, Instance)
    except msgspec.ValidationError as error:
        refused = from_decoding(error)
        where = f"instances[{place}]" + (f".{refused.param}" if refused.param else "")
        raise invalid(where, f"instances[{place}]: {refused.message}", code=refused.code) from None


def rows_of(columns: Mapping[str, Sequence[Any]]) -> list[Given]:
    """Columns of one length, or of length 1 for all rows, as instances; a single one holds texts, whatever its name."""
    size = max((len(values) for values in columns.values()), default=0)
    for name, values in columns.items():
        if len(values) not in (1, size):
            raise invalid(name, f"{name}: {len(values)} values, another input has {size}")
    if len(columns) == 1:
        (values,) = columns.values()
        columns = {"text": values} if not set(columns) & {"question", "prompt", "messages"} else columns
    return [
        instance_of({name: values[place if len(values) > 1 else 0] for name, values in columns.items()}, place)
        for place in range(size)
    ]


def found_model(incoming: Incoming) -> str | None:
    """The model that a path names: ``M``, ``M/versions/V`` or ``M/labels/ALIAS``, as our own names for it."""
    asked = incoming.scope["path_params"]
    model: str | None = asked.get("model")
    version, label = asked.get("version"), asked.get("label")
    if model is None or (version is None and label is None):
        return model
    for serving in incoming.gateway.model_of(model).table.answering():
        release = serving.release
        if version is not None and model == release.base and version == version_of(release.name):
            return release.name
    return f"{model}@v{version}" if label is None else f"{model}@{label}"


def described(incoming: Incoming) -> Serving:
    """What a path names, to be told of. Raises 403 where the key is not for it, 404, 503."""
    asked = found_model(incoming)
    incoming.model = incoming.gateway.model_of(asked)
    serving = incoming.model.table.choose(asked, None).serving
    if incoming.meter is not None:
        check_model(incoming.meter, serving)
    return serving


def version_of(name: str) -> str:
    """The number in ``NAME@vN``, as platforms have it; ``1`` for what has none."""
    return name.partition("@v")[2] or "1"


def outputs_of(asking: str) -> dict[str, str]:
    """Names and types of what a prediction holds, for descriptions of a model."""
    kinds = {
        "classify": {"label": "text", "score": "number", "probabilities": "numbers"},
        "tag": {"spans": "text"},
        "embed": {"embedding": "numbers"},
    }
    return kinds.get(asking, {"text": "text"})


def _columns(data: Mapping[str, Any]) -> dict[str, Any]:
    if "label" in data:
        probabilities = data["probabilities"]
        return {"label": data["label"], "score": probabilities[data["label"]], "probabilities": probabilities}
    return {"spans": data["spans"]} if "spans" in data else {"embedding": data["embedding"]}


def _said(answer: Mapping[str, Any]) -> str:
    (choice,) = answer["choices"]
    said: str = choice["text"] if "text" in choice else choice["message"]["content"]
    return said


def refused_media(kinds: Sequence[str]) -> ApiError:
    """415: a body of a type that nobody here reads."""
    return ApiError(415, f"content-type: expected {' or '.join(kinds)}", param="content-type", code="unsupported_media")
