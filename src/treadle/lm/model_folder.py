"""The folder an engine opens: a model's, or a release's with the model in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError

_MAX_CONFIG = 16 << 20  # bytes


def model_folder(folder: Path) -> Path:
    """``folder`` itself, or the ``model`` in it when it is a release's; ``UserError`` when there is none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a model folder or a release")
    if not (folder / "config.json").is_file() and (folder / "model" / "config.json").is_file():
        return folder / "model"
    return folder


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """The model's ``config.json``, or another of its JSON files, within bounds."""
    path = folder / name
    if not path.is_file():
        raise UserError(f"{folder}: no {name}; expected a model folder as treadle or transformers writes it")
    return read_object(path, _MAX_CONFIG)


def longest(folder: Path, otherwise: int = 512) -> int:
    """Tokens that the model in a folder can read; ``otherwise`` where it names no limit."""
    config = read_config(folder)
    return int(config.get("max_position_embeddings") or config.get("n_positions") or otherwise)


def check_length(folder: Path, setting: str, tokens: int) -> None:
    """``UserError`` for more tokens than the model in a folder has positions for; T5's, which are relative, never
    end."""
    if "relative_attention_num_buckets" not in read_config(folder) and tokens > (limit := longest(folder, tokens)):
        raise UserError(f"{setting}: {tokens} tokens, and the model reads {limit}; lower it to that")


def read_object(path: Path, limit: int) -> dict[str, Any]:
    """A JSON object from a file of at most ``limit`` bytes; ``UserError`` for anything else."""
    if (size := path.stat().st_size) > limit:
        raise UserError(f"{path}: {size} bytes, expected at most {limit}; not a model's {path.name}")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); copy it again from the model") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(value).__name__}; copy it again from the model")
    return value
