"""Forms: what a browser sends, read within limits. Only urlencoded forms are known; the console takes no files."""

from __future__ import annotations

import asyncio
import hmac
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from treadle.console.problem import Problem
from treadle.console.visit import Query

BODY_BYTES = 1_500_000  # a correction of the greatest length, with every character escaped
_BODY_SECONDS = 30.0
_FIELDS = 40
_TYPE = "application/x-www-form-urlencoded"


async def read_form(request: Request) -> Query:
    """The fields of a form; the first of those with one name. Raises ``Problem`` 400, 408, 413 and 415."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _TYPE:
        raise Problem(415, "Not a form", f"The body must be {_TYPE}")
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            data = await _body(request)
    except TimeoutError:
        raise Problem(408, "Too slow", "The form did not arrive in time", "Send it again.") from None
    except ClientDisconnect:
        raise Problem(400, "Gone", "The browser left before the form had arrived") from None
    try:
        pairs = parse_qsl(
            data.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_FIELDS, errors="replace"
        )
    except ValueError:
        raise Problem(400, "Not understood", f"The form has more than {_FIELDS} fields") from None
    return Query(dict(reversed(pairs)))


def check_token(form: Query, expected: str) -> None:
    """Raises ``Problem`` when a form does not carry the token of our own page."""
    given = form.text("csrf")
    if not hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode()):
        raise Problem(
            403,
            "Out of date",
            "This form does not belong to your session; it may be from before you came in. Nothing was written.",
            "Load the page again and repeat what you did.",
        )


async def _body(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > BODY_BYTES:
        raise _too_large()
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > BODY_BYTES:
            raise _too_large()
    return bytes(data)


def _too_large() -> Problem:
    return Problem(
        413,
        "Too large",
        f"What you sent is larger than {BODY_BYTES // 1000:,} kB. Nothing was written.",
        "Go back and shorten the text.",
    )
