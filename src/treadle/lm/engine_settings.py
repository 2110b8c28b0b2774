"""What an engine can be told in the file, checked when it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from treadle.core.errors import MissingExtra, UserError, nearest

try:
    import msgspec
except ModuleNotFoundError:
    raise MissingExtra("msgspec", extra="serve") from None


class WorkerSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What every such engine can be told. ``wait_policy``: whether idle threads of OpenMP spin.

    ``hang_seconds``: how long a worker with work to do may be silent before it is ended and replaced.
    """

    wait_policy: Literal["passive", "active"] = "passive"
    hang_seconds: float = 120.0


S = TypeVar("S", bound=WorkerSettings)


def convert_settings(engine: str, kind: type[S], settings: Mapping[str, Any]) -> S:
    """Settings as ``kind``; ``UserError`` names what is wrong and what was meant."""
    known = kind.__struct_fields__
    for key in settings:
        if key not in known:
            raise UserError(f"engine {engine} has no setting {key!r};{nearest(key, known)}")
    try:
        return msgspec.convert(dict(settings), kind)
    except msgspec.ValidationError as error:
        raise UserError(f"engine {engine}: {error}; known settings: {', '.join(known)}") from None
