"""Keyed pseudonyms: the same address or number gets the same stand-in everywhere in a project, of the same shape.

A stand-in is made from a keyed BLAKE3 of the value's one spelling, so nobody without the project's key can make or undo
it. It lies where nothing real is: example.com (RFC 2606), 240.0.0.0/4 (RFC 1112) and 2001:db8::/32 (RFC 3849), phone
numbers in area codes that are kept back and country code 999, SSN area 000; what has a check digit fails it. Different
values may share a stand-in where the reserved range is small.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator

from blake3 import blake3

from treadle.text import checksums, national_ids
from treadle.text.canonical import canonical

_LETTERS = "abcdefghjkmnpqrstuvwxyz"
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_CHECKS = (*national_ids.SURE, *national_ids.NAMED, *national_ids.MEDICAL, national_ids.us_medicare)


class Pseudonyms:
    """Stand-ins under one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __call__(self, kind: str, value: str) -> str:
        """The stand-in of a finding of this kind."""
        one = canonical(kind, value)
        for attempt in range(100):  # a check digit fails nine times in ten, or more often
            made = _MAKERS.get(kind, _same_shape)(value, _Bytes(self._key, f"{kind}\0{one}\0{attempt}"))
            if not _real(kind, made):
                return made
        return f"[{kind.upper()}]"


class _Bytes:
    """An endless keyed stream, taken as small numbers."""

    def __init__(self, key: bytes, text: str) -> None:
        self._hash, self._place = blake3(text.encode("utf-8", "surrogatepass"), key=key), 0

    def below(self, limit: int) -> int:
        """The next number below ``limit``, which is far below 2**32."""
        taken = self._hash.digest(length=4, seek=self._place)
        self._place += 4
        return int.from_bytes(taken, "big") % limit

    def pick(self, signs: str) -> str:
        return signs[self.below(len(signs))]

    def digits(self, count: int) -> str:
        return "".join(self.pick("0123456789") for _ in range(count))

    def word(self, count: int) -> str:
        return "".join(self.pick(_LETTERS) for _ in range(count))


def _same_shape(value: str, source: _Bytes) -> str:
    """A digit for a digit, a letter for a letter, anything else as it is."""
    return "".join(
        source.pick("0123456789") if sign.isdigit()
        else source.pick(_LETTERS.upper() if sign.isupper() else _LETTERS) if sign.isalpha()
        else sign
        for sign in value
    )  # fmt: skip


def _filled(value: str, digits: str) -> str:
    """The value with its digits replaced, in order."""
    left: Iterator[str] = iter(digits)
    return re.sub(r"\d", lambda found: next(left, found.group()), value)


def _email(_value: str, source: _Bytes) -> str:
    return f"{source.word(10)}@example.com"


def _phone(value: str, source: _Bytes) -> str:
    count = len(re.findall(r"\d", value))
    international = value.lstrip(" (").startswith("+")
    if international and count > 3 and not value.startswith("+1"):
        return _filled(value, "999" + source.digits(count - 3))
    if value.startswith("00") and count > 5:  # the same, as it is dialed
        return _filled(value, "00999" + source.digits(count - 5))
    spare = source.pick("23456789") + "9" + source.pick("0123456789") + "555"  # N9X: kept back by the NANPA
    if count == 10:
        return _filled(value, spare + source.digits(4))
    if count == 11 and value.lstrip("+(")[:1] == "1":
        return _filled(value, "1" + spare + source.digits(4))
    return _filled(value, "000" + source.digits(count - 3))  # no code of a country begins with 0


def _ip(value: str, source: _Bytes) -> str:
    if ":" in value:
        return str(ipaddress.IPv6Address((0x20010DB8 << 96) | sum(source.below(1 << 16) << 16 * n for n in range(6))))
    return str(ipaddress.IPv4Address((0xF << 28) | source.below(1 << 28)))


def _card(value: str, source: _Bytes) -> str:
    count = len(re.findall(r"\d", value))
    return _filled(value, re.findall(r"\d", value)[0] + source.digits(count - 1))


def _iban(value: str, source: _Bytes) -> str:
    return value[:2] + "00" + _same_shape(value[4:], source)  # check numbers are 02 to 98


def _ssn(value: str, source: _Bytes) -> str:
    return _filled(value, "000" + source.digits(6))


def _mac(value: str, source: _Bytes) -> str:
    pairs = ["02", *(f"{source.below(256):02x}" for _ in range(5))]  # the bit of addresses given locally
    return value[2].join(pair.upper() if value.isupper() else pair for pair in pairs)


def _wallet(value: str, source: _Bytes) -> str:
    if value.startswith("bc1"):
        return "bc1" + "".join(source.pick("qpzry9x8gf2tvdw0s3jn54khce6mua7l") for _ in value[3:])
    return value[0] + "".join(source.pick(_BASE58) for _ in value[1:])


def _date(value: str, source: _Bytes) -> str:
    """The year stays (45 CFR 164.514(b)(2)(i)(C) lets it); day and month do not."""
    changed = re.sub(r"(?<!\d)\d{1,2}(?!\d)", lambda found: f"{1 + source.below(12):0{len(found[0])}}"[-2:], value)
    return re.sub(r"[A-Za-z]{3,}", lambda found: _month(found[0], source), changed)


def _month(word: str, source: _Bytes) -> str:
    if not any(month.startswith(word.lower()[:3]) for month in _MONTHS):
        return word
    name = _MONTHS[source.below(12)]
    name = name if len(word) > 3 else name[:3]
    return name.upper() if word.isupper() else name.title() if word[0].isupper() else name


def _credentials(_value: str, source: _Bytes) -> str:
    return f"{source.word(8)}:{source.word(8)}"


def _address(value: str, source: _Bytes) -> str:
    return f"{1 + source.below(9998)} {source.word(8).title()} Street" if value else value


def _real(kind: str, made: str) -> bool:
    """Whether a stand-in passes the check of what it stands for."""
    bare = re.sub(r"[\s.:/-]", "", made)
    if kind == "credit_card":
        return checksums.luhn(bare)
    if kind == "crypto_wallet":
        return checksums.is_bitcoin_address(made)
    if kind == "vehicle_id":
        return national_ids.vehicle_number(bare)
    return kind in ("national_id", "medical_id") and any(check(bare) for check in _CHECKS)


_MAKERS: dict[str, Callable[[str, _Bytes], str]] = {
    "email": _email,
    "phone": _phone,
    "ip": _ip,
    "credit_card": _card,
    "iban": _iban,
    "us_ssn": _ssn,
    "mac": _mac,
    "crypto_wallet": _wallet,
    "date_of_birth": _date,
    "url_credentials": _credentials,
    "address": _address,
}
