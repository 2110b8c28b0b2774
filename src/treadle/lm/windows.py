"""Texts as windows of tokens that fit a model: a long text is several, each overlapping the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.lm.model_folder import check_length, read_config

_OVERLAP = 4  # a window shares one part in so many with the one before it
_LONGEST_QUESTION = 4  # and a question fills at most one


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens of one text, the ``text``-th. ``pieces``: for each token the characters it stands for, without space
    around them, or None for what is not of the text (the model's own marks, a question before it)."""

    text: int
    ids: list[int]
    kinds: list[int]
    pieces: list[tuple[int, int] | None]


class WindowEncoder:
    """A model folder's own tokenizer, its beginning and end tokens included."""

    def __init__(self, folder: Path, max_length: int) -> None:
        """``UserError`` when there is no fast tokenizer, or the model reads fewer tokens than ``max_length``."""
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise UserError(f"{folder}: no tokenizer.json; expected a model folder as save_pretrained writes it")
        config = read_config(folder)
        check_length(folder, "develop.max_length", max_length)
        if max_length < 8 * _OVERLAP:
            raise UserError(f"develop.max_length: {max_length} tokens; expected at least {8 * _OVERLAP}")
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # a text that spells [SEP] is still one text
        self._max_length = max_length
        self._kinds = int(config.get("type_vocab_size") or 0) > 1
        self._padding = next((i for i in map(self._tokenizer.token_to_id, ("[PAD]", "<pad>")) if i is not None), 0)

    def texts(self, texts: Sequence[str]) -> list[Window]:
        """The windows of all texts, in order; at least one a text."""
        self._tokenizer.enable_truncation(self._max_length, stride=self._max_length // _OVERLAP)
        found = self._tokenizer.encode_batch(list(texts))
        return [
            _window(number, text, part, 0)
            for number, (text, whole) in enumerate(zip(texts, found, strict=True))
            for part in (whole, *whole.overflowing)
        ]

    def pairs(self, questions: Sequence[str], texts: Sequence[str]) -> list[Window]:
        """The windows of all texts, each window with the text's question before it; a long question is cut."""
        asked = self._cut(questions)
        overlap = self._max_length // _OVERLAP
        self._tokenizer.enable_truncation(self._max_length, stride=overlap, strategy="only_second")
        found = self._tokenizer.encode_batch(list(zip(asked, texts, strict=True)))
        return [
            _window(number, text, part, 1)
            for number, (text, whole) in enumerate(zip(texts, found, strict=True))
            for part in (whole, *whole.overflowing)
        ]

    def batch(self, windows: Sequence[Window], device: Any = "cpu") -> dict[str, Any]:
        """Padded tensors of shape (windows, longest), as the model takes them."""
        import torch

        width = max(len(window.ids) for window in windows)
        room = [width - len(window.ids) for window in windows]
        rows = {
            "input_ids": [w.ids + [self._padding] * left for w, left in zip(windows, room, strict=True)],
            "attention_mask": [[1] * len(w.ids) + [0] * left for w, left in zip(windows, room, strict=True)],
        }
        if self._kinds:
            rows["token_type_ids"] = [w.kinds + [0] * left for w, left in zip(windows, room, strict=True)]
        return {name: torch.tensor(values, device=device) for name, values in rows.items()}

    def _cut(self, questions: Sequence[str]) -> list[str]:
        most = self._max_length // _LONGEST_QUESTION
        self._tokenizer.no_truncation()
        found = self._tokenizer.encode_batch(list(questions), add_special_tokens=False)
        return [
            question[: each.offsets[most - 1][1]] if len(each) > most else question
            for question, each in zip(questions, found, strict=True)
        ]


def learned_window(folder: Path) -> int:
    """The tokens of a window that a model trained here learned in; 0 of any other."""
    found = read_config(folder).get("window")
    return found if isinstance(found, int) else 0


def _window(number: int, text: str, part: Any, sequence: int) -> Window:
    pieces: list[tuple[int, int] | None] = []
    for (start, end), of in zip(part.offsets, part.sequence_ids, strict=True):
        # some tokenizers count the space before a word to it
        first = end - len(text[start:end].lstrip()) if of == sequence else end
        pieces.append((first, end) if first < end else None)
    return Window(number, part.ids, part.type_ids, pieces)
