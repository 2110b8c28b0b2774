"""The license of a file: what its SPDX header says, else the license files of its folder or the nearest one above.

Ids are SPDX's. A license file is known by phrases that only this license has, and believed only when it is not much
longer than the license: a clause added to it (``Commons Clause``, no commercial use) makes it unknown, never
permissive.
Of the GNU licenses the text does not say whether later versions hold; ``GPL-3.0`` stands for either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

_HEADER = re.compile(rb"SPDX-License-Identifier:\s*([A-Za-z0-9.+() :-]{1,200})")
_HEADER_WITHIN = 4096  # bytes
_WORD = r"[A-Za-z0-9][A-Za-z0-9.+:-]{0,80}"
_EXPRESSION = re.compile(rf"\(*{_WORD}\)*(?: (?:AND|OR|WITH) \(*{_WORD}\)*){{0,12}}")
_NAME = re.compile(r"(?i)(?:un)?licen[sc]es?(?:[-_.].{1,40})?\Z|copying(?:[-_.].{1,20})?\Z|mit-license(?:\.\w+)?\Z")
_CODE = re.compile(r"(?i)\.(?:py|pyi|js|ts|go|rs|c|h|cpp|java|rb|sh|json|ya?ml|toml|csv|html?|xml|spdx)\Z")
_WORDS = re.compile(r"[a-z0-9.]+")
_LARGEST = 200_000  # bytes of a license file
_MORE = 1.25  # times the license's own words a file may have, and ...
_FRAME = 150  # ... so many more: copyright lines, a heading
_START = 120  # words in which a long license names itself


class _Known(NamedTuple):
    name: str
    words: int  # of its text, about
    phrases: tuple[str, ...]
    without: tuple[str, ...] = ()
    at_start: bool = False


_REDISTRIBUTION = "redistribution and use in source and binary forms with or without modification are permitted"
_GRANTED = "permission is hereby granted free of charge to any person obtaining a copy"
_ANY_PURPOSE = "distribute this software for any purpose with or without fee"
_KNOWN = (
    _Known("MIT", 170, (_GRANTED, "and this permission notice", "the software is provided as is")),
    _Known("MIT-0", 140, (_GRANTED, "the software is provided as is"), ("and this permission notice", "x consortium",
           "machine executable object code")),
    _Known("BSD-3-Clause", 220, (_REDISTRIBUTION, "to endorse or promote products"), ("all advertising materials",)),
    _Known("BSD-4-Clause", 250, (_REDISTRIBUTION, "all advertising materials")),
    _Known("BSD-2-Clause", 190, (_REDISTRIBUTION, "this list of conditions"), ("to endorse or promote products",
           "all advertising materials")),
    _Known("ISC", 110, (_ANY_PURPOSE, "provided that the above copyright notice")),
    _Known("0BSD", 90, (_ANY_PURPOSE,), ("provided that the above copyright notice",)),
    _Known("Apache-2.0", 1600, ("apache license version 2.0 january 2004", "grant of patent license"), (), True),
    _Known("Apache-2.0", 90, ("licensed under the apache license version 2.0",),
           ("apache license version 2.0 january",)),
    _Known("GPL-2.0", 2980, ("gnu general public license version 2 june 1991",), (), True),
    _Known("GPL-3.0", 5650, ("gnu general public license version 3 29 june 2007",), (), True),
    _Known("LGPL-2.1", 4400, ("gnu lesser general public license version 2.1 february 1999",), (), True),
    _Known("LGPL-3.0", 1250, ("gnu lesser general public license version 3 29 june 2007",), (), True),
    _Known("AGPL-3.0", 5600, ("gnu affero general public license version 3 19 november 2007",), (), True),
    _Known("MPL-2.0", 2450, ("mozilla public license version 2.0",), (), True),
    _Known("EPL-2.0", 2250, ("eclipse public license v 2.0",), (), True),
    _Known("BSL-1.0", 240, ("boost software license version 1.0",), (), True),
    _Known("Unlicense", 215, ("this is free and unencumbered software released into the public domain",)),
    _Known("Zlib", 150, ("the origin of this software must not be misrepresented",)),
    _Known("PSF-2.0", 2300, ("python software foundation license version 2",)),
    _Known("WTFPL", 80, ("do what the fuck you want to public license",)),
    _Known("Artistic-2.0", 1500, ("artistic license 2.0",), (), True),
    _Known("CC0-1.0", 1050, ("cc0 1.0 universal",), (), True),
    _Known("CC-BY-4.0", 2650, ("attribution 4.0 international",), (), True),
    _Known("CC-BY-SA-4.0", 2850, ("attribution sharealike 4.0 international",), (), True),
    _Known("CC-BY-NC-4.0", 2750, ("attribution noncommercial 4.0 international",), (), True),
    _Known("CC-BY-NC-SA-4.0", 2950, ("attribution noncommercial sharealike 4.0 international",), (), True),
    _Known("CC-BY-ND-4.0", 2600, ("attribution noderivatives 4.0 international",), (), True),
    _Known("BUSL-1.1", 800, ("business source license 1.1",), (), True),
    _Known("SSPL-1.0", 5600, ("server side public license version 1",), (), True),
    _Known("Elastic-2.0", 700, ("elastic license 2.0",), (), True),
)  # fmt: skip
_ADDED = ("commons clause", "commercial use is prohibited", "non commercial use only", "noncommercial purposes only")
# A license that stands on the other: the first file alone says what holds.
_STANDS_ON = {"LGPL-3.0": "GPL-3.0", "LGPL-2.1": "GPL-2.0"}


def in_header(data: bytes) -> str | None:
    """The expression after ``SPDX-License-Identifier:`` at the beginning of a file."""
    match = _HEADER.search(data[:_HEADER_WITHIN])
    if match is None:
        return None
    found = _EXPRESSION.match(" ".join(match[1].decode("ascii").split()))
    if found is None:
        return None
    expression = found[0]
    missing = expression.count("(") - expression.count(")")
    return expression if missing == 0 else expression.strip("()") if "(" not in expression.strip("()") else None


def of_text(text: str) -> str | None:
    """The license a text is; several are joined by AND. None for what is none, is unknown, or says more than one."""
    words = _WORDS.findall(text[:_LARGEST].lower())
    words = [word.strip(".") for word in words]
    whole, start = " ".join(words), " ".join(words[:_START])
    if any(phrase in whole for phrase in _ADDED):
        return None
    found = [known for known in _KNOWN if _is(known, start if known.at_start else whole, whole)]
    if any(known.at_start for known in found):  # a long one quotes others
        found = [known for known in found if known.at_start][:1]
    if not found or len(words) > _MORE * sum(known.words for known in found) + _FRAME:
        return None
    return " AND ".join(sorted(known.name for known in found))


def is_license_file(path: str) -> bool:
    """Whether a file's name is that of a license."""
    name = PurePosixPath(path).name
    return _NAME.match(name) is not None and _CODE.search(name) is None


