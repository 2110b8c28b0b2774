"""Generating several answers at once with a transformers model, joining and leaving between tokens.

Each prompt is read alone, then its keys and values are put beside those of the answers under way, padded on the left.
Which answers share a batch can change the last bits of a logit, and so, rarely, a token.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from treadle.lm.engine_wire import Finish, Generate, Tokens
from treadle.lm.schema_mask import SchemaMask, SchemaMasks


@dataclass(slots=True)
class Row:
    """An answer under way."""

    request: Generate
    draw: Any  # torch.Generator
    mask: SchemaMask | None = None
    made: int = 0


class GenerationBatch:
    """The requests of one model. Not for use by several threads."""

    def __init__(self, model: Any, max_rows: int, masks: SchemaMasks | None = None) -> None:
        self._model = model
        self._max_rows = max(1, max_rows)
        self._masks = masks
        self._held: dict[int, SchemaMask] = {}
        self._queue: deque[Generate] = deque()
        self._rows: list[Row] = []
        self._cache: Any = None
        self._mask: Any = None  # (rows, cached tokens): 1 where a token is, 0 where padding
        self._last: Any = None  # (rows, 1): the tokens not yet read
        self._cancelled: set[int] = set()

    def add(self, request: Generate) -> None:
        """Queue a request. ``UserError`` for a schema that it cannot be held to."""
        if request.schema is not None and self._masks is not None:
            self._held[request.number] = self._masks.mask(request.schema, request.stop_ids)
        self._queue.append(request)

    def cancel(self, number: int) -> None:
        """Have the next ``step`` end a request."""
        if any(request.number == number for request in (*self._queue, *(row.request for row in self._rows))):
            self._cancelled.add(number)

    def pending(self) -> tuple[int, int]:
        """Requests (running, queued)."""
        return len(self._rows), len(self._queue)

    def step(self) -> list[Tokens]:
        """Read one waiting prompt, or else give every answer under way a token; prompts and tokens take turns."""
        import torch

        found = [Tokens(number, [], [], "cancelled") for number in sorted(self._cancelled)]
        self._queue = deque(request for request in self._queue if request.number not in self._cancelled)
        self._keep([row.request.number not in self._cancelled for row in self._rows])
        for number in self._cancelled:
            self._held.pop(number, None)
        self._cancelled.clear()
        with torch.inference_mode():
            if self._rows:
                found += self._next_tokens()
            if self._queue and len(self._rows) < self._max_rows:
                found += self._join()
        return found

    def _next_tokens(self) -> list[Tokens]:
        import torch

        ones = torch.ones_like(self._last)
        self._mask = torch.cat([self._mask, ones], dim=1)
        output = self._model(
            input_ids=self._last,
            attention_mask=self._mask,
            position_ids=self._mask.sum(1, keepdim=True) - 1,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache = output.past_key_values
        return self._take(output.logits[:, -1].float())

    def _join(self) -> list[Tokens]:
        import torch
        from transformers.cache_utils import DynamicCache, DynamicLayer

        request, device = self._queue.popleft(), self._model.device
        ids = torch.tensor([request.prompt_ids], device=device)
        output = self._model(input_ids=ids, past_key_values=DynamicCache(), use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        row = Row(request, torch.Generator().manual_seed(request.seed), self._held.pop(request.number, None))
        if any(type(layer) is not DynamicLayer for layer in getattr(cache, "layers", [None])):
            self._max_rows = 1  # a cache of another shape is not cut and joined here
        tokens, last = choose(output.logits[:, -1].float(), [row])
        if tokens[0].finish is not None:
            return tokens
        mask = torch.ones_like(ids)
        if self._rows:
            cache, mask = beside((self._cache, self._mask), (cache, mask))
            last = torch.cat([self._last, last])
        self._rows.append(row)
        self._cache, self._mask, self._last = cache, mask, last
        return tokens

    def _take(self, logits: Any) -> list[Tokens]:
        tokens, self._last = choose(logits, self._rows)
        self._keep([t.finish is None for t in tokens])
        return tokens

    def _keep(self, kept: list[bool]) -> None:
        """Drop the other rows, and the columns that were only theirs."""
        if all(kept):
            return
        index = [i for i, keep in enumerate(kept) if keep]
        self._rows = [self._rows[i] for i in index]
        self._select(index)

    def _select(self, index: list[int]) -> None:
        import torch

        if not index:
            self._cache = self._mask = self._last = None
            return
        chosen = torch.tensor(index, device=self._mask.device)
        self._last, mask = self._last[chosen], self._mask[chosen]
        start = int(mask.argmax(1).min())
        self._mask = mask[:, start:]
        self._cache = rebuilt((k[chosen][:, :, start:], v[chosen][:, :, start:]) for k, v in pairs_of(self._cache))


def choose(logits: Any, rows: list[Row]) -> tuple[list[Tokens], Any]:
    """A token for each row of ``logits`` (rows, vocabulary), and these tokens as (rows, 1)."""
    import torch

    ids = logits.argmax(-1).tolist()
    for i, row in enumerate(rows):
        scores = logits[i] if row.mask is None else row.mask.over(logits[i])
        if row.request.temperature > 0:
            ids[i] = _sample(scores.cpu() / row.request.temperature, row.request.top_p, row.draw)
        elif row.mask is not None:
            ids[i] = int(scores.argmax())
        if row.mask is not None:
            row.mask.take(ids[i])
    logprobs = logits.log_softmax(-1) if any(r.request.logprobs or r.request.alternatives for r in rows) else None
    found = []
    for i, (row, token) in enumerate(zip(rows, ids, strict=True)):
        row.made += 1
        finish: Finish | None = None
        if token in row.request.stop_ids or (row.mask is not None and row.mask.ended):
            finish = "stop"
        elif row.made >= row.request.max_tokens:
            finish = "length"
        wanted = [float(logprobs[i, token])] if logprobs is not None and row.request.logprobs else []
        others = []
        if logprobs is not None and row.request.alternatives:
            best = logprobs[i].topk(min(row.request.alternatives, logprobs.shape[-1]))
            others.append(list(zip(best.indices.tolist(), best.values.tolist(), strict=True)))
        found.append(Tokens(row.request.number, [token], wanted, finish, others))
    return found, torch.tensor(ids, device=logits.device)[:, None]


def _sample(logits: Any, top_p: float, draw: Any) -> int:
    probabilities = logits.softmax(-1)
    if top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        ordered[ordered.cumsum(-1) - ordered >= top_p] = 0  # the first that reaches top_p stays
        return int(order[ordered.multinomial(1, generator=draw)])
    return int(probabilities.multinomial(1, generator=draw))


def beside(first: tuple[Any, Any], second: tuple[Any, Any]) -> tuple[Any, Any]:
    """Two (cache, mask) as one, the shorter padded on the left."""
    import torch

    width = max(first[1].shape[1], second[1].shape[1])

    def wide(tensor: Any, axis: int) -> Any:
        missing = width - tensor.shape[axis]
        return torch.nn.functional.pad(tensor, (0, 0, missing, 0) if axis == 2 else (missing, 0))

    pairs = zip(pairs_of(first[0]), pairs_of(second[0]), strict=True)
    cache = rebuilt(
        (torch.cat([wide(a[0], 2), wide(b[0], 2)]), torch.cat([wide(a[1], 2), wide(b[1], 2)])) for a, b in pairs
    )
    return cache, torch.cat([wide(first[1], 1), wide(second[1], 1)])


def pairs_of(cache: Any) -> list[tuple[Any, Any]]:
    """Keys and values a layer, each (rows, heads, tokens, size)."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def rebuilt(pairs: Any) -> Any:
    """A cache of keys and values a layer, as ``pairs_of`` gives them."""
    from transformers.cache_utils import DynamicCache

    cache = DynamicCache()
    for index, (keys, values) in enumerate(pairs):
        cache.update(keys, values, index)
    return cache
