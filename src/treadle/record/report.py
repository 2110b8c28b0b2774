"""A report: something made to be read, by people (HTML, Markdown) or by gates (JSON)."""

from __future__ import annotations

from typing import ClassVar

from treadle.core.artifacts import Artifact


class Report(Artifact):
    """Named files; the first one by name is the one to open."""

    kind: ClassVar[str] = "report"
