"""DOCX (ECMA-376): paragraphs, headings, lists, tables, text boxes, and notes as text, formulas as LaTeX.

Not read: headers and footers, comments, and what a revision deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from treadle.text.readers.formulas import latex
from treadle.text.readers.markup import attribute, local, parse_xml
from treadle.text.readers.packed_xml import Parts
from treadle.text.readers.piece import Documents, Piece, Text, UnreadableError

_MAIN = "word/document.xml"
_SKIPPED = frozenset({"Fallback", "del", "moveFrom", "pPr", "rPr", "instrText", "delText", "sectPr", "tblPr", "tcPr"})


def read(data: bytes, options: Documents) -> Iterator[Piece]:
    """One text; rows of a table are lines, cells apart by tabs."""
    parts = Parts(data, "a DOCX")
    if _MAIN not in parts.names:
        raise UnreadableError("not a DOCX: word/document.xml is missing")
    numbering = _numbering(parts)
    blocks = list(_blocks(parse_xml(parts.read(_MAIN), "its text"), numbering))
    for name in ("word/footnotes.xml", "word/endnotes.xml"):
        if name in parts.names:
            blocks += _blocks(parse_xml(parts.read(name), "its notes"), numbering)
    text = "\n\n".join(block for block in blocks if block.strip())
    if not text:
        raise UnreadableError("a document without text")
    title, time = _details(parts)
    yield Text(text, title=title, time=time)


@dataclass(slots=True)
class _Numbering:
    """Which lists are numbered, and how far each has counted."""

    bullets: dict[tuple[str, str], bool] = field(default_factory=dict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def mark(self, paragraph: Any) -> str:
        """What stands before a paragraph: a bullet, a number, or nothing."""
        number = level = None
        for element in paragraph.iterchildren():
            if local(element) == "pPr":
                for inner in element.iter():
                    if local(inner) == "numId":
                        number = attribute(inner, "val")
                    elif local(inner) == "ilvl":
                        level = attribute(inner, "val") or "0"
        if number is None or number == "0":
            return ""
        key = (number, level or "0")
        indent = "  " * min(int(key[1]) if key[1].isdigit() else 0, 8)
        if self.bullets.get(key, True):
            return f"{indent}- "
        self.counts[key] += 1
        return f"{indent}{self.counts[key]}. "


def _numbering(parts: Parts) -> _Numbering:
    found = _Numbering()
    if "word/numbering.xml" not in parts.names:
        return found
    root = parse_xml(parts.read("word/numbering.xml"), "its numbering")
    abstract: dict[str, dict[str, bool]] = {}
    for element in root:
        if local(element) == "abstractNum":
            levels = abstract.setdefault(attribute(element, "abstractNumId") or "", {})
            for level in element:
                if local(level) == "lvl":
                    formats = [attribute(each, "val") for each in level if local(each) == "numFmt"]
                    levels[attribute(level, "ilvl") or "0"] = not formats or formats[0] in ("bullet", "none")
        elif local(element) == "num":
            identity = attribute(element, "numId") or ""
            for each in element:
                if local(each) == "abstractNumId":
                    for level_name, bullet in abstract.get(attribute(each, "val") or "", {}).items():
                        found.bullets[identity, level_name] = bullet
    return found


def _blocks(element: Any, numbering: _Numbering) -> Iterator[str]:
    """Paragraphs and tables in order."""
    for child in element.iterchildren():
        name = local(child)
        if name in _SKIPPED:
            continue
        if name == "p":
            text, boxes = _paragraph(child)
            if text.strip():
                yield numbering.mark(child) + text.strip()
            for box in boxes:
                yield from _blocks(box, numbering)
        elif name == "tbl":
            yield _table(child, numbering)
        else:
            yield from _blocks(child, numbering)


def _table(table: Any, numbering: _Numbering) -> str:
    rows = []
    for row in _within(table, "tr"):
        cells = [" ".join(" ".join(_blocks(cell, numbering)).split()) for cell in _within(row, "tc")]
        rows.append("\t".join(cells))
    return "\n".join(row for row in rows if row.strip())


def _within(element: Any, name: str) -> Iterator[Any]:
    """Rows of a table or cells of a row, through content controls and revisions, not those of tables inside."""
    for child in element.iterchildren():
        if local(child) == name:
            yield child
        elif local(child) in ("sdt", "sdtContent", "ins", "moveTo", "customXml", "smartTag"):
            yield from _within(child, name)


def _paragraph(paragraph: Any) -> tuple[str, list[Any]]:
    """Its text, and the text boxes anchored in it."""
    words: list[str] = []
    boxes: list[Any] = []
    waiting = list(reversed(list(paragraph.iterchildren())))
    while waiting:
        element = waiting.pop()
        name = local(element)
        if name in _SKIPPED:
            continue
        if name == "t":
            words.append(element.text or "")
        elif name in ("tab", "ptab"):
            words.append("\t")
        elif name in ("br", "cr"):
            words.append("\n")
        elif name == "noBreakHyphen":
            words.append("\u2011")
        elif name == "oMath":
            words.append(f"${latex(element)}$")
        elif name == "txbxContent":
            boxes.append(element)
        else:
            waiting.extend(reversed(list(element.iterchildren())))
    return "".join(words), boxes


def _details(parts: Parts) -> tuple[str | None, str | None]:
    if "docProps/core.xml" not in parts.names:
        return None, None
    try:
        root = parse_xml(parts.read("docProps/core.xml"), "its properties")
    except UnreadableError:
        return None, None
    found = {local(element): (element.text or "").strip() for element in root}
    return found.get("title") or None, found.get("created") or None
