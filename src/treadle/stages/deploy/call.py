"""A call of a platform's API: what `treadle apply` does where no program of the platform's is run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError

_LARGEST = 1 << 20  # bytes of a request's file


@dataclass(frozen=True)
class Call:
    """``said`` is what a dry run shows of it; ``make`` is given the rendered folder, and can be called again."""

    said: str
    make: Callable[[Path], None]


def request_in(folder: Path, name: str, *fields: str) -> dict[str, Any]:
    """A request as it lies in a rendered folder. ``UserError`` where it is no JSON object with these fields."""
    path = folder / name
    try:
        data = path.read_bytes()
        if len(data) > _LARGEST:
            raise ValueError("too large")
        found = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: no request in it ({type(error).__name__}); run treadle render again") from None
    missing = [field for field in fields if not isinstance(found, dict) or not found.get(field)]
    if not isinstance(found, dict) or missing:
        raise UserError(f"{path}: expected a JSON object with {', '.join(fields)}; run treadle render again")
    return found


def request_file(request: Any) -> bytes:
    """A request as a file to read and commit."""
    return (json.dumps(request, indent=2) + "\n").encode()
