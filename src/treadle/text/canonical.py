"""One spelling for each way to write the same address or number, so that a person is found however they are written."""

from __future__ import annotations

import ipaddress
import re

# Country calling codes of one and two digits; all others have three (ITU-T E.164, list of assigned codes).
_ONE = ("1", "7")
_TWO = re.compile(r"2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]")
_EXTENSION = re.compile(r"(?i) ?(?:x|ext\.?) ?\d{1,6}$")
_SHORTEST = 7  # digits of a phone number that stand for one line in the world, or nearly


def canonical(kind: str, value: str) -> str:
    """The finding in one spelling: addresses in lower case, numbers without what groups them.

    Of a phone number the part after the country and its trunk prefix: +49 30 1234567 and 030 1234567 are one. Two
    people of two countries may share that; it is compared where a mention too many is better than one too few.
    """
    if kind == "phone":
        return _phone(value)
    if kind in ("email", "address", "url_credentials"):
        return " ".join(value.lower().split())
    if kind == "ip":
        return _ip(value.strip().lower())
    if kind in ("api_key", "crypto_wallet", "date_of_birth"):
        return value.strip().lower() if kind == "date_of_birth" else value.strip()
    return re.sub(r"[\s.:/-]", "", value).upper()


def names_one(kind: str, value: str) -> bool:
    """Whether a value of this kind stands for one person; a date of birth does not, nor a short number."""
    return kind not in ("date_of_birth", "address") and len(canonical(kind, value)) >= _SHORTEST


def _ip(value: str) -> str:
    """RFC 5952's form, which is one for each address."""
    try:
        return ipaddress.ip_address(value).compressed
    except ValueError:
        return value


def _phone(value: str) -> str:
    digits = re.sub(r"\D", "", _EXTENSION.sub("", value))
    if value.lstrip(" (").startswith("+") or digits.startswith("00"):
        digits = digits.removeprefix("00")
        digits = digits[1 if digits[:1] in _ONE else 2 if _TWO.match(digits) else 3 :]
    elif len(digits) == 11 and digits[0] == "1":
        digits = digits[1:]
    return digits.lstrip("0")
