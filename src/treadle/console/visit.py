"""What a handler is given and what it gives: the visit, a page or a redirect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from treadle.console.house import House
from treadle.console.problem import Problem
from treadle.console.sessions import Session
from treadle.project import Project
from treadle.record.record import Record

T = TypeVar("T", bound=str)

Area = Literal["status", "runs", "answers", "lineage", "review", "approvals", ""]
_LONGEST = 2_000  # characters of a value in an address
_LOCAL = re.compile(r"/(?!/)[A-Za-z0-9/_.@%?=&:+,~*-]{0,2000}\Z")


@dataclass(frozen=True)
class Page:
    """A template with the view it shows; the view, a frozen dataclass, is the page's JSON as well."""

    template: str
    title: str
    area: Area
    view: Any
    status: int = 200


@dataclass(frozen=True)
class Redirect:
    """Where an action leads, what is said there, and the JSON for those who asked for it."""

    path: str
    notice: str = ""
    result: Any = None


@dataclass(frozen=True)
class Query:
    """The part of an address after the question mark, or a form; each value checked when it is taken."""

    values: Mapping[str, str] = field(default_factory=dict)

    def text(self, name: str, default: str = "", *, most: int = _LONGEST) -> str:
        """A text without surrounding blanks."""
        value = self.values.get(name, default).strip()
        if len(value) > most:
            raise Problem(400, "Too long", f"{name}: {len(value):,} characters; at most {most:,} are taken")
        return value

    def choice(self, name: str, known: tuple[T, ...], default: T) -> T:
        """One of the known words."""
        value = self.values.get(name) or default
        for word in known:
            if value == word:
                return word
        listed = ", ".join(word or "nothing" for word in known)
        raise Problem(400, "Not understood", f"{name}: {value[:40]!r} is none of {listed}")

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number within bounds."""
        value = self.values.get(name) or str(default)
        if not re.fullmatch(r"-?[0-9]{1,18}", value, re.ASCII) or not low <= int(value) <= high:
            raise Problem(400, "Not understood", f"{name}: {value[:40]!r} is no number from {low:,} to {high:,}")
        return int(value)


@dataclass(frozen=True)
class Visit:
    """One request by a person who is let in."""

    house: House
    session: Session
    query: Query
    form: Query
    path: Mapping[str, str]

    @property
    def project(self) -> Project:
        """The project that is looked at."""
        return self.house.project

    @property
    def record(self) -> Record:
        """Its record."""
        return self.house.project.record


def local(path: str, default: str = "/") -> str:
    """A path within the console that a link or a form named; anything else is the default."""
    return path if _LOCAL.match(path) else default
