"""Generating answers of an encoder-decoder (T5, BART, Marian), joining and leaving between tokens.

Sources that wait are read together, once each, padded on the right. What a decoder keeps of them, and of the answers so
far (padded on the left, as in ``torch_generation``), lies beside that of the answers under way.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from treadle.lm.engine_wire import Generate, Tokens
from treadle.lm.packing import IGNORED
from treadle.lm.torch_generation import GenerationBatch, Row, beside, choose, pairs_of, rebuilt

_READ_TOKENS = 4_096  # of sources read at a time, padding included: answers under way wait for them


@dataclass(frozen=True, slots=True)
class _Kept:
    """Of the answers under way. ``cache``, ``mask``, ``last``: of the answers so far. ``crossed``: keys and values of
    the sources, ``states``: what the encoder made of them (rows, tokens, size), ``seen``: 1 where they have a token."""

    cache: Any
    mask: Any
    last: Any
    crossed: Any
    states: Any
    seen: Any

    def of(self, index: list[int]) -> _Kept:
        """Some of the rows, without the columns that only the others had."""
        import torch

        chosen = torch.tensor(index, device=self.mask.device)
        mask, seen = self.mask[chosen], self.seen[chosen]
        start, width = int(mask.argmax(1).min()), int(seen.sum(1).max())
        return _Kept(
            rebuilt((k[chosen][:, :, start:], v[chosen][:, :, start:]) for k, v in pairs_of(self.cache)),
            mask[:, start:],
            self.last[chosen],
            rebuilt((k[chosen][:, :, :width], v[chosen][:, :, :width]) for k, v in pairs_of(self.crossed)),
            self.states[chosen][:, :width],
            seen[:, :width],
        )

    def with_(self, more: _Kept) -> _Kept:
        """These rows, and ``more`` below them."""
        import torch

        cache, mask = beside((self.cache, self.mask), (more.cache, more.mask))
        width = max(self.seen.shape[1], more.seen.shape[1])

        def joined(first: Any, second: Any, axis: int) -> Any:
            behind = [0, 0] * (first.ndim - 1 - axis)
            wide = [torch.nn.functional.pad(each, (*behind, 0, width - each.shape[axis])) for each in (first, second)]
            return torch.cat(wide)

        crossed = rebuilt(
            (joined(a[0], b[0], 2), joined(a[1], b[1], 2))
            for a, b in zip(pairs_of(self.crossed), pairs_of(more.crossed), strict=True)
        )
        last = torch.cat([self.last, more.last])
        return _Kept(cache, mask, last, crossed, joined(self.states, more.states, 1), joined(self.seen, more.seen, 1))


class SourceBatch(GenerationBatch):
    """The requests of one encoder-decoder. Not for use by several threads."""

    def __init__(self, model: Any, max_rows: int) -> None:
        super().__init__(model, max_rows)
        said, config = model.generation_config, model.config
        begins = [said.decoder_start_token_id, config.decoder_start_token_id, said.bos_token_id, config.pad_token_id]
        self._begin = [next((int(each) for each in begins if isinstance(each, int)), 0)]
        if isinstance(said.forced_bos_token_id, int):  # BART's texts begin with one, mBART's with their language
            self._begin.append(said.forced_bos_token_id)
        self._barred = [words[0] for words in said.bad_words_ids or () if len(words) == 1]
        self._kept: _Kept | None = None
        self._places = _Places(model)
        if not self._places.movable:
            self._max_rows = 1

    def _next_tokens(self) -> list[Tokens]:
        import torch
        from transformers.cache_utils import EncoderDecoderCache

        kept = self._kept
        assert kept is not None
        mask = torch.cat([kept.mask, torch.ones_like(kept.last)], dim=1)
        cache = EncoderDecoderCache(kept.cache, kept.crossed)
        with self._places.at(mask.sum(1) - 1):
            logits = self._decoded(kept.last, mask, kept.states, kept.seen, cache)
        tokens, last = choose(logits, self._rows)
        self._kept = _Kept(cache.self_attention_cache, mask, last, kept.crossed, kept.states, kept.seen)
        self._keep([each.finish is None for each in tokens])
        return tokens

    def _join(self) -> list[Tokens]:
        import torch
        from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache

        asked = self._waiting()
        ids, seen = padded([request.prompt_ids for request in asked], 0, self._model.device)
        states = self._model.get_encoder()(input_ids=ids, attention_mask=seen).last_hidden_state
        begin = torch.tensor([self._begin] * len(asked), device=self._model.device)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        logits = self._decoded(begin, torch.ones_like(begin), states, seen, cache)
        rows = [Row(request, torch.Generator().manual_seed(request.seed)) for request in asked]
        tokens, last = choose(logits, rows)
        layers = [*cache.self_attention_cache.layers, *cache.cross_attention_cache.layers]
        if any(type(layer) is not DynamicLayer for layer in layers):
            self._max_rows = 1  # as in ``GenerationBatch``
        going = [i for i, each in enumerate(tokens) if each.finish is None]
        if going:
            new = _Kept(
                cache.self_attention_cache, torch.ones_like(begin), last, cache.cross_attention_cache, states, seen
            )
            new = new if len(going) == len(rows) else new.of(going)
            self._kept = new if self._kept is None else self._kept.with_(new)
            self._rows += [rows[i] for i in going]
        return tokens

    def _select(self, index: list[int]) -> None:
        self._kept = self._kept.of(index) if index and self._kept is not None else None

    def _waiting(self) -> list[Generate]:
        """The requests that are read next, at least one."""
        asked = [self._queue.popleft()]
        width = len(asked[0].prompt_ids)
        while self._queue and len(self._rows) + len(asked) < self._max_rows:
            width = max(width, len(self._queue[0].prompt_ids))
            if width * (len(asked) + 1) > _READ_TOKENS:
                break
            asked.append(self._queue.popleft())
        return asked

    def _decoded(self, ids: Any, mask: Any, states: Any, seen: Any, cache: Any) -> Any:
        """Logits of the last token of each row; ``cache`` grows."""
        from transformers.modeling_outputs import BaseModelOutput

        output = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=seen,
            decoder_input_ids=ids,
            decoder_attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        )
        logits = output.logits[:, -1].float()
        logits[:, self._barred] = float("-inf")
        return logits


class _Places:
    """Lets each row of a decoder with a table of positions (BART, Marian) have its own; T5 counts distances.

    ``movable`` is False for one that cannot: it answers one request at a time.
    """

    def __init__(self, model: Any) -> None:
        self._now: Any = None
        table = getattr(model.get_decoder(), "embed_positions", None)
        self.movable = table is None or "position_ids" in inspect.signature(table.forward).parameters
        if table is not None and self.movable:
            table.register_forward_pre_hook(self._before, with_kwargs=True)
            table.register_forward_hook(self._after)

    def at(self, places: Any) -> _Places:
        """For a ``with``: one new token a row, at these places."""
        self._now = places
        return self

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        self._now = None

    def _before(self, _module: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, given if self._now is None else given | {"position_ids": self._now}

    def _after(self, _module: Any, _args: Any, output: Any) -> Any:
        return output if self._now is None else output.reshape(len(self._now), 1, -1)


def score_targets(model: Any, pairs: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
    """Natural-log probability of each token of each target after its source; all are computed together."""
    import torch

    ids, seen = padded([source for source, _ in pairs], 0, model.device)
    targets, real = padded([target for _, target in pairs], 0, model.device)
    shown = model.prepare_decoder_input_ids_from_labels(targets.masked_fill(real == 0, IGNORED))
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=seen, decoder_input_ids=shown, use_cache=False).logits
        found = logits.float().log_softmax(-1).gather(2, targets[:, :, None])[:, :, 0].tolist()
    return [row[: len(target)] for row, (_, target) in zip(found, pairs, strict=True)]


def padded(rows: Sequence[Sequence[int]], filler: int, device: Any) -> tuple[Any, Any]:
    """Rows as one tensor (rows, longest), filled up on the right, and 1 where a token is."""
    import torch

    width = max(map(len, rows))
    ids = [[*row, *[filler] * (width - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
