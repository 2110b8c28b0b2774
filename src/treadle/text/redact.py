"""Personal data in the text and in the strings of the fields: replaced by its kind, as in ``[EMAIL]``, replaced by a
keyed pseudonym, or the document dropped.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from treadle.core.errors import UserError
from treadle.text.accounting import SAMPLES, Dropped, Note, Sample, Touched
from treadle.text.context_words import LANGUAGES
from treadle.text.detectors import RULES
from treadle.text.document import Document, map_text
from treadle.text.mentions import mention
from treadle.text.personal_data import KINDS, Scanner, mask, sample
from treadle.text.pseudonyms import Pseudonyms
from treadle.text.surroundings import LOOK_BACK
from treadle.text.transform import Piece, TransformContext, declare

Action = Literal["redact", "replace", "drop"]
_WORD = re.compile(r"[A-Za-z_]*")


@declare(version=4, packages=("google-re2",))
class Redact:
    """Personal data of these kinds, all by default: redact, replace by a keyed pseudonym, or drop the document.

    ``kinds`` is a list, whose kinds have ``action``, or an action for each kind. ``languages`` are those whose words
    (phone, born on) count, within ``window`` bytes before a number. What was found is noted as counts, and as keyed
    digests for erasure; never itself.
    """

    def __init__(
        self,
        *,
        kinds: list[str] | dict[str, Action] | None = None,
        action: Action = "redact",
        languages: list[str] | None = None,
        window: int = LOOK_BACK,
        context: TransformContext | None = None,
    ) -> None:
        wanted = list(KINDS) if kinds is None else kinds
        if not wanted:
            raise UserError("redact: kinds lists nothing; leave it out for all kinds, or leave the step out")
        self._actions = dict(wanted) if isinstance(wanted, dict) else dict.fromkeys(wanted, action)
        if not 1 <= window <= 1000:
            raise UserError(f"redact: window is {window}; expected 1 to 1000 bytes")
        self._scanner = Scanner(tuple(self._actions), languages=languages or LANGUAGES, window=window)
        self._key = context.key if context else None
        if "replace" in self._actions.values() and self._key is None:
            raise UserError("redact: pseudonyms need the key of a project; use redact or drop here")
        self._pseudonyms = Pseudonyms(self._key or bytes(32))

    def __call__(self, documents: Sequence[Document]) -> Iterator[Piece]:
        """Every document, rewritten, or dropped for what it holds."""
        counts: Counter[str] = Counter()
        shown: Counter[str] = Counter()
        touched: list[str] = []
        for document in documents:
            found = _Found()
            result = map_text(document, partial(self._rewritten, found=found), keys=True)
            drops = next((kind for kind in found.values if self._actions[kind] == "drop"), None)
            if drops is not None:
                held = tuple(self._touched(document, kind, found, show=False) for kind in sorted(found.values))
                yield Dropped(document, f"redact.drop_{drops}", f"holds {RULES[drops].finds}", found=held)
                continue
            if found.values:
                touched.append(document.id)
            yield result
            for kind in sorted(found.values):
                counts[kind] += len(found.values[kind])
                shown[kind] += 1
                yield self._touched(document, kind, found, show=shown[kind] <= SAMPLES)
        yield Note("redact.documents", len(touched), tuple(touched))
        for kind, count in sorted(counts.items()):
            yield Note(f"redact.{kind}", count)

    def _rewritten(self, text: str, found: _Found) -> str:
        if _WORD.fullmatch(text):  # the name of a field, mostly; every kind has something else in it
            return text
        rewritten, values = self._scanner.rewrite(text, self._stand_in)
        for kind, value in values:
            found.texts.setdefault(kind, text)
            found.values.setdefault(kind, []).append(value)
        return rewritten

    def _stand_in(self, kind: str, value: str) -> str | None:
        return self._pseudonyms(kind, value) if self._actions[kind] == "replace" else None

    def _touched(self, document: Document, kind: str, found: _Found, *, show: bool) -> Touched:
        values = found.values[kind]
        digests = {mention(self._key, kind, value) for value in values} if self._key else set()
        mentions = tuple(sorted(each for each in digests if each is not None))
        rule = f"redact.{kind}"
        if not show:
            return Touched(document.id, rule, len(values), mentions)
        reason = f"{self._actions[kind]}: {RULES[kind].finds} ({RULES[kind].source})"
        text = "" if document.subject else sample(found.texts[kind], kind)
        return Touched(
            document.id, rule, len(values), mentions, Sample(document.id, mask(document.locator), reason, text)
        )


@dataclass(slots=True)
class _Found:
    """What one document holds: values by kind, and for each the first text it was in."""

    values: dict[str, list[str]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
