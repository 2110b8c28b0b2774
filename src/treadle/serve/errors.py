"""What the API answers when it cannot do as asked: the right status, and OpenAI's error shape.

    {"error": {"message": ..., "type": ..., "param": ..., "code": ...}}

A message never repeats the caller's text, only names of fields and what was expected of them.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

INVALID = "invalid_request_error"
SERVER = "server_error"
RATE = "rate_limit_error"
_PATH = re.compile(r" - at `\$\.?(?:key\b)?([^`]*)`$")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")


class ApiError(Exception):
    """One refusal on its way to the client; ``retry_after`` in seconds becomes the header. ``counted``: its request is,
    by its key's limits."""

    counted = False

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,  # noqa: A002 - OpenAI's word
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The error as the client reads it."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    def headers(self) -> dict[str, str]:
        """Headers that go with the status."""
        headers: dict[str, str] = {}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        if self.code == "insufficient_quota":  # OpenAI's clients would ask again
            headers["x-should-retry"] = "false"
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        if self.status in (408, 413) or self.code == "too_many_bodies":  # what is left of the body is not worth reading
            headers["connection"] = "close"
        return headers


def invalid(param: str | None, message: str, *, code: str | None = "invalid_value") -> ApiError:
    """400: one field is not what it must be."""
    return ApiError(400, message, param=param, code=code)


def unsupported(param: str, what: str) -> ApiError:
    """400: OpenAI knows the field, this server cannot honor it, and passing over it would be a lie."""
    return ApiError(
        400, f"{param}: {what} is not supported by this server; leave it out", param=param, code="unsupported_parameter"
    )


def model_not_found(asked: str, known: str) -> ApiError:
    """404: no such model; the message names the one there is."""
    shown = asked if len(asked) <= 100 and asked.isprintable() else "(a name that is too long or not printable)"
    return ApiError(
        404,
        f"The model {shown!r} does not exist here; try {known!r}",
        param="model",
        code="model_not_found",
    )


def context_length_exceeded(limit: int, prompt: int, completion: int | None, *, param: str = "messages") -> ApiError:
    """400: prompt, or prompt and answer, do not fit; all counts in tokens. ``param`` is what the prompt came as."""
    if completion is None:
        said = f"Your {param} came to {prompt} tokens, which leaves no room for an answer."
    else:
        said = f"You asked for {prompt + completion} tokens ({prompt} in the {param}, {completion} in the answer)."
    message = f"This model's maximum context length is {limit} tokens. {said} Shorten the {param} or the answer."
    return ApiError(400, message, param=param, code="context_length_exceeded")


def too_long(limit: int, tokens: int, param: str | None, what: str = "A text") -> ApiError:
    """400: a text that nothing is written after does not fit; counts in tokens."""
    message = f"This model's maximum context length is {limit} tokens. {what} came to {tokens}; shorten it."
    return ApiError(400, message, param=param, code="context_length_exceeded")


def engine_unavailable() -> ApiError:
    """503: the engine is gone or starting again."""
    return ApiError(
        503, "The engine is not available; try again", type=SERVER, code="engine_unavailable", retry_after=5
    )


# Errors of a release, and not of the request, after which another release may be asked.
FAILED_OVER = frozenset(
    {
        "engine_unavailable",
        "engine_failed",
        "internal_error",
        "upstream_busy",
        "upstream_unavailable",
        "upstream_timeout",
        "upstream_garbled",
        "upstream_misconfigured",
    }
)
_UPSTREAM = {
    "upstream_busy": (429, "The servers behind this one have all they can do; try again later"),
    "upstream_unavailable": (503, "The servers behind this one do not answer; try again"),
    "upstream_timeout": (504, "The server behind this one did not answer in time"),
    "upstream_garbled": (502, "The server behind this one answered with something that is no answer"),
    "upstream_misconfigured": (502, "The server behind this one does not take our requests; its operator has to look"),
}


def upstream_failed(code: str, retry_after: float | None) -> ApiError:
    """429 and 502 to 504: what the servers behind an engine ``upstream`` did; nothing of what they said."""
    status, message = _UPSTREAM[code]
    seconds = None if retry_after is None else max(1, math.ceil(retry_after))
    if seconds is None and status in (429, 503):
        seconds = 5
    return ApiError(status, message, type=RATE if status == 429 else SERVER, code=code, retry_after=seconds)


def no_model() -> ApiError:
    """503: there is no champion, or it was withdrawn."""
    return ApiError(
        503,
        "No model answers here now: none is promoted, or the last one was withdrawn; try again later",
        type=SERVER,
        code="no_model",
        retry_after=5,
    )


def internal_error() -> ApiError:
    """500: ours. The log has the place, by the request's id."""
    return ApiError(500, "The server failed; its log names the place", type=SERVER, code="internal_error")


def from_decoding(error: Exception) -> ApiError:
    """400 from what msgspec says of a body: malformed, or a field with the wrong type."""
    if isinstance(error, RecursionError):
        return invalid(None, "The body is nested too deeply", code="invalid_json")
    if isinstance(error, UnicodeDecodeError):
        return invalid(None, "The body is not valid UTF-8", code="invalid_json")
    text = str(error)
    param: str | None
    if not isinstance(error, msgspec.ValidationError):
        return invalid(None, f"The body is not valid JSON: {text}", code="invalid_json")
    path = _PATH.search(text)
    where = path.group(1) if path else ""
    said = text[: path.start()] if path else text
    for pattern, code, wording in (
        (_UNKNOWN, "unknown_parameter", "Unrecognized request argument: {}; see /openapi.json"),
        (_MISSING, "missing_required_parameter", "{} is required"),
    ):
        if found := pattern.search(said):
            name = found.group(1)
            param = _shown(f"{where}.{name}" if where else name)
            return invalid(param, wording.format(param), code=code)
    param = _shown(where) if where else None
    return invalid(param, f"{param or 'The body'}: {said[:1].lower()}{said[1:].replace('`', '')}", code="invalid_type")


def _shown(name: str) -> str:
    """A field's name from the client, cut and made printable."""
    return "".join(c if c.isprintable() else "?" for c in name[:100])


def from_user_error(error: Exception) -> ApiError:
    """400 from what the tokenizer or the engine refuses; where the server keeps its files is not the client's."""
    return invalid(None, re.sub(r"^(?:/[^:\n]*: )+", "", str(error)), code="refused_by_model")
