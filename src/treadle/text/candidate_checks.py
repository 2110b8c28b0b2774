"""What tells personal data from a look-alike: checksums, ranges that were never issued, what touches a number, or a
word such as "phone" shortly before it. All checks work on UTF-8 bytes, and see the whole text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence

from treadle.text import checksums, national_ids
from treadle.text.surroundings import Context, isolated

# What a detector is given: the text as UTF-8, where the pattern matched. It answers where the finding is, or
# None.
Check = Callable[[bytes, int, int], "tuple[int, int] | None"]
Place = tuple[int, int] | None


def email(data: bytes, start: int, end: int) -> Place:
    """Lengths of RFC 5321: 64 bytes before the sign, 255 after it, 63 between two points."""
    local, _, domain = data[start:end].partition(b"@")
    if b".." in local or len(local) > 64 or len(domain) > 255:
        return None
    return None if any(len(label) > 63 or label.endswith(b"-") for label in domain.split(b".")) else (start, end)


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


def credit_card(context: Context, data: bytes, start: int, end: int) -> Place:
    """The first run of digit groups that is a card; other numbers may stand before and after it."""
    groups = [match.span() for match in _DIGITS.finditer(data, start, end)]
    lengths = [last - first for first, last in groups]
    for place, length in enumerate(lengths):
        shapes = [(length,)] if 12 <= length <= 19 else _CARD_GROUPS if length == 4 else ()
        for shape in shapes:
            if tuple(lengths[place : place + len(shape)]) == shape:
                span = groups[place][0], groups[place + len(shape) - 1][1]
                if _is_card(context, data, *span):
                    return span
    return None


def _is_card(context: Context, data: bytes, start: int, end: int) -> bool:
    text = data[start:end]
    digits = re.sub(rb"[ -]", b"", text).decode()
    if not checksums.luhn(digits) or len(set(digits)) == 1 or (b" " in text and b"-" in text):
        return False
    if not isolated(data, start, end):
        return False
    return checksums.is_issued_prefix(digits) or context.before(data, start)


def iban(data: bytes, start: int, end: int) -> Place:
    """The length of its country and a right check number."""
    length = checksums.IBAN_LENGTH.get(data[start : start + 2].decode().upper(), 0)
    position, characters = start, bytearray()
    while position < end and len(characters) < length:
        if data[position] != 0x20:
            characters.append(data[position])
        position += 1
    if len(characters) != length or not length or data[position : position + 1].isalnum():
        return None
    return (start, position) if checksums.is_iban(characters.decode().upper()) else None


def us_ssn(context: Context, data: bytes, start: int, end: int) -> Place:
    """In a range that was issued; with a hyphen, or beside a word like SSN."""
    text = data[start:end]
    area, group, serial = text[:3], text[4:6], text[7:]
    # Ranges never issued: ssa.gov/employer/randomization.html.
    if area in (b"000", b"666") or area[:1] == b"9" or group == b"00" or serial == b"0000":
        return None
    if text[3:4] != text[6:7] or not isolated(data, start, end):
        return None
    return (start, end) if text[3:4] == b"-" or context.before(data, start) else None


_VERSION_BEFORE = re.compile(rb"(?i)(?:\bv|version|release|section|chapter)\s*:?\s*$")


def ip(data: bytes, start: int, end: int) -> Place:
    """An address that is neither a slice, a version nor this machine."""
    text = data[start:end].decode()
    if ":" in text:
        text = text.rstrip(":") if not text.endswith("::") else text
        end = start + len(text)
        groups = [group for group in text.split(":") if group]
        # `a[1::2]` is a valid address and never meant as one; eight pairs are a fingerprint.
        if (len(groups) < 3 and "." not in text) or all(len(group) == 2 for group in groups):
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


def mac(data: bytes, start: int, end: int) -> Place:
    """Six pairs with one separator."""
    text = data[start:end]
    around = data[start - 1 : start] + data[end : end + 1]
    same = text.count(b":") in (0, 5)
    return (start, end) if same and not re.search(rb"[0-9A-Za-z:-]", around) else None


def url_credentials(data: bytes, start: int, end: int) -> Place:
    """Only the user and the password in the URL."""
    return data.index(b"://", start, end) + 3, end - 1


def named(context: Context, fewest_digits: int, data: bytes, start: int, end: int) -> Place:
    """Beside one of the words, alone, and with at least so many digits."""
    digits = sum(1 for byte in data[start:end] if 0x30 <= byte <= 0x39)
    if digits < fewest_digits or not isolated(data, start, end) or not context.before(data, start):
        return None
    return start, end


def crypto_wallet(data: bytes, start: int, end: int) -> Place:
    """A right checksum."""
    return (start, end) if checksums.is_bitcoin_address(data[start:end].decode()) else None


def national_id(data: bytes, start: int, end: int) -> Place:
    """Of a form that is nothing else, and with a right check where there is one."""
    text = data[start:end]
    if not isolated(data, start, end):
        return None
    if any(form.fullmatch(text) and check(_bare(text)) for form, check in national_ids.SURE_WRITTEN):
        return start, end
    return (start, end) if any(check(_bare(text)) for check in national_ids.SURE) else None


def checked(context: Context, checks: Sequence[national_ids.Check], data: bytes, start: int, end: int) -> Place:
    """Beside one of the words, and right by one of the checks."""
    if not isolated(data, start, end) or not context.before(data, start):
        return None
    bare = _bare(data[start:end])
    return (start, end) if any(check(bare) for check in checks) else None


def medicare(data: bytes, start: int, end: int) -> Place:
    """Of the form that CMS published."""
    return (start, end) if isolated(data, start, end) and national_ids.us_medicare(_bare(data[start:end])) else None


def vehicle_id(context: Context, data: bytes, start: int, end: int) -> Place:
    """A right check digit, or one of the words before it: only North America asks for the digit."""
    text = data[start:end].decode()
    if not isolated(data, start, end) or text.isalpha() or text.isdigit():
        return None
    return (start, end) if national_ids.vehicle_number(text) or context.before(data, start) else None


def whole(data: bytes, start: int, end: int) -> Place:
    """Whatever the pattern found, unless it is a piece of a longer word."""
    if data[start - 1 : start].isalnum() or data[end : end + 1].isalnum():
        return None
    return start, end


def _bare(text: bytes) -> str:
    return re.sub(rb"[ .\-/]", b"", text).decode()
