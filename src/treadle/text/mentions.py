"""Who is mentioned in a text that is not theirs: a keyed digest for each address or number that stands for one person.

The digests are kept beside a cleaned corpus with the ids of the documents (`findings.py`), so that an erasure finds the
documents when the text itself is redacted or gone; and on the suppression list, so that the person stays out however
the number is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress

from blake3 import blake3

from treadle.core.errors import MissingExtra
from treadle.text.canonical import canonical, names_one

IDENTIFIER = -1  # in the place of a number of words, on a suppression list: a digest made here
_KEY = "treadle 1 personal data"
_NUMBER = re.compile(r"\+?[\d ()./-]{7,30}")


def data_key(keyed: Callable[[str], str]) -> bytes:
    """The project's key for pseudonyms and mentions, 32 bytes, from what makes its keyed digests."""
    return blake3(keyed(_KEY).encode(), derive_key_context=_KEY).digest()


def mention(key: bytes, kind: str, value: str) -> str | None:
    """The digest of a finding; None where it stands for no one person."""
    if not names_one(kind, value):
        return None
    return blake3(f"{kind}\0{canonical(kind, value)}".encode("utf-8", "surrogatepass"), key=key).hexdigest()


def mentions_in(key: bytes, text: str) -> Iterator[str]:
    """Digests of everything that a text mentions."""
    from treadle.text.personal_data import find, value_of

    for finding in find(text):
        digest = mention(key, finding.kind, value_of(finding, text))
        if digest is not None:
            yield digest


def mentions_of(key: bytes, subject: str) -> set[str]:
    """The digests a person is mentioned by, where their name is an address or a number. A bare number may be that of
    a phone. Nothing where google-re2 is not installed: then no text was searched for such things either.
    """
    found: set[str] = set()
    with suppress(MissingExtra):
        from treadle.text.personal_data import find

        kinds = {each.kind for each in find(subject) if (each.start, each.end) == (0, len(subject))}
        if not kinds and _NUMBER.fullmatch(subject):
            kinds = {"phone"}
        found = {digest for kind in kinds if (digest := mention(key, kind, subject))}
    return found
