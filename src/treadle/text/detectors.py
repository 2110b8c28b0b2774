"""How each kind of personal data looks: a linear-time pattern for candidates, and a check that tells it from
look-alikes.

Checks are checksums, ranges that were never issued, what touches the number, or a word such as "phone"
shortly before it. All of them work on UTF-8 bytes, and see the whole text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

from treadle.text import checksums
from treadle.text.phone_numbers import phone_number
from treadle.text.surroundings import Context, isolated

# What a detector is given: the text as UTF-8, where the pattern matched. It answers where the finding is, or
# None.
Check = Callable[[bytes, int, int], "tuple[int, int] | None"]


@dataclass(frozen=True, slots=True)
class Detector:
    """A kind, and how it is found.

    ``hint`` is a cheap pattern that every text with a finding matches: all hints together scan a text once,
    and most texts need no more. ``pattern`` finds candidates, ``check`` tells a finding from a look-alike.
    Both are RE2 patterns over bytes.
    """

    kind: str
    hint: bytes
    pattern: bytes
    check: Check


def _email(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Lengths of RFC 5321: 64 bytes before the sign, 255 after it, 63 between two points."""
    local, _, domain = data[start:end].partition(b"@")
    if b".." in local or len(local) > 64 or len(domain) > 255:
        return None
    return None if any(len(label) > 63 or label.endswith(b"-") for label in domain.split(b".")) else (start, end)


_CARD_CONTEXT = Context("cards?", "cc", "visa", "mastercard", "amex", "tarjeta", "carte", "kreditkarte")


_DIGITS = re.compile(rb"\d+")
# How digits are grouped on cards: fours with a rest, or American Express and Diners Club.
_CARD_GROUPS = (
    *((4, 4, 4, 4, rest) for rest in (3, 2, 1)),
    (4, 4, 4, 4),
    *((4, 4, 4, rest) for rest in (3, 2, 1)),
    (4, 4, 4),
    (4, 6, 5),
    (4, 6, 4),
)


