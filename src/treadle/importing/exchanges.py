"""What a line of an endpoint's log says: one request, and what came of it.

The shapes that are read, each one JSON object a line:

    {"request": {...}, "response": {...}}          bodies as client and server exchanged them; either may be
                                                   {"url", "body", "status_code"} around the body, or JSON in a text
    {"messages": [...], "response": {...}, ...}    a proxy's flat row: model, startTime, endTime, usage beside them
    {"custom_id": ..., "response": {"body"}, ...}  output of a batch; the request is found by custom_id in the batch's
                                                   input, {"custom_id", "url", "body"}, where that is read before

A response may be a chat completion, a completion, an answer with ``output`` items, or the list of a stream's chunks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from treadle.record.interaction import Seconds, Status, Tokens

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
_TIMES = ("time", "timestamp", "startTime", "start_time", "request_time", "created_at", "created")
_ROLES = {"developer": "system", "function": "tool"}
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_PARAMETERS = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "n", "presence_penalty",
               "frequency_penalty")  # fmt: skip
_MILLISECONDS = 1e11  # a number above this does not count seconds since 1970


class UnreadableError(Exception):
    """The line says nothing that can be kept; the message is the reason, and quotes nothing of it."""


class OtherError(Exception):
    """The line is sound and no answer to anybody; the message names the rule."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answers, before any rule of the project is applied. ``messages`` None: not in the log."""

    endpoint: str
    status: Status
    model: str
    request: str
    time: datetime
    messages: tuple[dict[str, str], ...] | None
    answers: tuple[str, ...]
    finish_reason: str | None
    error: str | None
    user: str | None
    tokens: Tokens
    seconds: Seconds
    stream: bool
    store: bool
    parameters: dict[str, Any] = field(default_factory=dict)


def read_exchange(row: Any, batch: dict[str, dict[str, Any]], time: datetime | None = None) -> Exchange:
    """What a row says; ``time`` is for rows that say none. ``batch`` holds the requests of a batch by ``custom_id``.

    Raises ``UnreadableError`` or ``OtherError``.
    """
    if not isinstance(row, dict):
        raise UnreadableError("expected a JSON object with request and response")
    custom = row.get("custom_id")
    if isinstance(custom, str) and "response" not in row and isinstance(row.get("body"), dict):
        batch[custom] = row
        raise OtherError("logs.batch_input")
    outer_request = _parsed(row.get("request")) if "request" in row else batch.get(custom) if custom else None
    outer_response = _parsed(row.get("response"))
    request, response = _body(outer_request), _body(outer_response)
    if request is None and ("messages" in row or "prompt" in row or "input" in row):
        settings = row.get("model_parameters") or row.get("optional_params")
        request = {**(settings if isinstance(settings, dict) else {}), **row}
    if request is None and response is None:
        raise UnreadableError("expected request and response, or messages and response; see treadle import logs --help")
    request = request if isinstance(request, dict) else {}
    if isinstance(response, list):
        response = _joined(response)
    said = response if isinstance(response, dict) else {}
    code = outer_response.get("status_code", outer_response.get("status")) if isinstance(outer_response, dict) else None
    error = _error(row, said, code)
    endpoint = _endpoint(request, said)
    answers, finish = _answers(response)
    if not answers and error is None and not said.get("choices"):
        error = "no_response"
    return Exchange(
        endpoint=endpoint,
        status="failed" if error else "ok",
        model=str(said.get("model") or request.get("model") or row.get("model") or "not recorded")[:200],
        request=str(said.get("id") or row.get("request_id") or custom or row.get("id") or "")[:200],
        time=_time(row, said, time),
        messages=_messages(request),
        answers=answers,
        finish_reason=finish,
        error=error,
        user=_user(request, row),
        tokens=_tokens(said.get("usage") or row.get("usage") or row),
        seconds=_seconds(row),
        stream=bool(request.get("stream")),
        store=request.get("store") is not False,
        parameters={k: request[k] for k in _PARAMETERS if type(request.get(k)) in (int, float)},
    )


