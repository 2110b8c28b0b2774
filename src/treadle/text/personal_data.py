"""Personal data with a recognizable form: found by linear-time patterns, confirmed by checksums, ranges or the words before it.

Each text is scanned once by all patterns together (RE2's set matching), and only what then matched is looked at closer. Names and
addresses have no form and are not found here. Nothing in this module logs or raises what it found.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from treadle.core.errors import MissingExtra, UserError, nearest
from treadle.text import checksums

_LOOK_BACK = 48  # bytes before a number in which a word like "phone" counts
_EXCERPT_MARGIN = 96  # characters; longer than any finding, so an excerpt never ends inside one


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Characters ``start`` to ``end`` (half open) of a text are of this kind."""

    start: int
    end: int
    kind: str


# What a detector is given: the text as UTF-8, where the pattern matched. It answers where the finding is, or None.
Check = Callable[[bytes, int, int], "tuple[int, int] | None"]


@dataclass(frozen=True, slots=True)
class Detector:
    """A kind, the RE2 pattern of its candidates, and the check that tells a finding from a look-alike."""

    kind: str
    pattern: bytes
    check: Check


def _context(*words: str) -> Callable[[bytes, int], bool]:
    """Whether one of the words stands shortly before a position."""
    pattern = re.compile(rf"(?i)(?<![a-z])(?:{'|'.join(words)})".encode())
    return lambda data, start: pattern.search(data, max(0, start - _LOOK_BACK), start) is not None


def _isolated(data: bytes, start: int, end: int) -> bool:
    """Not a part of a longer number or word: no letter or digit touches it, nor a point with a digit behind."""
    before, after = data[max(0, start - 2) : start], data[end : end + 2]
    if before[-1:].isalnum() or after[:1].isalnum():
        return False
    return not (before[-1:] in b".-" and before[:1].isdigit()) and not (after[:1] in b".-" and after[1:].isdigit())


