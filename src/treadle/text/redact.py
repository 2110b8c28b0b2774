"""Personal data replaced by its kind, as in ``[EMAIL]``, in the text and in the strings of the fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from treadle.text.accounting import Note
from treadle.text.document import Document, map_text
from treadle.text.personal_data import KINDS, Scanner
from treadle.text.transform import Piece, declare


@declare(version=1, packages=("google-re2",))
class Redact:
    """Redacts these kinds, all by default. What was found is noted as a count for each kind, never itself."""

    def __init__(self, *, kinds: list[str] | None = None) -> None:
        self._scanner = Scanner(KINDS if kinds is None else kinds)

    def __call__(self, documents: Sequence[Document]) -> Iterator[Piece]:
        """Every document, redacted."""
        counts: Counter[str] = Counter()
        here: Counter[str] = Counter()  # in one document
        touched = []
        changed: dict[str, list[str]] = {}

        def change(text: str) -> str:
            redacted, found = self._scanner.redact(text)
            here.update(found)
            return redacted

        for document in documents:
            here.clear()
            result = map_text(document, change)
            if result is not document:
                touched.append(document.id)
            counts.update(here)
            for kind in here:
                changed.setdefault(kind, []).append(document.id)
            yield result
        yield Note("redact.documents", len(touched), tuple(touched))
        for kind, count in sorted(counts.items()):
            yield Note(f"redact.{kind}", count, tuple(changed[kind]))
