"""Numbers that states and insurers give to people and vehicles, each with the check its issuer published."""

from __future__ import annotations

import re
from collections.abc import Callable

from treadle.text.checksums import luhn

_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_ODD = {
    **dict(zip("0123456789", (1, 0, 5, 7, 9, 13, 15, 17, 19, 21), strict=True)),
    **dict(
        zip(
            "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
            (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
            strict=True,
        )
    ),
}
_VIN_VALUES = dict(
    zip("ABCDEFGHJKLMNPRSTUVWXYZ", (1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 7, 9, *range(2, 10)), strict=True)
)
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


def german_tax_id(text: str) -> bool:
    """Steuer-Identifikationsnummer: § 139b AO; check digit ISO/IEC 7064 MOD 11,10, one digit two or three times."""
    if len(text) != 11 or not text.isdigit() or text[0] == "0" or max(map(text[:10].count, text[:10])) not in (2, 3):
        return False
    product = 10
    for digit in text[:10]:
        product = 2 * ((int(digit) + product) % 10 or 10) % 11
    return (11 - product) % 10 == int(text[10])


def french_nir(text: str) -> bool:
    """NIR of the INSEE: sex, year, month, place, order, and a key of 97 less the number modulo 97; Corsica 2A, 2B."""
    if not re.fullmatch(r"[12]\d\d(?:0[1-9]|1[0-2]|[2-9]\d)(?:\d\d|2[AB])\d{8}", text):
        return False
    number = int(text[:13].replace("2A", "19", 1) if text[5:7] == "2A" else text[:13].replace("2B", "18", 1))
    return 97 - number % 97 == int(text[13:])


def spanish_id(text: str) -> bool:
    """DNI and NIE: Real Decreto 1553/2005; the letter of the number modulo 23."""
    if not re.fullmatch(r"[XYZ]\d{7}[A-Z]|\d{8}[A-Z]", text):
        return False
    number = int(text[:-1].translate(str.maketrans("XYZ", "012")))
    return _DNI_LETTERS[number % 23] == text[-1]


def italian_fiscal_code(text: str) -> bool:
    """Codice fiscale: D.M. 23.12.1976; odd and even places weighed apart, modulo 26."""
    if not re.fullmatch(r"[A-Z]{6}[\dL-NP-V]{2}[A-EHLMPR-T][\dL-NP-V]{2}[A-Z][\dL-NP-V]{3}[A-Z]", text):
        return False
    total = sum(_ODD[sign] if place % 2 == 0 else int(sign, 36) - (10 if sign.isalpha() else 0)
                for place, sign in enumerate(text[:15]))  # fmt: skip
    return chr(ord("A") + total % 26) == text[15]


def british_nino(text: str) -> bool:
    """National Insurance number: HMRC NIM39110; it has a form and prefixes that are never used, and no check digit."""
    form = re.fullmatch(r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]", text)
    return form is not None and text[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def dutch_bsn(text: str) -> bool:
    """Burgerservicenummer: the elfproef of the Rijksdienst voor Identiteitsgegevens."""
    weights = (9, 8, 7, 6, 5, 4, 3, 2, -1)
    return len(text) == 9 and text.isdigit() and int(text) > 0 and _weighed(text, weights) % 11 == 0


def polish_pesel(text: str) -> bool:
    """PESEL: Ustawa o ewidencji ludności; a date, and weights 1 3 7 9 modulo 10."""
    if not re.fullmatch(r"\d\d(?:[02468][1-9]|[13579][0-2])(?:0[1-9]|[12]\d|3[01])\d{5}", text):
        return False
    return _weighed(text, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0


def belgian_number(text: str) -> bool:
    """Rijksregisternummer: Koninklijk besluit of 3 April 1984; 97 less the number modulo 97, from 2000 on after a 2."""
    if not re.fullmatch(r"\d\d(?:0\d|1[0-2])[0-3]\d{6}", text):
        return False
    return int(text[9:]) in (97 - int(text[:9]) % 97, 97 - int("2" + text[:9]) % 97)


def canadian_sin(text: str) -> bool:
    """Social Insurance Number: Luhn; numbers that begin with 0 or 8 are given to nobody."""
    return len(text) == 9 and text.isdigit() and text[0] not in "08" and luhn(text)


def brazilian_cpf(text: str) -> bool:
    """CPF of the Receita Federal: two check digits modulo 11."""
    if len(text) != 11 or not text.isdigit() or len(set(text)) == 1:
        return False
    first = _weighed(text[:9], range(10, 1, -1)) * 10 % 11 % 10
    second = _weighed(text[:10], range(11, 1, -1)) * 10 % 11 % 10
    return text[9:] == f"{first}{second}"


def nhs_number(text: str) -> bool:
    """NHS number: ISB 0149; ten digits modulo 11."""
    if len(text) != 10 or not text.isdigit():
        return False
    check = 11 - _weighed(text[:9], range(10, 1, -1)) % 11
    return check != 10 and check % 11 == int(text[9])


def us_npi(text: str) -> bool:
    """National Provider Identifier: 45 CFR 162.406; Luhn after the prefix 80840."""
    return len(text) == 10 and text.isdigit() and text[0] in "12" and luhn("80840" + text)


def us_medicare(text: str) -> bool:
    """Medicare Beneficiary Identifier: the form that CMS published, without S, L, O, I, B and Z."""
    letter, either = "[AC-HJKMNP-RT-Y]", "[AC-HJKMNP-RT-Y0-9]"
    form = rf"[1-9]{letter}{either}\d{letter}{either}\d{letter}{{2}}\d\d"
    return re.fullmatch(form, text) is not None


def german_insured(text: str) -> bool:
    """Krankenversichertennummer: § 290 SGB V; a letter, eight digits, and their weighed sum of digits modulo 10."""
    if not re.fullmatch(r"[A-Z]\d{9}", text):
        return False
    digits = f"{ord(text[0]) - 64:02}{text[1:9]}"
    total = sum(sum(divmod(int(digit) * (1 + place % 2), 10)) for place, digit in enumerate(digits))
    return total % 10 == int(text[9])


def vehicle_number(text: str) -> bool:
    """Vehicle identification number: ISO 3779 with the check digit of 49 CFR 565.15."""
    if not re.fullmatch(r"[A-HJ-NPR-Z\d]{17}", text) or text.isdigit() or text.isalpha():
        return False
    total = sum(
        weight * (int(sign) if sign.isdigit() else _VIN_VALUES[sign])
        for sign, weight in zip(text, _VIN_WEIGHTS, strict=True)
    )
    return "0123456789X"[total % 11] == text[8]


def _weighed(digits: str, weights: tuple[int, ...] | range) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True))


Check = Callable[[str], bool]
# Those whose form or check says enough, and those that are told from other numbers by a word before them only.
SURE: tuple[Check, ...] = (french_nir, spanish_id, italian_fiscal_code, british_nino)
SURE_WRITTEN: tuple[tuple[re.Pattern[bytes], Check], ...] = (
    (re.compile(rb"\d{3}\.\d{3}\.\d{3}-\d\d"), brazilian_cpf),
    (re.compile(rb"\d\d\.\d\d\.\d\d-\d{3}\.\d\d"), belgian_number),
)
NAMED: tuple[Check, ...] = (german_tax_id, dutch_bsn, polish_pesel, belgian_number, canadian_sin, brazilian_cpf)
MEDICAL: tuple[Check, ...] = (nhs_number, us_npi, german_insured)
