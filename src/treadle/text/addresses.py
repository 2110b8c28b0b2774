"""Street addresses as they are written in each language: a number, a name, and the word for a street."""

from __future__ import annotations

from collections.abc import Sequence

_NAME = rb"[A-Z\x80-\xff][A-Za-z'.\x80-\xff-]{1,30}"
_PATTERNS = {
    "en": (
        rb"\b\d{1,6}[A-Za-z]?,? (?:[NSEW]\.? )?(?:" + _NAME + rb" ){1,3}(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd"
        rb"|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Terrace|Ter|Way|Circle|Cir|Highway|Hwy|Parkway|Pkwy|Trail|Crescent)\b"
        rb"|\bP\.? ?O\.? Box \d{1,6}\b"
    ),
    "de": (
        rb"\b[A-Z\x80-\xff][a-z\x80-\xff-]{2,30}(?:" + "straße".encode() + rb"|strasse|str\.|allee|gasse|platz|weg)"
        rb" \d{1,4} ?[a-z]?\b"
    ),
    "fr": (
        rb"\b\d{1,4}(?: ?bis| ?ter)?,? (?:rue|avenue|boulevard|chemin|" + "allée".encode() + rb"|impasse|quai|place)"
        rb" (?:(?:de|du|des|la|le|les) |l'|d'){0,3}" + _NAME + rb"(?: " + _NAME + rb"){0,3}"
    ),
    "es": (
        rb"\b(?:Calle|Avenida|Avda\.?|Plaza|Paseo)(?: (?:de|del|la|las|los)){0,3}(?: " + _NAME + rb"){1,4},? \d{1,4}\b"
    ),
    "it": rb"\b(?:Via|Viale|Corso|Piazza|Vicolo|Largo)(?: (?:di|del|della|dei)){0,2}(?: "
    + _NAME
    + rb"){1,4},? \d{1,4}\b",
}


def address_pattern(languages: Sequence[str]) -> bytes:
    """An RE2 pattern for these languages, which means the same over characters and over UTF-8 bytes."""
    return b"|".join(_PATTERNS[language] for language in languages if language in _PATTERNS) or rb"\z."
