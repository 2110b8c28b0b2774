"""Street addresses as they are written in each language: a number, a name, and the word for a street.

What has that form and is none (a year before Wall Street, a hard drive, a place to work at) is told by the words in it
and around it. Lower-case English streets, and names without a word for a street, are not found.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_NAME = rb"(?:[A-Z\x80-\xff][A-Za-z'.\x80-\xff-]{1,30}|\d{1,3}(?:st|nd|rd|th))"
_GERMAN = rb"[A-Z\x80-\xff][a-z\x80-\xff]"
_STRASSE = "[Ss]tra\u00dfe|[Ss]trasse|[Ss]tr\\.|[Aa]llee|[Gg]asse|[Pp]latz|[Ww]eg".encode()
_HOUSE = rb" \d{1,4}(?: ?[a-z]\b)?"
_PATTERNS = {
    "en": (
        rb"\b\d{1,6}[A-Za-z]?,? (?:(?:[NSEW]|N[EW]|S[EW])\.? )?(?:" + _NAME + rb" ){1,4}(?:Street|St|Avenue|Ave|Road|Rd"
        rb"|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Terrace|Ter|Way|Circle|Cir|Highway|Hwy|Parkway|Pkwy"
        rb"|Trail|Crescent|STREET|ST|AVENUE|AVE|ROAD|RD|BOULEVARD|BLVD|LANE|LN|DRIVE)\b"
        rb"|\b\d{1,4}[A-Za-z]? The (?:Avenue|Crescent|Drive|Lane|Street|Terrace)\b"
        rb"|\bP\.? ?O\.? Box \d{1,6}\b"
    ),
    "de": (
        rb"\b(?:" + _GERMAN + rb"[a-z\x80-\xff-]{1,29}(?:" + _STRASSE + rb")"
        rb"|(?:" + _GERMAN + rb"{1,20}-){1,3}(?:" + _STRASSE + rb"|Ring|Damm|Ufer)"
        rb"|" + _GERMAN + rb"{2,20}er (?:" + _STRASSE + rb"|Ring|Damm|Ufer))" + _HOUSE + rb"\b"
        # Without a word for a street, only before a postal code.
        rb"|\b(?:Am|Im|Zum|Zur|Beim|An de[rn]|Auf de[rm]|In de[rn]|Unter den|Hinter der) "
        + _GERMAN + rb"{2,30}" + _HOUSE + rb",? \d{5} [A-Z\x80-\xff]"
    ),
    "fr": (
        rb"\b\d{1,4}(?: ?bis| ?ter)?,? (?:[Rr]ue|[Aa]venue|[Bb]oulevard|[Bb]d|[Cc]hemin|[Rr]oute|"
        + "[Aa]ll\u00e9e".encode() + rb"|[Ii]mpasse|[Qq]uai|[Pp]lace|[Ss]quare)"
        rb" (?:(?:de|du|des|la|le|les) |l'|d'){0,3}" + _NAME + rb"(?: " + _NAME + rb"){0,3}"
    ),
    "es": (
        rb"\b(?:Calle|Avenida|Avda\.?|Plaza|Paseo)(?: (?:de|del|la|las|los)){0,3}(?: " + _NAME + rb"){1,4},? \d{1,4}\b"
    ),
    "it": rb"\b(?:Via|Viale|Corso|Piazza|Vicolo|Largo)(?: (?:di|del|della|dei)){0,2}(?: "
    + _NAME
    + rb"){1,4},? \d{1,4}\b",
}  # fmt: skip

_YEAR = re.compile(rb"(?:1[5-9]|20)\d\d\b")
_BEFORE_YEAR = re.compile(
    rb"(?i)(?:^|[^a-z\x80-\xff])(?:in|by|since|until|before|after|en|depuis|avant|im|seit|bis) +\Z"
    + "|(?:copyright:?|\\(c\\)|\xa9|\\b(?:19|20)\\d\\d) *[-,\u2013]?\\s*\\Z".encode()
)
_LABEL = re.compile(
    rb"(?i)\b(?:article|chapter|chapitre|episode|figure|iso|kapitel|level|part|rule|season|section|table|version) +\Z"
)
_NO_STREET = re.compile(
    rb"(?i)\b(?:(?:appeals|district|federal|food|high|supreme|tennis) court"
    rb"|(?:disk|flash|google|hard|pen|test|thumb|usb) drive"
    rb"|(?:arctic|inner|quality|vicious) circle|(?:first|second|third) place|milky way|sesame street)\Z"
)
_GOES_ON = re.compile(rb"[A-Za-z0-9\x80-\xff]| (?:Fighter|Garden|Home|Journal)\b|,?\s+<[^<>\s]+@")
_NO_STRASSE = re.compile(
    "(?i)(?:arbeits|ausbildungs|camping|fahr|flug|fu\u00dfball|golf|heim|hin|liege|luft|milch|park|r\u00fcck|schlaf|seiden|sitz"
    "|speicher|spiel|steh|stell|studien|tennis|um|unter|zelt)(?:stra\u00dfe|platz|wege?s?)\\Z"
    "|^(?:dieser|einer|ihrer|jeder|seiner|unserer|welcher) ".encode()
)
_AMOUNT = re.compile(
    "[.,]\\d| ?(?:[%\u20ac]|(?:Euro|Jahre|Kilometer|Kinder|Meter|Milliarden|Millionen|Minuten|Personen|Prozent|Sterne"
    "|Stunden|Tage|Uhr|km|m)\\b)".encode()
)
_BOX = re.compile(rb"P\.? ?O\.? Box")
_NUMBER = re.compile(rb" \d{1,4}(?: ?[a-z]\b)?")


def address_pattern(languages: Sequence[str]) -> bytes:
    """An RE2 pattern for these languages, which means the same over characters and over UTF-8 bytes."""
    return b"|".join(_PATTERNS[language] for language in languages if language in _PATTERNS) or rb"\z."


def street(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Where the address is in what the pattern found; None where it is a piece of a longer word, or something else."""
    if data[start - 1 : start].isalnum():
        return None
    found = data[start:end]
    if found[:1].isdigit() or _BOX.match(found):
        return None if _other(data, start, end) else (start, end)
    number = _NUMBER.search(found)
    if number is None or _YEAR.match(number.group().strip()) or _NO_STRASSE.search(found[: number.start()]):
        return None
    end = start + number.end()  # behind it there may be a postal code
    after = data[end : end + 20]
    return None if after[:1].isalnum() or _AMOUNT.match(after) else (start, end)


def _other(data: bytes, start: int, end: int) -> bool:
    """Whether what begins with a number is no address."""
    before = data[max(0, start - 24) : start]
    if _LABEL.search(before) or _NO_STREET.search(data[start:end]) or _GOES_ON.match(data, end):
        return True
    return _YEAR.match(data, start) is not None and _BEFORE_YEAR.search(before) is not None
