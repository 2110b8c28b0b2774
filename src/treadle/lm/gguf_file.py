"""Reading a GGUF file: its metadata and tensors, with bounds on everything, straight from a memory map.

The layout is ggml's docs/gguf.md, versions 2 and 3, little-endian. A file that ends early, lies about a length or
names an unknown type is refused before anything is converted.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from treadle.core.errors import MissingExtra, UserError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_ENTRIES = 1 << 16  # metadata pairs, and tensors
_MAX_ARRAY = 1 << 24  # elements
_MAX_DIMENSIONS = 4
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# GGML type: elements and bytes of a block (ggml-org/llama.cpp, gguf-py/gguf/constants.py, GGML_QUANT_SIZES). A table,
# because an engine checks its file without the gguf package.
# fmt: off
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17),
}
# fmt: on


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """``shape`` is numpy's order, outermost first; ``offset`` counts bytes from the file's start."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    size: int


class GgufFile:
    """An open GGUF file; use it as a context manager."""

    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]

    def __init__(self, path: Path) -> None:
        """Read and check the header; ``UserError`` when the file is not whole."""
        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise UserError(f"{path}: cannot be read as GGUF ({error}); copy it again from its source") from None
        self._at = 0
        try:
            self._read_header()
        except UserError:
            self._map.close()
            raise
        except (struct.error, UnicodeDecodeError, RecursionError) as error:
            self._map.close()
            raise self._broken(f"the header does not parse ({error})") from None

    def __enter__(self) -> GgufFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._map.close()

    def array(self, name: str) -> Any:
        """One tensor as a float32 numpy array of its ``shape``, dequantized where it is stored in blocks."""
        try:
            import gguf
            import numpy as np
        except ModuleNotFoundError as error:
            raise MissingExtra(str(error.name), extra="train") from None
        info = self.tensors[name]
        raw = np.frombuffer(self._map[info.offset : info.offset + info.size], dtype=np.uint8)
        values = gguf.quants.dequantize(_typed(raw, info), gguf.GGMLQuantizationType(info.kind))
        return np.ascontiguousarray(values, dtype=np.float32).reshape(info.shape)

    def _read_header(self) -> None:
        if self._map[:4] != _MAGIC:
            raise UserError(f"{self.path}: not a GGUF file (it starts with {bytes(self._map[:4])!r})")
        self._at = 4
        version, tensor_count, pair_count = self._unpack("<IQQ")
        if version not in _VERSIONS:
            raise UserError(f"{self.path}: GGUF version {version}; expected 2 or 3, little-endian")
        if tensor_count > _MAX_ENTRIES or pair_count > _MAX_ENTRIES:
            raise self._broken(f"it claims {tensor_count} tensors and {pair_count} metadata entries")
        self.metadata = {}
        for _ in range(pair_count):
            key = self._string()
            self.metadata[key] = self._value(self._unpack("<I")[0])
        infos = [self._tensor_info() for _ in range(tensor_count)]
        alignment = int(self.metadata.get("general.alignment", 32))
        if not 1 <= alignment <= 1 << 20:
            raise self._broken(f"alignment {alignment}")
        start = -(-self._at // alignment) * alignment
        self.tensors = {}
        for name, shape, kind, offset in infos:
            size = _bytes_of(shape, kind, self.path, name)
            if start + offset + size > len(self._map):
                raise self._broken(
                    f"{len(self._map)} bytes long, but tensor {name!r} ends at byte {start + offset + size}"
                )
            self.tensors[name] = TensorInfo(name, shape, kind, start + offset, size)

    def _broken(self, what: str) -> UserError:
        return UserError(f"{self.path}: truncated or damaged GGUF: {what}; copy it again from its source")

    def _unpack(self, layout: str) -> tuple[Any, ...]:
        size = struct.calcsize(layout)
        if self._at + size > len(self._map):
            raise self._broken(f"it ends at byte {len(self._map)}, inside the header")
        values = struct.unpack_from(layout, self._map, self._at)
        self._at += size
        return values

    def _string(self) -> str:
        (length,) = self._unpack("<Q")
        end = self._at + length
        if end > len(self._map):
            raise self._broken(f"a text of {length} bytes at byte {self._at} runs past the end")
        text = self._map[self._at : end].decode("utf-8")
        self._at = end
        return text

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            item, length = self._unpack("<IQ")
            if length > _MAX_ARRAY:
                raise self._broken(f"an array of {length} elements")
            if item in _SCALARS:
                return list(self._unpack(f"<{length}{_SCALARS[item]}"))
            return [self._value(item) for _ in range(length)]
        if kind not in _SCALARS:
            raise self._broken(f"metadata of unknown type {kind} at byte {self._at}")
        return self._unpack(f"<{_SCALARS[kind]}")[0]

    def _tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        (dimensions,) = self._unpack("<I")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise self._broken(f"tensor {name!r} has {dimensions} dimensions")
        shape = self._unpack(f"<{dimensions}Q")
        kind, offset = self._unpack("<IQ")
        return name, tuple(reversed(shape)), kind, offset


def _bytes_of(shape: tuple[int, ...], kind: int, path: Path, name: str) -> int:
    """Stored size of a tensor: its innermost dimension is cut into blocks of the quantization type."""
    block, block_bytes = _block(kind, path, name)
    if shape[-1] % block:
        raise UserError(f"{path}: damaged GGUF: tensor {name!r} has rows of {shape[-1]}, no multiple of {block}")
    elements = 1
    for size in shape:
        elements *= size
    return elements // block * block_bytes


def _block(kind: int, path: Path, name: str) -> tuple[int, int]:
    if kind not in _BLOCKS:
        raise UserError(f"{path}: tensor {name!r} has GGML type {kind}, which is not known here; convert it to Q8_0")
    return _BLOCKS[kind]


def _typed(raw: Any, info: TensorInfo) -> Any:
    """Plain types as themselves, blocks as rows of bytes: what ``gguf.quants.dequantize`` takes."""
    import gguf
    import numpy as np

    plain = {gguf.GGMLQuantizationType.F32: np.float32, gguf.GGMLQuantizationType.F16: np.float16}
    kind = gguf.GGMLQuantizationType(info.kind)
    if kind in plain:
        return raw.view(plain[kind]).reshape(info.shape)
    rows = 1
    for size in info.shape[:-1]:
        rows *= size
    return raw.reshape(rows, -1)
