"""Jupyter notebooks: the text of Markdown cells and the source of code cells, in order. Outputs are left out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from treadle.text.readers.piece import Documents, Text, UnreadableError

_LONGEST_NAME = 40  # characters


def read(data: bytes, options: Documents) -> Iterator[Text]:
    """The notebook as Markdown, code in fences; formats 3 and 4. ``UnreadableError`` for what is none."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise UnreadableError("not a notebook: it is not JSON") from None
    cells = _cells(found)
    if cells is None:
        raise UnreadableError("not a notebook: it has no list of cells")
    language = _language(found.get("metadata"))
    parts = [part for cell in cells if (part := _part(cell, language))]
    if not parts:
        raise UnreadableError("a notebook without text")
    fields: dict[str, Any] = {"cells": len(cells)}
    if language:
        fields["language"] = language
    yield Text("\n\n".join(parts), fields=fields)


def _cells(found: Any) -> list[Any] | None:
    if not isinstance(found, dict):
        return None
    if isinstance(found.get("cells"), list):
        return list(found["cells"])
    sheets = found.get("worksheets")  # format 3
    if not isinstance(sheets, list) or not all(isinstance(sheet, dict) for sheet in sheets):
        return None
    return [cell for sheet in sheets if isinstance(sheet.get("cells"), list) for cell in sheet["cells"]]


def _part(cell: Any, language: str) -> str:
    if not isinstance(cell, dict):
        return ""
    source = cell.get("source", cell.get("input", ""))
    text = "".join(map(str, source)) if isinstance(source, list) else str(source)
    if not text.strip():
        return ""
    if cell.get("cell_type") != "code":
        return text.strip("\n")
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _language(about: Any) -> str:
    if not isinstance(about, dict):
        return ""
    for key, name in (("language_info", "name"), ("kernelspec", "language")):
        value = about.get(key)
        if isinstance(value, dict) and isinstance(value.get(name), str) and value[name].isprintable():
            return str(value[name])[:_LONGEST_NAME]
    return ""
