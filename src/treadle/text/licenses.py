"""Only texts under licenses that a project allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from treadle.core.errors import UserError
from treadle.text.accounting import Dropped
from treadle.text.document import Document
from treadle.text.transform import Piece, declare

_LONGEST = 100  # characters of a license that a reason quotes


@declare(version=1)
class Licenses:
    """Drops documents whose license is not one of ``allow`` (compared without case), and those that name none unless
    ``keep_unknown``.
    """

    def __init__(self, *, allow: list[str], keep_unknown: bool = False) -> None:
        if not allow:
            raise UserError(
                "licenses would drop everything: `allow` is empty; for example `allow: [CC0-1.0, CC-BY-4.0]`"
            )
        self._allowed = {name.strip().casefold() for name in allow}
        self._keep_unknown = keep_unknown

    def __call__(self, documents: Sequence[Document]) -> Iterator[Piece]:
        """Each document, or why it is dropped."""
        for document in documents:
            name = (document.license or "").strip()
            if not name and not self._keep_unknown:
                yield Dropped(document, "licenses.unknown", "it names no license")
            elif name and name.casefold() not in self._allowed:
                yield Dropped(
                    document, "licenses.not_allowed", f"its license {name[:_LONGEST]!r} is not among the allowed"
                )
            else:
                yield document
