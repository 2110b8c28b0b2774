"""Filters for pages of the web: C4 (Raffel et al. 2020, JMLR 21, section 2.2) and FineWeb (Penedo et al. 2024,
arXiv:2406.17557, section 3.6).

Limits, the order of the rules and what is left of a text are those of datatrove 0.10 for English, so that every
document is kept, cut or dropped as it would be there, by the rule of the same name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from treadle.text.accounting import Dropped, Note
from treadle.text.document import Document
from treadle.text.english.characters import TERMINAL
from treadle.text.gopher import Finding, repeated_characters
from treadle.text.transform import Piece, declare

_C4 = "C4 (Raffel et al. 2020, 2.2)"
_FINEWEB = "FineWeb (Penedo et al. 2024, 3.6)"
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_ENDS = (".", "?", "!", '"', "'")
_POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")


@declare(version=2)
class C4:
    """Takes lines out that are no sentences or are about cookies and scripts, and drops texts with too few sentences
    left, with a curly bracket or with lorem ipsum; needs English. Lines taken out of texts that stay are noted. -1
    switches a limit off. Without ``split_paragraph`` sentences count as lines.
    """

    def __init__(
        self,
        *,
        split_paragraph: bool = True,
        remove_citations: bool = True,
        filter_no_terminal_punct: bool = True,
        min_num_sentences: int = 5,
        min_words_per_line: int = 3,
        max_word_length: int = 1000,
        filter_lorem_ipsum: bool = True,
        filter_javascript: bool = True,
        filter_curly_bracket: bool = True,
        filter_policy: bool = True,
    ) -> None:
        self._by_line = split_paragraph
        self._citations = remove_citations
        self._terminal = filter_no_terminal_punct
        self._sentences = min_num_sentences
        self._words = min_words_per_line
        self._longest = max_word_length
        self._lorem_ipsum = filter_lorem_ipsum
        self._javascript = filter_javascript
        self._bracket = filter_curly_bracket
        self._policy = filter_policy

    def __call__(self, documents: Sequence[Document]) -> Iterator[Piece]:
        """Each document with what is left of its text, or why it is dropped; then how many lines were taken out."""
        taken: Counter[str] = Counter()
        shorter: dict[str, list[str]] = {}
        for document in documents:
            lines: Counter[str] = Counter()
            found, text = self.finding(document.text, lines)
            if found:
                yield Dropped(document, f"c4.{found[0]}", f"{found[1]} ({_C4})")
                continue
            taken += lines
            for name in lines:
                shorter.setdefault(name, []).append(document.id)
            yield document if text == document.text else replace(document, text=text)
        for name, count in sorted(taken.items()):
            yield Note(f"c4.{name}", count, tuple(shorter[name]))

    def finding(self, text: str, taken: Counter[str]) -> tuple[Finding, str]:
        """The first rule that the text breaks, and what is left of it. ``taken`` counts lines by what took them out."""
        kept: list[str] = []
        for line in self._lines(text):
            line, why = self._judged(line)  # noqa: PLW2901
            if why in ("lorem_ipsum", "curly_bracket"):
                return (why, "it has lorem ipsum" if why == "lorem_ipsum" else "it has a curly bracket"), text
            if why:
                taken[why] += 1
            else:
                kept.append(line)
        if self._sentences > 0:
            count = self._count(kept)
            if count < self._sentences:
                return (
                    "too_few_sentences",
                    f"{count} sentences in {len(kept)} good lines, fewer than {self._sentences}",
                ), text
        return None, ("\n" if self._by_line else " ").join(kept).strip()

    def _lines(self, text: str) -> list[str]:
        if self._by_line:
            return text.splitlines()
        from treadle.text.english.text import EnglishText

        return EnglishText([text]).sentences()

    def _count(self, lines: list[str]) -> int:
        if not self._by_line:
            return len(lines)
        if len(lines) >= self._sentences:  # each has at least one
            return len(lines)
        from treadle.text.english.text import EnglishText

        return sum(EnglishText(lines).sentence_counts())

    def _judged(self, line: str) -> tuple[str, str]:
        """A line as it may stay, and what is against it."""
        line = line.strip()
        words = line.split()
        if self._longest != -1 and len(line) > self._longest and any(len(word) > self._longest for word in words):
            return line, "line_too_long_word"
        if self._citations and "[" in line:
            line = _CITATION.sub("", line)
        if self._terminal and (not line.endswith(_ENDS) or line.endswith("...")):
            return line, "line_no_terminal_punc"
        if len(words) < self._words:
            return line, "line_too_few_words"
        lower = line.lower()
        if self._lorem_ipsum and "lorem ipsum" in lower:
            return line, "lorem_ipsum"
        if self._javascript and "javascript" in lower:
            return line, "line_javascript"
        if self._bracket and "{" in line:
            return line, "curly_bracket"
        if self._policy and any(policy in lower for policy in _POLICIES):
            return line, "line_policy"
        return line, ""


@declare(version=1)
class FineWeb:
    """Drops texts whose lines do not end as sentences, are short, are repeated, or are too many for their words; needs
    English.
    """

    def __init__(
        self,
        *,
        line_punct_thr: float = 0.12,
        line_punct_exclude_zero: bool = False,
        stop_chars: list[str] | None = None,
        short_line_thr: float = 0.67,
        short_line_length: int = 30,
        char_duplicates_ratio: float = 0.01,
        new_line_ratio: float = 0.3,
    ) -> None:
        self._ends = line_punct_thr
        self._none_is_fine = line_punct_exclude_zero
        self._stops = TERMINAL if stop_chars is None else frozenset(stop_chars)
        self._long_stops = tuple(stop for stop in self._stops if len(stop) != 1)
        self._short, self._short_length = short_line_thr, short_line_length
        self._repeated = char_duplicates_ratio
        self._breaks = new_line_ratio

    def __call__(self, documents: Sequence[Document]) -> Iterator[Piece]:
        """Each document, or why it is dropped."""
        for document in documents:
            found = self.finding(document.text)
            yield Dropped(document, f"fineweb.{found[0]}", f"{found[1]} ({_FINEWEB})") if found else document

    def finding(self, text: str) -> Finding:
        """The first rule that the text breaks."""
        lines = [line for line in text.split("\n") if line and not line.isspace()]
        if not lines:
            return "empty", "no text"
        ended = sum(line[-1] in self._stops for line in lines)
        if self._long_stops:
            ended = sum(line[-1] in self._stops or line.endswith(self._long_stops) for line in lines)
        share = ended / len(lines)
        if share < self._ends and not (share == 0 and self._none_is_fine):
            return "line_punct_ratio", f"{share:.4g} of the lines end as sentences, fewer than {self._ends:.4g}"
        share = sum(len(line) <= self._short_length for line in lines) / len(lines)
        if share > self._short:
            return "short_line_ratio", f"{share:.4g} of the lines short, more than {self._short:.4g}"
        breaks = text.count("\n")
        share = repeated_characters(lines, set(lines)) / (len(text) - breaks)
        if share > self._repeated:
            return "char_dup_ratio", f"{share:.4g} of the text repeated lines, more than {self._repeated:.4g}"
        return self._of_words(text, breaks)

    def _of_words(self, text: str, breaks: int) -> Finding:
        from treadle.text.english.text import EnglishText

        share = breaks / max(1, EnglishText([text]).word_count())
        return (
            ("list_ratio", f"{share:.4g} line ends a word, more than {self._breaks:.4g}")
            if share > self._breaks
            else None
        )
