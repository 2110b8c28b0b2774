"""What an encoder-decoder reads and writes, as ids: a source and a target, each with what the tokenizer puts around a
text. There is no chat template: the user's message is the source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError

_HEADS = ("ForConditionalGeneration", "MTModel", "WithLMHeadModel")
UNSAID_LENGTH = 512  # tokens, where nothing says how much a model can read: T5's positions are relative


def writes_targets(config: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is of an encoder-decoder with the head that writes (T5, BART, Marian)."""
    names = config.get("architectures") or []
    return bool(config.get("is_encoder_decoder")) and any(str(name).endswith(_HEADS) for name in names)


class SourceEncoder:
    """Sources and targets of one model.

    ``prefix`` is what goes before a source that comes with none, as the model was trained ("translate English to
    French: "); it stands in ``config.json`` under the name that transformers knows.
    """

    def __init__(self, tokenizer: Any, config: Mapping[str, Any], *, where: Path) -> None:
        self._tokenizer = tokenizer
        self._where = where
        self._around = int(tokenizer.num_special_tokens_to_add(False))
        found = config.get("prefix")
        self.prefix = found if isinstance(found, str) else ""

    def encode(self, texts: Sequence[str], limit: int | None = None) -> tuple[list[list[int]], int]:
        """Ids of sources or targets as they stand, and how many were cut to ``limit`` tokens; their end is kept."""
        rows, cut = [], 0
        for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False):
            if limit is not None and len(encoding.ids) + self._around > limit:
                encoding.truncate(max(0, limit - self._around))
                cut += 1
            rows.append(list(self._tokenizer.post_process(encoding, None, True).ids))
        return rows, cut

    def source(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The user's message, with what the system says before it, or else the model's own prefix.

        ``UserError`` for a conversation of more than that: an encoder-decoder reads one source.
        """
        before = [str(message["content"]) for message in messages if message["role"] in ("system", "developer")]
        asked = [str(message["content"]) for message in messages if message["role"] == "user"]
        if len(asked) != 1 or len(before) > 1 or len(messages) != len(asked) + len(before):
            raise UserError(
                f"{self._where}: an encoder-decoder reads one source; expected one user's message, with at most a"
                f" system's before it, got {len(messages)} messages"
            )
        return (before[0] if before else self.prefix) + asked[0]

    def example(self, messages: Sequence[Mapping[str, Any]], limit: int) -> tuple[list[int], list[bool]]:
        """Ids of source and target of a conversation that ends with the answer, and which of them are the target's.

        A source of more than ``limit`` tokens is cut there.
        """
        (source,), _ = self.encode([self.source(messages[:-1])], limit)
        (target,), _ = self.encode([str(messages[-1]["content"])])
        return source + target, [False] * len(source) + [True] * len(target)
