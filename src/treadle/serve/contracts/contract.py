"""What a contract is: its paths, what each takes and gives, and the shape in which its clients read an error.

A handler of a contract never answers by itself. It asks the handlers of ``/v1`` through `asking.predict`, or hands the
request on to one of them, so that key, limits, recording and audit are the same whatever a client speaks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from treadle.serve.errors import ApiError
from treadle.serve.incoming import Incoming

Handler = Callable[[Incoming], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ContractPath:
    """One path of a contract. ``name`` is the metrics' label; probes have none. ``is_open``: answers without a key.

    ``takes``, one of these, and ``gives``, a JSON Schema, are JSON bodies; other media types stand in ``..._also``.
    ``is_probe``: 200 or 503 and nothing else. ``scope``: what a key has to be for, where the handlers of ``/v1`` that
    are asked do not say.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    summary: str
    name: str = ""
    is_open: bool = False
    takes: tuple[type[msgspec.Struct], ...] = ()
    gives: dict[str, Any] = field(default_factory=lambda: {"type": "object"})
    takes_also: tuple[str, ...] = ()
    gives_also: tuple[str, ...] = ()
    is_probe: bool = False
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Contract:
    """``told`` makes of an error the document that the platform's clients look for."""

    name: str
    paths: tuple[ContractPath, ...]
    told: Callable[[ApiError], Any] = ApiError.body


def one_line(error: ApiError) -> dict[str, str]:
    """``{"error": "..."}``: the shape of TensorFlow Serving and of the Open Inference Protocol."""
    return {"error": error.message}
