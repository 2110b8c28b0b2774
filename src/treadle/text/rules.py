"""What a rule is and who published it, so that a number in a report leads to more than a name."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

from treadle.core.errors import TreadleError
from treadle.core.plugins import load


@dataclass(frozen=True, slots=True)
class RuleInfo:
    """``what`` it does in a sentence, ``source`` as a citation, ``url`` of the publication or empty."""

    name: str
    what: str
    source: str
    url: str = ""


_ARXIV = "https://arxiv.org/abs/"
_OWN = "Treadle's own rule"
_GOPHER = _ARXIV + "2112.11446"
# What a citation contains -> where it can be read.
_URLS = {
    "Rae et al. 2021": _GOPHER,
    "Raffel et al. 2020": _ARXIV + "1910.10683",
    "Penedo et al. 2023": _ARXIV + "2306.01116",
    "Brown et al. 2020": _ARXIV + "2005.14165",
    "Penedo et al. 2024": _ARXIV + "2406.17557",
    "Speer 2019": "https://doi.org/10.5281/zenodo.2591652",
    "Lee et al. 2022": _ARXIV + "2107.06499",
    "Carlini et al. 2021": _ARXIV + "2012.07805",
    "Broder 1997": "https://doi.org/10.1109/SEQUEN.1997.666900",
    "UAX #15": "https://www.unicode.org/reports/tr15/",
}
# By the longest prefix that fits: what, source.
_KNOWN = {
    "gopher_quality": ("Number, length and kind of words; lines.", "Gopher, quality (Rae et al. 2021, A.1.1)"),
    "gopher_repetition": ("Repeated lines, paragraphs, n-grams.", "Gopher, repetition (Rae et al. 2021, table A1)"),
    "c4": ("Lines and pages that are no prose.", "C4 (Raffel et al. 2020, section 2.2)"),
    "fineweb": ("Lines that end badly, repeat, or are lists.", "FineWeb (Penedo et al. 2024, section 3.6)"),
    "blocklist": ("Its address stands on a list of the project's own.", "RefinedWeb (Penedo et al. 2023, G.1)"),
    "languages": ("In a language that is not kept, or not surely in one that is.", "FineWeb (Penedo et al. 2024, 3.3)"),
    "mixture.repeated": ("Short of its share, so to be read several times.", "Muennighoff et al. 2023 (2305.16264)"),
    "mixture": ("Beyond its source's share, or of one without a weight.", "GPT-3 (Brown et al. 2020, table 2.2)"),
    "repair_encoding": ("Text decoded with the wrong encoding, put right.", "ftfy (Speer 2019)"),
    "quality": ("Less like the project's good examples than its bad ones.", "GPT-3 (Brown et al. 2020, A)"),
    "badwords": ("Words that stand on a list of the project's own.", "C4 (Raffel et al. 2020, section 2.2)"),
    "deduplicate": ("The same text again; the first of them stays.", "Lee et al. 2022, on duplicates in training text"),
    "deduplicate.label_conflict": ("One text under two labels; the first stays.", _OWN),
    "deduplicate_near": ("Nearly the same text again.", "MinHash (Broder 1997); Lee et al. 2022"),
    "deduplicate_lines": ("Lines that stood elsewhere before.", "Lee et al. 2022, on duplicates in training text"),
    "redact": ("Documents in which personal data was found.", _OWN),
    "normalize": ("Unicode NFC, one kind of line end, no control characters.", "Unicode, UAX #15 (NFC)"),
    "decontaminate": (
        "A test's question or answer stands in it.",
        "Carlini et al. 2021; Gopher (Rae et al. 2021, A.1.3)",
    ),
    "split": ("Beyond the limit that the file sets for a split.", "the project's own limit"),
    "split.no_group": ("No value of the field that `split.by` names: each is a group of its own.", _OWN),
    "synthesize": ("What a teacher wrote is no good, or has no place here; the reason is beside each sample.", _OWN),
    "synthesize.barred_parent": ("Gives a test away, or is too new to be learned from: no teacher was asked.", _OWN),
    "synthesize.tested_parent": ("On the side of a test, so that no teacher was asked about it.", _OWN),
    "synthesize.ungrounded": ("An answer in words that its document does not have.", _OWN),
    "suppress": ("About somebody whose erasure was asked for; nothing of it is listed.", "GDPR, article 17"),
    "examples": ("The maker of examples cannot use it; the reason is beside each sample.", _OWN),
    "corrections": ("What a user wanted is not to be learned; the reason is beside each sample.", _OWN),
    "python_docs": ("Nothing to learn from in it; the reason is beside each sample.", _OWN),
    "collect": ("Stands twice in its sources.", _OWN),
}


def rule_info(name: str) -> RuleInfo:
    """What is known of a rule: of its filter, from the table here, or from the transform's own first sentence."""
    transform, _, setting = name.partition(".")
    if transform == "filter" and (published := _published(setting)):
        return RuleInfo(name, *published, _url(published[1]))
    if transform == "redact" and (told := _personal(setting.removeprefix("drop_"))):
        return RuleInfo(name, *told)
    for length in range(name.count(".") + 1, 0, -1):
        known = _KNOWN.get(".".join(name.split(".")[:length]))
        if known:
            return RuleInfo(name, *known, _url(known[1]))
    return RuleInfo(name, _said(transform), "the source or transform that has its name")


def _published(setting: str) -> tuple[str, str] | None:
    from treadle.text.filters import RULES

    for rule in RULES:
        if rule.setting == setting:
            side = "Fewer" if setting.startswith("min_") else "More"
            return f"{side} {rule.noun} than the limit.", rule.source
    return None


def _personal(kind: str) -> tuple[str, str] | None:
    from treadle.text.detectors import RULES

    rule = RULES.get(kind)
    return (f"Finds {rule.finds}, told by: {rule.check}.", rule.source) if rule else None


def _said(transform: str) -> str:
    """The first sentence of the docstring of an installed transform."""
    if not re.fullmatch(r"\w{1,64}", transform):
        return ""
    try:
        text = inspect.getdoc(load("treadle.transforms", transform, None).value) or ""
    except TreadleError:
        return ""
    return " ".join(text.split(". ")[0].split()).rstrip(".") + "." if text else ""


def _url(source: str) -> str:
    return next((url for cited, url in _URLS.items() if cited in source), "")
