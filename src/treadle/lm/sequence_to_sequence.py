"""Fine-tuning an encoder-decoder (T5, BART, Marian) to turn sources into targets: translations, summaries.

The decoder reads the target itself, one token behind (teacher forcing); the loss is the mean cross entropy over the
targets' tokens, without label smoothing. As in ``training``, the number of steps is fixed beforehand and the same input
gives the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.core.errors import UserError
from treadle.lm import torch_runtime
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.course import OnStep
from treadle.lm.epochs import Epochs, Outcome, Piece, fitted, in_batches, passes, teaching
from treadle.lm.fitting import FitSettings, Fitted
from treadle.lm.model_folder import read_config
from treadle.lm.packing import IGNORED
from treadle.lm.source_encoder import writes_targets
from treadle.lm.taught import teach
from treadle.lm.team import Team, maker_for

if TYPE_CHECKING:
    from treadle.lm.tokenizer import ChatTokenizer

Ids = list[int]


def train_sequences(
    base: Path,
    out: Path,
    sources: Sequence[str],
    targets: Sequence[str],
    prefix: str,
    settings: FitSettings,
    on_step: OnStep | None = None,
    checkpoints: Checkpoints | None = None,
    team: Team | None = None,
) -> Fitted:
    """Train the encoder-decoder in ``base`` on pairs of texts; write a model folder to ``out``.

    ``prefix`` goes before each source, and is remembered in ``config.json``, so that the model is asked as it was
    taught. ``max_length`` is of a source and of a target; what is longer is cut, and counted. Checkpoints and teams
    as in ``teach``; samples of ``looks`` are sources and targets. ``UserError`` when the base is no encoder-decoder,
    its tokenizer does not fit it, there is nothing to learn from, or the loss is no number.
    """
    _, transformers = torch_runtime.libraries()
    _check(base, sources, targets, settings)
    judged = settings.looks.samples if settings.looks else ((), ())
    pairs, cut_sources, cut_targets = _encoded(base, [prefix + source for source in sources], targets, settings)
    pairs += _encoded(base, [prefix + source for source in judged[0]], judged[1], settings)[0]

    def outcome(model: Any, piece: Piece) -> Outcome:
        return Outcome(_loss(model, [pairs[i] for i in piece.members]))

    def begun() -> Any:
        model = torch_runtime.load(base, transformers.AutoModelForSeq2SeqLM)
        model.config.prefix = prefix
        return model

    how, count = teaching(settings), len(sources)
    # Sorted by targets, then by sources: targets are what is learned.
    lengths = [(len(target), len(source)) for source, target in pairs]
    lessons = Epochs(
        outcome,
        passes(lengths[:count], settings.batch_size, settings),
        [sum(each) for each in lengths],
        how,
        learned=[target for target, _ in lengths],
        held_out=in_batches(count, len(pairs), settings.batch_size),
    )
    make = maker_for(settings, team or Team())
    carried: Any = {"make": make, "on_step": on_step, "checkpoints": checkpoints, "team": team}
    highest = max(id_ for pair in pairs for ids in pair for id_ in ids)
    taught = teach(base, out, begun, lambda _model: lessons, how, highest=highest, looks=settings.looks, **carried)
    cut = {"cut_sources": cut_sources, "cut_targets": cut_targets}
    return fitted(taught, cut_sources + cut_targets, figures=cut)


def _loss(model: Any, pairs: Sequence[tuple[Ids, Ids]]) -> Any:
    from torch.nn.functional import cross_entropy

    from treadle.lm.source_generation import padded

    ids, seen = padded([source for source, _ in pairs], 0, model.device)
    targets, real = padded([target for _, target in pairs], 0, model.device)
    labels = targets.masked_fill(real == 0, IGNORED)
    shown = model.prepare_decoder_input_ids_from_labels(labels)
    logits = model(input_ids=ids, attention_mask=seen, decoder_input_ids=shown, use_cache=False).logits
    return cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")


def _encoded(
    base: Path, sources: Sequence[str], targets: Sequence[str], settings: FitSettings
) -> tuple[list[tuple[Ids, Ids]], int, int]:
    """Pairs of ids, and how many sources and targets were cut."""
    from treadle.lm.tokenizer import ChatTokenizer

    tokenizer: ChatTokenizer = ChatTokenizer.load(base)
    assert tokenizer.sources is not None
    length = min(settings.max_length, tokenizer.context_length)
    read, cut_sources = tokenizer.sources.encode(sources, length)
    written, cut_targets = tokenizer.sources.encode(targets, length)
    if any(not ids or ids[-1] not in tokenizer.eos_ids for ids in written):
        raise UserError(
            f"{base}: its tokenizer puts no token behind a text that ends it, so an answer would never end;"
            " take a model with its own tokenizer.json"
        )
    return list(zip(read, written, strict=True)), cut_sources, cut_targets


def _check(base: Path, sources: Sequence[str], targets: Sequence[str], settings: FitSettings) -> None:
    config = read_config(base)
    if not writes_targets(config):
        kinds = ", ".join(config.get("architectures") or ["no architecture"])
        raise UserError(f"{base}: {kinds} is no encoder-decoder; take T5, BART or Marian with the head that writes")
    if not sources or len(sources) != len(targets):
        raise UserError(f"training: {len(sources)} sources with {len(targets)} targets; expected at least one of each")
    settings.check()