def _email(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    local = data[start : data.index(b"@", start)]
    return None if b".." in local or len(local) > 64 else (start, end)


def _credit_card(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    text = data[start:end]
    digits = re.sub(rb"[ -]", b"", text).decode()
    if not checksums.is_card_number(digits) or not _isolated(data, start, end):
        return None
    groups = tuple(len(part) for part in re.split(rb"[ -]", text))
    grouped = len(groups) == 1 or set(groups[:-1]) == {4} or groups in ((4, 6, 5), (4, 6, 4))
    return (start, end) if grouped and not (b" " in text and b"-" in text) else None


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


_SSN_CONTEXT = _context("ssn", "social security", "soc sec")


def _us_ssn(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    text = data[start:end]
    area, group, serial = text[:3], text[4:6], text[7:]
    # Ranges never issued: ssa.gov/employer/randomization.html.
    if area in (b"000", b"666") or area[:1] == b"9" or group == b"00" or serial == b"0000":
        return None
    if text[3:4] != text[6:7] or not _isolated(data, start, end):
        return None
    return (start, end) if text[3:4] == b"-" or _SSN_CONTEXT(data, start) else None


_VERSION_BEFORE = re.compile(rb"(?i)(?:\bv|version|release|section|chapter)\s*:?\s*$")


def _ip(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    text = data[start:end].decode()
    if ":" in text:
        text = text.rstrip(":") if not text.endswith("::") else text
        end = start + len(text)
        if sum(1 for group in text.split(":") if group) < 3:  # `a[1::2]` is a valid address and never meant as one
            return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.is_loopback or address.is_unspecified or text == "255.255.255.255":
        return None
    if not _isolated(data, start, end) or data[end : end + 1] == b":" and ":" in text:
        return None
    return None if _VERSION_BEFORE.search(data, max(0, start - 12), start) else (start, end)


def _mac(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    text = data[start:end]
    around = data[start - 1 : start] + data[end : end + 1]
    same = text.count(b":") in (0, 5)
    return (start, end) if same and not re.search(rb"[0-9A-Za-z:-]", around) else None


def _url_credentials(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    return data.index(b"://", start, end) + 3, end - 1


_BIRTH_CONTEXT = _context(
    "born", "birth", "dob", "d\\.o\\.b", "geboren", "geburt", "n[\xc3\xa9e]+ le", "naissance", "nacid", "nacimiento", "nat[oa] il", "nascita"
)


def _date_of_birth(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    return (start, end) if _BIRTH_CONTEXT(data, start) and _isolated(data, start, end) else None


_PASSPORT_CONTEXT = _context("passport", "passeport", "pasaporte", "reisepass", "passaporto")
_LICENSE_CONTEXT = _context(
    "driv(?:er|ing)['\\w\xe2\x80\x99]{0,5} licen[cs]e", "driver'?s'? id", "permis de conduire", "f.{1,2}hrerschein", "licencia de conducir", "licence no", "license no"
)


def _after(context: Callable[[bytes, int], bool], fewest_digits: int) -> Check:
    def check(data: bytes, start: int, end: int) -> tuple[int, int] | None:
        digits = sum(1 for byte in data[start:end] if 0x30 <= byte <= 0x39)
        if digits < fewest_digits or not _isolated(data, start, end) or not context(data, start):
            return None
        return start, end

    return check


def _crypto_wallet(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    return (start, end) if checksums.is_bitcoin_address(data[start:end].decode()) else None


_PHONE_CONTEXT = _context(
    "phones?", "tel\\b", "telephone", "telefon", "t[\xc3\xa9]+l\\b", "t[\xc3\xa9]+l[\xc3\xa9]+phone", "tel[\xc3\xa9]+fono", "call", "mobile", "mobil\\b", "cell",
    "fax", "dial", "whatsapp", "handy", "m[\xc3\xb3]+vil", "reach (?:me|us|him|her)", "contact", "sms", "text (?:me|us)", "extension", "portable"
)
_NORTH_AMERICAN = re.compile(rb"(?:\+?1[ .-]?|001[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])\d{3}[ .-]\d{4}")
_EXTENSION = re.compile(rb" ?(?:x|ext\.?) ?\d{1,6}$")
_DATE_LIKE = re.compile(rb"(?:\d{4}[-./]\d\d?[-./]\d\d?|\d\d?[-./]\d\d?[-./]\d{4})(?!\d)")


def _phone(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    text = data[start:end]
    main = _EXTENSION.sub(b"", text)
    if not _isolated(data, start, end) or _DATE_LIKE.match(main):
        return None
    digits = re.sub(rb"\D", b"", main)
    if not 6 <= len(digits) <= 15 or main.count(b"(") != main.count(b")"):
        return None
    international = main[:1] == b"+" and len(digits) >= 8
    if international or _NORTH_AMERICAN.fullmatch(main):
        return start, end
    groups = re.findall(rb"\d+", main)
    return (start, end) if len(groups) <= 6 and _PHONE_CONTEXT(data, start) else None


_MONTH = (
    rb"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?"
    rb"|dec(?:ember)?)\.?"
)
_DATE = (
    rb"(?i)\b(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:19|20)?\d{2}"
    rb"|\d{1,2}(?:st|nd|rd|th)? (?:of )?" + _MONTH + rb",? (?:19|20)\d{2}|" + _MONTH + rb" \d{1,2}(?:st|nd|rd|th)?,? (?:19|20)\d{2})\b"
)
_PAIR = rb"[0-9A-Fa-f]{2}"

# In order of precedence: where two findings overlap, the earlier kind wins.
DETECTORS: tuple[Detector, ...] = (
    Detector("url_credentials", rb"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/:@]{1,128}:[^\s/@]{1,256}@", _url_credentials),
    Detector(
        "email",
        rb"[A-Za-z0-9_\x80-\xff](?:[A-Za-z0-9._%+'\x80-\xff-]{0,62}[A-Za-z0-9_\x80-\xff])?"
        rb"@(?:[A-Za-z0-9\x80-\xff](?:[A-Za-z0-9\x80-\xff-]{0,61}[A-Za-z0-9\x80-\xff])?\.){1,8}[A-Za-z\x80-\xff]{2,24}",
        _email,
    ),
    Detector("iban", rb"\b[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){11,30}", _iban),
    Detector("credit_card", rb"\d(?:[ -]?\d){11,18}", _credit_card),
    Detector("crypto_wallet", rb"\b(?:[13][1-9A-HJ-NP-Za-km-z]{25,34}|bc1[02-9ac-hj-np-z]{11,71})\b", _crypto_wallet),
    Detector("mac", rb"\b(?:" + _PAIR + rb"[:-]){5}" + _PAIR, _mac),
    Detector("us_ssn", rb"\b\d{3}[ -]\d{2}[ -]\d{4}\b", _us_ssn),
    Detector("ip", rb"\b(?:\d{1,3}\.){3}\d{1,3}\b|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:(?:\.\d{1,3}){3})?", _ip),
    Detector("date_of_birth", _DATE, _date_of_birth),
    Detector("passport", rb"\b[A-Z]{0,2}\d{6,9}\b", _after(_PASSPORT_CONTEXT, 6)),
    Detector("driver_license", rb"\b[A-Za-z]{0,3}\d[A-Za-z0-9-]{3,15}[A-Za-z0-9]\b", _after(_LICENSE_CONTEXT, 4)),
    Detector("phone", rb"\+?\(?\d[\d ().\-/]{4,22}\d(?: ?(?:x|ext\.?) ?\d{1,6})?", _phone),
)
KINDS: tuple[str, ...] = tuple(detector.kind for detector in DETECTORS)


class Scanner:
    """The compiled patterns of some kinds. Make one and use it for many texts."""

    def __init__(self, kinds: Sequence[str] = KINDS) -> None:
        """``MissingExtra`` without google-re2, ``UserError`` for an unknown kind."""
        re2 = _re2()
        for kind in kinds:
            if kind not in KINDS:
                raise UserError(f"there is no kind of personal data called {kind!r};{nearest(kind, KINDS)}")
        self._detectors = [detector for detector in DETECTORS if detector.kind in kinds]
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1  # patterns and texts are UTF-8 bytes
        self._set = re2.Set.SearchSet(options)
        for detector in self._detectors:
            self._set.Add(detector.pattern)
        self._set.Compile()
        self._patterns = [re2.compile(detector.pattern) for detector in self._detectors]

    def find(self, text: str) -> list[Finding]:
        """Findings by position, none overlapping another; positions count characters."""
        data = text.encode("utf-8", "surrogatepass")
        matched = self._set.Match(data)
        if not matched:
            return []
        spans: list[tuple[int, int, str]] = []
        for index in sorted(matched):
            detector = self._detectors[index]
            for start, end in self._candidates(index, data):
                place = detector.check(data, start, end)
                if place and all(place[1] <= taken[0] or taken[1] <= place[0] for taken in spans):
                    spans.append((*place, detector.kind))
        spans.sort()
        if len(data) == len(text):
            return [Finding(*span) for span in spans]
        return list(_in_characters(data, spans))

    def redact(self, text: str) -> tuple[str, list[Finding]]:
        """The text with each finding replaced by its kind, as in ``[EMAIL]``, and the findings; doing it twice changes nothing."""
        findings = self.find(text)
        if not findings:
            return text, findings
        parts, position = [], 0
        for finding in findings:
            parts += [text[position : finding.start], f"[{finding.kind.upper()}]"]
            position = finding.end
        return "".join([*parts, text[position:]]), findings

    def _candidates(self, index: int, data: bytes) -> Iterator[tuple[int, int]]:
        for match in self._patterns[index].finditer(data):
            yield match.span()


@functools.lru_cache(maxsize=32)
def scanner(kinds: tuple[str, ...] = KINDS) -> Scanner:
    """A scanner for these kinds, compiled once in a process."""
    return Scanner(kinds)


def find(text: str, kinds: Iterable[str] = KINDS) -> list[Finding]:
    """Findings of these kinds in one text."""
    return scanner(tuple(kinds)).find(text)


def redact(text: str, kinds: Iterable[str] = KINDS) -> str:
    """The text with findings of these kinds replaced by ``[KIND]``."""
    return scanner(tuple(kinds)).redact(text)[0]


def mask(text: str) -> str:
    """The text as it may be shown: every kind replaced."""
    return redact(text)


def excerpt(text: str, length: int) -> str:
    """At most ``length`` characters from the start, masked, with an ellipsis where it was cut."""
    window = text[: length + _EXCERPT_MARGIN]
    masked = mask(window)
    if len(window) < len(text):  # a finding that the window cuts in two lies in its last characters
        masked = masked[: max(0, len(masked) - _EXCERPT_MARGIN)]
    shown = masked[:length]
    return shown if len(shown) == len(masked) and len(window) == len(text) else shown + "…"


def _in_characters(data: bytes, spans: list[tuple[int, int, str]]) -> Iterator[Finding]:
    """Byte positions as character positions, in one pass."""
    position = characters = 0
    for start, end, kind in spans:
        first = characters + len(data[position:start].decode("utf-8", "surrogatepass"))
        characters = first + len(data[start:end].decode("utf-8", "surrogatepass"))
        position = end
        yield Finding(first, characters, kind)


def _re2() -> Any:
    try:
        import re2
    except ImportError:
        raise MissingExtra("google-re2", extra="data") from None
    return re2
