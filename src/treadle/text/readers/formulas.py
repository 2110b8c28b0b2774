"""Formulas of Office documents (OMML, ECMA-376 part 1, 22.1) as LaTeX; letters and signs stay as they are."""

from __future__ import annotations

from typing import Any

from treadle.text.readers.markup import attribute, local

_INTEGRAL = "∫"  # what stands where a sign is not named


def latex(element: Any) -> str:
    """A formula, or a part of one."""
    name = local(element)
    if name == "t":
        return element.text or ""
    if name.endswith("Pr"):
        return ""
    write = _WRITTEN.get(name)
    return write(element) if write else _inside(element)


def _inside(element: Any) -> str:
    return "".join(latex(child) for child in element.iterchildren())


def _part(element: Any, name: str) -> str:
    """The part of that name; empty when it has none."""
    return "".join(_inside(child) for child in element.iterchildren() if local(child) == name)


def _property(element: Any, name: str, otherwise: str) -> str:
    """The value of a property such as ``chr``."""
    for child in element.iterchildren():
        if local(child).endswith("Pr"):
            for each in child.iterchildren():
                if local(each) == name:
                    return attribute(each, "val") or ""
    return otherwise


def _scripts(element: Any) -> str:
    below, above = _part(element, "sub"), _part(element, "sup")
    return (f"_{{{below}}}" if below else "") + (f"^{{{above}}}" if above else "")


def _root(element: Any) -> str:
    degree = _part(element, "deg")
    return f"\\sqrt{f'[{degree}]' if degree else ''}{{{_part(element, 'e')}}}"


def _delimited(element: Any) -> str:
    inside = [_inside(child) for child in element.iterchildren() if local(child) == "e"]
    between = _property(element, "sepChr", "|")
    return _property(element, "begChr", "(") + between.join(inside) + _property(element, "endChr", ")")


def _rows(element: Any) -> str:
    rows = [child for child in element.iterchildren() if local(child) in ("mr", "e")]
    cells = [
        [_inside(cell) for cell in row.iterchildren() if local(cell) == "e"] if local(row) == "mr" else [_inside(row)]
        for row in rows
    ]
    return " \\\\ ".join(" & ".join(row) for row in cells)


_WRITTEN = {
    "f": lambda element: f"\\frac{{{_part(element, 'num')}}}{{{_part(element, 'den')}}}",
    "sSup": lambda element: _part(element, "e") + _scripts(element),
    "sSub": lambda element: _part(element, "e") + _scripts(element),
    "sSubSup": lambda element: _part(element, "e") + _scripts(element),
    "sPre": lambda element: _scripts(element) + _part(element, "e"),
    "rad": _root,
    "nary": lambda element: _property(element, "chr", _INTEGRAL) + _scripts(element) + _part(element, "e"),
    "d": _delimited,
    "func": lambda element: f"{_part(element, 'fName')} {_part(element, 'e')}",
    "limLow": lambda element: f"{_part(element, 'e')}_{{{_part(element, 'lim')}}}",
    "limUpp": lambda element: f"{_part(element, 'e')}^{{{_part(element, 'lim')}}}",
    "m": _rows,
    "eqArr": _rows,
}