def _credit_card(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    """The first run of digit groups that is a card; other numbers may stand before and after it."""
    groups = [match.span() for match in _DIGITS.finditer(data, start, end)]
    lengths = [last - first for first, last in groups]
    for place, length in enumerate(lengths):
        shapes = [(length,)] if 12 <= length <= 19 else _CARD_GROUPS if length == 4 else ()
        for shape in shapes:
            if tuple(lengths[place : place + len(shape)]) == shape:
                span = groups[place][0], groups[place + len(shape) - 1][1]
                if _is_card(data, *span):
                    return span
    return None


def _is_card(data: bytes, start: int, end: int) -> bool:
    text = data[start:end]
    digits = re.sub(rb"[ -]", b"", text).decode()
    if not checksums.luhn(digits) or len(set(digits)) == 1 or (b" " in text and b"-" in text):
        return False
    if not isolated(data, start, end):
        return False
    return checksums.is_issued_prefix(digits) or _CARD_CONTEXT.before(data, start)


def _iban(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    length = checksums.IBAN_LENGTH.get(data[start : start + 2].decode().upper(), 0)
    position, characters = start, bytearray()
    while position < end and len(characters) < length:
        if data[position] != 0x20:
            characters.append(data[position])
        position += 1
    if len(characters) != length or not length or data[position : position + 1].isalnum():
        return None
    return (start, position) if checksums.is_iban(characters.decode().upper()) else None


_SSN_CONTEXT = Context("ssn", "social security", "soc sec", "social security (?:number|no)")


def _us_ssn(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    text = data[start:end]
    area, group, serial = text[:3], text[4:6], text[7:]
    # Ranges never issued: ssa.gov/employer/randomization.html.
    if area in (b"000", b"666") or area[:1] == b"9" or group == b"00" or serial == b"0000":
        return None
    if text[3:4] != text[6:7] or not isolated(data, start, end):
        return None
    return (start, end) if text[3:4] == b"-" or _SSN_CONTEXT.before(data, start) else None


_VERSION_BEFORE = re.compile(rb"(?i)(?:\bv|version|release|section|chapter)\s*:?\s*$")


def _ip(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    text = data[start:end].decode()
    if ":" in text:
        text = text.rstrip(":") if not text.endswith("::") else text
        end = start + len(text)
        groups = [group for group in text.split(":") if group]
        # `a[1::2]` is a valid address and never meant as one; eight pairs are a fingerprint.
        if len(groups) < 3 or all(len(group) == 2 for group in groups):
            return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.is_loopback or address.is_unspecified or text == "255.255.255.255":
        return None
    if not isolated(data, start, end) or (data[end : end + 1] == b":" and ":" in text):
        return None
    return None if _VERSION_BEFORE.search(data, max(0, start - 12), start) else (start, end)


def _mac(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    text = data[start:end]
    around = data[start - 1 : start] + data[end : end + 1]
    same = text.count(b":") in (0, 5)
    return (start, end) if same and not re.search(rb"[0-9A-Za-z:-]", around) else None


def _url_credentials(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    return data.index(b"://", start, end) + 3, end - 1


_BIRTH_CONTEXT = Context(
    "born",
    "birth",
    "birthda(?:y|te)",
    "dob",
    r"d\.o\.b\.?",
    "geboren",
    "geburtsdatum",
    "née? le",
    "naissance",
    "nacid[oa]",
    "nacimiento",
    "nat[oa] il",
    "nascita",
)


def _date_of_birth(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    return (start, end) if _BIRTH_CONTEXT.before(data, start) and isolated(data, start, end) else None


_PASSPORT_CONTEXT = Context("passport", "passeport", "pasaporte", "reisepass", "passaporto")
_LICENSE_CONTEXT = Context(
    "driv(?:er|ing)(?:'|\u2019|s){0,3} licen[cs]e",
    "driver'?s? id",
    "permis de conduire",
    "führerschein",
    "licencia de conducir",
    "licen[cs]e no",
)


def _after(context: Context, fewest_digits: int) -> Check:
    def check(data: bytes, start: int, end: int) -> tuple[int, int] | None:
        digits = sum(1 for byte in data[start:end] if 0x30 <= byte <= 0x39)
        if digits < fewest_digits or not isolated(data, start, end) or not context.before(data, start):
            return None
        return start, end

    return check


def _crypto_wallet(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    return (start, end) if checksums.is_bitcoin_address(data[start:end].decode()) else None


_MONTH = (
    rb"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?"
    rb"|dec(?:ember)?)\.?"
)
_DATE = (
    rb"(?i)\b(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:19|20)?\d{2}"
    rb"|\d{1,2}(?:st|nd|rd|th)? (?:of )?"
    + _MONTH
    + rb",? (?:19|20)\d{2}|"
    + _MONTH
    + rb" \d{1,2}(?:st|nd|rd|th)?,? (?:19|20)\d{2})\b"
)
_PAIR = rb"[0-9A-Fa-f]{2}"

# In order of precedence: where two findings overlap, the earlier kind wins.
DETECTORS: tuple[Detector, ...] = (
    Detector(
        "url_credentials",
        rb"://[^\s/:@]+:[^\s/@]+@",
        rb"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/:@]+:[^\s/@]+@",
        _url_credentials,
    ),
    Detector(
        "email",
        rb"[A-Za-z0-9_\x80-\xff]@[A-Za-z0-9\x80-\xff]",
        rb"[A-Za-z0-9_\x80-\xff](?:[A-Za-z0-9._%+'\x80-\xff-]*[A-Za-z0-9_\x80-\xff])?"
        rb"@(?:[A-Za-z0-9\x80-\xff][A-Za-z0-9\x80-\xff-]*\.)+[A-Za-z\x80-\xff]{2,24}",
        _email,
    ),
    Detector(
        "iban",
        rb"\b[A-Za-z]{2}\d\d ?[A-Za-z0-9]",
        rb"\b[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){11,30}",
        _iban,
    ),
    Detector("credit_card", rb"\d(?:[ -]?\d){11}", rb"\d(?:[ -]?\d){11,30}", _credit_card),
    Detector(
        "crypto_wallet",
        rb"\b[13][1-9A-HJ-NP-Za-km-z]{25}|\bbc1[02-9ac-hj-np-z]{11}",
        rb"\b(?:[13][1-9A-HJ-NP-Za-km-z]{25,34}|bc1[02-9ac-hj-np-z]{11,71})\b",
        _crypto_wallet,
    ),
    Detector(
        "mac", rb"\b" + _PAIR + rb"[:-]" + _PAIR + rb"[:-]" + _PAIR, rb"\b(?:" + _PAIR + rb"[:-]){5}" + _PAIR, _mac
    ),
    Detector("us_ssn", rb"\b\d{3}[ -]\d{2}[ -]\d{4}\b", rb"\b\d{3}[ -]\d{2}[ -]\d{4}\b", _us_ssn),
    Detector(
        "ip",
        rb"\d\.\d{1,3}\.\d{1,3}\.\d|:[0-9A-Fa-f]{0,4}:",
        rb"\b(?:\d{1,3}\.){3}\d{1,3}\b|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:(?:\.\d{1,3}){3})?",
        _ip,
    ),
    Detector("date_of_birth", _BIRTH_CONTEXT.hint, _DATE, _date_of_birth),
    Detector("passport", _PASSPORT_CONTEXT.hint, rb"\b[A-Z]{0,2}\d{6,9}\b", _after(_PASSPORT_CONTEXT, 6)),
    Detector(
        "driver_license",
        _LICENSE_CONTEXT.hint,
        rb"\b[A-Za-z]{0,3}\d[A-Za-z0-9-]{3,15}[A-Za-z0-9]\b",
        _after(_LICENSE_CONTEXT, 4),
    ),
    Detector(
        "phone",
        rb"(?:\d[ .\-/()]{0,3}){5}\d",
        rb"\+?\(?\d(?:(?:[ .\-/]|\)[ .\-/]?|[ .\-/]?\()?\d){5,22}",
        phone_number,
    ),
)
