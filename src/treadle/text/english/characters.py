"""What each Unicode character may do in a word: one number a character, one bit a property.

Ranges of letters, quotes, symbols and units are those of spaCy 3.8 (``spacy.lang.char_classes``, MIT license,
Explosion AI); spaces, digits and letters otherwise are Python's own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPACE = 1 << 0
ALPHA = 1 << 1  # what the rules call a letter
LOWER = 1 << 2  # of those: lower case, or of a script without case
UPPER = 1 << 3
SYMBOL = 1 << 4  # dingbats, emoji
QUOTE = 1 << 5
PREFIX = 1 << 6  # comes off the front of a word
SUFFIX = 1 << 7  # comes off its end
BEFORE_DOT = 1 << 8  # after it a full stop comes off the end
UNIT_END = 1 << 9  # the last character of a unit
WORD = 1 << 10  # \w
DIGIT = 1 << 11  # \d
HOST = 1 << 12  # part of the name of a host
INSIDE = 1 << 13  # may split a word in its middle
DOT = 1 << 14
LETTER = 1 << 15  # str.isalpha
PUNCTUATION = 1 << 16  # Unicode category P
SENTENCE_END = 1 << 17
MARK = 1 << 18  # what datatrove calls a symbol

_ASSIGNED = 0x40000  # beyond it Unicode has no letter, digit, space or punctuation
_ALL = 0x110000
_UNCASED = (
    "591-5F4 620-64A 66E-6D5 6E5-6FF 750-77F 8A0-8BD 900-9FF B80-CFF D80-DFF 1100-137F 2E80-2FDF 2FF0-30FF 31C0-31EF "
    "3200-4DBF 4E00-9FFF AC00-D7AF F900-FAFF FB1D-FBB1 FBD3-FD3D FD50-FDC7 FDF0-FDFB FE30-FE4F FE70-FEFC 1EE00-1EEBB "
    "1F200-1F2FF 20000-2A6DF 2A700-2EBEF 2F800-2FA1F"
)
_CASED = (
    "41-5A 61-7A C0-D6 D8-F6 F8-1BF 1C4-2AF 386 388-38A 38C 38E-38F 391-3A9 3AC-3AF 3B1-3C9 3CC-3CE 400-401 403-40A "
    "40C-40D 410-451 453-45A 45C-45D 490-491 496-497 4A2-4A3 4AE-4AF 4BA-4BB 4D8-4D9 4E8-4E9 1D00-1D25 1D6B-1D77 "
    "1D79-1D9A 1E00-1EFF 2C60-2C7B 2C7E-2C7F A722-A76F A771-A787 A78B-A78E A790-A7B9 A7FA AB30-AB5A AB60-AB64 "
    "FF21-FF3A FF41-FF5A"
)
_NEITHER_CASE = "1BB 1C5 1C8 1CB 1F2"
_UPPER_TOO = "3A2"
_SYMBOLS = (
    "A6 A9 AE B0 482 58D-58E 60E-60F 6DE 6E9 6FD-6FE 7F6 9FA B70 BF3-BF8 BFA C7F D4F D79 F01-F03 F13 F15-F17 F1A-F1F "
    "F34 F36 F38 FBE-FC5 FC7-FCC FCE-FCF FD5-FD8 109E-109F 1390-1399 1940 19DE-19FF 1B61-1B6A 1B74-1B7C 2100-2101 "
    "2103-2106 2108-2109 2114 2116-2117 211E-2123 2125 2127 2129 212E 213A-213B 214A 214C-214D 214F 218A-218B "
    "2195-2199 219C-219F 21A1-21A2 21A4-21A5 21A7-21AD 21AF-21CD 21D0-21D1 21D3 21D5-21F3 2300-2307 230C-231F "
    "2322-2328 232B-237B 237D-239A 23B4-23DB 23E2-2426 2440-244A 249C-24E9 2500-25B6 25B8-25C0 25C2-25F7 2600-266E "
    "2670-2767 2794-27BF 2800-28FF 2B00-2B2F 2B45-2B46 2B4D-2B73 2B76-2B95 2B98-2BC8 2BCA-2BFE 2CE5-2CEA 2E80-2E99 "
    "2E9B-2EF3 2F00-2FD5 2FF0-2FFB 3004 3012-3013 3020 3036-3037 303E-303F 3190-3191 3196-319F 31C0-31E3 3200-321E "
    "322A-3247 3250 3260-327F 328A-32B0 32C0-32FE 3300-33FF 4DC0-4DFF A490-A4C6 A828-A82B A836-A837 A839 AA77-AA79 "
    "FDFD FFE4 FFE8 FFED-FFEE FFFC-FFFD 10137-1013F 10179-10189 1018C-1018E 10190-1019B 101A0 101D0-101FC 10877-10878 "
    "10AC8 1173F 16B3C-16B3F 16B45 1BC9C 1D000-1D0F5 1D100-1D126 1D129-1D164 1D16A-1D16C 1D183-1D184 1D18C-1D1A9 "
    "1D1AE-1D1E8 1D200-1D241 1D245 1D300-1D356 1D800-1D9FF 1DA37-1DA3A 1DA6D-1DA74 1DA76-1DA83 1DA85-1DA86 1ECAC "
    "1F000-1F02B 1F030-1F093 1F0A0-1F0AE 1F0B1-1F0BF 1F0C1-1F0CF 1F0D1-1F0F5 1F110-1F16B 1F170-1F1AC 1F1E6-1F202 "
    "1F210-1F23B 1F240-1F248 1F250-1F251 1F260-1F265 1F300-1F3FA 1F400-1F6D4 1F6E0-1F6EC 1F6F0-1F6F9 1F700-1F773 "
    "1F780-1F7D8 1F800-1F80B 1F810-1F847 1F850-1F859 1F860-1F887 1F890-1F8AD 1F900-1F90B 1F910-1F93E 1F940-1F970 "
    "1F973-1F976 1F97A 1F97C-1F9A2 1F9B0-1F9B9 1F9C0-1F9C2 1F9D0-1F9FF 1FA60-1FA6D"
)
_QUOTES = "',`«´»‘’‚“”„⟦⟧《》「」『』【】〔〕（）〈〉\"\u2329\u232a"  # noqa: RUF001
_PUNCTUATION = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"  # noqa: RUF001
_CURRENCY = "$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₵₶₷₸₹₺₻₼₾₿"
_BEFORE_DOT = "!\"#%&'()*+,-0123456789:;<>?[]_`{|}¡«²´·»¿،؛؟٪‘’‚“”„…⟦⟧！（），：；？～\u2329\u232a"  # noqa: RUF001
_INSIDE = ".…+-*^,–—~:<>=/"  # noqa: RUF001
_UNITS = """
km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph hPa Pa mbar mb
MB kb KB gb GB tb TB T G M K % км км² км³ м м² м³ дм дм² дм³ см см² см³ мм мм² мм³ нм кг г мг м/с км/ч кПа Па мбар Кб
КБ кб Мб МБ мб Гб ГБ гб Тб ТБ тбكم كم² كم³ م م² م³ سم سم² سم³ مم مم² مم³ كم غرام جرام جم كغ ملغ كوب اكواب + US$ C$ A$
"""  # noqa: RUF001
# spaCy's sentencizer.
_ENDS = (
    "!.?։؟۔܀܁܂߹।॥၊။።፧፨᙮᜵᜶᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᰻᰼᱾᱿‼‽⁇⁈⁉⸮⸼꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？𐩖𐩗𑁇𑁈𑂾𑂿𑃀𑃁𑅁𑅂𑅃𑇅𑇆𑇍𑇞𑇟"  # noqa: RUF001
    "𑈸𑈹𑈻𑈼𑊩𑑋𑑌𑗂𑗃𑗉𑗊𑗋𑗌𑗍𑗎𑗏𑗐𑗑𑗒𑗓𑗔𑗕𑗖𑗗𑙁𑙂𑜼𑜽𑜾𑩂𑩃𑪛𑪜𑱁𑱂𖩮𖩯𖫵𖬷𖬸𖭄𛲟𝪈｡。"
)
# datatrove 0.10, where a word of these alone counts as none.
_MARKS = (
    "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"  # noqa: RUF001
    + "".join(chr(code) for low, high in ((0, 9), (11, 13), (13, 32), (127, 160)) for code in range(low, high))
)
# Ends of sentences in all scripts, as datatrove 0.10 lists them for FineWeb.
TERMINAL = frozenset(_ENDS) | frozenset(
    "\u061d\u061e\u0837\u0839\u083d\u083e\u17d4\u17d5\u17d6\u17d9\u17da\u1b7d\u1b7e\u2e53\u2e54"
    "\U00010f55\U00010f56\U00010f57\U00010f58\U00010f59\U00010f86\U00010f87\U00010f88\U00010f89"
    "\U00011944\U00011946\U00011ef7\U00011ef8\U00011f43\U00011f44\U00016e98"
)


@lru_cache(1)
def properties() -> NDArray[np.uint32]:
    """The bits of every character, of shape (0x110000,)."""
    import numpy as np

    bits = np.zeros(_ALL, np.uint32)

    def mark(codes: Iterable[int], bit: int) -> None:
        bits[np.fromiter(codes, np.int64)] |= np.uint32(bit)

    characters = [chr(code) for code in range(_ASSIGNED)] + [chr(code) for code in range(0xE0000, 0xE0200)]
    kinds = {character: unicodedata.category(character) for character in characters}
    mark((ord(each) for each in characters if each.isspace()), SPACE)
    mark((ord(each) for each in characters if each.isalpha()), LETTER)
    mark((ord(each) for each in characters if each.isalnum() or each == "_"), WORD)
    mark((ord(each) for each, kind in kinds.items() if kind == "Nd"), DIGIT)
    mark((ord(each) for each, kind in kinds.items() if kind[0] == "P"), PUNCTUATION)
    cased = set(_ranges(_CASED)) - set(_ranges(_NEITHER_CASE))
    upper = {code for code in cased if kinds[chr(code)] == "Lu"} | set(_ranges(_UPPER_TOO))
    mark(_ranges(f"{_CASED} {_NEITHER_CASE}"), ALPHA)
    mark(_ranges(_UPPER_TOO), ALPHA)
    mark(_ranges(_UNCASED), ALPHA | LOWER | UPPER)
    mark(upper, UPPER)
    mark(cased - upper, LOWER)
    mark(_ranges("30-39 41-5A 61-7A A1-FFFF"), HOST)
    for text, bit in (
        (_QUOTES, QUOTE | PREFIX | SUFFIX),
        (_PUNCTUATION, PREFIX | SUFFIX),
        ("—–", PREFIX | SUFFIX),  # noqa: RUF001
        ("§%=" + _CURRENCY, PREFIX),
        (_BEFORE_DOT, BEFORE_DOT),
        ("".join(unit[-1] for unit in units()), UNIT_END),
        (_INSIDE, INSIDE),
        (".", DOT),
        (_ENDS, SENTENCE_END),
        ([*_MARKS, *TERMINAL], MARK),
    ):
        mark(map(ord, text), bit)
    mark(_ranges(_SYMBOLS), SYMBOL | PREFIX | SUFFIX | INSIDE)
    bits[(bits & LOWER) > 0] |= np.uint32(BEFORE_DOT)
    return bits


def units() -> list[str]:
    """What comes off the end of a number: units, currencies and the plus sign."""
    return list(dict.fromkeys([*_UNITS.split(), *_CURRENCY]))


def _ranges(text: str) -> Iterator[int]:
    for part in text.split():
        low, _, high = part.partition("-")
        yield from range(int(low, 16), int(high or low, 16) + 1)