def _parsed(value: Any) -> Any:
    """JSON in a text, as databases keep it; the events of a stream; anything else as it is."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("data:"):
        events = (line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:"))
        return [_parsed(event) for event in events if event and event != "[DONE]"]
    if not text.startswith(("{", "[")):
        return value
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return value


def _body(value: Any) -> Any:
    return _parsed(value["body"]) if isinstance(value, dict) and "body" in value else value


def _endpoint(request: dict[str, Any], response: dict[str, Any]) -> str:
    kind = response.get("object")
    if kind == "response" or ("input" in request and "output" in response):
        return RESPONSES
    if kind in ("list", "image", "audio.transcription", "moderation") or "embedding" in str(kind):
        raise OtherError("logs.no_answer")
    if "messages" in request or str(kind).startswith("chat.completion"):
        return CHAT
    if "prompt" in request or kind == "text_completion":
        return COMPLETIONS
    if "input" in request:
        raise OtherError("logs.no_answer")
    if not request and not response:
        return CHAT
    raise UnreadableError("neither request nor response is of a kind that is known: expected messages, prompt or input")


def _messages(request: dict[str, Any]) -> tuple[dict[str, str], ...] | None:
    """The conversation as texts; what is no text (a picture) is named by its kind."""
    given = request.get("messages", request.get("input", request.get("prompt")))
    if given is None:
        return None
    instructions = request.get("instructions")
    first: list[dict[str, str]] = []
    if isinstance(instructions, str):
        first.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        return (*first, {"role": "user", "content": given})
    if not isinstance(given, list) or not given:
        raise UnreadableError("messages: expected a list of role and content")
    if all(isinstance(each, str) for each in given):
        return (*first, *({"role": "user", "content": text} for text in given))
    messages = list(first)
    for each in given:
        if not isinstance(each, dict) or not isinstance(each.get("role"), str):
            raise UnreadableError("messages: expected a role and a content in each")
        role = str(each["role"])[:40]
        messages.append({"role": _ROLES.get(role, role), "content": _text(each.get("content"))})
    return tuple(messages)


def _text(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise UnreadableError("content: expected a text or a list of parts")
    texts = []
    for part in content:
        text = part.get("text", part.get("refusal")) if isinstance(part, dict) else part
        kind = part.get("type") if isinstance(part, dict) else None
        texts.append(text if isinstance(text, str) else f"[{str(kind or 'part')[:40]}]")
    return "\n".join(texts)


def _answers(response: Any) -> tuple[tuple[str, ...], str | None]:
    """The choices' texts and why the first one ended."""
    if isinstance(response, str):
        return (response,), None
    if not isinstance(response, dict):
        return (), None
    output = response.get("output")
    if isinstance(output, list):
        messages = [each for each in output if isinstance(each, dict) and each.get("type") == "message"]
        text = "\n".join(_text(each.get("content")) for each in messages)
        return ((text,) if messages else ()), "stop" if response.get("status") == "completed" else None
    choices = response.get("choices")
    if not isinstance(choices, list):
        return (), None
    found, finish = [], None
    for place, choice in enumerate(choices):
        if not isinstance(choice, dict):
            raise UnreadableError("choices: expected objects")
        message = choice.get("message")
        found.append(_text(message.get("content")) if isinstance(message, dict) else _text(choice.get("text")))
        if place == 0 and isinstance(choice.get("finish_reason"), str):
            finish = choice["finish_reason"][:40]
    return tuple(found), finish


def _joined(chunks: Iterable[Any]) -> dict[str, Any]:
    """The chunks of a stream as the one response they were parts of."""
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, str | None]] = {}
    for chunk in chunks:
        if not isinstance(chunk, dict):
            raise UnreadableError("response: expected the chunks of a stream as objects")
        whole |= {key: value for key, value in chunk.items() if value is not None and key != "choices"}
        for part in chunk.get("choices") or ():
            if not isinstance(part, dict):
                raise UnreadableError("choices: expected objects")
            choice = choices.setdefault(_count(part.get("index")) or 0, {"content": "", "finish_reason": None})
            delta = part.get("delta")
            said = _text(delta.get("content") if isinstance(delta, dict) else part.get("text"))
            choice["content"] = f"{choice['content']}{said}"
            choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]
    whole["choices"] = [
        {"message": {"content": each["content"]}, "finish_reason": each["finish_reason"]}
        for _, each in sorted(choices.items())
    ]
    return whole


