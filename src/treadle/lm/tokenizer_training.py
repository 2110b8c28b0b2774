"""A tokenizer of one's own, learned from a corpus.

With ``bpe`` and ``wordpiece`` the same corpus and settings give the same file. With ``unigram`` they need not: the
library adds up in an order that differs from run to run, and scores differ by it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from treadle.core.artifacts import Artifact
from treadle.core.digest import canonical_json
from treadle.core.errors import MissingExtra, UserError

Kind = Literal["bpe", "unigram", "wordpiece"]
UNKNOWN = "[UNK]"
FIGURES_FILE = "fertility.json"
_ALPHABET = 256
_MOST_LETTERS = 1_000


class TrainedTokenizer(Artifact):
    """``tokenizer.json`` and ``tokenizer_config.json``, as model folders have them; ``fertility.json``."""

    kind: ClassVar[str] = "tokenizer"

    def fertility(self) -> dict[str, float]:
        """``tokens_per_word``, ``bytes_per_token``, ``unknown`` (share of tokens), ``vocabulary``."""
        return dict(self.read_json(FIGURES_FILE))


def train_tokenizer(
    folder: Path,
    texts: Callable[[], Iterable[str]],
    *,
    kind: Kind,
    vocabulary: int,
    special: Sequence[str],
) -> None:
    """Learn from ``texts`` (read once or twice, not held) and write the two files to ``folder``.

    ``bpe`` and ``unigram`` work on bytes, so that any text can be written and comes back as it was. ``wordpiece``
    works on lower-case words without accents, as BERT's; what it has no letters for becomes ``[UNK]``. ``special`` get
    the first ids, in order; the first of them ends a text. Raises ``UserError`` when there is no text or the
    vocabulary has no room for the alphabet.
    """
    try:
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    except ModuleNotFoundError:
        raise MissingExtra("tokenizers", extra="data") from None
    least = _ALPHABET + len(special) + 1
    if vocabulary < least:
        raise UserError(f"prepare.tokenizer: a vocabulary of {vocabulary} has no room; expected at least {least}")
    common: dict[str, Any] = {"vocab_size": vocabulary, "show_progress": False}
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    if kind == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        made.normalizer = normalizers.BertNormalizer()
        made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
        # The trainer numbers inner letters as it meets them, in no fixed order, unless they have numbers already.
        letters = _letters(made, texts())
        inner = [f"##{letter}" for letter in letters]
        common |= {"initial_alphabet": letters, "limit_alphabet": _MOST_LETTERS}
        trainer: Any = trainers.WordPieceTrainer(special_tokens=[*special, UNKNOWN, *inner], **common)
    else:
        made = Tokenizer(models.BPE() if kind == "bpe" else models.Unigram())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trained = trainers.BpeTrainer if kind == "bpe" else trainers.UnigramTrainer
        trainer = trained(special_tokens=list(special), initial_alphabet=letters, **common)
    seen = _Seen(texts())
    with _one_thread():  # sums of many threads would come out a little different each time
        made.train_from_iterator(seen, trainer)
    if not seen.characters:
        raise UserError("prepare.tokenizer: the corpus has no text to learn from")
    described = json.loads(made.to_str())
    described["added_tokens"] = [each for each in described["added_tokens"] if each["content"] in {*special, UNKNOWN}]
    (folder / "tokenizer.json").write_text(json.dumps(described, ensure_ascii=False, indent=1), encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **({"eos_token": special[0], "pad_token": special[0]} if special else {}),
        **({"unk_token": UNKNOWN} if kind == "wordpiece" else {}),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1, sort_keys=True), encoding="utf-8")


def measure_fertility(folder: Path, batches: Iterable[Sequence[str]]) -> dict[str, float]:
    """What the tokenizer in ``folder`` makes of these texts; written beside it as ``fertility.json``.

    ``tokens_per_word`` counts words between blanks (P. Rust et al., How Good is Your Tokenizer?, 2021).
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    unknown = tokenizer.token_to_id(UNKNOWN)
    tokens = words = size = lost = 0
    for texts in batches:
        for text, encoding in zip(
            texts, tokenizer.encode_batch_fast(list(texts), add_special_tokens=False), strict=True
        ):
            ids = encoding.ids
            tokens += len(ids)
            lost += ids.count(unknown) if unknown is not None else 0
            words += len(text.split())
            size += len(text.encode("utf-8", "surrogatepass"))
    figures = {
        "tokens_per_word": round(tokens / max(1, words), 4),
        "bytes_per_token": round(size / max(1, tokens), 4),
        "unknown": round(lost / max(1, tokens), 6),
        "vocabulary": float(tokenizer.get_vocab_size()),
    }
    (folder / FIGURES_FILE).write_bytes(canonical_json(figures))
    return figures


def _letters(tokenizer: Any, texts: Iterable[str]) -> list[str]:
    """Those that words are made of, the most frequent first; rare ones stay unknown."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(tokenizer.normalizer.normalize_str(text))
    known = [letter for letter, _ in counts.items() if not letter.isspace()]
    return sorted(known, key=lambda letter: (-counts[letter], letter))[:_MOST_LETTERS]


class _Seen:
    """Texts as they pass, counted."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts, self.characters = texts, 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.characters += len(text)
            yield text


@contextmanager
def _one_thread() -> Iterator[None]:
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
