"""What `treadle apply` does beside running a platform's program: calls of its API, programs that are listened to."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
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


Command = tuple[str, ...] | Call


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


def output_of(command: Sequence[str], *, folder: Path | None = None, given: str = "") -> str:
    """What a program says on stdout. ``UserError`` with its last line where it fails, or is not there."""
    try:
        done = subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"{command[0]}: {error.strerror}; treadle doctor says what is missing") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip() and "level=" not in line]
        why = " / ".join(dict.fromkeys(lines[-3:])) or f"exit code {done.returncode}"
        raise UserError(f"{' '.join(command[:3])}: {why[:600]}")
    return done.stdout
