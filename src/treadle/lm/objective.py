"""What a model learns from bare text: the next token, tokens that are hidden, or spans that are taken out.

Which tokens are hidden is drawn from the seed and the number of the sample, so that a training that goes on after it
was cut off hides the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from treadle.core.errors import UserError
from treadle.lm.initial_model import SENTINELS
from treadle.lm.packed_rows import PackedRows
from treadle.lm.packing import IGNORED, PADDING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Objective = Literal["causal", "masked", "spans"]
OBJECTIVES: dict[str, Objective] = {"bert": "masked", "t5": "spans"}
_HIDDEN = 0.15  # share of the tokens: J. Devlin et al., arXiv:1810.04805, and C. Raffel et al., arXiv:1910.10683
_AS_MASK, _AS_ANOTHER = 0.8, 0.1  # of the hidden: the rest stands as it is (Devlin et al., 3.1)
_SPAN = 3.0  # tokens of a span on average (Raffel et al., 3.3.4)
_MASKS = ("[MASK]", "<mask>", "<|mask|>")


@dataclass(frozen=True, slots=True)
class Batch:
    """Arrays of shape (rows, width). ``targets`` holds ``IGNORED`` where nothing is learned; ``decoder`` is what the
    decoder of an encoder-decoder reads. ``segments`` tells which places see each other; ``causal``: backwards only."""

    ids: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    segments: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    causal: bool
    decoder: npt.NDArray[np.int64] | None = None

    @property
    def learned(self) -> int:
        """How many places are learned."""
        return int((self.targets != IGNORED).sum())

    @property
    def tokens(self) -> int:
        """How many places hold a token."""
        return int((self.segments != PADDING).sum())


def objective_for(family: str) -> Objective:
    """What models of a family (``model_type``) are trained on; ``UserError`` for one that cannot be pretrained here."""
    from transformers.models.auto import modeling_auto as families

    # They read both ways or have two halves, and their positions or masks are others than those of the two above.
    others = (families.MODEL_FOR_MASKED_LM_MAPPING_NAMES, families.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
    if family not in OBJECTIVES and any(family in each for each in others):
        raise UserError(f"develop.pretrain: {family} cannot be pretrained here; expected a generator, bert or t5")
    return OBJECTIVES.get(family, "causal")


class Maker:
    """Makes batches of packed rows. ``folder`` is the model's: its tokenizer says what hides a token."""

    def __init__(self, objective: Objective, rows: PackedRows, folder: Path, seed: int) -> None:
        self._rows, self._seed, self.objective = rows, seed, objective
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._vocabulary = int(config["vocab_size"])
        self._end = config.get("eos_token_id")
        self._padding = config.get("pad_token_id") or 0
        self._mask = _mask_token(folder) if objective == "masked" else 0
        self._sentinels = _sentinels(folder, self._vocabulary) if objective == "spans" else []

    def __len__(self) -> int:
        """How many samples an epoch has."""
        return len(self._rows)

    def batch(self, first: int, rows: list[int]) -> Batch:
        """These rows, the first of which is sample ``first`` of the training."""
        if self.objective == "spans":
            return self._with_spans(first, rows)
        import numpy as np

        laid = self._rows.lay_out(rows)
        if self.objective == "masked":
            ids, targets = self._masked(first, laid.ids, laid.segments)
            return Batch(ids, laid.positions, laid.segments, targets, causal=False)
        targets = np.full_like(laid.ids, IGNORED)
        following = (laid.segments[:, 1:] == laid.segments[:, :-1]) & (laid.segments[:, 1:] != PADDING)
        targets[:, :-1][following] = laid.ids[:, 1:][following]
        return Batch(laid.ids, laid.positions, laid.segments, targets, causal=True)

    def _draw(self, sample: int) -> np.random.Generator:
        import numpy as np

        return np.random.Generator(np.random.Philox(key=[self._seed & (2**64 - 1), sample]))

    def _masked(
        self, first: int, ids: npt.NDArray[np.int64], segments: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        import numpy as np

        shown, targets = ids.copy(), np.full_like(ids, IGNORED)
        for at in range(len(ids)):
            draw = self._draw(first + at)
            width = int(ids.shape[1])
            chance, fate = draw.random(width), draw.random(width)
            another: npt.NDArray[np.int64] = draw.integers(0, self._vocabulary, width, dtype=np.int64)
            hidden = (chance < _HIDDEN) & (segments[at] != PADDING)
            targets[at, hidden] = ids[at, hidden]
            shown[at, hidden & (fate < _AS_MASK)] = self._mask
            changed = hidden & (fate >= _AS_MASK) & (fate < _AS_MASK + _AS_ANOTHER)
            shown[at, changed] = another[changed]
        return shown, targets

    def _with_spans(self, first: int, rows: list[int]) -> Batch:
        """Each row's examples one beneath the other: an encoder-decoder reads one at a time."""
        import numpy as np

        pairs = []
        for at, row in enumerate(rows):
            draw = self._draw(first + at)
            pairs += [self._corrupted(self._rows.example(place), draw) for place in self._rows.examples(row)]
        width = self._rows.width + 2
        room = max(len(target) for _, target in pairs)
        ids = np.full((len(pairs), width), self._padding, dtype=np.int64)
        segments = np.full((len(pairs), width), PADDING, dtype=np.int64)
        targets = np.full((len(pairs), room), IGNORED, dtype=np.int64)
        for at, (source, target) in enumerate(pairs):
            ids[at, : len(source)], segments[at, : len(source)] = source, 0
            targets[at, : len(target)] = target
        decoder = np.full_like(targets, self._padding)
        decoder[:, 1:] = np.where(targets[:, :-1] == IGNORED, self._padding, targets[:, :-1])
        positions = np.broadcast_to(np.arange(width), ids.shape)
        return Batch(ids, positions, segments, targets, causal=False, decoder=decoder)

    def _corrupted(
        self, ids: npt.NDArray[np.int64], draw: np.random.Generator
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """A text with spans taken out, each behind a sentinel, and the spans; random lengths that add up to the share,
        as in T5's ``random_spans_noise_mask``."""
        import numpy as np

        count = len(ids)
        hidden = min(max(1, round(count * _HIDDEN)), max(1, count - 1))
        spans = min(max(1, round(hidden / _SPAN)), len(self._sentinels), hidden, max(1, count - hidden))
        out, kept = _cut(hidden, spans, draw), _cut(count - hidden, spans, draw)
        source: list[Any] = []
        target: list[Any] = []
        at = 0
        for number, (stays, goes) in enumerate(zip(kept, out, strict=True)):
            sentinel = [self._sentinels[number]]
            source += [ids[at : at + stays], sentinel]
            target += [sentinel, ids[at + stays : at + stays + goes]]
            at += stays + goes
        end = [] if self._end is None else [self._end]
        return np.concatenate([*source, end]).astype(np.int64), np.concatenate([*target, end]).astype(np.int64)


def _cut(total: int, parts: int, draw: np.random.Generator) -> list[int]:
    """Random lengths of at least 1 that add up; all 0 but one where there is less to cut than parts."""
    import numpy as np

    if total < parts:
        return [total, *[0] * (parts - 1)]
    places = np.sort(draw.choice(total - 1, parts - 1, replace=False)) + 1 if parts > 1 else np.zeros(0, np.int64)
    return [int(size) for size in np.diff(places, prepend=0, append=total).tolist()]


def _sentinels(folder: Path, vocabulary: int) -> list[int]:
    """Ids that stand for the first span that is taken out, the second, ...: those that the tokenizer has a name for, as
    T5's do (its vocabulary is filled up behind them), or the last of a vocabulary that has room for them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    names = (f"<extra_id_{number}>" for number in range(SENTINELS))
    known = [found for name in names if (found := tokenizer.token_to_id(name)) is not None]
    if not known and tokenizer.get_vocab_size() > vocabulary - SENTINELS:
        raise UserError(
            f"pretraining: the tokenizer has no <extra_id_0> to stand for a span, and there is no room for {SENTINELS} "
            f"such words above its own in a vocabulary of {vocabulary}"
        )
    return known or [vocabulary - 1 - number for number in range(SENTINELS)]


def _mask_token(folder: Path) -> int:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for name in _MASKS:
        found = tokenizer.token_to_id(name)
        if found is not None:
            return int(found)
    raise UserError(f"pretraining: the tokenizer has no token that hides another; expected one of {', '.join(_MASKS)}")
