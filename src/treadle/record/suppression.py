"""The suppression list: who may not be collected, an input of every collection."""

from __future__ import annotations

from typing import ClassVar

from treadle.core.artifacts import Artifact


class SuppressionList(Artifact):
    """``entries.json``: keyed digests of what may not be collected, with how many words each stands for."""

    kind: ClassVar[str] = "suppression"

    def suppressed(self) -> dict[str, int]:
        """Number of words by keyed digest."""
        return {str(key): int(value) for key, value in self.read_json("entries.json")["entries"].items()}