class Licenses:
    """Which license holds for each path of a tree."""

    def __init__(self, paths: Iterable[str], text_of: Callable[[str], str | None]) -> None:
        self._files: dict[str, list[str]] = {}
        for path in paths:
            if is_license_file(path):
                self._files.setdefault(_folder(path), []).append(path)
        self._text_of = text_of
        self._known: dict[str, tuple[str | None, str]] = {}

    def of(self, path: str) -> tuple[str | None, str | None]:
        """The license and the files it was found in; both None where no folder up to the root has any."""
        folder = _folder(path)
        while True:
            if folder in self._files:
                return self._in(folder)
            if not folder:
                return None, None
            folder = _folder(folder)

    def _in(self, folder: str) -> tuple[str | None, str]:
        if folder not in self._known:
            paths = sorted(self._files[folder])
            found = [of_text(self._text_of(path) or "") for path in paths]
            self._known[folder] = _joined(found), ", ".join(paths)
        return self._known[folder]


def _is(known: _Known, where: str, whole: str) -> bool:
    return all(phrase in (where if place == 0 else whole) for place, phrase in enumerate(known.phrases)) and not any(
        phrase in whole for phrase in known.without
    )


def _joined(found: list[str | None]) -> str | None:
    """Of several files all hold, as far as one can know without being told; one that is unknown makes all unknown."""
    names = {name for name in found if name}
    if not names or None in found:
        return None
    for name, base in _STANDS_ON.items():
        if name in names:
            names.discard(base)
    return " AND ".join(sorted(names))


def _folder(path: str) -> str:
    return path.rstrip("/").rpartition("/")[0]
