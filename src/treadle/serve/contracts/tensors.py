"""Tensors of the Open Inference Protocol: numbers and strings in JSON, or as bytes behind it.

With the binary extension a body is its JSON, whose length a header says, and then the bytes of each tensor that has a
``binary_data_size``: little-endian numbers, and strings each behind their length in four bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from treadle.serve.errors import invalid

LENGTH_HEADER = "inference-header-content-length"
_MOST_VALUES = 4096
_CODES = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i",
    "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
Kind = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]
Size = Annotated[int, Meta(ge=0, le=_MOST_VALUES)]


class TensorParameters(Struct, kw_only=True):
    """``binary_data_size``: the tensor's bytes stand behind the JSON. ``binary_data``: so it is wanted back."""

    binary_data_size: Annotated[int, Meta(ge=0)] | None = None
    binary_data: bool | None = None


class InputTensor(Struct, forbid_unknown_fields=True, kw_only=True):
    """One input; its first axis counts the instances, and a second one has length 1."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    shape: Annotated[list[Size], Meta(min_length=1, max_length=2)]
    datatype: Kind
    data: list[Any] | None = None
    parameters: TensorParameters | None = None


def values_of(tensors: Sequence[InputTensor], rest: bytes) -> dict[str, list[Any]]:
    """The values of each, ``rest`` being what stands behind the JSON. Raises 400."""
    found: dict[str, list[Any]] = {}
    start = 0
    for tensor in tensors:
        if tensor.name in found:
            raise invalid(tensor.name, f"{tensor.name}: came twice")
        count = prod(tensor.shape)
        if count > _MOST_VALUES or (len(tensor.shape) == 2 and tensor.shape[1] != 1):
            raise invalid(tensor.name, f"{tensor.name}: expected the shape [n] or [n, 1], n at most {_MOST_VALUES}")
        size = tensor.parameters.binary_data_size if tensor.parameters is not None else None
        if (size is None) is (tensor.data is None):
            raise invalid(tensor.name, f"{tensor.name}: expected either data or binary_data_size")
        if tensor.data is not None:
            values = _of_json(tensor, tensor.data)
        else:
            assert size is not None
            values = _of_bytes(tensor, rest[start : start + size], size)
            start += size
        if len(values) != count:
            raise invalid(tensor.name, f"{tensor.name}: {len(values)} values do not fill the shape {tensor.shape}")
        found[tensor.name] = values
    if start != len(rest):
        raise invalid(None, f"{len(rest) - start} bytes behind the JSON belong to no input")
    return found


def _of_json(tensor: InputTensor, data: list[Any]) -> list[Any]:
    """Values may be nested as the shape is; which they are, the request that they come to is checked for."""
    flat = []
    for value in data:
        flat += value if isinstance(value, list) else [value]
    expected = str if tensor.datatype == "BYTES" else bool if tensor.datatype == "BOOL" else (int, float)
    if not all(isinstance(v, expected) and isinstance(v, bool) is (tensor.datatype == "BOOL") for v in flat):
        raise invalid(tensor.name, f"{tensor.name}: expected data of the type {tensor.datatype}")
    return flat


def _of_bytes(tensor: InputTensor, data: bytes, size: int) -> list[Any]:
    if len(data) != size:
        raise invalid(tensor.name, f"{tensor.name}: {size} bytes are announced, and {len(data)} came")
    if tensor.datatype == "BYTES":
        return _strings(tensor.name, data)
    width = struct.calcsize("<" + _CODES[tensor.datatype])
    if size % width:
        raise invalid(tensor.name, f"{tensor.name}: {size} bytes are no whole number of {tensor.datatype}")
    return list(struct.unpack(f"<{size // width}{_CODES[tensor.datatype]}", data))


def _strings(name: str, data: bytes) -> list[str]:
    values, place = [], 0
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "little")
        place += 4
        if place + length > len(data):
            raise invalid(name, f"{name}: a string is longer than the bytes that came")
        try:
            values.append(data[place : place + length].decode())
        except UnicodeDecodeError:
            raise invalid(name, f"{name}: expected texts in UTF-8") from None
        place += length
        if len(values) > _MOST_VALUES:
            raise invalid(name, f"{name}: expected at most {_MOST_VALUES} texts")
    return values


def bytes_of(kind: Kind, values: Sequence[Any]) -> bytes:
    """Texts or numbers in the binary form."""
    if kind == "BYTES":
        encoded = [value.encode() for value in values]
        return b"".join(len(each).to_bytes(4, "little") + each for each in encoded)
    return struct.pack(f"<{len(values)}{_CODES[kind]}", *values)
