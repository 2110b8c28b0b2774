"""Text that was decoded with the wrong encoding somewhere on its way (``voilÃ\\xa0``) put right, by ftfy (Speer 2019,
doi:10.5281/zenodo.2591652).

Only what ftfy takes for such an accident is changed; quotes, ligatures and entities stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from treadle.core.errors import MissingExtra
from treadle.text.accounting import Note
from treadle.text.document import Document, map_text
from treadle.text.transform import Piece, declare

CHANGED = "repair_encoding.changed"
_LONGEST = 1_000_000  # characters looked at together


@declare(version=1, packages=("ftfy",))
class RepairEncoding:
    """Puts wrongly decoded text right, line by line, in text and fields; how many documents changed is noted."""

    def __init__(self) -> None:
        try:
            import ftfy
        except ImportError:
            raise MissingExtra("ftfy", extra="languages") from None
        settings = ftfy.TextFixerConfig(unescape_html=False, explain=False)
        self._fix = lambda line: ftfy.fix_encoding(line, settings)

    def __call__(self, documents: Sequence[Document]) -> Iterator[Piece]:
        """Each document, then how many changed and which."""
        changed = []
        for document in documents:
            result = map_text(document, self.repaired)
            if result is not document:
                changed.append(document.id)
            yield result
        yield Note(CHANGED, len(changed), tuple(changed))

    def repaired(self, text: str) -> str:
        """The text as it was meant. ASCII is right as it is."""
        if text.isascii():
            return text
        return "\n".join(self._line(line) for line in text.split("\n"))

    def _line(self, line: str) -> str:
        if line.isascii():
            return line
        parts = (line[start : start + _LONGEST] for start in range(0, len(line), _LONGEST))
        return "".join(map(self._fix, parts))
