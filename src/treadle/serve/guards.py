"""The guardrails there are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from treadle.core.errors import MissingExtra, UserError
from treadle.serve.guardrail import Action, Found
from treadle.text.lookalikes import plain

_MOST_WORDS = 10_000
_MOST_PATTERNS = 200
_LONGEST = 1_000


class PersonalData:
    """Personal data with a form: e-mail addresses, telephone and account numbers, keys of services ..."""

    reach = 160  # the longest finding with spaces in it, and the words before it that count

    def __init__(self, *, action: Action = "redact", kinds: Sequence[str] = ()) -> None:
        from treadle.text.personal_data import KINDS, scanner

        self.action: Action = action
        self._scanner = scanner(tuple(kinds) or KINDS)

    def find(self, text: str, before: int = 0) -> Iterable[Found]:
        """As `Scanner.find_as_written`: what JSON in it stands for is looked at for every guardrail."""
        return [Found(found.start, found.end, found.kind) for found in self._scanner.find_as_written(text)]


class BlockList:
    """Words, and regular expressions in RE2's form, whatever they are written with: case, accents, look-alikes of other
    scripts and characters that nobody sees make no difference."""

    def __init__(
        self,
        *,
        words: Sequence[str] = (),
        patterns: Sequence[str] = (),
        action: Action = "refuse",
        label: str = "blocked",
    ) -> None:
        if not words and not patterns:
            raise UserError("block_list: expected words or patterns")
        if len(words) > _MOST_WORDS or len(patterns) > _MOST_PATTERNS:
            raise UserError(f"block_list: at most {_MOST_WORDS:,} words and {_MOST_PATTERNS} patterns")
        self.action: Action = action
        self._label = label
        known = [" ".join(plain(word)[0].split()) for word in words]
        if not all(known) or any(len(word) > _LONGEST for word in known):
            raise UserError(f"block_list: a word has letters, and at most {_LONGEST} of them")
        either = "|".join(r"\s+".join(map(re.escape, word.split())) for word in sorted(known, key=len, reverse=True))
        # Literals and runs of spaces alone: nothing to go back and forth in.
        self._words = re.compile(rf"(?<!\w)(?:{either})(?!\w)") if known else None
        self._patterns = [_pattern(pattern) for pattern in patterns]
        widths = [len(word) + 2 for word in known] + [_width(pattern) for pattern in patterns]
        self.reach = None if None in widths else max(width for width in widths if width is not None)

    def find(self, text: str, before: int = 0) -> Iterable[Found]:
        """Where they stand in the text as it was sent."""
        shown, places = plain(text)
        for start, end in self._spans(shown):
            yield Found(places[start], places[end - 1] + 1, self._label)
        for pattern in self._patterns:
            for match in pattern.finditer(text):
                if match.end() > match.start():
                    yield Found(match.start(), match.end(), self._label)

    def _spans(self, shown: str) -> Iterator[tuple[int, int]]:
        for pattern in [*([self._words] if self._words else []), *self._patterns]:
            for match in pattern.finditer(shown):
                if match.end() > match.start():
                    yield match.span()


class Injection:
    """Texts that try to be instructions to the model against those it has: common forms in four languages, and marks of
    chat templates. Heuristics: there are always others."""

    action: Action = "refuse"
    reach = 300

    def find(self, text: str, before: int = 0) -> Iterable[Found]:
        """At most one of each form."""
        shown, places = plain(text)
        for label, pattern in _INJECTIONS:
            match = pattern.search(shown)
            if match:
                yield Found(places[match.start()], places[match.end() - 1] + 1, label)


class Size:
    """How long a request's texts, or an answer, may be together, in characters."""

    action: Action = "refuse"
    reach = 0

    def __init__(self, *, characters: int) -> None:
        if characters < 1:
            raise UserError("size: expected at least one character")
        self._most = characters

    def find(self, text: str, before: int = 0) -> Iterable[Found]:
        """What is beyond."""
        if before + len(text) > self._most:
            yield Found(max(0, self._most - before), len(text), "size")


_SOME = r"\W+(?:\w+\W+){0,4}?"
_FEW = r"\W+(?:\w+\W+){0,3}?"
_INJECTIONS = [
    (label, re.compile("".join(pieces)))
    for label, *pieces in (
        (
            "override",
            rf"\b(?:ignore|disregard|forget|override|bypass){_SOME}",
            rf"(?:previous|prior|above|earlier|preceding|all|your|system){_FEW}",
            r"(?:instructions?|prompts?|rules|guidelines|directions|messages)\b",
        ),
        ("override", rf"\bignorier\w*{_SOME}(?:anweisungen|regeln|instruktionen)\b"),
        ("override", rf"\bignor(?:es?|ez|a|ad|en){_SOME}(?:instrucciones|reglas|instructions|consignes|regles)\b"),
        ("override", rf"\b(?:oubliez?|olvida){_SOME}(?:instrucciones|reglas|instructions|consignes|regles)\b"),
        ("reveal", rf"\b(?:reveal|print|show|repeat|output|tell){_SOME}(?:system|initial|hidden|original)\W+prompt\b"),
        (
            "role",
            rf"\b(?:you\W+are\W+now|act\W+as|pretend\W+to\W+be){_FEW}",
            r"(?:dan|jailbroken|unfiltered|unrestricted)\b",
        ),
        ("role", r"\b(?:developer|god|jailbreak)\W+mode\W+(?:is\W+)?(?:on|enabled|activated)\b"),
        ("template", r"<\|?(?:im_start|im_end|system|assistant|user|endoftext|start_header_id|eot_id)\|?>"),
        ("template", r"\[/?inst\]|<</?sys>>|</?start_of_turn>|<end_of_turn>"),
    )
]


def _pattern(pattern: str) -> Any:
    try:
        import re2
    except ImportError:
        raise MissingExtra("google-re2", extra="data") from None
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    if len(pattern) > _LONGEST:
        raise UserError(f"block_list: a pattern has at most {_LONGEST} characters")
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise UserError(f"block_list: {pattern!r} is no regular expression that RE2 takes: {error}") from None


def _width(pattern: str) -> int | None:
    """The most characters that a pattern matches, one more on each side for what it looks at; None without a bound."""
    from re import _parser  # type: ignore[attr-defined]

    try:
        most = _parser.parse(pattern).getwidth()[1]
    except (re.error, OverflowError, RecursionError):
        return None  # RE2's own form
    return int(most) + 2 if most < _LONGEST * 10 else None
