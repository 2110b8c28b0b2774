"""Whether a text is one SQL statement whose brackets are its own, so that it may stand inside ``FROM ( ... )``."""

from __future__ import annotations

import re

# What is no code: strings, quoted names, comments.
_STRING = r"'(?:[^']|'')*'"
_ESCAPED = r"'(?:[^'\\]|\\.|'')*'"
_DASHES = r"--[^\n]*"
_COMMENT = r"/\*(?s:.*?)\*/"
_DOLLARS = r"(?<!\w)(?P<tag>\$(?:[A-Za-z_]\w*)?\$)(?s:.*?)(?P=tag)"
_QUOTED = {
    "postgresql": (r"(?i:\be)" + _ESCAPED, _STRING, r'"[^"]*"', _DOLLARS, _DASHES),
    "mysql": (_ESCAPED, r'"(?:[^"\\]|\\.|"")*"', r"`[^`]*`", r"--(?=\s|\Z)[^\n]*", r"\#[^\n]*", _COMMENT),
    "sqlite": (_STRING, r'"[^"]*"', r"`[^`]*`", r"\[[^\]]*\]", _DASHES, _COMMENT),
    "mssql": (_STRING, r'"[^"]*"', r"\[(?:[^\]]|\]\])*\]", _DASHES),
}
_OTHERS = (_STRING, r'"[^"]*"', _DASHES, _COMMENT)
_NESTING = ("postgresql", "mssql")  # where a comment may hold another
_CODE = r"(?P<code>[()';\"]|/\*)"


def check_statement(query: str, dialect: str) -> None:
    """``ValueError``, in words that can be shown, for a query that closes a bracket it did not open, leaves something
    open, or is several. ``dialect`` is what SQLAlchemy calls it.
    """
    tokens = re.compile("|".join([*(f"(?s:{each})" for each in _QUOTED.get(dialect, _OTHERS)), _CODE]))
    depth = place = 0
    while found := tokens.search(query, place):
        word, place = found["code"], found.end()
        if word is None:
            if found.group().startswith(("/*!", "/*M!")):  # MySQL and MariaDB run what stands in these
                raise ValueError("the query hides code in a comment; give one SELECT")
        elif word == "(":
            depth += 1
        elif word == ")":
            depth -= 1
        elif word == "/*" and dialect in _NESTING:
            place = _after_comment(query, place)
        elif word == ";":
            raise ValueError("the query holds several statements; give one SELECT")
        else:
            raise ValueError(f"the query leaves {word} open; give one SELECT")
        if depth < 0:
            raise ValueError("the query closes a bracket that it did not open; give one SELECT")
    if depth:
        raise ValueError("the query leaves a bracket open; give one SELECT")


def _after_comment(query: str, place: int) -> int:
    """Where a comment ends that may hold others."""
    depth = 1
    for found in re.compile(r"/\*|\*/").finditer(query, place):
        depth += 1 if found.group() == "/*" else -1
        if not depth:
            return found.end()
    raise ValueError("the query leaves a comment open; give one SELECT")
