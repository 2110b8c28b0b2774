"""Plain text to token ids in bulk: what was encoded once is not encoded again.

Most of a text are words it has had before. Where a tokenizer is known to part a text at certain places whatever stands
around them, the text is cut there, and each piece is encoded once, by the tokenizer itself, and then looked up. The ids
are those of ``encode_batch`` without special tokens, token by token.

What is cut out is a word of ASCII letters with the blank before it, or right behind a single line feed, when what
follows can neither belong to it nor be composed with its last letter. The expressions of GPT-2 and of the Llama-3
family, and the splitting of digits, part before and behind such a word: none looks back, none has a blank but at its
start or among blanks, and none looks further ahead than over blanks. GPT-2's also parts between a sign and a letter,
where Llama-3's keeps the last sign with the word. Tokenizers of any other make are used as they are.

So new words behind a blank may be encoded some hundred at a time, as one text: it would be cut into them. Which ids are
of which word, the lengths of the tokens tell; where they do not fall in with the words, each is encoded by itself.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treadle.core.errors import MissingExtra

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from tokenizers import Tokenizer

_VISIBLE = "!-~\u00a1-\u00ac\u00ae-\u02af\u2010-\u2027"  # no engine takes these for blanks
_ENDS = "\\x00-@\\[-`{-\\x7f\u2010-\u2027"  # neither a letter nor a mark
_OPENS = "!-&(-/:-@\\[-`{-~\u2010-\u2027"  # visible, and neither a letter, a digit nor the sign of a contraction
_WORD = re.compile(f"((?: |(?<=[{_VISIBLE}]\\n))[A-Za-z]+)(?=[{_ENDS}]|\\Z)")
_WORD_OR_NAME = re.compile(f"((?: |(?<=[{_VISIBLE}]\\n)|(?<=[{_OPENS}]))[A-Za-z]+)(?=[{_ENDS}]|\\Z)")
_JOINED = re.compile(" [A-Za-z]+")
_AT_ONCE = 500  # words in one text
_MOST_CHARACTERS = 2 << 20  # of remembered pieces, which take some fifteen times the memory
# Expressions by which tokenizers split, and of which the above holds.
_LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_EXPRESSIONS = (
    _LLAMA.format(r"\p{N}{1,3}"),
    _LLAMA.format(r"\p{N}"),  # Qwen's
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """``ids`` of all texts one after the other (uint32); text i ends before ``ends[i]`` (int64)."""

    ids: npt.NDArray[np.uint32]
    ends: npt.NDArray[np.int64]


class BulkEncoder:
    """Encodes batch after batch and remembers. Not for use by two threads at once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        try:
            import numpy as np
        except ModuleNotFoundError:
            raise MissingExtra("numpy", extra="data") from None
        self._np = np
        tokenizer.no_truncation()  # which a tokenizer's own file may ask for, and then text would be lost
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        described = json.loads(tokenizer.to_str())
        self._word = cut_by(described)
        added = [token["content"] for token in described.get("added_tokens") or () if token["content"]]
        self._added = re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True)))) if added else None
        vocabulary = described["model"]["vocab"] if self._word is not None else {}
        self._sizes = np.zeros(max(vocabulary.values(), default=-1) + 1, dtype=np.int64)  # characters of each token
        self._sizes[list(vocabulary.values())] = [len(token) for token in vocabulary]
        self._forget()

    @property
    def remembers(self) -> bool:
        """Whether the tokenizer is of a make that allows it."""
        return self._word is not None

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Ids of every text, in order."""
        np = self._np
        if self._word is None:
            return self._directly(texts)
        if self._characters > _MOST_CHARACTERS:
            self._forget()
        rows = []
        counts = np.empty(len(texts), dtype=np.int64)
        for place, text in enumerate(texts):
            if self._added is not None and self._added.search(text):
                pieces = [text]
            else:
                pieces = list(filter(None, self._word.split(text)))
            rows.append(np.fromiter(map(self._memory.__getitem__, pieces), np.int64, len(pieces)))
            counts[place] = len(pieces)
        self._learn()
        return self._looked_up(np.concatenate(rows) if rows else np.zeros(0, np.int64), counts)

    def _directly(self, texts: Sequence[str]) -> Encoded:
        np = self._np
        found = [each.ids for each in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        ends = np.cumsum([len(ids) for ids in found], dtype=np.int64)
        return Encoded(np.array([token for ids in found for token in ids], dtype=np.uint32), ends)

    def _forget(self) -> None:
        self._memory = _Memory()
        self._ids = array("I")
        self._starts, self._lengths = array("q"), array("q")  # of each piece's ids among all
        self._characters = 0

    def _learn(self) -> None:
        """Encode the pieces that were new."""
        np = self._np
        new, self._memory.new = self._memory.new, []
        lengths, starts = np.zeros(len(new), dtype=np.int64), np.zeros(len(new), dtype=np.int64)
        joined, alone = list[int](), list[int]()
        for place, piece in enumerate(new):
            (joined if _JOINED.fullmatch(piece) else alone).append(place)
        for group in self._together([new[place] for place in joined]):
            here, joined = joined[: group.words], joined[group.words :]
            if group.lengths is None:
                alone += here
                continue
            lengths[here], starts[here] = group.lengths, len(self._ids) + np.cumsum(group.lengths) - group.lengths
            self._ids.extend(group.ids)
        encodings = self._tokenizer.encode_batch_fast([new[place] for place in alone], add_special_tokens=False)
        for place, encoding in zip(alone, encodings, strict=True):
            ids = encoding.ids
            starts[place], lengths[place] = len(self._ids), len(ids)
            self._ids.extend(ids)
        self._starts.frombytes(starts.tobytes())
        self._lengths.frombytes(lengths.tobytes())
        self._characters += sum(map(len, new))

    def _together(self, words: list[str]) -> Iterator[_Joined]:
        """The words in their order, some at a time, each group encoded as one text."""
        np = self._np
        groups = [words[start : start + _AT_ONCE] for start in range(0, len(words), _AT_ONCE)]
        texts = ["".join(group) for group in groups]
        for group, text, encoding in zip(
            groups, texts, self._tokenizer.encode_batch_fast(texts, add_special_tokens=False), strict=True
        ):
            ids = encoding.ids
            wanted = np.cumsum([len(word) for word in group])
            if (self._added is not None and self._added.search(text)) or max(ids, default=0) >= len(self._sizes):
                yield _Joined(len(group), ids, None)
                continue
            ends = np.cumsum(self._sizes[ids])
            places = np.minimum(np.searchsorted(ends, wanted), len(ends) - 1)
            fits = len(ends) > 0 and ends[-1] == wanted[-1] and bool((ends[places] == wanted).all())
            yield _Joined(len(group), ids, np.diff(places, prepend=-1) if fits else None)

    def _looked_up(self, rows: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> Encoded:
        np = self._np
        table = np.frombuffer(self._ids, dtype=np.uint32)
        starts = np.frombuffer(self._starts, dtype=np.int64)[rows]
        lengths = np.frombuffer(self._lengths, dtype=np.int64)[rows]
        after = np.cumsum(lengths)
        total = int(after[-1]) if len(after) else 0
        places = np.repeat(starts - (after - lengths), lengths) + np.arange(total)
        return Encoded(table[places], np.concatenate([[0], after])[np.cumsum(counts)])  # an empty text has no piece


@dataclass(frozen=True, slots=True)
class _Joined:
    """So many words, the ids of all, and how many each has; None where that cannot be told."""

    words: int
    ids: list[int]
    lengths: npt.NDArray[np.int64] | None


class _Memory(dict[str, int]):
    """Numbers by piece; what it is first asked for gets the next number and is noted in ``new``."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[str] = []

    def __missing__(self, piece: str) -> int:
        number = len(self)
        self[piece] = number
        self.new.append(piece)
        return number


