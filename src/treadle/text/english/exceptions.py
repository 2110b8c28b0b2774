"""Chunks of text that are split by a table and not by rule: contractions, abbreviations, times, emoticons.

What the table has to say is fixed by spaCy 3.8 (``spacy.lang.en``, MIT license, Explosion AI); a test holds every
entry to it. Here an entry is written as its words with a space between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_APOSTROPHE, _CURLY = "'", "\u2019"
_NOT_CONTRACTIONS = "ill its hell shell shed were well whore"
_PRONOUNS = "i you he she it we they"
_SINGULAR = ("that", "this")
_QUESTIONS = "who what when where why how there that this these those"
_WITH_NOT_HAVE = "ca could do does did had may might must need ought sha should wo would"
_WITH_NOT = "ai are is was were have has dare"
_WITH_HAVE = "could might must should would"
_CUT_BEHIND = "doin goin nothin nuthin ol somethin"
_OTHERS = (
    "y' all|y all|how 'd 'y|How 'd 'y|not 've|not ve|Not 've|Not ve|can not|Can not|gon na|Gon na|got ta|Got ta|"
    "let 's|Let 's|c'm on|C'm on|\u00b0 c .|\u00b0 f .|\u00b0 k .|\u00b0 C .|\u00b0 F .|\u00b0 K ."
)
_WHOLE = """
em 'em ll 'll nuff 'nuff 'S 's \u2018S \u2018s and/or w/o 're 'Cause 'cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz 'bout ma'am
Ma'am o'clock O'clock lovin' Lovin' lovin Lovin havin' Havin' havin Havin 'd a.m. p.m. Mt. Ak. Ala. Apr. Ariz. Ark.
Aug. Calif. Colo. Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill. Ind. Jan. Jul. Jun. Kan. Kans. Ky. La. Mar. Mass. Mich.
Minn. Miss. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa. S.C. Sep. Sept. Tenn. Va. Wash.
Wis. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen. Gov. i.e. I.e. I.E. Inc. Jr. Ltd. Md. Messrs. Mo. Mont.
Mr. Mrs. Ms. Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s. \\t \\n \u2014 ' \\") <space> '' C++ \u00e4. \u00f6. \u00fc.
"""
_EMOTICONS = r"""
:) :-) :)) :-)) :))) :-))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) ;-) (; (-; :( :-( :(( :-((
:((( :-((( ): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| ]= =[ :1 :P :-P :p :-p :O :-O :o :-o :0 :-0 :() >:o :*
:-* :3 :-3 =3 :> :-> :X :-X :x :-x :D :-D ;D ;-D =D xD XD xDD XDD 8D 8-D ^_^ ^__^ ^___^ >.< >.> <.< ._. ;_; -_- -__-
v.v V.V v_v V_V o_o o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O o.o 0.0 o.0 0.o @_@ <3 <33 <333 </3 (^_^) (-_-) (._.) (>_<)
(*_*) (¬_¬) ಠ_ಠ ಠ︵ಠ (ಠ_ಠ) ¯\(ツ)/¯ (╯°□°）╯︵┻━┻ ><(((*>
"""  # noqa: RUF001


def special_cases() -> dict[str, tuple[str, ...]]:
    """The words of every chunk in the table."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in _entries():
        words = tuple(entry.split())
        found["".join(words)] = words
    for chunk, words in list(found.items()):
        if _APOSTROPHE in chunk:
            curly = tuple(word.replace(_APOSTROPHE, _CURLY) for word in words)
            found["".join(curly)] = curly
    return found


def _entries() -> Iterator[str]:
    yield from _WHOLE.split()
    yield from _EMOTICONS.split()
    yield from (f"{letter}." for letter in map(chr, range(ord("a"), ord("z") + 1)))
    yield from (f"{hour} {half}" for hour in range(1, 13) for half in ("a.m.", "am", "p.m.", "pm"))
    yield from (stem + end for stem in _both_cases(_CUT_BEHIND.split()) for end in ("", "'"))
    words = _NOT_CONTRACTIONS.split()
    yield from (entry for entry in _contractions() if entry.replace(" ", "").lower() not in words)
    yield from _OTHERS.split("|")


def _contractions() -> Iterator[str]:
    for pronoun in _PRONOUNS.split():
        ends = ["'ll", "'ll 've", "'d", "'d 've"]
        ends += ["'m", "'m a"] if pronoun == "i" else []
        ends += ["'ve"] if pronoun in ("i", "you", "we", "they") else []
        ends += ["'re"] if pronoun in ("you", "we", "they") else []
        ends += ["'s"] if pronoun in ("he", "she", "it") else []
        yield from _joined([pronoun], ends)
    for word in _QUESTIONS.split():
        ends = ["'ll", "'ll 've", "'d", "'d 've"]
        ends += [] if word in ("these", "those") else ["'s"]
        ends += [] if word in _SINGULAR else ["'re", "'ve"]
        yield from _joined([word], ends)
    yield from _joined(_WITH_NOT_HAVE.split(), ["n't", "n't 've"])
    yield from _joined(_WITH_HAVE.split(), ["'ve"])
    yield from _joined(_WITH_NOT.split(), ["n't"])


def _joined(stems: Iterable[str], ends: Iterable[str]) -> Iterator[str]:
    """``do n't`` and ``do nt``, in lower case and with a capital."""
    for stem in _both_cases(stems):
        for end in ends:
            yield f"{stem} {end}"
            yield f"{stem} {end.replace(_APOSTROPHE, '')}"


def _both_cases(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        yield word
        yield word.title()
