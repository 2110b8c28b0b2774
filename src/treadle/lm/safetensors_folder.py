"""The weights of a model folder, read without torch: numpy has no bfloat16, so it is widened here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.core.errors import MissingExtra, UserError

_MAX_HEADER = 100 << 20  # bytes; the limit that safetensors itself sets
_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies: bytes ``start`` to ``end`` of ``path``."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    def read(self) -> Any:
        """A float32 numpy array of ``shape``; exact for all three floating types."""
        try:
            import numpy as np
        except ModuleNotFoundError:
            raise MissingExtra("numpy", extra="train") from None
        if self.dtype not in _TYPES:
            raise UserError(f"{self.path}: tensor {self.name!r} is {self.dtype}; expected one of {', '.join(_TYPES)}")
        kind = np.dtype(_TYPES[self.dtype])
        raw = np.fromfile(self.path, dtype=kind, count=(self.end - self.start) // kind.itemsize, offset=self.start)
        if self.dtype == "BF16":
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32, copy=False).reshape(self.shape)


def tensors(folder: Path) -> Iterator[StoredTensor]:
    """All tensors of all weight files in the folder, file by file, in stored order."""
    for path in sorted(folder.glob("*.safetensors")):
        yield from read_header(path)


def check_folder(folder: Path) -> None:
    """``UserError`` unless the folder holds a config and whole safetensors weights."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json; expected a model folder as transformers' save_pretrained writes it")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
        if pickles:
            raise UserError(
                f"{folder}: weights only as a pickle ({pickles[0].name}), which can run code when loaded;"
                f" where you trust them: treadle models --unpickle {folder} --out NEW_FOLDER"
            )
        raise UserError(f"{folder}: a model folder without weights; expected model.safetensors beside config.json")
    for path in weights:
        read_header(path)


def read_header(path: Path) -> list[StoredTensor]:
    """What a weight file holds; ``UserError`` when its size is not what its header says (a cut download)."""
    size = path.stat().st_size
    broken = UserError(f"{path}: truncated or damaged safetensors; copy it again from its source")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER):
            raise broken
        start = 8 + length
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            found = [
                StoredTensor(
                    name,
                    path,
                    str(entry["dtype"]),
                    tuple(int(n) for n in entry["shape"]),
                    start + int(entry["data_offsets"][0]),
                    start + int(entry["data_offsets"][1]),
                )
                for name, entry in header.items()
                if name != "__metadata__"
            ]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            raise broken from None
    if max((tensor.end for tensor in found), default=start) != size or any(t.start > t.end for t in found):
        raise broken
    return sorted(found, key=lambda tensor: tensor.start)
