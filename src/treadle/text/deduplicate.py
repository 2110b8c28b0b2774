"""Exact duplicates: the first of them stays, and each other names the one it repeats."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from blake3 import blake3

from treadle.core.digest import canonical_json
from treadle.text.accounting import Dropped, Twin
from treadle.text.document import Document
from treadle.text.first_seen import FirstSeen
from treadle.text.transform import Piece, declare

_KEY_BYTES = 16  # of BLAKE3: among 10^12 documents two agree by chance with probability 10^-15


@declare(version=2, ordered=True)
class Deduplicate:
    """Two documents are the same when their texts have the same words in the same order and case, and the
    same speakers.

    Where the labels of such two differ, the rule is ``deduplicate.label_conflict``: someone labelled one text
    twice.
    """

    def __init__(self) -> None:
        self._first = FirstSeen()  # id, label and locator of those that stay

    def __call__(self, documents: Sequence[Document]) -> Iterator[Piece]:
        """Documents not seen before, in order."""
        for document in documents:
            label = str(document.fields.get("label", "")).replace("\0", " ")
            said = f"{document.id}\0{label}\0{document.locator}"
            known = self._first.keep(key_of(document), said.encode("utf-8", "surrogatepass"))
            if known is None:
                yield document
                continue
            first, its_label, locator = known.decode("utf-8", "surrogatepass").split("\0", 2)
            if first == document.id:
                yield document
                continue
            conflict = its_label != label
            rule = "deduplicate.label_conflict" if conflict else "deduplicate.exact"
            what = "the same text under another label" if conflict else "the same text"
            yield Dropped(document, rule, f"{what} as {first}", twin=Twin(first, locator))


def key_of(document: Document) -> bytes:
    """Names what a document says, whatever its spacing."""
    text = document.text if document.text.isascii() else unicodedata.normalize("NFC", document.text)
    hasher = blake3(" ".join(text.split()).encode("utf-8", "surrogatepass"))
    messages = document.fields.get("messages")
    if messages:
        hasher.update(b"\0" + canonical_json([message.get("role") for message in messages]))
    return hasher.digest(_KEY_BYTES)