def cut_by(described: dict[str, Any]) -> re.Pattern[str] | None:
    """What a text may be cut at for a tokenizer (tokenizer.json, parsed); None where it is of another make."""
    normalizer = described.get("normalizer")
    if normalizer is not None and normalizer.get("type") != "NFC":
        return None
    model = described.get("model") or {}
    if model.get("type") != "BPE" or model.get("dropout"):
        return None
    splitter = described.get("pre_tokenizer") or {}
    parts = splitter.get("pretokenizers", [splitter])
    if not any(map(_parts_there, parts)) or not all(map(_harmless, parts)):
        return None
    return _WORD if any(_expression(part) in _EXPRESSIONS[:2] for part in parts) else _WORD_OR_NAME


def _harmless(part: dict[str, Any]) -> bool:
    if part.get("type") == "ByteLevel":
        return not part.get("add_prefix_space", True)
    return part.get("type") == "Digits" or _parts_there(part)


def _parts_there(part: dict[str, Any]) -> bool:
    if part.get("type") == "ByteLevel":
        return bool(part.get("use_regex", True))
    if part.get("type") != "Split" or part.get("invert"):
        return False
    return part.get("behavior") == "Isolated" and _expression(part) in _EXPRESSIONS


def _expression(part: dict[str, Any]) -> str:
    return str((part.get("pattern") or {}).get("Regex", ""))
