"""A problem put into words: what cannot be answered, and what the person can do about it."""

from __future__ import annotations

from typing import Any


class Problem(Exception):
    """Something that cannot be answered: ``said`` is one line for people, ``todo`` what they can do about it."""

    def __init__(self, status: int, title: str, said: str, todo: str = "", back: str = "") -> None:
        super().__init__(said)
        self.status, self.title, self.said, self.todo, self.back = status, title, said, todo, back

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return {"error": {"status": self.status, "title": self.title, "message": self.said, "todo": self.todo}}
