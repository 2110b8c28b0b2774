"""How each kind of personal data looks: a linear-time pattern for candidates, a check that tells it from look-alikes,
and the publication that both come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from treadle.text import candidate_checks as checks
from treadle.text import context_words, national_ids
from treadle.text.addresses import address_pattern, street
from treadle.text.candidate_checks import Check
from treadle.text.context_words import LANGUAGES
from treadle.text.phone_numbers import phone_number
from treadle.text.surroundings import LOOK_BACK


@dataclass(frozen=True, slots=True)
class Detector:
    """A kind, and how it is found.

    ``hint`` is a cheap pattern that every text with a finding matches: all hints together scan a text once,
    and most texts need no more. ``pattern`` finds candidates, ``check`` tells a finding from a look-alike.
    Both are RE2 patterns over bytes. A kind may have several detectors.
    """

    kind: str
    hint: bytes
    pattern: bytes
    check: Check


@dataclass(frozen=True, slots=True)
class Rule:
    """What is found under a kind, how it is told from look-alikes, and who published that."""

    finds: str
    check: str
    source: str


RULES: dict[str, Rule] = {
    "url_credentials": Rule("user and password in a URL", "form", "RFC 3986, 3.2.1"),
    "api_key": Rule("keys and tokens of services, private keys", "prefix and length", "the issuers' token formats"),
    "email": Rule("e-mail addresses", "form and lengths", "RFC 5321, 4.5.3.1"),
    "iban": Rule("bank accounts (IBAN)", "length by country, MOD 97-10", "ISO 13616, SWIFT IBAN Registry 99"),
    "credit_card": Rule("payment cards", "Luhn, issued prefix or a word before", "ISO/IEC 7812-1, annex B"),
    "crypto_wallet": Rule("Bitcoin addresses", "Base58Check or Bech32 checksum", "BIP 13, BIP 173, BIP 350"),
    "mac": Rule("hardware addresses", "form", "IEEE 802-2014, 8"),
    "us_ssn": Rule("US Social Security numbers", "ranges never issued", "SSA, Social Security Number Randomization"),
    "national_id": Rule(
        "national and tax numbers: BE BR CA DE ES FR GB IT NL PL",
        "check digits, a word before where the form is common",
        "the issuers' own rules, named in national_ids.py",
    ),
    "medical_id": Rule(
        "medical record, health plan and provider numbers: US DE GB",
        "check digits, or a word before",
        "45 CFR 164.514(b)(2)(i)(H), (I); CMS MBI; ISB 0149; § 290 SGB V",
    ),
    "ip": Rule("IP addresses", "valid, not loopback, no version", "RFC 791, RFC 4291"),
    "date_of_birth": Rule("dates of birth", "a word before", "45 CFR 164.514(b)(2)(i)(C)"),
    "passport": Rule("passport numbers", "a word before", "ICAO Doc 9303-3, 4.2"),
    "driver_license": Rule("driver licenses", "a word before", "45 CFR 164.514(b)(2)(i)(K)"),
    "account": Rule("account numbers", "a word before", "45 CFR 164.514(b)(2)(i)(J)"),
    "vehicle_id": Rule("vehicle numbers (VIN)", "check digit or a word before", "ISO 3779, 49 CFR 565.15"),
    "address": Rule("street addresses", "number, name and a word such as Street", "45 CFR 164.514(b)(2)(i)(B)"),
    "phone": Rule("phone and fax numbers", "international or North American form, or a word before", "ITU-T E.164"),
}

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
_TOKEN = (
    rb"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}"
    rb"|glpat-[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|sk-[A-Za-z0-9_-]{20,}|[sr]k_live_[A-Za-z0-9]{20,}"
    rb"|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,}|AIza[A-Za-z0-9_-]{35}"
    rb"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})"
    rb"|-----BEGIN[ A-Z]{0,30}PRIVATE KEY-----[A-Za-z0-9+/=\s:,-]*"
)
_TOKEN_HINT = (
    rb"\b(?:AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk-[A-Za-z0-9]|[sr]k_live_|hf_|npm_|pypi-|AIza|eyJ)"
    rb"|PRIVATE KEY-----"
)
_NATIONAL = (
    rb"\b(?:[12] ?\d\d ?\d\d ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d|(?:[XYZ]-?\d{7}|\d{8})-?[A-Z]"
    rb"|[A-Z]{6}[0-9L-NP-V]{2}[A-Z][0-9L-NP-V]{2}[A-Z][0-9L-NP-V]{3}[A-Z]|[A-Z]{2} ?\d\d ?\d\d ?\d\d ?[A-D]"
    rb"|\d{3}\.\d{3}\.\d{3}-\d\d|\d\d\.\d\d\.\d\d-\d{3}\.\d\d)\b"
)
_MEDICARE = rb"\b[1-9][A-Z][A-Z0-9]\d-?[A-Z][A-Z0-9]\d-?[A-Z]{2}\d\d\b"
_SPACED = rb"\b\d(?:[ .\-/]?\d){8,10}\b"


def detectors(languages: Sequence[str] = LANGUAGES, window: int = LOOK_BACK) -> tuple[Detector, ...]:
    """All of them in order of precedence: where two findings overlap, the earlier kind wins.

    ``languages`` are those whose context words count, within ``window`` bytes before a finding.
    """
    words = {kind: context_words.context(kind, languages, window) for kind in context_words.WORDS}
    address = address_pattern(languages)

    def named(kind: str, pattern: bytes, fewest_digits: int) -> Detector:
        return Detector(kind, words[kind].hint, pattern, partial(checks.named, words[kind], fewest_digits))

    scheme = words["medical_scheme"]
    national = words["national_id"]
    return (
        Detector(
            "url_credentials",
            rb"://[^\s/:@]+:[^\s/@]+@",
            rb"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/:@]+:[^\s/@]+@",
            checks.url_credentials,
        ),
        Detector("api_key", _TOKEN_HINT, _TOKEN, checks.whole),
        Detector(
            "email",
            rb"[A-Za-z0-9_\x80-\xff]@[A-Za-z0-9\x80-\xff]",
            rb"[A-Za-z0-9_\x80-\xff](?:[A-Za-z0-9._%+'\x80-\xff-]*[A-Za-z0-9_\x80-\xff])?"
            rb"@(?:[A-Za-z0-9\x80-\xff][A-Za-z0-9\x80-\xff-]*\.)+[A-Za-z\x80-\xff]{2,24}",
            checks.email,
        ),
        Detector(
            "iban", rb"\b[A-Za-z]{2}\d\d ?[A-Za-z0-9]", rb"\b[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){11,30}", checks.iban
        ),
        Detector(
            "credit_card",
            rb"\d(?:[ -]?\d){11}",
            rb"\d(?:[ -]?\d){11,30}",
            partial(checks.credit_card, words["credit_card"]),
        ),
        Detector(
            "crypto_wallet",
            rb"\b[13][1-9A-HJ-NP-Za-km-z]{25}|\bbc1[02-9ac-hj-np-z]{11}",
            rb"\b(?:[13][1-9A-HJ-NP-Za-km-z]{25,34}|bc1[02-9ac-hj-np-z]{11,71})\b",
            checks.crypto_wallet,
        ),
        Detector(
            "mac",
            rb"\b" + _PAIR + rb"[:-]" + _PAIR + rb"[:-]" + _PAIR,
            rb"\b(?:" + _PAIR + rb"[:-]){5}" + _PAIR,
            checks.mac,
        ),
        Detector(
            "us_ssn",
            rb"\b\d{3}[ -]\d{2}[ -]\d{4}\b",
            rb"\b\d{3}[ -]\d{2}[ -]\d{4}\b",
            partial(checks.us_ssn, words["us_ssn"]),
        ),
        Detector("national_id", _NATIONAL, _NATIONAL, checks.national_id),
        Detector("national_id", national.hint, _SPACED, partial(checks.checked, national, national_ids.NAMED)),
        Detector("medical_id", _MEDICARE, _MEDICARE, checks.medicare),
        Detector(
            "medical_id",
            scheme.hint,
            rb"\b(?:\d(?:[ -]?\d){9}|[A-Z]\d{9})\b",
            partial(checks.checked, scheme, national_ids.MEDICAL),
        ),
        named("medical_id", rb"\b[A-Z]{0,4}-?\d[A-Z0-9-]{3,18}\b", 4),
        Detector(
            "ip",
            rb"\d\.\d{1,3}\.\d{1,3}\.\d|:[0-9A-Fa-f]{0,4}:",
            rb"\b(?:\d{1,3}\.){3}\d{1,3}\b|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:(?:\.\d{1,3}){3})?",
            checks.ip,
        ),
        named("date_of_birth", _DATE, 0),
        named("passport", rb"\b[A-Z]{0,2}\d{6,9}\b", 6),
        named("driver_license", rb"\b[A-Za-z]{0,3}\d[A-Za-z0-9-]{3,15}[A-Za-z0-9]\b", 4),
        named("account", rb"\b\d(?:[ -]?\d){5,17}\b", 6),
        Detector(
            "vehicle_id",
            rb"\b[A-HJ-NPR-Z0-9]{17}\b",
            rb"\b[A-HJ-NPR-Z0-9]{17}\b",
            partial(checks.vehicle_id, words["vehicle_id"]),
        ),
        Detector("address", address, address, street),
        Detector(
            "phone",
            rb"(?:\d[ .\-/()]{0,3}){5}\d",
            rb"\(?\+?\(?\d(?:(?:[ .\-/]|\)[ .\-/]?|[ .\-/]?\()?\d){5,22}",
            partial(phone_number, words["phone"]),
        ),
    )


DETECTORS: tuple[Detector, ...] = detectors()
