"""Encodings of one byte a character, told apart by the letters and the commonest words of languages in Latin script.

A text that is read in the wrong one has letters that no language has together, or signs within its words.
"""

# ruff: noqa: RUF001 (letters that look alike are what this is about)

from __future__ import annotations

import re
from collections import Counter

# For each language its letters beyond ASCII, and words that its texts are full of.
_WESTERN = (
    ("éèêëàâîïôœùûüçÿ", "le la les de des du et un une est pas que dans pour il je vous au qui sur en ce"),
    ("äöüßé", "der die das und ist nicht ein eine den von zu mit ich sie auf im für dem des"),
    ("áéíñóúüçª", "el la los las de que y en un una es no por con del se su para como"),
    ("áàâãçéêíóôõúü", "o a os as de que e do da em um uma para com se no na por mais dos"),
    ("àèéìíîòóùú", "il la di che e un una non per in con del della le i si da sono al"),
    ("åäöéüà", "och i att det som en på är av för den till med inte jag ett han om"),
    ("æøåéèêóòôâäöü", "og i det at en er af på til som ikke jeg den de med for har av et vi"),
    ("áéíóúýþæöð", "og að í er sem til ekki um það við en með var hann ég af"),
    ("áíóúýðæøé", "og í at er sum til ikki av ein hann men tey"),
    ("äöåšžé", "ja on ei se että oli hän tom ovat en mutta kun minä"),
    ("éëïóöüèêáíúàâûôîç", "de het een en van in is dat op te niet met zijn voor die er"),
    ("àçèéíïòóúüñ", "el la de i que els les en un una no per amb del a"),
    ("äõöüšž", "ja on ei et see ta oli ma ka kui"),
    ("áéíóúàèìòù", "an na agus a ar is go i do le air tha"),
    ("çëéèêâîôûïüöä", "de e un la en che i per ed ina il ei"),
)
_CENTRAL = (
    ("ąćęłńóśźż", "w i na z się nie do że jest to o jak za po a od co"),
    ("áčďéěíňóřšťúůýž", "a se je na v že to s z do o i jsem jsme by ale za si jako jen"),
    ("áäčďéíĺľňóôŕšťúýž", "a sa je na v že to s z do o aj som by ale za si ako od"),
    ("áéíóöőúüű", "a az és hogy nem egy is van meg de ez ha el ki csak mint ezt"),
    ("čćđšž", "i je u se na da su za od to nije ne sa o koji in so ki pa bi po ga"),
    ("ăâîşţ", "de la în nu din cu a se pe un o că mai este sunt si pentru ce lui"),
)
_TURKISH = (("çğıöşüâîûi", "ve bir bu da de için ne o ben çok mi gibi ile daha sen"),)
_BALTIC = (
    ("ąčęėįšųūž", "ir yra kad į su tai ne kaip iš o jis buvo ar aš tik"),
    ("āčēģīķļņšūž", "un ir ka no ar par es uz tas kas lai vai viņš nav"),
)
# Names of everywhere, where hardly a letter is beyond ASCII.
_ENGLISH = ("".join(letters for letters, _ in _WESTERN), "the of and to in is that it a was for he with you")
# What nobody writes by default any more needs more of the commonest words than what everybody does.
_WRITTEN = (
    ("cp1252", _WESTERN, 0), ("cp1250", _CENTRAL, 0), ("iso8859_2", _CENTRAL, 0), ("cp1254", _TURKISH, 0),
    ("cp1257", _BALTIC, 0), ("mac_roman", _WESTERN, 2), ("cp850", _WESTERN, 2),
)  # fmt: skip
_SIGNS = frozenset("\xa0\xad«»‹›“”„‘’‚–—…€£§°·¿¡ªº²³½¼¾©®™±×•´")
_BEYOND = re.compile(r"[^\x00-\x7f]")
_LETTERS = "[^\\W\\d_ªº¹²³¼½¾]"
# Signs in a word, or raised at its end, where it is no `m³`; capitals in a word; words without a letter of ASCII.
_WITHIN = re.compile(rf"(?<={_LETTERS})(?:[ªº²¼½¾]|[^\w\s\x00-\x7f’·–—\xad…])(?={_LETTERS})|(?<=[^\W\d_m])[±¹³]")
_RAISED = re.compile(r"(?<=[a-z])[^\W\da-zA-Z_]")
_ALONE = re.compile(r"(?<!\w)[^\W\da-zA-Z_]{3,}(?!\w)")
_WORD = re.compile(r"\w+")
_MOST = 0.05  # of what lies beyond ASCII may be of no language
_LOOKED_AT = 1 << 15  # bytes, from a little before the first beyond ASCII


def latin_encoding(data: bytes) -> str | None:
    """The encoding in which bytes look most like a language in Latin script; None where they do in none."""
    first = re.search(rb"[\x80-\xff]", data)
    if first is None or not re.search(rb"[0-9A-Za-z]", data):
        return None
    start = max(0, first.start() - 1000)
    best, most = None, -_MOST
    for encoding, languages, doubt in _WRITTEN:
        try:
            text = data[start : start + _LOOKED_AT].decode(encoding)
        except UnicodeDecodeError:
            continue
        likeness = _likeness(text, languages, doubt)
        if likeness > most:
            best, most = encoding, likeness
    return best


def _likeness(text: str, languages: tuple[tuple[str, str], ...], doubt: int) -> float:
    """The share of the commonest words of the language that fits best, less that of misfits beyond ASCII."""
    beyond = Counter(_BEYOND.findall(text))
    letters = {letter: count for letter, count in beyond.items() if letter.isalpha() and letter not in "ªº"}
    if languages is _WESTERN and sum(letters.values()) * 25 < len(text):
        languages = (*_WESTERN, _ENGLISH)
    most = _MOST * beyond.total()
    odd = sum(beyond[sign] for sign in beyond.keys() - letters.keys() - _SIGNS)
    fitting = {}
    for alphabet, common in languages:
        strange = odd + sum(count for letter, count in letters.items() if letter.lower()[0] not in alphabet)
        if strange <= most:
            fitting[common] = strange
    if not fitting:
        return -1.0
    odd = len(_WITHIN.findall(text)) + sum(map(len, _ALONE.findall(text)))
    odd += sum(map(str.isupper, _RAISED.findall(text)))
    words = Counter(_WORD.findall(text.lower()))
    return max(
        (sum(words[word] for word in common.split()) - doubt) / max(1, words.total()) - (strange + odd) / beyond.total()
        if strange + odd <= most
        else -1.0
        for common, strange in fitting.items()
    )