def _error(row: dict[str, Any], response: dict[str, Any], code: Any) -> str | None:
    """A code, never a text; None where it went well."""
    said = row.get("error") or response.get("error") or row.get("error_information") or row.get("error_str")
    failed = isinstance(code, int) and code >= 400
    if not said and not failed and row.get("status") not in ("failure", "failed", "error"):
        return None
    if isinstance(said, dict):
        for name in ("code", "type", "error_code", "error_class"):
            if isinstance(said.get(name), str | int) and _CODE.match(str(said[name])):
                return str(said[name])
    return f"http_{code}" if failed else "error"


def _user(request: dict[str, Any], row: dict[str, Any]) -> str | None:
    metadata = request.get("metadata")
    named = (
        request.get("user"),
        row.get("user"),
        row.get("end_user"),
        metadata.get("user_id") if isinstance(metadata, dict) else None,
    )
    return next((str(name) for name in named if isinstance(name, str | int) and name != ""), None)


def _tokens(usage: Any) -> Tokens:
    if not isinstance(usage, dict):
        return Tokens()
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Tokens(
        _count(usage.get("prompt_tokens", usage.get("input_tokens"))) or 0,
        _count(usage.get("completion_tokens", usage.get("output_tokens"))) or 0,
        _count(cached),
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 53 else None


def _seconds(row: dict[str, Any]) -> Seconds:
    """What the row says of timing, in seconds; numbers whose name ends in ``ms`` are milliseconds."""
    begun = moment_of(row.get("startTime", row.get("start_time")))
    ended = moment_of(row.get("endTime", row.get("end_time")))
    first = moment_of(row.get("completionStartTime", row.get("completion_start_time")))
    total = _duration(row, "latency", "duration", "response_time")
    if total is None and begun and ended:
        total = (ended - begun).total_seconds()
    ttft = _duration(row, "ttft", "time_to_first_token")
    if ttft is None and begun and first:
        ttft = (first - begun).total_seconds()
    return Seconds(0.0, None if ttft is None else max(0.0, round(ttft, 6)), max(0.0, round(total or 0.0, 6)))


def _duration(row: dict[str, Any], *names: str) -> float | None:
    for name in names:
        for key, unit in ((name, 1.0), (name + "_s", 1.0), (name + "_seconds", 1.0), (name + "_ms", 1e-3)):
            value: Any = row.get(key)
            if type(value) in (int, float) and 0 <= value < 1e9:
                return float(value) * unit
    return None


def _time(row: dict[str, Any], response: dict[str, Any], otherwise: datetime | None) -> datetime:
    for said in (row, response):
        for name in _TIMES:
            if said.get(name) is not None:
                found = moment_of(said[name])
                if found is None:
                    raise UnreadableError(f"{name}: expected ISO 8601, or seconds since 1970")
                return found
    if otherwise is None:
        raise UnreadableError("no time in it: expected time, timestamp or created; --time gives one to such rows")
    return otherwise


def moment_of(value: Any) -> datetime | None:
    """A time in UTC; None for what is none. A text without an offset is taken for UTC."""
    try:
        if type(value) in (int, float) and value > 0:
            return datetime.fromtimestamp(value / 1000 if value > _MILLISECONDS else value, UTC)
        if isinstance(value, str):
            found = datetime.fromisoformat(value.strip())
            found = found if found.tzinfo else found.replace(tzinfo=UTC)
            return found.astimezone(UTC) if found.year > 1970 else None
    except (ValueError, OverflowError, OSError):
        return None
    return None
